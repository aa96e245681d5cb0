"""From texts to texts: batches of few shapes, results as they come."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rl_jax.sampling.steps import row_keys

if TYPE_CHECKING:
  from collections.abc import Iterator, Sequence

  from jaxtyping import Array, Float, Key

  from rl_jax.models.decoder import Decoder
  from rl_jax.models.protocol import Params
  from rl_jax.models.tokenizer import Tokenizer
  from rl_jax.sampling.autoregressive import Autoregressive, Completions
  from rl_jax.sampling.tries import Trie

__all__ = ["Generated", "generate", "smallest_bucket"]


class Generated(NamedTuple):
  """One response to one text.

  Attributes:
    item: which of the texts it answers.
    sample: which of its answers it is.
    text: the response, without special tokens.
    token: its ids, what ended it included.
    log_prob: of them under the distribution they were drawn from, nats.
    ended: whether it came to its end within the limit.
  """

  item: int
  sample: int
  text: str
  token: tuple[int, ...]
  log_prob: Float[np.ndarray, "token"]
  ended: bool


def smallest_bucket(length: int, buckets: Sequence[int]) -> int:
  """The number of columns that a prompt is padded to.

  A program is compiled once for each bucket, not once for each length.

  Args:
    length: tokens of the prompt.
    buckets: increasing numbers of columns.

  Returns:
    The first that is no less than `length`.

  Raises:
    ValueError: if the prompt is empty or longer than the last bucket, or the
      buckets are not positive and increasing.

  >>> smallest_bucket(9, (8, 16, 32))
  16
  """
  if not buckets or sorted({*buckets, 0}) != [0, *buckets]:
    raise ValueError(f"buckets are positive and increasing, got {buckets}")
  if not 1 <= length <= buckets[-1]:
    raise ValueError(
      f"a prompt of {length} tokens fits none of the buckets {tuple(buckets)}:"
      " it needs at least one token and at most those of the last"
    )
  return next(columns for columns in buckets if columns >= length)


def generate(
  model: Decoder,
  params: Params,
  tokenizer: Tokenizer,
  texts: Sequence[str],
  sampler: Autoregressive,
  *,
  key: Key[Array, ""],
  samples: int,
  buckets: Sequence[int],
  batch: int,
  adapter: Params | None = None,
  constraint: Trie | None = None,
) -> Iterator[Generated]:
  """Responses to texts, a batch after the other.

  Texts of one bucket form batches of one size, the last one padded. What is
  said to a text depends on the key, its number and its sample, not on the
  texts around it, the buckets or the size of the batches.

  Args:
    model: the policy.
    params: its parameters.
    tokenizer: of the model. A chat template is for the caller to apply.
    texts: the prompts, as they are encoded.
    sampler: draws the responses.
    key: of all of them.
    samples: responses to each text.
    buckets: numbers of columns that prompts are padded to.
    batch: texts that are answered at once.
    adapter: low-rank change of the parameters; None for the base alone.
    constraint: the only responses that are allowed; None: all are.

  Returns:
    An iterator that gives the responses of a batch when it is done, bucket by
    bucket: sort them for the order of the texts.

  Raises:
    ValueError: at once, if a text fits no bucket, `batch` or `samples` is
      below 1, or prompts and responses exceed the model's context.
  """
  if batch < 1 or samples < 1:
    raise ValueError(
      f"batch and samples must be at least 1, got {batch} and {samples}"
    )
  tokenizer.check(model)
  prompts = [tokenizer.encode(text) for text in texts]
  by_bucket: dict[int, list[int]] = {}
  for item, prompt in enumerate(prompts):
    try:
      columns = smallest_bucket(len(prompt), buckets)
    except ValueError as error:
      raise ValueError(f"text {item}: {error}") from error
    by_bucket.setdefault(columns, []).append(item)
  for columns in by_bucket:
    sampler.check_model(model, columns)

  def run() -> Iterator[Generated]:
    for columns, items in sorted(by_bucket.items()):
      for start in range(0, len(items), batch):
        chosen = items[start : start + batch]
        token = np.zeros((batch, columns), np.int32)
        mask = np.zeros((batch, columns), bool)
        for row, item in enumerate(chosen):
          token[row, columns - len(prompts[item]) :] = prompts[item]
          mask[row, columns - len(prompts[item]) :] = True
        # Rows of padding have keys too, which nothing draws with.
        padded = np.resize(np.asarray(chosen, np.int32), batch)
        completions = sampler(
          model,
          params,
          token,
          mask,
          _keys(key, jnp.asarray(padded), samples),
          samples=samples,
          adapter=adapter,
          constraint=constraint,
        )
        yield from _results(chosen, samples, tokenizer, completions)

  return run()


def _keys(key, items, samples):
  """A key per sample, from its number and that of its text."""
  own = jnp.repeat(row_keys(key, items), samples)
  return jax.vmap(jax.random.fold_in)(
    own, jnp.tile(jnp.arange(samples), len(items))
  )


def _results(
  items: Sequence[int],
  samples: int,
  tokenizer: Tokenizer,
  completions: Completions,
) -> Iterator[Generated]:
  host = jax.device_get(completions)
  for row in range(len(items) * samples):
    mask = host.mask[row]
    token = tuple(host.token[row][mask].tolist())
    yield Generated(
      item=items[row // samples],
      sample=row % samples,
      text=tokenizer.decode(token),
      token=token,
      log_prob=host.log_prob[row][mask],
      ended=bool(host.ended[row]),
    )
