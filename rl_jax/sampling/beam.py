"""The likeliest of some allowed responses, by beam search."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float, Int

  from rl_jax.models.decoder import Decoder
  from rl_jax.models.decoder_cache import Cache
  from rl_jax.models.protocol import Params
  from rl_jax.sampling.tries import Trie

__all__ = ["Beams", "constrained_beam_search"]


class Beams(NamedTuple):
  """Allowed responses to each prompt, the likeliest first.

  Attributes:
    token: ids; 0 where `mask` is false.
    mask: true = a token of the response.
    log_prob: of the whole response, nats; -inf where there is none: fewer
      are allowed than there are beams.
    node: of the trie, where it ended: a leaf, unless the limit came first.
  """

  token: Int[Array, "row beam time"]
  mask: Bool[Array, "row beam time"]
  log_prob: Float[Array, "row beam"]
  node: Int[Array, "row beam"]


class _Step(NamedTuple):
  """What the search carries."""

  score: Float[Array, "row beam"]
  node: Int[Array, "row beam"]
  cache: Cache
  written: Int[Array, "row beam time"]  # -1 where nothing stands


@functools.partial(jax.jit, static_argnames=("model", "width", "length"))
def constrained_beam_search(
  model: Decoder,
  params: Params,
  prompt: Int[Array, "row prompt"],
  prompt_mask: Bool[Array, "row prompt"],
  trie: Trie,
  *,
  width: int,
  length: int,
  adapter: Params | None = None,
) -> Beams:
  r"""Beam search in which only sequences of a trie may be written.

      score(y) = sum_t log p(y_t | x, y_<t)

  Probabilities are those over the whole vocabulary: what is not allowed is
  left out, and its mass is not shared among the rest. So a score is the
  policy's own log-probability of the response. A response that is complete
  keeps its score and competes with those that go on.

  Args:
    model: the policy.
    params: its parameters.
    prompt: ids, padded on the left: the last column is always a token.
    prompt_mask: true = a token of the prompt.
    trie: the responses that are allowed, ends included.
    width: beams, static. With as many as the trie has different beginnings
      of any one length, the search is exact.
    length: most tokens of a response, static.
    adapter: low-rank change of the parameters; None for the base alone.

  Returns:
    The beams of each prompt.

  Raises:
    ValueError: if a count is below 1 or the model has no room.
  """
  rows, columns = prompt.shape
  if width < 1 or length < 1:
    raise ValueError(
      f"width and length must be at least 1, got {width} and {length}"
    )
  if columns + length > model.context:
    raise ValueError(
      f"prompts of {columns} tokens and responses of {length} need a context"
      f" of {columns + length}, the model has {model.context}"
    )
  cache = model.empty_cache(rows, columns + length)
  h, cache = model.extend(
    params, prompt, prompt_mask.astype(jnp.int32), cache, adapter=adapter
  )
  logits = jnp.repeat(model.logits(params, h[:, -1]), width, axis=0)
  # All beams begin alike: one of them may go on.
  first = _Step(
    score=jnp.full((rows, width), -jnp.inf).at[:, 0].set(0.0),
    node=jnp.zeros((rows, width), jnp.int32),
    cache=cache.repeated(width),
    written=jnp.full((rows, width, length), -1, jnp.int32),
  )

  def advance(state: _Step, logits: Float[Array, "beams v"], time) -> _Step:
    vocabulary = logits.shape[-1]
    node = state.node.reshape(-1)
    log_prob = jax.nn.log_softmax(logits.astype(jnp.float32), axis=-1)
    gain = jnp.where(trie.allowed(node, vocabulary), log_prob, -jnp.inf)
    # A response that is complete goes on with nothing, in one way.
    done = trie.is_leaf(node)
    nothing = jnp.where(jnp.arange(vocabulary) == 0, 0.0, -jnp.inf)
    gain = jnp.where(done[:, None], nothing[None], gain)
    total = state.score[..., None] + gain.reshape(rows, width, vocabulary)
    score, place = jax.lax.top_k(total.reshape(rows, -1), width)
    parent, token = place // vocabulary, place % vocabulary
    flat = (jnp.arange(rows)[:, None] * width + parent).reshape(-1)
    node, done, token = node[flat], done[flat], token.reshape(-1)
    node = jnp.where(done, node, trie.child(node, token))
    written = state.written.reshape(rows * width, length)[flat]
    written = written.at[:, time].set(jnp.where(done, -1, token))
    return _Step(
      score=score,
      node=node.reshape(rows, width),
      cache=_taken(state.cache, flat),
      written=written.reshape(rows, width, length),
    )

  def step(state: _Step, time) -> tuple[_Step, None]:
    newest = state.written[:, :, time - 1].reshape(-1, 1)
    h, cache = model.extend(
      params,
      jnp.maximum(newest, 0),
      (newest >= 0).astype(jnp.int32),
      state.cache,
      adapter=adapter,
    )
    logits = model.logits(params, h[:, -1])
    return advance(state._replace(cache=cache), logits, time), None

  state = advance(first, logits, 0)
  state, _ = jax.lax.scan(step, state, jnp.arange(1, length))
  some = (state.score > -jnp.inf)[..., None]
  mask = some & (state.written >= 0)
  return Beams(
    token=jnp.where(mask, state.written, 0),
    mask=mask,
    log_prob=state.score,
    node=state.node,
  )


def _taken(cache: Cache, index: Int[Array, "row"]) -> Cache:
  """The cache of some rows, each as often as it is named."""
  return cache._replace(
    key=cache.key[:, index],
    value=cache.value[:, index],
    segment=cache.segment[index],
    position=cache.position[index],
  )
