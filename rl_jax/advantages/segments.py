"""Numbers of segments (steps, thoughts, turns) and of their tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from rl_jax.masks import keep, widened

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float, Int

__all__ = [
  "at_segment_ends",
  "check_segments",
  "segment_index",
  "segment_sums",
  "spread_segments",
  "suffix_sums",
]


def segment_index(
  end: Bool[Array, "row time"], mask: Bool[Array, "row time"]
) -> Int[Array, "row time"]:
  """Which segment each token is in, the token that ends it included.

      k_t = #{s < t: mask_s and end_s}

  Args:
    end: true = the last token of a segment; anything where the mask is false.
    mask: true = counts.

  Returns:
    k_t from 0, and -1 where the mask is false.

  >>> end = jnp.array([[False, True, False, True, False]])
  >>> segment_index(end, jnp.ones((1, 5), bool)).tolist()
  [[0, 0, 1, 1, 2]]
  """
  count = jnp.cumsum((end & mask).astype(jnp.int32), axis=-1)
  return jnp.where(mask, count - (end & mask), -1)


def spread_segments(
  value: Float[Array, "row segment"], index: Int[Array, "row time"]
) -> Float[Array, "row time"]:
  """Every token gets the number of its segment.

      a_t = v_{k_t}

  Args:
    value: v_k, one number for each segment.
    index: k_t as from `segment_index`; negative = in none.

  Returns:
    a_t: 0 where the index is negative, and NaN where there is no such
    segment, so that nothing is dropped in silence; see `check_segments`.

  >>> value = jnp.array([[0.5, -1.0]])
  >>> spread_segments(value, jnp.array([[0, 0, 1, -1]])).tolist()
  [[0.5, 0.5, -1.0, 0.0]]
  """
  value = widened(value)
  count = value.shape[-1]
  place = jnp.clip(index, 0, count - 1)
  spread = jnp.take_along_axis(value, place, axis=-1)
  spread = jnp.where(index < count, spread, jnp.nan)
  return jnp.where(index < 0, 0.0, spread)


def segment_sums(
  value: Float[Array, "row time"],
  index: Int[Array, "row time"],
  *,
  num_segments: int,
) -> Float[Array, "row segments"]:
  """Sum over the tokens of each segment.

      v_k = sum_{t: k_t = k} a_t

  Args:
    value: a_t; anything where the index is negative.
    index: k_t; negative = in no segment.
    num_segments: how many there may be; static.

  Returns:
    v_k, 0 for a segment without tokens. What is in a segment beyond the last
    is left out: see `check_segments`.

  Raises:
    ValueError: if `num_segments` < 1.

  >>> value = jnp.array([[1.0, 2.0, 4.0, 8.0]])
  >>> index = jnp.array([[0, 0, 1, -1]])
  >>> segment_sums(value, index, num_segments=3).tolist()
  [[3.0, 4.0, 0.0]]
  """
  if num_segments < 1:
    raise ValueError(f"num_segments must be at least 1, got {num_segments}")
  value = keep(widened(value), index >= 0)
  # A negative index would count from the end.
  place = jnp.where(index < 0, num_segments, index)

  def one(value: jax.Array, place: jax.Array) -> jax.Array:
    return jax.ops.segment_sum(value, place, num_segments)

  return jax.vmap(one)(value, place)


def at_segment_ends(
  value: Float[Array, "row segment"], index: Int[Array, "row time"]
) -> Float[Array, "row time"]:
  """The number of each segment on its last token, where rewards are paid.

      r_t = v_{k_t} if no later token has k = k_t, else 0

  Args:
    value: v_k, one number for each segment.
    index: k_t, not falling along the row; negative = in none.

  Returns:
    r_t, NaN where there is no such segment.

  >>> value = jnp.array([[0.5, -1.0]])
  >>> at_segment_ends(value, jnp.array([[0, 0, 1, -1]])).tolist()
  [[0.0, 0.5, -1.0, 0.0]]
  """
  none = jnp.iinfo(index.dtype).max
  later = jnp.where(index < 0, none, index)
  # The segment of the next token that is in one: indices do not fall.
  after = jnp.pad(
    jax.lax.cummin(later, axis=1, reverse=True)[:, 1:],
    ((0, 0), (0, 1)),
    constant_values=none,
  )
  last = (index >= 0) & (after != index)
  return keep(spread_segments(value, index), last)


def suffix_sums(
  value: Float[Array, "row segment"], mask: Bool[Array, "row segment"]
) -> Float[Array, "row segment"]:
  """What is still to come: the sum over this segment and all later ones.

      s_k = sum_{j >= k} mask_j v_j

  Args:
    value: v_k; anything where the mask is false.
    mask: true = there is such a segment.

  Returns:
    s_k, 0 where the mask is false.

  >>> mask = jnp.array([[True, True, False]])
  >>> suffix_sums(jnp.array([[1.0, 2.0, 4.0]]), mask).tolist()
  [[3.0, 2.0, 0.0]]
  """
  kept = keep(widened(value), mask)
  return keep(jnp.cumsum(kept[:, ::-1], axis=-1)[:, ::-1], mask)


def check_segments(
  index: Int[np.ndarray, "row time"],
  mask: Bool[np.ndarray, "row time"],
  *,
  num_segments: int,
) -> None:
  """Refuse an index that does not say where each token belongs.

  For the host, where indices are made: on the device their values are not
  known before the program runs.

  Args:
    index: k_t; -1 = in no segment.
    mask: true = a token of the response.
    num_segments: how many there may be.

  Raises:
    ValueError: with the first row in which an index is outside of [-1,
      num_segments), a token outside of the response is in a segment, or
      indices fall or skip one.
  """
  index, mask = np.asarray(index), np.asarray(mask)
  for row, (own, inside) in enumerate(zip(index, mask, strict=True)):
    if own.min(initial=0) < -1 or own.max(initial=-1) >= num_segments:
      raise ValueError(
        f"row {row}: segments must be in [-1, {num_segments}), got"
        f" {own.min()} to {own.max()}"
      )
    if np.any((own >= 0) & ~inside):
      where = int(np.argmax((own >= 0) & ~inside))
      raise ValueError(
        f"row {row}: position {where} is in segment {own[where]} and outside"
        " of the response"
      )
    steps = np.diff(own[own >= 0], prepend=-1)
    if np.any((steps < 0) | (steps > 1)):
      raise ValueError(
        f"row {row}: segments must follow each other from 0, got"
        f" {own[own >= 0].tolist()}"
      )
