"""VeRPO in the training step: tests passed as rewards of turns."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal

import jax.numpy as jnp

from rl_jax.advantages.groups import group_relative
from rl_jax.advantages.segments import spread_segments
from rl_jax.advantages.suite_weights import pass_rates, verpo_test_weights
from rl_jax.advantages.verpo import (
  degenerate_group_ratio,
  discounted_outcome,
  suite_passed,
  turn_relative,
  turn_rewards,
)
from rl_jax.algorithms.components import WithinGroup
from rl_jax.algorithms.policy_records import (
  PolicyBatch,
  Signals,
  dense_group,
  found,
)
from rl_jax.reduce import Total, over_tokens

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float, Int

__all__ = ["SuiteOutcome", "Verpo"]

_WANTS = ("passed", "turn_mask", "test_mask")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SuiteOutcome:
  """The reward of a trajectory: 1 if its last turn passed all, discounted.

  Made of the execution that the turns are rewarded by; the reward that the
  judge gave is not looked at.

  Raises:
    ValueError: if `discount` is not in (0, 1].
  """

  discount: float = 1.0
  """Per turn."""
  wants: ClassVar[tuple[str, ...]] = _WANTS

  def __post_init__(self) -> None:
    if not 0 < self.discount <= 1:
      raise ValueError(f"discount must be in (0, 1], got {self.discount}")

  def __call__(
    self, batch: PolicyBatch, reward: Float[Array, "row"]
  ) -> Float[Array, "row"]:
    """The outcome."""
    del reward
    passed, mask, test_mask = _results(batch)
    return discounted_outcome(
      suite_passed(passed, mask, test_mask),
      jnp.sum(mask, axis=-1),
      discount=self.discount,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verpo:
  """Credit: what a row was compared to, and the tests that each turn passed.

      A_t = compared + beta (R_turn - mean of the turns of the group)

  on every token of the turn. The paper's method is this with the two
  properties in their slots:

      PolicyRecipe(
        shaping=(verpo.outcome,), baseline=verpo.trajectory, credit=verpo, ..
      )

  It wants "passed" [turn, test], "turn_mask" and "test_mask", and for more
  than one turn "turn", which turn a token is in, -1 for those that the policy
  did not write; `rewards.verifiers.SuiteNote` gives all of them.

  Raises:
    ValueError: if a number is out of range.

  VeRPO, arXiv:2601.03525. Its alpha is published; sigma, delta, beta and a
  discount of .9 for several turns are not, and these are plausible values.
  """

  alpha: float = 2.0
  """How much less a test that all pass is worth, in nats."""
  sigma: float = 0.1
  """Tests whose pass rates are closer than about this share a weight."""
  delta: float = 1e-6
  """Added to the number of tests that share."""
  discount: float = 1.0
  """Gamma of `outcome`, per turn; .9 for several."""
  beta: float = 1.0
  """Weight of the turns. Their reward may reach the number of different
  levels of difficulty, so watch both scales."""
  density: bool = True
  """Whether tests share weights; false is version 1 of the paper."""
  normaliser: Literal["none", "std", "weight_sum"] = "none"
  """Nothing; the sample standard deviation, of trajectories and of turns; or
  the sum of the weights of a prompt, so that R_turn is at most 1."""
  wants: ClassVar[tuple[str, ...]] = _WANTS

  def __post_init__(self) -> None:
    SuiteOutcome(discount=self.discount)
    if min(self.alpha, self.delta, self.beta) < 0 or not self.sigma > 0:
      raise ValueError(
        "alpha, delta and beta must not be negative and sigma positive, got"
        f" {self.alpha}, {self.delta}, {self.beta} and {self.sigma}"
      )

  @property
  def outcome(self) -> SuiteOutcome:
    """For `shaping`."""
    return SuiteOutcome(discount=self.discount)

  @property
  def trajectory(self) -> WithinGroup:
    """For `baseline`."""
    estimator = partial(group_relative, scale=self._scale, ddof=1, epsilon=1e-6)
    return WithinGroup(estimator=estimator)

  @property
  def _scale(self) -> Literal["none", "group"]:
    return "group" if self.normaliser == "std" else "none"

  def rewards(
    self, batch: PolicyBatch, group: Int[Array, "row"], *, num_groups: int
  ) -> Float[Array, "row turn"]:
    """R_turn.

    Args:
      batch: all rows.
      group: ids in [0, num_groups).
      num_groups: how many there are; static.

    Returns:
      One number for each turn, 0 for those that do not exist.
    """
    passed, mask, test_mask = _results(batch)
    weight = verpo_test_weights(
      pass_rates(passed, mask, test_mask, group, num_groups=num_groups),
      test_mask,
      alpha=self.alpha,
      sigma=self.sigma,
      delta=self.delta,
      density=self.density,
      sum_to_one=self.normaliser == "weight_sum",
    )
    return turn_rewards(passed, weight, mask, test_mask)

  def __call__(
    self, batch: PolicyBatch, compared: Float[Array, "row"]
  ) -> tuple[Float[Array, "row time"], None]:
    """Advantages of the tokens."""
    group, rows = dense_group(batch), batch.group.shape[0]
    relative = turn_relative(
      self.rewards(batch, group, num_groups=rows),
      _results(batch)[1],
      group,
      num_groups=rows,
      scale=self._scale,
    )
    turns = compared[:, None] + self.beta * relative
    # A token of a turn that was not judged shows as NaN.
    turns = jnp.where(_results(batch)[1], turns, jnp.nan)
    return spread_segments(turns, _turn(batch, turns.shape[-1])), None

  def watch(
    self, batch: PolicyBatch, signals: Signals, *, num_groups: int
  ) -> dict[str, Total]:
    """Groups that teach nothing, and the scale of both parts.

    Args:
      batch: all rows.
      signals: not looked at.
      num_groups: how many ids `batch.group` may hold; static.

    Returns:
      Shares of groups whose outcomes, and whose fused rewards, are all the
      same; means of |A_traj| and of beta |A_turn| over turns.
    """
    del signals
    _, mask, _ = _results(batch)
    group = batch.group
    reward = self.rewards(batch, group, num_groups=num_groups)
    outcome = self.outcome(batch, batch.reward)[:, None]
    outcome = jnp.broadcast_to(outcome, mask.shape)

    def degenerate(value: Float[Array, "row turn"]) -> Total:
      return degenerate_group_ratio(value, mask, group, num_groups=num_groups)

    whole = batch._replace(valid=mask.any(axis=-1))
    trajectory = self.trajectory(whole, outcome[:, 0], num_groups=num_groups)
    turn = turn_relative(
      reward, mask, group, num_groups=num_groups, scale=self._scale
    )
    wide = jnp.broadcast_to(jnp.abs(trajectory)[:, None], mask.shape)
    return {
      "verpo_outcome_degenerate": degenerate(outcome),
      "verpo_degenerate": degenerate(outcome + self.beta * reward),
      "verpo_trajectory_scale": over_tokens(wide, mask),
      "verpo_turn_scale": over_tokens(self.beta * jnp.abs(turn), mask),
    }


def _results(
  batch: PolicyBatch,
) -> tuple[
  Float[Array, "row turn test"],
  Bool[Array, "row turn"],
  Bool[Array, "row test"],
]:
  """Results of tests, NaN for what is none; turns of rows that count."""
  passed, mask, test_mask = (found(batch, name) for name in _WANTS)
  passed = passed.astype(jnp.float32)
  return (
    jnp.where((passed >= 0) & (passed <= 1), passed, jnp.nan),
    mask.astype(bool) & batch.valid[:, None],
    test_mask.astype(bool),
  )


def _turn(batch: PolicyBatch, turns: int) -> Int[Array, "row time"]:
  """Which turn each token is in."""
  if turns == 1 and "turn" not in (batch.extra or {}):
    return jnp.where(batch.mask, 0, -1)
  return jnp.where(batch.mask, found(batch, "turn"), -1)
