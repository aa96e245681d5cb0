"""GREAM's advantage: a graded reward, and a bonus for what is exact."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar

import jax.numpy as jnp

from rl_jax.advantages.gream import bonus_calibrated
from rl_jax.algorithms.policy_records import PolicyBatch, Signals, found
from rl_jax.masks import keep
from rl_jax.reduce import Total

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float

__all__ = ["BonusCalibrated"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class BonusCalibrated:
  """The baseline of `advantages.bonus_calibrated`.

  The judge says which rows are exact, in an array `exact`
  (`rewards.verifiers.items.ItemNotes`): a reward of 1 is no proof.

  Raises:
    ValueError: if `k` or `ddof` is out of range or `epsilon` negative.
  """

  wants: ClassVar[tuple[str, ...]] = ("exact",)
  compares: ClassVar[bool] = True

  k: int = 4
  """Tries of the bonus; at most the rows of a group."""
  ddof: int = 1
  """Of the spread of rewards: 1 for the sample standard deviation."""
  epsilon: float = 1e-6
  """Added to the spreads of rewards and of the bonus."""

  def __post_init__(self) -> None:
    if self.k < 1 or self.ddof not in (0, 1) or not self.epsilon >= 0:
      raise ValueError(
        "k must be at least 1, ddof 0 or 1 and epsilon not negative, got"
        f" {self.k}, {self.ddof} and {self.epsilon}"
      )

  def __call__(
    self, batch: PolicyBatch, reward: Float[Array, "row"], *, num_groups: int
  ) -> Float[Array, "row"]:
    """The advantage of each row.

    Raises:
      ValueError: if groups have fewer rows than tries on average.
    """
    rows = reward.shape[0]
    if rows < self.k * num_groups:
      raise ValueError(
        f"the best of k = {self.k} tries needs groups of k rows;"
        f" {num_groups} groups share {rows}"
      )
    return bonus_calibrated(
      reward,
      self._exact(batch),
      batch.group,
      batch.valid,
      num_groups=num_groups,
      k=self.k,
      ddof=self.ddof,
      epsilon=self.epsilon,
    )

  def watch(
    self, batch: PolicyBatch, signals: Signals, *, num_groups: int
  ) -> dict[str, Total]:
    """Shares of exact rows, and of groups that have one."""
    exact = self._exact(batch) & batch.valid
    some = jnp.zeros(num_groups, bool).at[batch.group].max(exact)
    there = jnp.zeros(num_groups, bool).at[batch.group].max(batch.valid)
    teaches = jnp.any(signals.advantage != 0, axis=-1)
    alive = jnp.zeros(num_groups, bool).at[batch.group].max(teaches)
    return {
      "exact": _share(exact, batch.valid),
      "groups_with_exact": _share(some, there),
      "groups_with_advantage": _share(alive, there),
    }

  def _exact(self, batch: PolicyBatch) -> Bool[Array, "row"]:
    return found(batch, "exact").astype(bool)


def _share(true: Bool[Array, "n"], counts: Bool[Array, "n"]) -> Total:
  """How many of those that count."""
  one = jnp.ones(true.shape, jnp.float32)
  return Total(jnp.sum(keep(one, true & counts)), jnp.sum(keep(one, counts)))
