"""Baselines: what is subtracted from a reward before it weighs a gradient.

A baseline that does not depend on the row's own action leaves the expected
policy gradient as it is and changes only its variance. The functions say
whether theirs depends on it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import jax
import jax.numpy as jnp

from rl_jax.advantages.groups import group_relative, group_size
from rl_jax.masks import keep, widened

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float, Int

__all__ = [
  "MovingBaseline",
  "above_baseline",
  "init_moving_baseline",
  "leave_one_out",
  "length_weighted_relative",
  "nonzero_relative",
  "update_moving_baseline",
]


class MovingBaseline(NamedTuple):
  """An exponential average of the rewards of past batches.

  Attributes:
    mean: the baseline, in units of reward; 0 before the first batch.
    weight: how much of the average is filled, in [0, 1]; it keeps the mean of
      the first batches from being pulled to zero.
  """

  mean: Float[Array, ""]
  weight: Float[Array, ""]


def init_moving_baseline() -> MovingBaseline:
  """The baseline before any batch.

  Returns:
    The state that `update_moving_baseline` starts from.

  >>> init_moving_baseline().mean.item()
  0.0
  """
  return MovingBaseline(jnp.zeros(()), jnp.zeros(()))


def update_moving_baseline(
  state: MovingBaseline,
  reward: Float[Array, "row"],
  valid: Bool[Array, "row"],
  *,
  decay: float,
) -> MovingBaseline:
  r"""Average the mean reward of a batch into the baseline.

      w' = decay w + 1 - decay
      m' = (decay w m + (1 - decay) mean(r)) / w'

  Subtract the mean of the state from *before* the batch: it does not depend
  on the batch's actions, so the expected gradient keeps its value. The
  updated one contains them.

  Args:
    state: the baseline so far.
    reward: r_i, any unit. No gradient flows through it.
    valid: false for rows that do not count; without any the state stays.
    decay: how much of the past a batch keeps, in [0, 1).

  Returns:
    The baseline for the next batch.

  Raises:
    ValueError: if `decay` is not in [0, 1).

  Williams 1992, section 4 (reinforcement comparison); the division by the
  weight as in Adam, Kingma and Ba 2015, arXiv:1412.6980.

  >>> state, kept = init_moving_baseline(), jnp.ones(2, bool)
  >>> reward = jnp.array([1.0, 3.0])
  >>> state = update_moving_baseline(state, reward, kept, decay=0.5)
  >>> state.mean.item(), state.weight.item()
  (2.0, 0.5)
  """
  if not 0 <= decay < 1:
    raise ValueError(f"decay must be in [0, 1), got {decay}")
  reward = jax.lax.stop_gradient(keep(reward, valid))
  count = jnp.sum(valid).astype(reward.dtype)
  mean = jnp.sum(reward) / jnp.maximum(count, 1.0)
  weight = decay * state.weight + (1.0 - decay)
  # A step towards the mean, so that a constant reward is its own average.
  average = state.mean + (1.0 - decay) / weight * (mean - state.mean)
  some = count > 0
  return MovingBaseline(
    jnp.where(some, average, state.mean), jnp.where(some, weight, state.weight)
  )


def above_baseline(
  signal: Float[Array, "*batch time"],
  baseline: Float[Array, "*batch"],
  mask: Bool[Array, "*batch time"],
) -> Float[Array, "*batch time"]:
  """What is left of a return when a baseline of its row is subtracted.

      A_t = G_t - b

  A constant or moving b is REINFORCE with a baseline, the reward of the
  greedy response to the same prompt is ReMax. Neither depends on the sampled
  action, so the expected gradient keeps its value.

  Args:
    signal: G_t, such as `discounted_returns`, any unit.
    baseline: b of the row, same unit.
    mask: true = counts.

  Returns:
    A_t, 0 where `mask` is false; carries no gradient.

  Williams 1992; Li et al. 2023, arXiv:2310.10505 (ReMax), algorithm 1.

  >>> signal, mask = jnp.array([[3.0, 2.0]]), jnp.array([[True, True]])
  >>> above_baseline(signal, jnp.array([0.5]), mask).tolist()
  [[2.5, 1.5]]
  """
  above = widened(signal) - widened(baseline)[..., None]
  return jax.lax.stop_gradient(keep(above, mask))


def leave_one_out(
  reward: Float[Array, "row"],
  group: Int[Array, "row"],
  valid: Bool[Array, "row"],
  *,
  num_groups: int,
) -> Float[Array, "row"]:
  r"""Reward minus the mean of the *other* rows of the group.

      A_i = r_i - mean_{j in g(i), j != i} r_j = n / (n - 1) (r_i - m_g(i))

  The baseline does not depend on the row's own action: the expected gradient
  is exact, where the group mean gives (n - 1) / n of it.

  Args:
    reward: r_i, any unit. No gradient flows through it.
    group: which prompt each row answers, in [0, num_groups). Groups may be
      ragged, interleaved and permuted.
    valid: false for rows that do not count.
    num_groups: how many ids there are; static.

  Returns:
    A_i in units of reward. A row alone in its group has no baseline and gets
    exactly 0, as in `group_relative`; so does an invalid row.

  Raises:
    ValueError: if `num_groups` < 1 or the batch has less than two rows.

  Kool et al. 2019; Ahmadian et al. 2024, arXiv:2402.14740 (RLOO).

  >>> leave_one_out(
  ...   jnp.array([1.0, 0.0, 0.5]),
  ...   jnp.zeros(3, jnp.int32),
  ...   jnp.ones(3, bool),
  ...   num_groups=1,
  ... ).tolist()
  [0.75, -0.75, 0.0]
  """
  if reward.shape[0] < 2:
    raise ValueError(
      f"leaving one out needs two rows at least, got {reward.shape[0]}"
    )
  centred = _centred(reward, group, valid, num_groups)
  count = group_size(group, valid, num_groups=num_groups).astype(centred.dtype)
  return centred * count / jnp.maximum(count - 1.0, 1.0)


def length_weighted_relative(
  reward: Float[Array, "row"],
  tokens: Float[Array, "row"],
  group: Int[Array, "row"],
  valid: Bool[Array, "row"],
  *,
  num_groups: int,
) -> Float[Array, "row"]:
  r"""Reward minus the mean of its group weighted by length.

      A_i = r_i - sum_{j in g(i)} l_j r_j / sum_{j in g(i)} l_j

  The baseline of least variance, if the squared gradient of a response grows
  with its length. It depends on the row's own action: the expected gradient
  shrinks by the row's share of the tokens.

  Args:
    reward: r_i, any unit. No gradient flows through it.
    tokens: l_j, counted tokens of the response.
    group: which prompt each row answers, in [0, num_groups).
    valid: false for rows that do not count.
    num_groups: how many ids there are; static.

  Returns:
    A_i in units of reward. A row alone in its group, rows of a group with
    equal rewards or without tokens, and invalid rows have exactly 0.

  Raises:
    ValueError: if `num_groups` < 1.

  Hao et al. 2025, arXiv:2505.23585 (OPO).

  >>> length_weighted_relative(
  ...   jnp.array([4.0, 0.0]),
  ...   jnp.array([1.0, 3.0]),
  ...   jnp.zeros(2, jnp.int32),
  ...   jnp.ones(2, bool),
  ...   num_groups=1,
  ... ).tolist()
  [3.0, -1.0]
  """
  # Around the group's mean, which leaves the formula as it is and makes a
  # group of equal rewards exactly zero.
  centred = _centred(reward, group, valid, num_groups)
  tokens = jax.lax.stop_gradient(keep(tokens, valid))
  total = jax.ops.segment_sum(tokens, group, num_groups)
  weighted = jax.ops.segment_sum(tokens * centred, group, num_groups)
  some = valid & (total > 0)[group]
  baseline = (weighted / jnp.where(total > 0, total, 1.0))[group]
  return jnp.where(some, centred - baseline, 0.0)


def nonzero_relative(
  reward: Float[Array, "row"],
  group: Int[Array, "row"],
  valid: Bool[Array, "row"],
  *,
  num_groups: int,
  count: Literal["reward", "advantage"],
) -> Float[Array, "row"]:
  r"""Reward minus its group's mean, scaled up for the rows that say nothing.

      A_i = alpha (r_i - m_g(i)),   alpha = B / max(1, #nonzero)

      count "reward":     rows whose reward is not 0, as the code of verl
      count "advantage":  rows whose r_i - m_g(i) is not 0

  B counts the valid rows of the batch.

  Args:
    reward: r_i, any unit. No gradient flows through it.
    group: which prompt each row answers, in [0, num_groups).
    valid: false for rows that do not count.
    num_groups: how many ids there are; static.
    count: what is counted. Only "advantage" does not change when a constant
      is added to all rewards.

  Returns:
    A_i in units of reward; 0 for a row alone in its group.

  Raises:
    ValueError: for an unknown count, or if `num_groups` < 1.

  Chu et al. 2025, arXiv:2504.02546 (GPG). The paper corrects for the samples
  of groups without a gradient, "advantage" up to rewards at their mean.

  >>> nonzero_relative(
  ...   jnp.array([1.0, 0.0, 0.5]),
  ...   jnp.zeros(3, jnp.int32),
  ...   jnp.ones(3, bool),
  ...   num_groups=1,
  ...   count="reward",
  ... ).tolist()
  [0.75, -0.75, 0.0]
  """
  if count not in ("reward", "advantage"):
    raise ValueError(f"count must be 'reward' or 'advantage', got {count!r}")
  centred = _centred(reward, group, valid, num_groups)
  signal = keep(reward, valid) if count == "reward" else centred
  rows = jnp.sum(valid).astype(centred.dtype)
  nonzero = jnp.sum(signal != 0).astype(centred.dtype)
  return rows / jnp.maximum(nonzero, 1.0) * centred


def _centred(reward, group, valid, num_groups):
  """Reward minus the mean of its group, exactly 0 where that says nothing."""
  return group_relative(
    reward,
    group,
    valid,
    num_groups=num_groups,
    scale="none",
    ddof=0,
    epsilon=0.0,
  )
