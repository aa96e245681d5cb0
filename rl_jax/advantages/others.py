"""Mean and spread of the other rows of a group, without cancellation."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from rl_jax.masks import keep

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float, Int

__all__ = ["leave_one_out_scaled"]


def leave_one_out_scaled(
  reward: Float[Array, "row"],
  group: Int[Array, "row"],
  valid: Bool[Array, "row"],
  *,
  num_groups: int,
  ddof: int,
  epsilon: float,
) -> Float[Array, "row"]:
  r"""Reward minus the mean of the other rows, over the spread of the others.

      A_i = (r_i - m_i) / (s_i + epsilon)    if s_i > 0
      A_i = r_i - m_i                        else
      m_i, s_i: mean and std (n - 1 - ddof) of r_j, j in g(i), j != i

  s_i is 0 exactly when the other rewards are equal: their moments are merged
  from those before and after the row, never subtracted from the group's. The
  difference of mean square and squared mean leaves noise there, which divides
  an ordinary reward into the thousands.

  Args:
    reward: r_i, any unit. No gradient flows through it.
    group: which prompt each row answers, in [0, num_groups). Groups may be
      ragged, interleaved and permuted.
    valid: false for rows that do not count.
    num_groups: how many ids there are; static.
    ddof: 0 for the population, 1 for the sample standard deviation.
    epsilon: added to the spread, in units of reward.

  Returns:
    A_i; in units of reward where the others do not vary, which includes
    groups of two with ddof 1, else unitless. 0 for a row alone in its group.

  Raises:
    ValueError: for a negative epsilon, ddof not 0 or 1, num_groups < 1, or a
      batch of less than two rows.

  NeMo-RL's GRPO with its leave-one-out baseline (ddof 1, epsilon 0), whose
  own code takes the difference of squares.

  >>> leave_one_out_scaled(
  ...   jnp.array([6.0, 1.0, 3.0]),
  ...   jnp.zeros(3, jnp.int32),
  ...   jnp.ones(3, bool),
  ...   num_groups=1,
  ...   ddof=0,
  ...   epsilon=0.0,
  ... )[0].item()
  4.0
  """
  if ddof not in (0, 1):
    raise ValueError(f"ddof must be 0 or 1, got {ddof}")
  if not epsilon >= 0:
    raise ValueError(f"epsilon must not be negative, got {epsilon}")
  if num_groups < 1:
    raise ValueError(f"num_groups must be at least 1, got {num_groups}")
  if reward.shape[0] < 2:
    raise ValueError(
      f"leaving one out needs two rows at least, got {reward.shape[0]}"
    )
  reward = jax.lax.stop_gradient(keep(reward, valid))
  # Groups side by side, invalid rows weighing nothing.
  order = jnp.argsort(group, stable=True)
  ordered, owner = reward[order], group[order]
  weight = valid[order].astype(reward.dtype)
  rows = (weight, ordered, jnp.zeros_like(ordered)), owner
  before = _neighbours(rows, reverse=False)
  after = _neighbours(rows, reverse=True)
  count, mean, square = _merged(before, after)
  count, mean, square = (
    jnp.zeros_like(x).at[order].set(x) for x in (count, mean, square)
  )
  above = jnp.where(valid & (count > 0), reward - mean, 0.0)
  spread = jnp.sqrt(square / jnp.maximum(count - ddof, 1.0))
  varies = spread > 0
  return above / jnp.where(varies, spread + epsilon, 1.0)


def _neighbours(rows, *, reverse):
  """Moments of the rows of the same group on one side of each row."""
  (weight, *_), owner = rows
  nothing = jnp.zeros((), weight.dtype)
  start = (nothing, nothing, nothing), jnp.full_like(owner[0], -1)
  _, found = jax.lax.scan(_add, start, rows, reverse=reverse)
  return found


# Defined once, so that calls without jit find the loop already compiled.
def _add(carry, row):
  held, of = carry
  moments, owner = row
  held = tuple(jnp.where(owner == of, x, 0.0) for x in held)
  return (_merged(held, moments), owner), held


def _merged(first, second):
  """Count, mean and sum of squared deviations of two sets as one."""
  n, mean, square = first
  m, other, more = second
  count = n + m
  share = m / jnp.maximum(count, 1.0)
  step = other - mean
  # An empty set has a mean that means nothing.
  mean = jnp.where(n > 0, mean + share * step, other)
  return count, mean, square + more + n * share * jnp.square(step)
