"""A sampler of text: token after token, many responses to each prompt."""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rl_jax.log_probs import Support
from rl_jax.sampling.choosing import choose
from rl_jax.sampling.steps import fold_rows
from rl_jax.sampling.stops import NONE, stop_table, stopped

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float, Int, Key

  from rl_jax.models.decoder import Decoder
  from rl_jax.models.decoder_cache import Cache
  from rl_jax.models.protocol import Params
  from rl_jax.sampling.tries import Trie

__all__ = ["Autoregressive", "Completions", "prefilled"]


class Completions(NamedTuple):
  """What a sampler of text returns.

  Attributes:
    token: ids; 0 where `mask` is false.
    mask: true = chosen, what ended the response included.
    present: true = chosen, or written in between by an environment.
    log_prob: of the ids under the distribution they were drawn from, nats; 0
      where `mask` is false.
    entropy: of that distribution, nats; None if it was not asked for.
    ended: whether the response came to its end within the limit.
  """

  token: Int[Array, "sample time"]
  mask: Bool[Array, "sample time"]
  present: Bool[Array, "sample time"]
  log_prob: Float[Array, "sample time"]
  entropy: Float[Array, "sample time"] | None
  ended: Bool[Array, "sample"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Autoregressive:
  """Sampler: each token from the distribution after those before it.

  Prompts are read once, whatever the number of samples of each. Sampling
  stops when every row has ended. Step t of a row draws with the row's key
  folded with t: what a row says depends on its prompt and key, not on its
  neighbours, on padding or on the slot that it has in a batch.

  Raises:
    ValueError: if `length` is below 1, an option of the distribution is out
      of range, an id is negative, or a stop sequence is empty.
  """

  length: int
  """Most tokens of a response."""
  temperature: float = 1.0
  """Divides the logits; positive. For the likeliest token see `greedy`."""
  top_k: int | None = None
  """Ids kept, the likeliest ones; None: all."""
  top_p: float | None = None
  """Probability that the likeliest ids must reach; None: all."""
  min_p: float | None = None
  """Least probability kept, as a share of the likeliest id's; None: 0."""
  min_p_first: bool | None = None
  """Whether min-p comes before top-p; to be said where both are given."""
  greedy: bool = False
  """Whether the likeliest token is taken instead of a draw. Log-probs are
  still those of the distribution."""
  end: tuple[int, ...] = ()
  """Ids of which each ends a response."""
  stop: tuple[tuple[int, ...], ...] = ()
  """Sequences of generated ids of which each ends a response, as part of it."""
  entropy: bool = False
  """Whether to return the entropy of every distribution drawn from."""
  unroll: bool = False
  """Whether to compile each layer of a step, with a copy of its own of the
  layers' parameters: slow to compile, fast. Else as the model says."""

  def __post_init__(self):
    if self.length < 1:
      raise ValueError(f"length must be at least 1, got {self.length}")
    _ = self.support, self.stops

  @property
  def support(self) -> Support:
    """How logits of the model, its soft cap applied, become a distribution.

    `log_probs.support_log_prob` of `model.logits` with it scores a response
    as the sampler does. Where it does not truncate, so does
    `chunked_log_prob` at `temperature` with the model's soft cap.
    """
    return Support(
      temperature=self.temperature,
      top_k=self.top_k,
      top_p=self.top_p,
      min_p=self.min_p,
      min_p_first=self.min_p_first,
    )

  @property
  def stops(self) -> Int[np.ndarray, "sequences last"]:
    """All that ends a response; see `stop_table`."""
    return stop_table((*((one,) for one in self.end), *self.stop))

  def check_model(self, model: Decoder, columns: int) -> None:
    """Refuses a model that this sampler would leave the range of.

    Args:
      model: to be sampled from.
      columns: tokens of a prompt, padding included.

    Raises:
      ValueError: if prompt and response exceed its context, or an id or
        `top_k` its vocabulary.
    """
    if columns < 1:
      raise ValueError("a prompt has at least one token, got none")
    if columns + self.length > model.context:
      raise ValueError(
        f"prompts of {columns} tokens and responses of {self.length} need a"
        f" context of {columns + self.length}, the model has {model.context}"
      )
    largest = max(self.stops.max(initial=0), (self.top_k or 1) - 1)
    if largest >= model.vocabulary:
      raise ValueError(
        f"end = {self.end}, stop = {self.stop} and top_k = {self.top_k} do not"
        f" fit a vocabulary of {model.vocabulary} ids"
      )

  def check_prompts(
    self,
    model: Decoder,
    prompt_mask: Bool[Array | np.ndarray, "row prompt"],
    row_key: Key[Array, "sample"],
    samples: int,
  ) -> None:
    """Refuses prompts and keys that do not fit each other or the model.

    Args:
      model: to be sampled from.
      prompt_mask: true = a token of the prompt; its values are not looked at
        while traced.
      row_key: one key per sample.
      samples: responses to each prompt.

    Raises:
      ValueError: if `samples` is below 1, the keys are not one per sample, a
        prompt is not padded on the left; and as `check_model`.
    """
    rows, columns = prompt_mask.shape
    self.check_model(model, columns)
    if samples < 1 or row_key.shape[0] != rows * samples:
      raise ValueError(
        f"{rows} prompts with {samples} samples each need {rows * samples}"
        f" keys and at least one sample, got {row_key.shape[0]} keys"
      )
    _check_left(prompt_mask)

  def __call__(
    self,
    model: Decoder,
    params: Params,
    prompt: Int[Array | np.ndarray, "row prompt"],
    prompt_mask: Bool[Array | np.ndarray, "row prompt"],
    row_key: Key[Array, "sample"],
    *,
    samples: int,
    adapter: Params | None = None,
    item: Int[Array | np.ndarray, "row"] | None = None,
    constraint: Trie | None = None,
  ) -> Completions:
    """Responses to prompts.

    Args:
      model: the policy.
      params: its parameters.
      prompt: ids, padded on the left: the last column is always a token.
      prompt_mask: true = a token of the prompt. A row without any is padding
        of the batch: nothing is sampled for it.
      row_key: one key per sample; see `row_keys`.
      samples: responses to each prompt.
      adapter: low-rank change of the parameters; None for the base alone.
      item: which items of the task the prompts are, for samplers whose
        environment answers; not asked for here.
      constraint: the only responses that are allowed. Probabilities are
        renormalised over the ids that may come next, before top-k and its
        like; a row ends when its response is complete.

    Returns:
      The responses, those to the first prompt first. Log-probs of a row whose
      last column is padding, if only run time can see it, are NaN.

    Raises:
      ValueError: if `samples` is below 1, the keys are not one per sample,
        prompts are not padded on the left, or the model has no room for them:
        context, vocabulary.
    """
    del item
    self.check_prompts(model, prompt_mask, row_key, samples)
    if constraint is not None:
      _check_trie(constraint, model.vocabulary)
    return _sample(
      self,
      model,
      samples,
      params,
      jnp.asarray(prompt),
      jnp.asarray(prompt_mask),
      row_key,
      adapter,
      constraint,
    )


class _Progress(NamedTuple):
  """What the loop carries; one entry per sample except in `step`."""

  step: Int[Array, ""]
  cache: Cache
  last: Int[Array, "sample"]  # the newest token, not in the cache yet
  alive: Bool[Array, "sample"]
  node: Int[Array, "sample"]  # of the constraint
  recent: Int[Array, "sample last"]  # the newest generated tokens
  written: Any  # token, mask, log_prob and entropy, "sample time"


@functools.partial(jax.jit, static_argnames=("sampler", "model", "samples"))
def _sample(
  sampler,
  model,
  samples,
  params,
  prompt,
  prompt_mask,
  row_key,
  adapter,
  constraint,
):
  table, support = sampler.stops, sampler.support
  # Copied once: a step would copy each layer that it takes out of a stack.
  own = model.unstacked(params) if sampler.unroll else params

  def step(state):
    h, cache = model.extend(
      own,
      state.last[:, None],
      state.alive[:, None].astype(jnp.int32),
      state.cache,
      adapter=adapter,
    )
    logits = model.logits(params, h[:, 0])
    if constraint is not None:
      allowed = constraint.allowed(state.node, model.vocabulary)
      logits = jnp.where(allowed, logits, -jnp.inf)
    chosen = choose(
      logits,
      fold_rows(row_key, state.step),
      state.alive,
      support=support,
      greedy=sampler.greedy,
      entropy=sampler.entropy,
    )
    recent = jnp.concatenate([state.recent, chosen.token[:, None]], axis=1)
    recent = recent[:, 1:]
    ended, node = stopped(recent, table), state.node
    if constraint is not None:
      node = constraint.child(node, chosen.token)
      ended |= constraint.is_leaf(node)
    column = (chosen.token, state.alive, chosen.log_prob, chosen.entropy)
    return _Progress(
      step=state.step + 1,
      cache=cache,
      last=chosen.token,
      alive=state.alive & ~ended,
      node=node,
      recent=recent,
      written=jax.tree.map(
        lambda all_, one: jax.lax.dynamic_update_index_in_dim(
          all_, one, state.step, axis=1
        ),
        state.written,
        column,
      ),
    )

  def goes_on(state):
    return (state.step < sampler.length) & jnp.any(state.alive)

  started = jnp.repeat(jnp.any(prompt_mask, axis=-1), samples)
  size = started.shape[0]
  numbers = jnp.zeros((size, sampler.length), jnp.float32)
  first = _Progress(
    step=jnp.zeros((), jnp.int32),
    cache=prefilled(
      sampler.length, model, samples, params, prompt, prompt_mask, adapter
    ),
    last=jnp.repeat(prompt[:, -1], samples).astype(jnp.int32),
    alive=started,
    node=jnp.zeros(size, jnp.int32),
    recent=jnp.full((size, table.shape[1]), NONE, jnp.int32),
    written=(
      numbers.astype(jnp.int32),
      numbers.astype(bool),
      numbers,
      numbers if sampler.entropy else None,
    ),
  )
  last = jax.lax.while_loop(goes_on, step, first)
  token, mask, log_prob, entropy = last.written
  whole = jnp.repeat(prompt_mask[:, -1], samples)
  return Completions(
    token=token,
    mask=mask,
    present=mask,
    log_prob=jnp.where(mask & ~whole[:, None], jnp.nan, log_prob),
    entropy=entropy,
    ended=started & ~last.alive,
  )


def prefilled(
  length: int,
  model: Decoder,
  samples: int,
  params: Params,
  prompt: Int[Array, "row prompt"],
  prompt_mask: Bool[Array, "row prompt"],
  adapter: Params | None,
) -> Cache:
  """A cache of all but the last token of each prompt, for each sample.

  The last one is read by the first step, as any other token is by the next.

  Args:
    length: columns that there is room for behind the prompt.
    model: the policy.
    samples: rows for each prompt.
    params: parameters of the policy.
    prompt: ids, padded on the left.
    prompt_mask: true = a token of the prompt.
    adapter: low-rank change of the parameters, or None.

  Returns:
    The cache, those of the first prompt first.
  """
  rows, columns = prompt.shape
  cache = model.empty_cache(rows, columns - 1)
  if columns > 1:
    segment = prompt_mask[:, :-1].astype(jnp.int32)
    _, cache = model.extend(
      params, prompt[:, :-1], segment, cache, adapter=adapter
    )
  cache = cache.repeated(samples)

  def roomier(array, axis):
    width = [(0, 0)] * array.ndim
    width[axis] = (0, length)
    return jnp.pad(array, width)

  return cache._replace(
    key=roomier(cache.key, 2),
    value=roomier(cache.value, 2),
    segment=roomier(cache.segment, 1),
    position=roomier(cache.position, 1),
  )


def _check_left(prompt_mask: Bool[Array | np.ndarray, "row prompt"]) -> None:
  if isinstance(prompt_mask, jax.core.Tracer):
    return
  mask = np.asarray(prompt_mask)
  wrong = np.flatnonzero(mask.any(axis=-1) & ~mask[:, -1])
  if wrong.size:
    raise ValueError(
      "prompts are padded on the left, so that their last column is a token:"
      f" {wrong.size} of {len(mask)} end with padding, row {wrong[0]} is one"
    )


def _check_trie(constraint, vocabulary):
  if isinstance(constraint.token, jax.core.Tracer):
    return
  largest = int(np.max(constraint.token))
  if largest >= vocabulary:
    raise ValueError(
      f"the constraint has the id {largest}, the vocabulary only {vocabulary}"
    )
