"""An extra push for exact answers, largest where they are rare (GREAM)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from rl_jax.advantages.groups import group_relative, group_size
from rl_jax.advantages.passk import pass_at_k
from rl_jax.masks import keep

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float, Int

__all__ = ["bonus_calibrated", "pass_at_k_bonus"]


def pass_at_k_bonus(
  exact: Bool[Array, "row"],
  group: Int[Array, "row"],
  valid: Bool[Array, "row"],
  *,
  num_groups: int,
  k: int,
  epsilon: float,
) -> Float[Array, "row"]:
  r"""What a row is worth to the best of k tries, its expectation taken away.

      rho   = 1 - C(n - c, k) / C(n, k),   sigma = sqrt(rho (1 - rho))
      exact:  b_i = (1 - rho) / (sigma + epsilon)
      not:    b_i = (1 - rho - C(n-c-1, k-1) / C(n-1, k-1)) / (sigma + epsilon)

      n, c = valid rows of the group of i, and those of them that are exact

  The mean over all k-subsets that hold row i of whether any is exact, less
  the mean over all k-subsets, over the standard deviation of that. Sums to 0
  over a group. With k = 1 it is the binary reward standardised by its
  population: sqrt((n - c) / c) for an exact row.

  Args:
    exact: whether the answer is the reference itself. From the judge: a
      float reward that happens to be 1 says something else.
    group: which prompt each row answers, in [0, num_groups). Groups may be
      ragged: n is that of each.
    valid: false for rows that do not count.
    num_groups: how many ids there are; static.
    k: tries, static; 4 in the paper.
    epsilon: added to sigma; 1e-6 in the code.

  Returns:
    b_i, unitless; 0 where the row does not count, its group has fewer than k
    rows that do, no row of it is exact, or so many are that k rows always
    hold one.

  Raises:
    ValueError: if `k` is not in [1, rows], or `epsilon` is negative.

  GREAM, arXiv:2510.20815, section on SRPO, and its code
  (Indolent-Kawhi/GRRM, combinatorial advantage).

  >>> pass_at_k_bonus(
  ...   jnp.array([True, False]),
  ...   jnp.zeros(2, int),
  ...   jnp.ones(2, bool),
  ...   num_groups=1,
  ...   k=1,
  ...   epsilon=0.0,
  ... ).tolist()
  [1.0, -1.0]
  """
  rows = exact.shape[0]
  if not 1 <= k <= rows:
    raise ValueError(
      f"the best of k = {k} tries needs groups of k rows, the batch has {rows}"
    )
  if not epsilon >= 0:
    raise ValueError(f"epsilon must not be negative, got {epsilon}")
  count = group_size(group, valid, num_groups=num_groups)
  hits = group_size(group, valid & exact, num_groups=num_groups)
  found = pass_at_k(count, hits, k=k)
  # With this row among the k, k - 1 of the other n - 1 are left to be right.
  others = pass_at_k(count - 1, hits, k=k - 1).value if k > 1 else 0.0
  given = jnp.where(exact, 1.0, others)
  spread = jnp.sqrt(found.value * (1.0 - found.value))
  some = valid & found.valid & (spread > 0)
  bonus = (given - found.value) / jnp.where(some, spread + epsilon, 1.0)
  return jnp.where(some, bonus, 0.0)


def bonus_calibrated(
  reward: Float[Array, "row"],
  exact: Bool[Array, "row"],
  group: Int[Array, "row"],
  valid: Bool[Array, "row"],
  *,
  num_groups: int,
  k: int,
  ddof: int,
  epsilon: float,
) -> Float[Array, "row"]:
  r"""A graded reward within its group, and a bonus for exact answers.

      A_i = (r_i - m_g(i)) / (s_g(i) + epsilon) + b_i

  The first part, `group_relative`, ranks answers that are nearly right; the
  bonus b, `pass_at_k_bonus`, depends on exact answers alone. In a group
  without any the bonus is 0.

  Args:
    reward: r_i, such as `residual_sensitive_reward`. No gradient flows.
    exact: whether the answer is the reference itself; from the judge.
    group: which prompt each row answers, in [0, num_groups).
    valid: false for rows that do not count: they get 0.
    num_groups: how many ids there are; static.
    k: tries of the bonus, static; 4 in the paper.
    ddof: of the spread s; 1 in the code.
    epsilon: added to both spreads; 1e-6 in the code.

  Returns:
    A_i, unitless.

  Raises:
    ValueError: see `group_relative` and `pass_at_k_bonus`.

  GREAM, arXiv:2510.20815, bonus-calibrated group advantage.
  """
  relative = group_relative(
    reward,
    group,
    valid,
    num_groups=num_groups,
    scale="group",
    ddof=ddof,
    epsilon=epsilon,
  )
  bonus = pass_at_k_bonus(
    exact, group, valid, num_groups=num_groups, k=k, epsilon=epsilon
  )
  return jax.lax.stop_gradient(keep(relative + bonus, valid))
