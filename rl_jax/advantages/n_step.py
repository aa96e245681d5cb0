"""Returns that trust the critic after a fixed number of steps."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

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
  follower, exists = _next_counted(mask, last | terminated)

  def longer(_, shorter):
    later = jnp.take_along_axis(shorter, follower, axis=-1)
    return jnp.where(exists, reward + discount * later, one_step)

  longest = jax.lax.fori_loop(1, steps, longer, one_step)
  return jax.lax.stop_gradient(keep(longest, mask))


def _next_counted(mask, ends):
  """Where the next counted column of the record is, and if there is one."""
  time = mask.shape[-1]
  column = jnp.broadcast_to(jnp.arange(time), mask.shape)
  # A record that ends in between is met before what follows it: 2t + 1 is
  # the end of column t, 2t its counted content.
  counted = jnp.where(mask, 2 * column, 2 * time)
  stop = jnp.where(ends, 2 * column + 1, 2 * time)
  axis = mask.ndim - 1
  first = jax.lax.cummin(jnp.minimum(counted, stop), axis=axis, reverse=True)
  first = jnp.roll(first, -1, axis=-1).at[..., -1:].set(2 * time)
  exists = ~ends & (first % 2 == 0) & (first < 2 * time)
  return jnp.where(exists, first // 2, 0), exists
