"""ADORA as a weight around the baseline of a `PolicyRecipe`."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp

from rl_jax import advantages
from rl_jax.advantages import adora
from rl_jax.algorithms.policy_records import (
  PolicyBatch,
  Remembered,
  Signals,
  needed,
)
from rl_jax.masks import keep
from rl_jax.reduce import Total

if TYPE_CHECKING:
  from jaxtyping import Array, Float

__all__ = [
  "ADORA_LLM_CODE",
  "ADORA_LLM_PAPER",
  "ADORA_VLM",
  "Adora",
  "GroupWeighted",
]

BUCKETS = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class GroupWeighted:
  """Any baseline, times a weight that the batch gives each row.

      A_i = w_i A0_i

  A weight that is the same for the rows of a group keeps the signs and ratios
  within it: how much a prompt teaches changes, and not what.
  """

  base: Callable
  """A baseline of a recipe: `(batch, reward, num_groups=)` to A0."""
  weight: Callable
  """`(batch, num_groups=)` to w, such as `Adora`."""

  @property
  def init(self) -> Callable:
    """The memory of the base; there is no such method where it has none."""
    return self.base.init  # type: ignore[missing-attribute]

  def __call__(
    self,
    batch: PolicyBatch,
    reward: Float[Array, "row"],
    *,
    num_groups: int,
    memory: Any = None,
  ) -> Float[Array, "row"] | Remembered:
    """The weighted advantage, with the memory of a base that has one."""
    weight = self.weight(batch, num_groups=num_groups)
    if memory is None:
      return weight * self.base(batch, reward, num_groups=num_groups)
    value, memory = self.base(
      batch, reward, num_groups=num_groups, memory=memory
    )
    return Remembered(weight * value, memory)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Adora:
  """The weight of a group by the lengths and the number of its successes.

  See `advantages.adora_weight`. What is right is said by the reward as the
  judge gave it, before any shaping. The presets are the two released programs,
  which disagree, and the paper's text.

  Raises:
    ValueError: if a weight is negative, `tau` is outside of [0, 1], the
      threshold is one that no reward exceeds, the cap is not positive, or the
      active steps are none.
  """

  threshold: float
  """A reward above it is a success; it belongs to a scale of rewards."""
  criteria: adora.AdoraCriteria
  """What makes a group one to learn from."""
  empty: adora.AdoraEmpty
  """What length says of a group without successes, or without failures."""
  advantageous: float
  """Weight of groups to learn from."""
  other: float
  """Weight of the others; 0.1 did better than 0."""
  tau: float = 0.5
  """Success rate up to which a prompt is difficult."""
  cap: float | None = None
  """Tokens at which a failure counts as cut; None is the longest response that
  the sampler writes."""
  max_reward: float | None = None
  """The largest reward there is, to check the threshold with; None if it is
  not known."""
  active_steps: tuple[int, int] | None = None
  """Loop steps, first and one past the last, in which groups are weighted;
  None is all."""

  def __post_init__(self) -> None:
    if not (self.advantageous >= 0 and self.other >= 0):
      raise ValueError(
        "weights must not be negative, got"
        f" {self.advantageous} and {self.other}"
      )
    if not 0 <= self.tau <= 1:
      raise ValueError(f"tau must be in [0, 1], got {self.tau}")
    if self.max_reward is not None and self.threshold >= self.max_reward:
      raise ValueError(
        f"no reward up to {self.max_reward} is above the threshold"
        f" {self.threshold}: every response would be wrong"
      )
    if self.cap is not None and not self.cap > 0:
      raise ValueError(f"cap must be positive or None, got {self.cap}")
    if self.active_steps is not None:
      first, end = self.active_steps
      if not 0 <= first < end:
        raise ValueError(f"active_steps hold no step: {self.active_steps}")

  def __call__(
    self, batch: PolicyBatch, *, num_groups: int
  ) -> Float[Array, "row"]:
    """The weight of each row's group."""
    weight = adora.adora_weight(
      batch.reward,
      self._tokens(batch),
      batch.group,
      batch.valid,
      num_groups=num_groups,
      threshold=self.threshold,
      cap=float(batch.mask.shape[-1]) if self.cap is None else self.cap,
      tau=self.tau,
      criteria=self.criteria,
      empty=self.empty,
      advantageous=self.advantageous,
      other=self.other,
    )
    if self.active_steps is None:
      return weight
    first, end = self.active_steps
    step = jnp.max(needed(batch.step, "step"))
    return jnp.where((step >= first) & (step < end), weight, 1.0)

  def watch(
    self, batch: PolicyBatch, signals: Signals, *, num_groups: int
  ) -> dict[str, Total]:
    """Share of groups that the criteria do not hold for; accuracy by length.

    The lengths are quarters of the longest response, shortest first. A bucket
    without a response has a mean of 0 and no weight.
    """
    del signals
    valid, tokens = batch.valid, self._tokens(batch)
    size = advantages.group_size(batch.group, valid, num_groups=num_groups)
    share = keep(1.0 / jnp.maximum(size, 1), valid)
    # Also where both weights are the same, or it is not the time to weigh.
    plain = dataclasses.replace(
      self, advantageous=1.0, other=0.0, active_steps=None
    )
    low = plain(batch, num_groups=num_groups) == 0
    right = keep(batch.reward, valid) > self.threshold
    width = batch.mask.shape[-1] / BUCKETS
    bucket = jnp.ceil(tokens / width)
    said = {
      "adora_weighted_down": Total(jnp.sum(keep(share, low)), jnp.sum(share))
    }
    for place in range(1, BUCKETS + 1):
      inside = valid & (jnp.maximum(bucket, 1) == place)
      said[f"adora_accuracy_quarter_{place}"] = Total(
        jnp.sum(inside & right, dtype=jnp.float32),
        jnp.sum(inside, dtype=jnp.float32),
      )
    return said

  def _tokens(self, batch: PolicyBatch) -> Float[Array, "row"]:
    return jnp.sum(batch.mask, axis=-1).astype(jnp.float32)


# The language program, for rewards of about -3 to 3. Its script says 3900.
ADORA_LLM_CODE = Adora(
  threshold=1.01,
  criteria="length",
  empty="llm",
  advantageous=1.0,
  other=0.1,
  cap=4054.0,
)
# The vision-language program, for rewards of 0 and 1. There is no such model
# here yet; the weight does not depend on what a policy sees.
ADORA_VLM = Adora(
  threshold=0.5,
  criteria="length",
  empty="vlm",
  advantageous=1.0,
  other=0.1,
  cap=4094.0,
)
# The text on language runs, for rewards of 0 and 1; that both criteria must
# hold, and what an empty side says, are reconstructions.
ADORA_LLM_PAPER = Adora(
  threshold=0.5,
  criteria="all",
  empty="llm",
  advantageous=2.0,
  other=1.0,
)
