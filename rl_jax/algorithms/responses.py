"""How a language model scores responses that it, or another, has written."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rl_jax.log_probs import TokenScores, chunked_log_prob
from rl_jax.masks import last_valid
from rl_jax.training.step import split_rows

if TYPE_CHECKING:
  from collections.abc import Callable

  from jaxtyping import Array, Bool, Float, Int, PyTree

__all__ = [
  "Responses",
  "Scoring",
  "answer_score",
  "by_parts",
  "response_hidden",
  "response_score",
  "shares",
]


class Responses(NamedTuple):
  """Prompts and what was written after them.

  Attributes:
    prompt: ids, padded on the left.
    prompt_mask: true = a token of the prompt.
    token: ids of the response.
    mask: true = a token that the policy chose.
    present: true = such a token, or one that an environment wrote in between
      and the policy read; no gaps. None: there is no other.
  """

  prompt: Int[Array, "row prompt"]
  prompt_mask: Bool[Array, "row prompt"]
  token: Int[Array, "row time"]
  mask: Bool[Array, "row time"]
  present: Bool[Array, "row time"] | None = None

  @property
  def whole(self) -> tuple[Int[Array, "row all"], Bool[Array, "row all"]]:
    """Prompt and response in one, and which of its columns hold a token."""
    present = self.mask if self.present is None else self.present
    token = jnp.concatenate([self.prompt, self.token], axis=1)
    return token, jnp.concatenate([self.prompt_mask, present], axis=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scoring:
  """Size of the blocks that log-probabilities are computed in.

  They change memory and time, not the result; see `chunked_log_prob`.

  Raises:
    ValueError: if a size is below 1.
  """

  chunk_tokens: int = 1024
  """Tokens whose logits exist at one time."""
  chunk_vocabulary: int = 8192
  """Entries of the vocabulary whose logits exist at one time."""

  def __post_init__(self) -> None:
    if min(self.chunk_tokens, self.chunk_vocabulary) < 1:
      raise ValueError(f"chunks must be at least 1, got {self}")

  def __call__(
    self,
    model: Any,
    params: PyTree,
    responses: Responses,
    *,
    temperature: float,
    adapter: PyTree | None = None,
    shared: int = 1,
  ) -> TokenScores:
    """Log-probability and entropy at each token of the responses.

    Args:
      model: a decoder.
      params: its parameters.
      responses: what is scored.
      temperature: what the logits are divided by.
      adapter: low-rank change of the parameters; None for the base alone.
      shared: see `response_hidden`.

    Returns:
      Both in nats, `row time`; 0 where the mask is false.
    """
    hidden = response_hidden(
      model, params, responses, adapter=adapter, shared=shared
    )
    return self.of_features(
      model, params, hidden, responses, temperature=temperature
    )

  def of_features(
    self,
    model: Any,
    params: PyTree,
    hidden: Float[Array, "row time width"],
    responses: Responses,
    *,
    temperature: float,
  ) -> TokenScores:
    """The same of features that `response_hidden` gave.

    Args:
      model: a decoder.
      params: its parameters.
      hidden: features from which each token was chosen.
      responses: what is scored.
      temperature: what the logits are divided by.

    Returns:
      Both in nats, `row time`; 0 where the mask is false.
    """
    return chunked_log_prob(
      hidden,
      model.output(params),
      responses.token,
      responses.mask,
      chunk_tokens=self.chunk_tokens,
      chunk_vocabulary=self.chunk_vocabulary,
      temperature=temperature,
      soft_cap=model.soft_cap,
    )


def response_hidden(
  model: Any,
  params: PyTree,
  responses: Responses,
  *,
  adapter: PyTree | None = None,
  shared: int = 1,
) -> Float[Array, "row time width"]:
  """Features from which each token of a response was chosen.

  Responses to one prompt that stand together need it once: it is followed by
  all of them, each of which sees the prompt and itself.

  Args:
    model: a decoder.
    params: its parameters.
    responses: prompts padded on the left, so that the last of their columns
      is where the first token of the response is chosen.
    adapter: low-rank change of the parameters; None for the base alone.
    shared: how many rows that follow each other have the same prompt; see
      `shares`.

  Returns:
    Features after the last norm at the column before each token.
  """
  columns = responses.prompt.shape[1]
  if shared == 1:
    token, mask = responses.whole
    segment = mask.astype(jnp.int32)
    hidden = model.hidden(params, token, segment, adapter=adapter)
    return hidden[:, columns - 1 : -1]
  rows, time = responses.token.shape
  present = responses.whole[1][:, columns:]
  token, mask = (
    jnp.concatenate(
      [prompt[::shared], own.reshape(rows // shared, shared * time)], axis=1
    )
    for prompt, own in (
      (responses.prompt, responses.token),
      (responses.prompt_mask, present),
    )
  )
  branch = np.repeat(np.arange(shared + 1), [columns, *[time] * shared])
  sees = np.tri(len(branch), dtype=bool) & (
    (branch == 0) | (branch[:, None] == branch)
  )
  segment = mask.astype(jnp.int32)
  hidden = model.hidden(params, token, segment, adapter=adapter, sees=sees)
  own = hidden[:, columns:].reshape(rows, time, -1)
  last = jnp.repeat(hidden[:, columns - 1 : columns], shared, axis=0)
  return jnp.concatenate([last, own[:, :-1]], axis=1)


def shares(model: Any, *, prompt: int, time: int, responses: int) -> bool:
  """Whether responses to one prompt are cheaper in one row than in their own.

  One row has the prompt once, and scores between all its columns.

      apart:    n (P + T) columns, n (P + T)^2 scores
      together: P + n T columns, (P + n T)^2 scores

  Args:
    model: a decoder.
    prompt: P, columns of a prompt.
    time: T, columns of a response.
    responses: n, to one prompt.

  Returns:
    Whether together is less work.
  """
  heads = model.attention.heads * model.attention.features
  column = model.width * (4 * heads + 3 * model.mlp)

  def work(rows: int, columns: int) -> int:
    return rows * columns * (column + 2 * heads * columns)

  together = work(1, prompt + responses * time)
  return together < work(responses, prompt + time)


def answer_score(
  model: Any,
  params: PyTree,
  token: Int[Array, "row time"],
  segment: Int[Array, "row time"],
) -> Float[Array, "row"]:
  """What a reward model says of each row: its value at the last token.

  Args:
    model: a `ScalarHead`.
    params: its parameters.
    token: prompt and answer.
    segment: 0 where padding.

  Returns:
    Scores, in the unit that the model was trained to.
  """
  value = model.value(params, model.hidden(params, token, segment))
  last = jnp.maximum(last_valid(segment != 0), 0)
  return jnp.take_along_axis(value, last[:, None], axis=1)[:, 0]


def response_score(
  model: Any, params: PyTree, responses: Responses
) -> Float[Array, "row"]:
  """`answer_score` of responses, the token that ended them included.

  Args:
    model: a `ScalarHead`.
    params: its parameters.
    responses: what is scored.

  Returns:
    Scores, in the unit that the model was trained to.
  """
  token, mask = responses.whole
  return answer_score(model, params, token, mask.astype(jnp.int32))


def by_parts(
  function: Callable[[PyTree], PyTree], rows: PyTree, parts: int
) -> PyTree:
  """A function of rows, computed for one micro-batch after the other.

  Args:
    function: arrays with rows first -> such arrays.
    rows: its argument.
    parts: how many micro-batches; must divide the rows.

  Returns:
    What the function returns for all rows, in their order.
  """
  if parts == 1:
    return function(rows)
  found = jax.lax.map(function, split_rows(rows, parts))
  # `split_rows` deals rows like cards; this gathers them again.
  return jax.tree.map(
    lambda x: jnp.swapaxes(x, 0, 1).reshape(-1, *x.shape[2:]), found
  )
