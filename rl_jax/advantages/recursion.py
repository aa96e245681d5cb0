"""The recursion that every return and advantage along time is made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from rl_jax.masks import keep, widened

if TYPE_CHECKING:
  from collections.abc import Callable

  from jaxtyping import Array, Bool, Float, PyTree

__all__ = ["carried_back", "following", "next_values"]


def swept_back(
  step: Callable[[Any, Any], tuple[Any, Array]],
  start: PyTree,
  columns: PyTree,
) -> Float[Array, "*batch time"]:
  """One pass over time, from its end to its beginning.

      carry_t, y_t = step(carry_{t+1}, columns_t)

  Args:
    step: what happens in a column, given what is carried and the column's
      values [*batch]; the same function object compiles once without jit.
    start: what is carried into the last column.
    columns: arrays [*batch time]. Columns of zeros are met before the last
      one; what is carried must come through them as it was.

  Returns:
    y_t.
  """
  time = jax.tree.leaves(columns)[0].shape[-1]
  # What is computed for each column is computed before columns are moved.
  columns = jax.lax.optimization_barrier(columns)
  columns = jax.tree.map(_time_first, columns)
  _, found = jax.lax.scan(step, start, columns, reverse=True)
  return jax.lax.optimization_barrier(_time_last(found, time))


def carried_back(
  step: Float[Array, "*batch time"],
  decay: Float[Array, "*batch time"],
  mask: Bool[Array, "*batch time"],
  *,
  last: Bool[Array, "*batch time"],
) -> Float[Array, "*batch time"]:
  """A sum carried from the end of each record to its beginning.

      y_t = step_t + decay_t (1 - last_t) y_{t+1}    where mask_t
      y_t = (1 - last_t) y_{t+1}                     elsewhere

  One pass, linear in time. Returns, advantages, values of the next column
  and traces differ only in what they call step and decay.

  Args:
    step: what column t adds, any unit.
    decay: what column t keeps of the future; no unit.
    mask: true = counts.
    last: the record ends in this column.

  Returns:
    y_t in the unit of step. A column that does not count holds that of the
    next counted column of its record; mask it away unless that is wanted.

  >>> step, half = jnp.array([1.0, jnp.nan, 2.0]), jnp.full(3, 0.5)
  >>> mask, last = jnp.array([True, False, True]), jnp.zeros(3, bool)
  >>> carried_back(step, half, mask, last=last).tolist()
  [2.0, 2.0, 2.0]
  """
  step = keep(step, mask)
  decay = jnp.where(mask, widened(decay), 1.0)
  decay = jnp.where(last, 0.0, decay).astype(step.dtype)
  zero = jnp.zeros_like(step, shape=step.shape[:-1])
  return swept_back(_back, zero, (step, decay))


def following(
  carried: Float[Array, "*batch time"], *, last: Bool[Array, "*batch time"]
) -> Float[Array, "*batch time"]:
  """What `carried_back` found one column later in the same record.

      y'_t = (1 - last_t) y_{t+1}

  Args:
    carried: y_t, any unit.
    last: the record ends in this column.

  Returns:
    y'_t, 0 in the last column of a record and of the array.

  >>> last = jnp.array([False, True, False])
  >>> following(jnp.array([1.0, 2.0, 4.0]), last=last).tolist()
  [2.0, 0.0, 0.0]
  """
  later = jnp.roll(widened(carried), -1, axis=-1).at[..., -1:].set(0.0)
  return jnp.where(last, 0.0, later)


def next_values(
  value: Float[Array, "*batch time"],
  mask: Bool[Array, "*batch time"],
  *,
  last: Bool[Array, "*batch time"],
) -> Float[Array, "*batch time"]:
  """The value of the next counted column of the same record.

      v'_t = v_u,   u = min {u > t: mask_u},   if no last column is in [t, u)

  Args:
    value: v_t, in units of reward.
    mask: true = counts.
    last: the record ends in this column.

  Returns:
    v'_t in units of reward; 0 where the record has no later counted column,
    which is right where it terminated. A record that was cut needs the value
    of what was cut off put there.

  >>> value = jnp.array([1.0, jnp.nan, 2.0, 4.0])
  >>> mask = jnp.array([True, False, True, True])
  >>> last = jnp.array([False, False, True, True])
  >>> next_values(value, mask, last=last).tolist()
  [2.0, 0.0, 0.0, 0.0]
  """
  value = jax.lax.stop_gradient(keep(value, mask))
  nearest = carried_back(value, jnp.zeros_like(value), mask, last=last)
  return keep(following(nearest, last=last), mask)


# Time is moved in blocks of so many columns. To a compiler of processors that
# is another transposition than swapping two axes, which it puts off into the
# loop, as a loop of its own over memory that is far apart: four times as slow.
_BLOCK = 8


def _time_first(x):
  """[*batch time] to [time *batch], columns of 0 added to fill a block."""
  *batch, time = x.shape
  blocks = -(-time // _BLOCK)
  x = jnp.pad(x, [(0, 0)] * len(batch) + [(0, blocks * _BLOCK - time)])
  x = jnp.moveaxis(x.reshape(*batch, blocks, _BLOCK), (-2, -1), (0, 1))
  return x.reshape(blocks * _BLOCK, *batch)


def _time_last(x, time):
  """The way back."""
  filled, *batch = x.shape
  x = x.reshape(filled // _BLOCK, _BLOCK, *batch)
  return jnp.moveaxis(x, (0, 1), (-2, -1)).reshape(*batch, filled)[..., :time]


# Defined once, so that calls without jit find the loop already compiled.
def _back(later, column):
  step, decay = column
  here = step + decay * later
  return here, here
