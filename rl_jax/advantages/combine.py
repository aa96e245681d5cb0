"""Several rewards in one group-relative advantage, the order being explicit.

Sum first, and the reward with the largest spread decides alone which rows are
better. Normalise first, and every reward has the same say per unit of weight,
however rare or small its differences.

Summing first needs nothing of its own. It is `group_relative` of what
`rl_jax.rewards.transforms.weighted_sum` gives, the sum and the rows that have
one. Normalising first is `sum_of_relatives`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from rl_jax.advantages.groups import Scale, group_relative
from rl_jax.masks import widened

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float, Int

__all__ = ["sum_of_relatives"]


def sum_of_relatives(
  reward: Float[Array, "row term"],
  weight: Float[Array, "term"],
  group: Int[Array, "row"],
  valid: Bool[Array, "row term"],
  *,
  num_groups: int,
  scale: Scale,
  ddof: int,
  epsilon: float,
) -> tuple[Float[Array, "row"], Bool[Array, "row"]]:
  r"""Compare each reward within the group, then add the advantages.

      A = sum_k w_k group_relative(r_ik)

  Each reward is compared among the rows it judged, and adds nothing to the
  others; a row counts when any reward judged it. The second normalisation of
  GDPO, over the batch, is `whiten` of the result with ddof 1, epsilon 1e-4,
  guard "outside_root".

  Args:
    reward: r_ik, any units.
    weight: w_k, unitless where the terms are scaled.
    group: which prompt each row answers, in [0, num_groups).
    valid: false where a reward gave no verdict; it may hold anything there.
    num_groups: how many ids there are; static.
    scale: which spread divides; see `group_relative`.
    ddof: 0 for the population, 1 for the sample standard deviation.
    epsilon: added to the spread of each reward, in its unit.

  Returns:
    A_i, 0 where the row does not count, and which rows count.

  Raises:
    ValueError: as `group_relative`.

  Liu et al. 2026, arXiv:2601.05242 (GDPO); TRL,
  `multi_objective_aggregation="normalize_then_sum"` (scale "group", ddof 1,
  epsilon 1e-4).

  >>> advantage, valid = sum_of_relatives(
  ...   jnp.array([[1.0, 8.0], [0.0, 0.0], [jnp.nan, 4.0]]),
  ...   jnp.array([1.0, 0.5]),
  ...   jnp.zeros(3, jnp.int32),
  ...   jnp.array([[True, True], [True, True], [False, True]]),
  ...   num_groups=1,
  ...   scale="none",
  ...   ddof=0,
  ...   epsilon=0.0,
  ... )
  >>> advantage.tolist(), valid.tolist()
  ([2.5, -2.5, 0.0], [True, True, True])
  """
  if reward.shape[-1] == 0:
    raise ValueError("there are no rewards to add: reward has shape [row, 0]")

  def relative(reward, valid):
    return group_relative(
      reward,
      group,
      valid,
      num_groups=num_groups,
      scale=scale,
      ddof=ddof,
      epsilon=epsilon,
    )

  terms = jax.vmap(relative, in_axes=-1, out_axes=-1)(reward, valid)
  weight = jax.lax.stop_gradient(widened(weight))
  return jnp.sum(terms * weight[None], axis=-1), jnp.any(valid, axis=-1)
