"""The recursion that every return and advantage along time is made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from rl_jax.masks import keep, widened

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float

__all__ = ["carried_back", "following", "next_values"]


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
  columns = jnp.moveaxis(step, -1, 0), jnp.moveaxis(decay, -1, 0)
  zero = jnp.zeros_like(columns[0], shape=step.shape[:-1])
  _, result = jax.lax.scan(_back, zero, columns, reverse=True)
  return jnp.moveaxis(result, 0, -1)


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


# Defined once, so that calls without jit find the loop already compiled.
def _back(later, column):
  step, decay = column
  here = step + decay * later
  return here, here
