"""Advantages of thoughts: process rewards that add up to the outcome."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from rl_jax.advantages.segments import (
  at_segment_ends,
  spread_segments,
  suffix_sums,
)
from rl_jax.masks import keep, last_valid, widened

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float, Int

__all__ = [
  "merge_thoughts",
  "sample_efficiency",
  "step_rewards",
  "tp_grpo_advantage",
]


def merge_thoughts(label: Int[Array, "row step"]) -> Int[Array, "row step"]:
  """Which thought each step is in: a thought is a run of equal labels.

      j_k = #{i <= k: label_i != label of the step before i}

  Args:
    label: of each step; negative = there is no such step.

  Returns:
    j_k from 0, and -1 where there is no step.

  Good Learners Think Their Thinking, arXiv:2507.23317 (TP-GRPO).

  >>> merge_thoughts(jnp.array([[1, 0, 0, 1, -1]])).tolist()
  [[0, 1, 1, 2, -1]]
  """
  there = label >= 0
  place = jnp.where(there, jnp.arange(label.shape[-1])[None], -1)
  before = jnp.pad(
    jax.lax.cummax(place, axis=1)[:, :-1], ((0, 0), (1, 0)), constant_values=-1
  )
  old = jnp.take_along_axis(label, jnp.maximum(before, 0), axis=1)
  change = there & (before >= 0) & (label != old)
  return jnp.where(there, jnp.cumsum(change.astype(jnp.int32), axis=-1), -1)


def step_rewards(
  relative: Float[Array, "row"],
  accuracy: Float[Array, "row"],
  correct: Bool[Array, "row"],
  label: Int[Array, "row step"],
  *,
  alpha: float,
  static_reward: float | None,
  merge: bool,
) -> Float[Array, "row step"]:
  r"""What each thought earns, at its last step.

      the thought that holds the answer:    rh
      of a correct response:                + r_c if label = 1, - r_c if 0
      of a wrong response:                  rh if label = 1, - rh if 0
      r_c = alpha acc

  The answer is the last step, and its label is 1 whatever is given. A label
  means another thing for a wrong response (1: the answer adopts the step)
  than for a correct one (1: the step is right). - rh is a positive reward.
  The thought of the answer earns the outcome only: with r_c besides, all that
  stands before it would be moved by r_c.

  Args:
    relative: rh, the outcome compared with those of the other responses.
    accuracy: acc, the share of correct responses to the prompt, in [0, 1];
      not the mean of outcomes of +1 and -1.
    correct: whether the outcome is right.
    label: 0 or 1 for each step, the answer being the last; negative = there
      is no such step.
    alpha: of r_c, positive or 0.
    static_reward: s; r_c and rh of a thought without the answer become s and
      -s, for the ablation. None is the method.
    merge: false makes each step a thought, for the ablation.

  Returns:
    Rewards in units of rh, 0 elsewhere.

  Raises:
    ValueError: if `alpha` or `static_reward` is negative.

  >>> step_rewards(
  ...   jnp.array([0.5]),
  ...   jnp.array([0.75]),
  ...   jnp.array([True]),
  ...   jnp.array([[1, 0, 0, 1]]),
  ...   alpha=1.0,
  ...   static_reward=None,
  ...   merge=True,
  ... ).tolist()
  [[0.75, 0.0, -0.75, 0.5]]
  """
  given = {"alpha": alpha, "static_reward": static_reward or 0.0}
  for name, value in given.items():
    if not 0 <= value < math.inf:
      raise ValueError(
        f"{name} must be finite and not negative, got {value}: signs are those"
        " of the labels"
      )
  relative = jax.lax.stop_gradient(widened(relative))
  accuracy = jax.lax.stop_gradient(widened(accuracy))
  there = label >= 0
  place = jnp.arange(label.shape[-1])[None]
  answer = place == last_valid(there)[:, None]
  label = jnp.where(answer, 1, label)
  if static_reward is None:
    size = jnp.where(correct, alpha * accuracy, relative)
  else:
    size = jnp.where(correct, static_reward, -static_reward)
  signed = jnp.where(label == 1, size[:, None], -size[:, None])
  reward = jnp.where(answer, relative[:, None], signed)
  each = jnp.cumsum(there.astype(jnp.int32), axis=-1) - 1
  thought = merge_thoughts(label) if merge else jnp.where(there, each, -1)
  ends = at_segment_ends(jnp.ones_like(reward), thought) > 0
  return keep(reward, ends)


def tp_grpo_advantage(
  relative: Float[Array, "row"],
  accuracy: Float[Array, "row"],
  correct: Bool[Array, "row"],
  label: Int[Array, "row step"],
  step: Int[Array, "row time"],
  mask: Bool[Array, "row time"],
  *,
  alpha: float,
  static_reward: float | None,
  merge: bool,
) -> Float[Array, "row time"]:
  r"""A token's advantage is what its thought and all later ones earn.

      A_t = sum_{k >= k_t} r_k        r_k = `step_rewards`

  Labels of thoughts alternate, so that the sum telescopes (Propositions 1 and
  2 of the paper):

      correct response:  A = rh where label = 1,  rh - r_c where label = 0
      wrong response:    A = rh where label = 1,  0 where label = 0

  and A = rh for the answer. All labels 1, or alpha 0 and a correct response:
  the group-relative advantage of the outcome alone.

  Args:
    relative: rh of each response, standardised within its group: for the
      paper `group_relative` with scale "group", ddof 1 and epsilon 1e-6.
    accuracy: acc of its group, in [0, 1]; `group_mean` of `correct`.
    correct: whether the outcome is right.
    label: as in `step_rewards`; the answer is the last step of a row.
    step: k_t, which step a token is in; negative = in none. See
      `check_segments`.
    mask: true = counts.
    alpha: as in `step_rewards`.
    static_reward: as in `step_rewards`.
    merge: as in `step_rewards`.

  Returns:
    A_t in units of rh; 0 where the mask is false, where a token is in no
    step, and in a row without labels. NaN where there is no such column, or
    the step has no label and others of the row do.

  Raises:
    ValueError: if `alpha` or `static_reward` is negative.

  Good Learners Think Their Thinking, arXiv:2507.23317 (TP-GRPO). Which unit
  carries the outcome was reconstructed from its propositions.

  >>> tp_grpo_advantage(
  ...   jnp.array([0.5]),
  ...   jnp.array([0.75]),
  ...   jnp.array([True]),
  ...   jnp.array([[1, 0, 1]]),
  ...   jnp.array([[0, 0, 1, 2]]),
  ...   jnp.ones((1, 4), bool),
  ...   alpha=1.0,
  ...   static_reward=None,
  ...   merge=True,
  ... ).tolist()
  [[0.5, 0.5, -0.25, 0.5]]
  """
  earned = step_rewards(
    relative,
    accuracy,
    correct,
    label,
    alpha=alpha,
    static_reward=static_reward,
    merge=merge,
  )
  there = label >= 0
  value = suffix_sums(earned, there)
  # A gap between labels must not pass for a row without any.
  value = jnp.where(there | ~jnp.any(there, axis=1)[:, None], value, jnp.nan)
  return keep(spread_segments(value, step), mask)


def sample_efficiency(*, score: float, base: float, solutions: int) -> float:
  """Gain per sampled solution, times 1e5.

      (score - base) / n * 1e5

  Args:
    score: after training, in points of 100.
    base: before it.
    solutions: n, how many were sampled.

  Returns:
    Points per 100 000 solutions.

  Raises:
    ValueError: if `solutions` < 1.

  TP-GRPO, arXiv:2507.23317, section on efficiency.

  >>> sample_efficiency(score=51.0, base=50.0, solutions=1000)
  100.0
  """
  if solutions < 1:
    raise ValueError(f"solutions must be at least 1, got {solutions}")
  return (score - base) / solutions * 1e5
