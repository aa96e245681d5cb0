"""Statistics of the rows that answer the same prompt, by integer ids."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import jax
import jax.numpy as jnp

from rl_jax.masks import keep, widened

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float, Int

__all__ = [
  "Scale",
  "best_minus_second",
  "clip_and_rescale",
  "group_mean",
  "group_relative",
  "group_size",
  "informative_groups",
]

Scale = Literal["none", "group", "global"]


def group_size(
  group: Int[Array, "row"], valid: Bool[Array, "row"], *, num_groups: int
) -> Int[Array, "row"]:
  """How many valid rows the group of each row has.

      n_i = sum_{j in g(i)} valid_j

  Estimators that compare rows give 0 to a row alone in its group, because
  sizes are only known at run time. To refuse such a batch, look here.

  Args:
    group: which prompt each row answers, in [0, num_groups).
    valid: false for rows that do not count.
    num_groups: how many ids there are; static.

  Returns:
    n_i for each row, valid or not.

  Raises:
    ValueError: if `num_groups` < 1.

  >>> valid = jnp.array([True, True, False])
  >>> group_size(jnp.array([0, 1, 1]), valid, num_groups=2).tolist()
  [1, 1, 1]
  """
  _check_num_groups(num_groups)
  count = jax.ops.segment_sum(valid.astype(jnp.int32), group, num_groups)
  return count[group]


def informative_groups(
  metric: Float[Array, "row"],
  group: Int[Array, "row"],
  valid: Bool[Array, "row"],
  *,
  num_groups: int,
) -> Bool[Array, "row"]:
  """Which rows stand in a group whose metric is not the same for all.

      keep_i = valid_i and max_{j in g(i)} metric_j > min_{j in g(i)} metric_j

  The filter of dynamic sampling: a prompt that every response solves, or
  none does, has no group-relative gradient and dilutes the mean of the
  others. Use the result as the `valid` of what follows. Sampling again until
  a batch is full is the caller's.

  Args:
    metric: what is compared, such as the accuracy; the reward before or after
      shaping.
    group: which prompt each row answers, in [0, num_groups).
    valid: false for rows that do not count, such as those without a verdict.
    num_groups: how many ids there are; static.

  Returns:
    True where the row counts and its group is informative.

  Raises:
    ValueError: if `num_groups` < 1.

  Yu et al. 2025, arXiv:2503.14476 (DAPO), section 3.2.

  >>> informative_groups(
  ...   jnp.array([1.0, 0.0, 1.0, 1.0]),
  ...   jnp.array([0, 0, 1, 1]),
  ...   jnp.ones(4, bool),
  ...   num_groups=2,
  ... ).tolist()
  [True, True, False, False]
  """
  _check_num_groups(num_groups)
  return valid & ~_constant_group(metric, group, valid, num_groups)[group]


def group_mean(
  reward: Float[Array, "row"],
  group: Int[Array, "row"],
  valid: Bool[Array, "row"],
  *,
  num_groups: int,
) -> Float[Array, "row"]:
  """Mean reward of the valid rows of each row's group.

      m_i = sum_{j in g(i)} valid_j r_j / max(1, sum_{j in g(i)} valid_j)

  Args:
    reward: r_i, any unit.
    group: which prompt each row answers, in [0, num_groups). Rows of a group
      need not be adjacent and groups need not be equally large.
    valid: false for rows that do not count (padding, no verdict).
    num_groups: how many ids there are; static, so that shapes are.

  Returns:
    m_i for each row, valid or not, in the unit of reward; 0 for a group
    without valid rows. It is differentiable in the valid rewards.

  Raises:
    ValueError: if `num_groups` < 1.

  >>> group_mean(
  ...   jnp.array([1.0, 3.0, 5.0]),
  ...   jnp.array([0, 0, 1]),
  ...   jnp.ones(3, bool),
  ...   num_groups=2,
  ... ).tolist()
  [2.0, 2.0, 5.0]
  """
  _, mean = _group_moments(reward, group, valid, num_groups)
  return mean[group]


def group_relative(
  reward: Float[Array, "row"],
  group: Int[Array, "row"],
  valid: Bool[Array, "row"],
  *,
  num_groups: int,
  scale: Scale,
  ddof: int,
  epsilon: float,
) -> Float[Array, "row"]:
  r"""Reward minus the mean of its group, over a spread.

      A_i = (r_i - m_g(i)) / (s + epsilon)

      scale "none":    no division, epsilon and ddof unused
      scale "group":   s = std of the valid rewards of the group
      scale "global":  s = std of all valid rewards of the batch, around their
                       common mean

  Both spreads divide the sum of squares by (n - ddof). Every framework's
  "GRPO" is one choice of these three arguments; none has a default here.

  Args:
    reward: r_i, any unit. No gradient flows through it.
    group: which prompt each row answers, in [0, num_groups). Groups may be
      ragged, interleaved and permuted.
    valid: false for rows that do not count: they get 0, and what they hold,
      NaN included, touches nobody else.
    num_groups: how many ids there are; static.
    scale: which spread divides.
    ddof: 0 for the population, 1 for the sample standard deviation.
    epsilon: added to the spread, in units of reward.

  Returns:
    A_i, unitless when scaled. A row alone in its group, rows of a group with
    equal rewards, and invalid rows have exactly 0.

  Raises:
    ValueError: for an unknown scale, a negative epsilon, ddof not 0 or 1, or
      num_groups < 1.

  Shao et al. 2024, arXiv:2402.03300, section 4.1.2 ("group"); Liu et al.
  2025, arXiv:2505.05470 (Flow-GRPO), code, for "global"; Liu et al. 2025,
  arXiv:2503.20783 (Dr. GRPO), for "none".

  >>> reward = jnp.array([1.0, 0.0, 0.0, 1.0])
  >>> group_relative(
  ...   reward,
  ...   jnp.array([0, 0, 1, 1]),
  ...   jnp.ones(4, bool),
  ...   num_groups=2,
  ...   scale="global",
  ...   ddof=0,
  ...   epsilon=0.0,
  ... ).tolist()
  [1.0, -1.0, -1.0, 1.0]
  """
  _check_scale(scale, ddof, epsilon)
  reward = jax.lax.stop_gradient(keep(reward, valid))
  _, mean = _group_moments(reward, group, valid, num_groups)
  # A group whose rewards are all equal is exactly zero, not the rounding
  # error of a mean, which a small spread would blow up.
  alive = valid & ~_constant_group(reward, group, valid, num_groups)[group]
  centred = jnp.where(alive, reward - mean[group], 0.0)
  if scale == "none":
    return centred
  spread = _spread(reward, group, valid, num_groups, scale, ddof)
  scaled = centred / jnp.where(alive, spread + epsilon, 1.0)
  return jnp.where(alive, scaled, 0.0)


def best_minus_second(
  reward: Float[Array, "row"],
  group: Int[Array, "row"],
  valid: Bool[Array, "row"],
  *,
  num_groups: int,
  scale: Scale,
  ddof: int,
  epsilon: float,
) -> Float[Array, "row"]:
  r"""What the best row of a group adds to its maximum; 0 for the others.

      A_i = (r_i - max_{j != i} r_j) / (s + epsilon)   for the best row i

  The expected gradient of the best of n, not of the mean. The spread s and
  its arguments are those of `group_relative`. When two rows share the
  maximum, neither adds anything.

  Args:
    reward: r_i, any unit. No gradient flows through it.
    group: which prompt each row answers, in [0, num_groups).
    valid: false for rows that do not count.
    num_groups: how many ids there are; static.
    scale: which spread divides.
    ddof: 0 for the population, 1 for the sample standard deviation.
    epsilon: added to the spread, in units of reward.

  Returns:
    A_i, unitless when scaled. A row alone in its group has 0.

  Raises:
    ValueError: for an unknown scale, a negative epsilon, ddof not 0 or 1,
      num_groups < 1, or a batch of less than two rows.

  Tang et al. 2025, arXiv:2503.19595, in the form of verl's GRPO pass@k, where
  scale is "group" with ddof 1 and epsilon 1e-6.

  >>> best_minus_second(
  ...   jnp.array([4.0, 1.0, 3.0]),
  ...   jnp.zeros(3, jnp.int32),
  ...   jnp.ones(3, bool),
  ...   num_groups=1,
  ...   scale="none",
  ...   ddof=1,
  ...   epsilon=0.0,
  ... ).tolist()
  [1.0, 0.0, 0.0]
  """
  _check_scale(scale, ddof, epsilon)
  _check_num_groups(num_groups)
  if reward.shape[0] < 2:
    raise ValueError(f"needs two rows to compare, got {reward.shape[0]}")
  reward = jax.lax.stop_gradient(keep(reward, valid))
  candidate = jnp.where(valid, reward, -jnp.inf)
  best = jax.ops.segment_max(candidate, group, num_groups)[group]
  row = jnp.arange(reward.shape[0])
  place = jnp.where(valid & (reward == best), row, reward.shape[0])
  winner = row == jax.ops.segment_min(place, group, num_groups)[group]
  others = jnp.where(winner, -jnp.inf, candidate)
  second = jax.ops.segment_max(others, group, num_groups)[group]
  # A row alone has nobody to be better than; equal rewards leave nothing.
  alive = winner & (second > -jnp.inf) & (best > second)
  margin = jnp.where(alive, reward - second, 0.0)
  if scale == "none":
    return margin
  spread = _spread(reward, group, valid, num_groups, scale, ddof)
  return jnp.where(alive, margin / jnp.where(alive, spread + epsilon, 1.0), 0.0)


def clip_and_rescale(
  advantage: Float[Array, "*batch"],
  *,
  clip: float,
  maximum: float | None,
) -> Float[Array, "*batch"]:
  """Clip to [-clip, clip], then scale so that the bound becomes `maximum`.

      A' = clip(A, -c, c) a_max / c        (A' = clip(A, -c, c) if a_max None)

  Args:
    advantage: A, unitless. No gradient flows through it.
    clip: c > 0.
    maximum: a_max > 0, or None to leave the scale alone.

  Returns:
    A'.

  Raises:
    ValueError: if `clip` or `maximum` is not positive, or if an infinite
      `clip` leaves no bound to rescale.

  Advantage weighted matching, arXiv:2509.25050, code (`adv_clip_max`,
  `advantage_max`).

  >>> clip_and_rescale(jnp.array([2.5, -10.0]), clip=5.0, maximum=1.0).tolist()
  [0.5, -1.0]
  """
  if not clip > 0:
    raise ValueError(f"clip must be positive, got {clip}")
  if maximum is not None and not maximum > 0:
    raise ValueError(f"maximum must be positive or None, got {maximum}")
  if maximum is not None and math.isinf(clip):
    raise ValueError(
      f"clip={clip} is no bound to scale to maximum={maximum}: give a finite"
      " clip, or maximum=None"
    )
  clipped = jnp.clip(jax.lax.stop_gradient(widened(advantage)), -clip, clip)
  return clipped if maximum is None else clipped * (maximum / clip)


def _spread(reward, group, valid, num_groups, scale, ddof):
  """Standard deviation by row, of its group or of the whole batch."""
  if scale == "group":
    count, mean = _group_moments(reward, group, valid, num_groups)
    square = keep(reward - mean[group], valid) ** 2
    total = jax.ops.segment_sum(square, group, num_groups)
    return jnp.sqrt(total / jnp.maximum(count - ddof, 1.0))[group]
  count = jnp.sum(valid).astype(reward.dtype)
  middle = jnp.sum(keep(reward, valid)) / jnp.maximum(count, 1.0)
  square = jnp.sum(keep(reward - middle, valid) ** 2)
  spread = jnp.sqrt(square / jnp.maximum(count - ddof, 1.0))
  return jnp.broadcast_to(spread, reward.shape)


def _check_scale(scale, ddof, epsilon):
  if scale not in ("none", "group", "global"):
    raise ValueError(
      f"scale must be 'none', 'group' or 'global', got {scale!r}"
    )
  if ddof not in (0, 1):
    raise ValueError(f"ddof must be 0 or 1, got {ddof}")
  if epsilon < 0:
    raise ValueError(f"epsilon must not be negative, got {epsilon}")


def _check_num_groups(num_groups):
  if num_groups < 1:
    raise ValueError(f"num_groups must be at least 1, got {num_groups}")


def _group_moments(reward, group, valid, num_groups):
  """Count and mean of the valid rows of each group, both [num_groups]."""
  _check_num_groups(num_groups)
  reward = keep(reward, valid)
  count = jax.ops.segment_sum(valid.astype(reward.dtype), group, num_groups)
  total = jax.ops.segment_sum(reward, group, num_groups)
  return count, total / jnp.maximum(count, 1.0)


def _constant_group(reward, group, valid, num_groups):
  low = jnp.where(valid, reward, jnp.inf)
  high = jnp.where(valid, reward, -jnp.inf)
  low = jax.ops.segment_min(low, group, num_groups)
  high = jax.ops.segment_max(high, group, num_groups)
  return low >= high
