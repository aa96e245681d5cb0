"""Dense rewards from unit tests, weighted by how hard and how rare they are.

VeRPO, arXiv:2601.03525. A row is a trajectory of turns (submissions of code);
every turn has passed some of the tests of its prompt. All statistics are
those of the trajectories of one prompt in the batch at hand: a test that few
turns pass weighs more, and tests that are passed equally often share the
weight of one. Versions 1 and 2 of the paper have the difficulty alone, which
is `density=False` here. No gradient flows through anything.

    rate   = pass_rates(passed, ...)                    one number for each test
    weight = verpo_test_weights(rate, test_mask, ...)
    reward = turn_rewards(passed, weight, mask, test_mask)
    A      = verpo_advantage(reward, outcome, mask, ...)  for each turn

`segments.spread_segments` of A gives every token that of its turn.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import jax
import jax.numpy as jnp

from rl_jax.advantages.groups import group_relative, informative_groups
from rl_jax.masks import keep, last_valid, widened
from rl_jax.reduce import Total

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float, Int

__all__ = [
  "degenerate_group_ratio",
  "discounted_outcome",
  "suite_passed",
  "turn_relative",
  "turn_rewards",
  "verpo_advantage",
]


def turn_rewards(
  passed: Float[Array, "row turn test"],
  weight: Float[Array, "row test"],
  mask: Bool[Array, "row turn"],
  test_mask: Bool[Array, "row test"],
) -> Float[Array, "row turn"]:
  """The weights of the tests that each turn passed, added up.

      R_it = sum_j w_j p_itj

  It is at most the sum of the weights: about the number of different levels
  of difficulty with density, not 1.

  Args:
    passed: p_itj.
    weight: w_j.
    mask: true = the turn exists.
    test_mask: true = the row's prompt has such a test.

  Returns:
    R_it, 0 for turns that do not exist.

  >>> passed = jnp.array([[[1.0, 0.0], [1.0, 1.0]]])
  >>> every = jnp.ones((1, 2), bool)
  >>> turn_rewards(passed, jnp.array([[0.25, 1.0]]), every, every).tolist()
  [[0.25, 1.25]]
  """
  counted = mask[..., None] & test_mask[:, None]
  weight = keep(jax.lax.stop_gradient(weight), test_mask)
  passed = keep(jax.lax.stop_gradient(passed), counted)
  return jnp.sum(passed * weight[:, None], axis=-1)


def suite_passed(
  passed: Float[Array, "row turn test"],
  mask: Bool[Array, "row turn"],
  test_mask: Bool[Array, "row test"],
) -> Float[Array, "row"]:
  """1 for a trajectory whose last turn passed all tests, else 0.

  The same execution as that of `passed`: an outcome from elsewhere could
  contradict it.

  Args:
    passed: p_itj.
    mask: true = the turn exists.
    test_mask: true = the row's prompt has such a test.

  Returns:
    R_i in {0, 1}; 0 for a trajectory without turns or without tests.
  """
  last = jnp.maximum(last_valid(mask), 0)
  final = jnp.take_along_axis(passed, last[:, None, None], axis=1)[:, 0]
  final = keep(jax.lax.stop_gradient(final), test_mask)
  all_of_them = jnp.all((final >= 1) | ~test_mask, axis=-1)
  some = jnp.any(mask, axis=-1) & jnp.any(test_mask, axis=-1)
  return (all_of_them & some).astype(final.dtype)


def discounted_outcome(
  outcome: Float[Array, "row"],
  num_turns: Int[Array, "row"],
  *,
  discount: float,
) -> Float[Array, "row"]:
  """Success that is worth less the more turns it took.

      R~_i = R_i gamma^{|tau_i|}

  Args:
    outcome: R_i.
    num_turns: turns of the trajectory, not negative.
    discount: gamma in (0, 1], per turn.

  Returns:
    R~_i.

  Raises:
    ValueError: if `discount` is not in (0, 1].
  """
  if not 0 < discount <= 1:
    raise ValueError(f"discount must be in (0, 1], got {discount}")
  outcome = jax.lax.stop_gradient(widened(outcome))
  return outcome * discount ** num_turns.astype(outcome.dtype)


def turn_relative(
  reward: Float[Array, "row turn"],
  mask: Bool[Array, "row turn"],
  group: Int[Array, "row"],
  *,
  num_groups: int,
  scale: Literal["none", "group"],
) -> Float[Array, "row turn"]:
  """Reward of each turn less the mean over all turns of its group.

      A_it = (R_it - mean_{i,t} R) / s,   s = 1 or std_{i,t} R + 1e-6

  Args:
    reward: R_it.
    mask: true = the turn exists.
    group: which prompt each row answers, in [0, num_groups).
    num_groups: how many ids there are; static.
    scale: "none" or, for the sample standard deviation, "group".

  Returns:
    A_it, 0 for turns that do not exist and in a group with one turn.

  Raises:
    ValueError: if the batch has less than two turns, or `num_groups` < 1.
  """
  if mask.size < 2:
    raise ValueError(
      f"needs two turns to compare, got turns of shape {mask.shape}"
    )
  relative = group_relative(
    reward.reshape(-1),
    jnp.repeat(group, mask.shape[-1]),
    mask.reshape(-1),
    num_groups=num_groups,
    scale=scale,
    ddof=1,
    epsilon=1e-6,
  )
  return relative.reshape(mask.shape)


def verpo_advantage(
  reward: Float[Array, "row turn"],
  outcome: Float[Array, "row"],
  mask: Bool[Array, "row turn"],
  group: Int[Array, "row"],
  *,
  num_groups: int,
  beta: float,
  scale: Literal["none", "group"],
) -> Float[Array, "row turn"]:
  """Advantage of each turn: of its trajectory, and of its own reward.

      A_it = (R~_i - mean_i R~) / s_traj + beta (R_it - mean_{i,t} R) / s_turn

  Means are over the trajectories and over the turns of a group. Both s are 1
  with scale "none", the paper's choice, and else the sample standard
  deviation over the same set + 1e-6 (this number is not published).

  Args:
    reward: R_it of the turns.
    outcome: R~_i, discounted or not.
    mask: true = the turn exists; a row without any has no outcome either.
    group: which prompt each row answers, in [0, num_groups).
    num_groups: how many ids there are; static.
    beta: weight of the turns.
    scale: what both parts are divided by.

  Returns:
    A_it, 0 for turns that do not exist and in a group with one turn.

  Raises:
    ValueError: if the batch has less than two turns, or `num_groups` < 1.

  >>> verpo_advantage(
  ...   jnp.array([[0.25], [0.75]]),
  ...   jnp.array([0.0, 1.0]),
  ...   jnp.ones((2, 1), bool),
  ...   jnp.array([0, 0]),
  ...   num_groups=1,
  ...   beta=1.0,
  ...   scale="none",
  ... ).tolist()
  [[-0.75], [0.75]]
  """
  turn = turn_relative(reward, mask, group, num_groups=num_groups, scale=scale)
  trajectory = group_relative(
    outcome,
    group,
    mask.any(axis=-1),
    num_groups=num_groups,
    scale=scale,
    ddof=1,
    epsilon=1e-6,
  )
  return keep(trajectory[:, None] + beta * turn, mask)


def degenerate_group_ratio(
  reward: Float[Array, "row turn"],
  mask: Bool[Array, "row turn"],
  group: Int[Array, "row"],
  *,
  num_groups: int,
) -> Total:
  """Share of the groups whose rewards are all the same: nothing to learn.

      value = #{g: max_g R = min_g R},   weight = #{g: g has a turn}

  Args:
    reward: one number for each turn, or for each response as [row, 1].
    mask: true = counts.
    group: which prompt each row answers, in [0, num_groups).
    num_groups: how many ids there are; static.

  Returns:
    The Total whose mean is the share.

  Raises:
    ValueError: if `num_groups` < 1.

  >>> reward = jnp.array([[1.0], [1.0], [0.0], [1.0]])
  >>> degenerate_group_ratio(
  ...   reward, jnp.ones((4, 1), bool), jnp.array([0, 0, 1, 1]), num_groups=2
  ... ).mean().item()
  0.5
  """
  turns = mask.shape[-1]
  each, counts = jnp.repeat(group, turns), mask.reshape(-1)
  reward = jax.lax.stop_gradient(widened(reward)).reshape(-1)
  alive = informative_groups(reward, each, counts, num_groups=num_groups)

  def groups(row: jax.Array) -> jax.Array:
    some = jax.ops.segment_max(row.astype(jnp.int32), each, num_groups)
    return jnp.sum(some > 0, dtype=jnp.float32)

  present = groups(counts)
  return Total(present - groups(alive), present)
