"""TP-GRPO as the credit of a `PolicyRecipe`."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, ClassVar

import jax.numpy as jnp

from rl_jax.advantages.groups import group_mean
from rl_jax.advantages.tp_grpo import merge_thoughts, tp_grpo_advantage
from rl_jax.algorithms.policy_records import (
  PolicyBatch,
  Signals,
  dense_group,
  found,
)
from rl_jax.reduce import Total

if TYPE_CHECKING:
  from jaxtyping import Array, Float

__all__ = ["TpGrpo"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TpGrpo:
  """Each token has what its thought and all later ones earn.

  See `advantages.tp_grpo_advantage`. The baseline must give rh, the outcome
  standardised within its group: for the paper `group_relative` with scale
  "group", ddof 1 and epsilon 1e-6 of rewards +1 and -1. Process rewards are
  not standardised. Outcomes, labels and steps come from a note of the judge,
  `rewards.verifiers.Thoughts`; the accuracy r_c is made of is the mean of its
  "correct", not of rewards.

  The paper's off-policy rounds are `PolicyOptimisation(refresh=50)`: one
  policy writes the responses of 50 loop steps, ratios are taken to its
  log-probabilities, and the 50 updates come in the order of the responses.
  What is drawn in a step is a function of the acting policy, the prompts and
  the step, so it is what would have been drawn for all 50 steps at once.
  `behaviour="sampler"` takes the stored log-probabilities themselves,
  "recomputed" the same policy's as the trainer computes them.

  Raises:
    ValueError: if `alpha` or `static_reward` is negative.
  """

  wants: ClassVar[tuple[str, ...]] = ("correct", "label", "step")

  alpha: float = 1.0
  """Of r_c = alpha acc, units of rh; the paper's is not published."""
  static_reward: float | None = None
  """Size of the reward of a thought without the answer; None is the method."""
  merge: bool = True
  """Whether runs of equal labels are one thought; true is the method."""

  def __post_init__(self) -> None:
    sizes = (self.alpha, self.static_reward or 0.0)
    if not all(0 <= size < math.inf for size in sizes):
      raise ValueError(
        "alpha and static_reward must be finite and not negative, got"
        f" {self.alpha} and {self.static_reward}"
      )

  def __call__(
    self, batch: PolicyBatch, compared: Float[Array, "row"]
  ) -> tuple[Float[Array, "row time"], None]:
    """Advantages; 0 for rows without labels."""
    correct = found(batch, "correct")
    group, rows = dense_group(batch), batch.group.shape[0]
    share = correct.astype(jnp.float32)
    accuracy = group_mean(share, group, batch.valid, num_groups=rows)
    return tp_grpo_advantage(
      compared,
      accuracy,
      correct,
      found(batch, "label"),
      found(batch, "step"),
      batch.mask,
      alpha=self.alpha,
      static_reward=self.static_reward,
      merge=self.merge,
    ), None

  def watch(
    self, batch: PolicyBatch, signals: Signals, *, num_groups: int
  ) -> dict[str, Total]:
    """Rows without labels; steps labelled 0, by outcome; thoughts of a row.

    The first is a share of the rows that count, the next two of the steps of
    correct and of wrong responses. Each is 0 without weight where there is
    none.
    """
    del signals, num_groups
    label, correct = found(batch, "label"), found(batch, "correct")
    there = (label >= 0) & batch.valid[:, None]
    some = jnp.any(there, axis=-1)
    thoughts = jnp.max(merge_thoughts(label), axis=-1, initial=-1) + 1

    def share(part, whole):
      return Total(
        jnp.sum(part & whole, dtype=jnp.float32),
        jnp.sum(whole, dtype=jnp.float32),
      )

    return {
      "tp_unlabelled": share(~some, batch.valid),
      "tp_taken_back": share(label == 0, there & correct[:, None]),
      "tp_mismatched": share(label == 0, there & ~correct[:, None]),
      "tp_thoughts": Total(
        jnp.sum(jnp.where(some, thoughts, 0), dtype=jnp.float32),
        jnp.sum(some, dtype=jnp.float32),
      ),
    }
