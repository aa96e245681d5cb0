"""Where-safe helpers: what stands in a masked slot never counts.

A mask is boolean, true = counts. Multiplying by a mask is not masking: zero
times NaN is NaN, and the gradient of a skipped branch still flows. Select
with `where` before the arithmetic instead; `keep` is that selection, named.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax.numpy as jnp

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float, Int

__all__ = ["keep", "last_valid", "masked_mean", "segment_mask", "widened"]


def keep(
  value: Float[Array, "*batch"], mask: Bool[Array, "*batch"]
) -> Float[Array, "*batch"]:
  """The value where `mask` is true, zero elsewhere, in at least float32.

  Neither the value nor the gradient sees what stands in a masked slot. Half
  precisions are widened first, so that everything downstream accumulates in
  float32; float64 stays float64.

  Args:
    value: anything of floating type, any unit.
    mask: true = counts.

  Returns:
    `value` where `mask`, else 0.

  >>> keep(jnp.array([1.0, jnp.nan]), jnp.array([True, False])).tolist()
  [1.0, 0.0]
  """
  return jnp.where(mask, widened(value), 0.0)


def widened(value: Float[Array, "*batch"]) -> Float[Array, "*batch"]:
  """The same value in at least float32, so that sums of it are.

  Args:
    value: anything of floating type, any unit.

  Returns:
    float32, or float64 where `value` already is.

  >>> widened(jnp.ones(2, jnp.bfloat16)).dtype.name
  'float32'
  """
  return value.astype(jnp.promote_types(value.dtype, jnp.float32))


def masked_mean(
  value: Float[Array, "*batch time"], mask: Bool[Array, "*batch time"]
) -> Float[Array, "*batch"]:
  """Mean over the last axis of what counts; 0 where nothing does.

      m = sum_t value_t mask_t / max(1, sum_t mask_t)

  Args:
    value: one number per time, any unit.
    mask: true = counts.

  Returns:
    The mean per row, in the unit of `value`.

  >>> value = jnp.array([[1.0, 3.0, jnp.nan], [5.0, 5.0, 5.0]])
  >>> mask = jnp.array([[True, True, False], [False, False, False]])
  >>> masked_mean(value, mask).tolist()
  [2.0, 0.0]
  """
  total = jnp.sum(keep(value, mask), axis=-1)
  return total / jnp.maximum(jnp.sum(mask, axis=-1), 1).astype(total.dtype)


def last_valid(mask: Bool[Array, "*batch time"]) -> Int[Array, "*batch"]:
  """Index of the last true column of each row; -1 for an empty row.

      i = max {t: mask_t},   -1 if there is none

  Args:
    mask: true = counts; the columns that count need not be adjacent.

  Returns:
    The index along the last axis. Test for -1 before indexing with it: there
    it means the last column.

  >>> mask = jnp.array([[True, True, False], [False, False, False]])
  >>> last_valid(mask).tolist()
  [1, -1]
  """
  time = jnp.arange(mask.shape[-1])
  return jnp.max(jnp.where(mask, time, -1), axis=-1, initial=-1)


def segment_mask(
  segment: Int[Array, "*batch time"],
) -> Bool[Array, "*batch time time"]:
  """Which column may see which in a packed row: same segment, not later.

  Args:
    segment: id of the sequence that each column belongs to; 0 = padding.

  Returns:
    True at [.., query, key] where key <= query and both columns carry the
    same non-zero id.

  >>> segment_mask(jnp.array([1, 1, 0])).astype(int).tolist()
  [[1, 0, 0], [1, 1, 0], [0, 0, 0]]
  """
  query, key = segment[..., :, None], segment[..., None, :]
  return jnp.tril((query == key) & (query != 0))
