"""Returns that trust the critic after a fixed number of steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from rl_jax.advantages.recursion import swept_back
from rl_jax.masks import keep

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float

__all__ = ["n_step_returns"]


def n_step_returns(
  reward: Float[Array, "*batch time"],
  next_value: Float[Array, "*batch time"],
  mask: Bool[Array, "*batch time"],
  *,
  terminated: Bool[Array, "*batch time"],
  last: Bool[Array, "*batch time"],
  discount: float,
  steps: int,
) -> Float[Array, "*batch time"]:
  """The rewards of n counted columns, then the critic.

      G^1_t = r_t + discount (1 - terminated_t) v'_t
      G^n_t = r_t + discount G^{n-1}_{t+1},   G^1_t in a last column

  Args:
    reward: r_t, any unit.
    next_value: v'_t, what the critic expects after column t; see
      `next_values`. Ignored, NaN included, where terminated.
    mask: true = counts; other columns are skipped without discount.
    terminated: nothing follows this column.
    last: the record ends in this column.
    discount: in [0, 1].
    steps: n, counted columns before the critic is asked; static.

  Returns:
    G^n_t in units of reward, 0 where `mask` is false.

  Raises:
    ValueError: if `discount` is not in [0, 1] or `steps` < 1.

  Sutton and Barto 2018, equation 7.1. It costs one pass per step.

  >>> end = jnp.array([False, False, True])
  >>> n_step_returns(
  ...   jnp.array([1.0, 2.0, 4.0]),
  ...   jnp.array([8.0, 8.0, jnp.nan]),
  ...   jnp.ones(3, bool),
  ...   terminated=end,
  ...   last=end,
  ...   discount=0.5,
  ...   steps=2,
  ... ).tolist()
  [4.0, 4.0, 4.0]
  """
  if not 0 <= discount <= 1:
    raise ValueError(f"discount must be in [0, 1], got {discount}")
  if steps < 1:
    raise ValueError(f"steps must be at least 1, got {steps}")
  reward = keep(reward, mask)
  one_step = reward + discount * keep(next_value, mask & ~terminated)
  batch = reward.shape[:-1]
  # Returns of 1, 2, ... columns from the next counted one, if there is one.
  later = jnp.zeros((steps, *batch), one_step.dtype)
  start = jnp.asarray(discount, later.dtype), later, jnp.zeros(batch, bool)
  columns = reward, one_step, mask, last | terminated
  found = swept_back(_longer, start, columns)
  return jax.lax.stop_gradient(keep(found, mask))


def _longer(carried, column):
  """Returns from this column, by those from the next."""
  discount, later, follows = carried
  reward, one_step, counts, ends = column
  follows &= ~ends
  longer = jnp.where(follows, reward[None] + discount * later[:-1], one_step)
  own = jnp.concatenate([one_step[None], longer])
  later = jnp.where(counts, own, later)
  return (discount, later, counts | follows), later[-1]
