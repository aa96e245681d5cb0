"""The turns of an episode, as one compiled program that asks the world."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rl_jax.sampling.autoregressive import Completions, prefilled
from rl_jax.sampling.choosing import choose
from rl_jax.sampling.steps import fold_rows
from rl_jax.sampling.stops import NONE, stopped
from rl_jax.sampling.worlds import observe_all

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Int, Key

  from rl_jax.models.decoder import Decoder
  from rl_jax.models.decoder_cache import Cache
  from rl_jax.models.protocol import Params

__all__ = ["play"]


class _Written(NamedTuple):
  """What is in the columns; "sample column"."""

  token: Any
  mask: Any
  present: Any
  log_prob: Any
  entropy: Any


class _Acting(NamedTuple):
  """What goes on within a turn; one entry per sample."""

  step: Any
  cache: Cache
  last: Any  # the newest token
  fresh: Any  # whether it is not in the cache yet
  acting: Any
  count: Any  # tokens of the episode
  recent: Any  # the newest tokens of the action
  written: _Written


class _Playing(NamedTuple):
  """What goes on from turn to turn; one entry per sample."""

  turn: Any
  cache: Cache
  last: Any
  fresh: Any
  playing: Any
  ended: Any
  count: Any
  written: _Written


@functools.partial(jax.jit, static_argnames=("sampler", "model", "samples"))
def play(
  sampler: Any,
  model: Decoder,
  samples: int,
  params: Params,
  prompt: Int[Array, "row prompt"],
  prompt_mask: Bool[Array, "row prompt"],
  row_key: Key[Array, "sample"],
  item: Int[Array, "row"],
  adapter: Params | None,
) -> Completions:
  """The program of `Episodes`, whose arguments these are.

  Args:
    sampler: `Episodes`.
    model: the policy.
    samples: episodes of each prompt.
    params: parameters of the policy.
    prompt: ids, padded on the left.
    prompt_mask: true = a token of the prompt.
    row_key: one key per sample.
    item: which items of the world the prompts are.
    adapter: low-rank change of the parameters, or None.

  Returns:
    The episodes.
  """
  # Copied once: a step would copy each layer that it takes out of a stack.
  own = model.unstacked(params) if sampler.unroll else params
  started = jnp.repeat(jnp.any(prompt_mask, axis=-1), samples)
  item, size = jnp.repeat(item, samples), started.shape[0]
  # All rows write the same column at a time: a turn has columns of its own,
  # of which a row leaves some empty.
  columns = sampler.turns * sampler.block

  def read(state, token, segment):
    return model.extend(
      own, token, segment.astype(jnp.int32), state.cache, adapter=adapter
    )

  def turn(state):
    first = _Acting(
      step=jnp.zeros((), jnp.int32),
      cache=state.cache,
      last=state.last,
      fresh=state.fresh,
      acting=state.playing,
      count=state.count,
      recent=jnp.full((size, sampler.stops.shape[1]), NONE, jnp.int32),
      written=state.written,
    )
    at = state.turn * sampler.block
    acted = jax.lax.while_loop(
      lambda own: (own.step < sampler.action_length) & jnp.any(own.acting),
      lambda own: _chosen(sampler, model, params, row_key, at, own, read),
      first,
    )
    answer = _asked(
      sampler, item, acted.written, state.turn, playing=state.playing
    )
    ended = state.ended | (state.playing & answer.ended)
    count = acted.count + jnp.sum(answer.mask, axis=-1)
    playing = state.playing & ~answer.over & (count < sampler.length)
    # An observation is read only where an action may follow it.
    playing &= state.turn + 1 < sampler.turns
    mask = answer.mask & playing[:, None]
    token = jnp.where(mask, answer.token, 0)
    _, cache = read(
      acted,
      jnp.concatenate([acted.last[:, None], token[:, :-1]], axis=1),
      jnp.concatenate([acted.fresh[:, None], mask[:, :-1]], axis=1),
    )
    block = _Written(token, jnp.zeros_like(mask), mask, 0.0 * token, None)
    if sampler.entropy:
      block = block._replace(entropy=block.log_prob)
    return _Playing(
      turn=state.turn + 1,
      cache=cache,
      last=token[:, -1],
      fresh=mask[:, -1],
      playing=playing,
      ended=ended,
      count=jnp.where(playing, count, acted.count),
      written=_put(acted.written, block, at + sampler.action_length),
    )

  numbers = jnp.zeros((size, columns), jnp.float32)
  first = _Playing(
    turn=jnp.zeros((), jnp.int32),
    cache=prefilled(
      columns, model, samples, params, prompt, prompt_mask, adapter
    ),
    last=jnp.repeat(prompt[:, -1], samples).astype(jnp.int32),
    fresh=started,
    playing=started,
    ended=jnp.zeros(size, bool),
    count=jnp.zeros(size, jnp.int32),
    written=_Written(
      numbers.astype(jnp.int32),
      numbers.astype(bool),
      numbers.astype(bool),
      numbers,
      numbers if sampler.entropy else None,
    ),
  )
  last = jax.lax.while_loop(lambda state: jnp.any(state.playing), turn, first)
  written = _without_gaps(last.written, sampler.length)
  whole = jnp.repeat(prompt_mask[:, -1], samples)
  broken = written.mask & ~whole[:, None]
  return Completions(
    token=written.token,
    mask=written.mask,
    present=written.present,
    log_prob=jnp.where(broken, jnp.nan, written.log_prob),
    entropy=written.entropy,
    ended=last.ended,
  )


def _chosen(sampler, model, params, row_key, at, state, read):
  """One token of the actions of all rows that have not ended theirs."""
  h, cache = read(state, state.last[:, None], state.fresh[:, None])
  chosen = choose(
    model.logits(params, h[:, 0]),
    fold_rows(row_key, at + state.step),
    state.acting,
    support=sampler.support,
    greedy=sampler.greedy,
    entropy=sampler.entropy,
  )
  recent = jnp.concatenate([state.recent, chosen.token[:, None]], axis=1)[:, 1:]
  count = state.count + state.acting
  going = ~stopped(recent, sampler.stops) & (count < sampler.length)
  column = _Written(
    chosen.token, state.acting, state.acting, chosen.log_prob, chosen.entropy
  )
  column = jax.tree.map(lambda x: x[:, None], column)
  return _Acting(
    step=state.step + 1,
    cache=cache,
    last=chosen.token,
    fresh=state.acting,
    acting=state.acting & going,
    count=count,
    recent=recent,
    written=_put(state.written, column, at + state.step),
  )


def _put(written, columns, at):
  """The columns in their place."""
  return jax.tree.map(
    lambda all_, new: jax.lax.dynamic_update_slice_in_dim(
      all_, new.astype(all_.dtype), at, axis=1
    ),
    written,
    columns,
  )


def _without_gaps(written, length):
  """Of each row the columns that hold a token, in order, then empty ones."""
  order = jnp.argsort(~written.present, axis=1, stable=True)
  order = jnp.pad(order, ((0, 0), (0, max(0, length - order.shape[1]))))
  moved = jax.tree.map(
    lambda x: jnp.take_along_axis(x, order[:, :length], axis=1), written
  )
  size = jnp.sum(written.present, axis=1, keepdims=True)
  inside = jnp.arange(length)[None] < size
  return jax.tree.map(lambda x: jnp.where(inside, x, jnp.zeros_like(x)), moved)


class _Answer(NamedTuple):
  """What the world says to each row.

  The ids stand on the right, behind padding. `over` is true where nothing
  follows: the episode has ended, or the world has no answer.
  """

  token: Any
  mask: Any
  ended: Any
  over: Any


def _asked(sampler, item, written, turn, *, playing):
  size = playing.shape[0]
  wide = (size, sampler.observation_length)
  shapes = _Answer(
    jax.ShapeDtypeStruct(wide, jnp.int32),
    jax.ShapeDtypeStruct(wide, jnp.bool_),
    jax.ShapeDtypeStruct((size,), jnp.bool_),
    jax.ShapeDtypeStruct((size,), jnp.bool_),
  )
  return jax.pure_callback(
    functools.partial(_ask, sampler),
    shapes,
    item,
    written.token,
    written.mask,
    turn,
    playing,
    vmap_method="sequential",
  )


def _ask(sampler, *arrays):
  """Ask the world about all rows that are playing; on the host."""
  item, token, mask, turn, playing = jax.device_get(arrays)
  rows = np.flatnonzero(playing)
  shape = (len(playing), sampler.turns, sampler.block)
  token, mask = token.reshape(shape), mask.reshape(shape)
  actions = [
    [
      sampler.said(token[row, k][mask[row, k]].tolist())
      for k in range(int(turn) + 1)
    ]
    for row in rows
  ]
  wide = (len(playing), sampler.observation_length)
  answer = _Answer(
    np.zeros(wide, np.int32),
    np.zeros(wide, bool),
    np.zeros(len(playing), bool),
    np.ones(len(playing), bool),
  )
  seen = observe_all(sampler.world, item[rows].tolist(), actions)
  for row, observation in zip(rows, seen, strict=True):
    answer.ended[row] = observation.ended and not observation.error
    answer.over[row] = observation.ended or bool(observation.error)
    if not answer.over[row]:
      ids = sampler.shown(observation.text)
      answer.token[row, -len(ids) :] = ids
      answer.mask[row, -len(ids) :] = True
  return answer
