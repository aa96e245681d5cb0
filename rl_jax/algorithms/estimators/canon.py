"""CANON as the baseline of a `PolicyRecipe`."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar, Literal

import jax.numpy as jnp

from rl_jax import advantages
from rl_jax.advantages import canon
from rl_jax.algorithms.policy_records import (
  PolicyBatch,
  Signals,
  found,
  needed,
)
from rl_jax.masks import keep
from rl_jax.reduce import Total

if TYPE_CHECKING:
  from jaxtyping import Array, Float

  from rl_jax.algorithms.view import View

__all__ = ["Canon", "MuSchedule"]

ENTROPY = "mean_token_entropy"


@dataclasses.dataclass(frozen=True, kw_only=True)
class MuSchedule:
  """A weight mu that changes as training does; see `advantages.mu_schedule`.

  Raises:
    ValueError: if the cosine has no step for each of its cycles.
  """

  kind: Literal[
    "cosine_first_intra",
    "cosine_first_inter",
    "accuracy_first_intra",
    "accuracy_first_inter",
  ]
  """By the loop step, or by the mean reward of the batch as the judge gave it,
  for rewards of 0 and 1."""
  warm_up: int = 30
  """Loop steps of the cosine's rise."""
  total: int = 150
  """Loop steps of its rise and its cycles."""
  cycles: int = 3
  """How often it falls."""

  def __post_init__(self) -> None:
    if not (
      self.warm_up >= 0 and 1 <= self.cycles <= self.total - self.warm_up
    ):
      raise ValueError(
        "needs a warm_up of at least 0 and a step for each of at least one"
        f" cycle, got {self}"
      )

  def __call__(self, batch: PolicyBatch) -> Float[Array, ""]:
    """Mu of this loop step."""
    total = Total(
      jnp.sum(keep(batch.reward, batch.valid)),
      jnp.sum(batch.valid, dtype=jnp.float32),
    )
    return canon.mu_schedule(
      jnp.max(needed(batch.step, "step")),
      total.mean(),
      kind=self.kind,
      warm_up=self.warm_up,
      total=self.total,
      cycles=self.cycles,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Canon:
  """Rewards compared across and within halves of their group by a metric.

  See `advantages.canon_advantage`. With `mu` 0.5 and no `alpha` it is Dr. GRPO
  where groups are even. Use it with a reduction that divides by a constant.

  Raises:
    ValueError: if `mu` is outside of [0, 1], there is not exactly one of it
      and a schedule, `alpha` is negative, or there is an `alpha` and no side
      that it is for, or the other way round.
  """

  compares: ClassVar[bool] = True

  metric: str
  """What splits a group: "entropy", the mean over a response's tokens under
  the policy that wrote it, at the temperature of its log-probabilities;
  "length"; "random", the place in the group; or the name of an array in
  `batch.extra`, one number for each row, from the data or the judge."""
  mu: float | None = None
  """Weight of the comparison with the other half; the rest is for the own. 1
  in the released code; None with a schedule."""
  schedule: MuSchedule | None = None
  """What gives the weight instead."""
  alpha: float = 1.0
  """What the rewards of one half are multiplied with in that comparison."""
  alpha_side: Literal["high", "low"] | None = None
  """Which half: "high" disfavours what has more of the metric, "low" less."""
  beta: float = 0.0
  """What the high half gains and the low one loses there."""

  def __post_init__(self) -> None:
    if (self.mu is None) == (self.schedule is None):
      raise ValueError(
        f"one of mu and schedule, got {self.mu} and {self.schedule}"
      )
    if self.mu is not None and not 0 <= self.mu <= 1:
      raise ValueError(f"mu must be in [0, 1], got {self.mu}")
    if not self.alpha >= 0:
      raise ValueError(f"alpha must not be negative, got {self.alpha}")
    if (self.alpha != 1) != (self.alpha_side is not None):
      raise ValueError(
        "alpha and alpha_side go together: length disfavours the high half,"
        f" entropy the low one; got {self.alpha} and {self.alpha_side!r}"
      )

  @property
  def wants(self) -> tuple[str, ...]:
    """What data or judge must give: a metric that is not one of its own."""
    own = ("entropy", "length", "random")
    return () if self.metric in own else (self.metric,)

  def ask(self, view: View) -> dict[str, Array]:
    """The mean token entropy of each response, where it is the metric."""
    if self.metric != "entropy":
      return {}
    mask = view.responses.mask
    some = jnp.ones(mask.shape[0], bool)
    entropy = view.scores.entropy
    return {ENTROPY: canon.response_entropy(entropy, mask, some)}

  def __call__(
    self, batch: PolicyBatch, reward: Float[Array, "row"], *, num_groups: int
  ) -> Float[Array, "row"]:
    """The compared reward."""
    return canon.canon_advantage(
      reward,
      self._metric(batch),
      batch.group,
      batch.valid,
      num_groups=num_groups,
      mu=self._mu(batch),
      alpha=self.alpha,
      alpha_side=self.alpha_side or "high",
      beta=self.beta,
    )

  def watch(
    self, batch: PolicyBatch, signals: Signals, *, num_groups: int
  ) -> dict[str, Total]:
    """Mu, and how far the halves of a group are apart, a mean over rows."""
    del signals
    metric = self._metric(batch)
    group, valid = batch.group, batch.valid
    high = canon.conditional_halves(metric, group, valid, num_groups=num_groups)
    size = advantages.group_size(group, valid, num_groups=num_groups)
    split = valid & (size > 1)

    def gap(value: Float[Array, "row"]) -> Total:
      up, down = (
        advantages.group_mean(value, group, rows, num_groups=num_groups)
        for rows in (high, valid & ~high)
      )
      count = jnp.sum(split, dtype=jnp.float32)
      return Total(jnp.sum(keep(up - down, split)), count)

    return {
      "canon_mu": Total.of(self._mu(batch)),
      "canon_metric_gap": gap(metric),
      "canon_reward_gap": gap(batch.reward),
    }

  def _mu(self, batch: PolicyBatch) -> Float[Array, ""]:
    if self.schedule is not None:
      return self.schedule(batch)
    return jnp.asarray(self.mu, jnp.float32)

  def _metric(self, batch: PolicyBatch) -> Float[Array, "row"]:
    if self.metric == "length":
      return canon.response_length(batch.mask, batch.valid)
    if self.metric == "random":
      # Of rows that are all the same the place decides.
      return jnp.zeros(batch.reward.shape, jnp.float32)
    name = ENTROPY if self.metric == "entropy" else self.metric
    return found(batch, name)
