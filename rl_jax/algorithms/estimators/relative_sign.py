"""Advantages weighed by their sign, around any baseline of a `PolicyRecipe`.

With a loss of token ratios the negative part alone is GRPO-N, with one of
sequence ratios (`losses.sequence_clipped_loss`) GSPO-N. A prompt that is
always solved gives no relative negative: combine with `refill=True`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Literal

import jax.numpy as jnp

from rl_jax.advantages.relative_sign import (
  active_tokens,
  psr_nsr,
  weighted_relative,
)
from rl_jax.algorithms.policy_records import (
  PolicyBatch,
  Remembered,
  Signals,
  needed,
)
from rl_jax.masks import keep

if TYPE_CHECKING:
  from jaxtyping import Array, Float, PyTree

  from rl_jax.reduce import Total

__all__ = ["LinearWeight", "OutcomeSign", "RelativeSign"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class LinearWeight:
  """A weight that goes from one number to another, and stays there.

  Raises:
    ValueError: if a weight is negative or the range of steps is empty.
  """

  first: float
  """Up to loop step `begin`."""
  last: float
  """From loop step `end` on."""
  begin: int = 0
  """Loop step, from 0."""
  end: int
  """Loop step, after `begin`."""

  def __post_init__(self) -> None:
    if not min(self.first, self.last) >= 0:
      raise ValueError(
        f"weights must not be negative, got {self.first} and {self.last}"
      )
    if not 0 <= self.begin < self.end:
      raise ValueError(f"no step lies in [{self.begin}, {self.end})")

  def __call__(self, step: Float[Array, ""]) -> Float[Array, ""]:
    """The weight at a loop step."""
    way = (step - self.begin) / (self.end - self.begin)
    return self.first + (self.last - self.first) * jnp.clip(way, 0.0, 1.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RelativeSign:
  """Any baseline, what is better than it weighed and what is worse kept.

      A'_i = pos_weight max(A_i, 0) + min(A_i, 0)

  Raises:
    ValueError: if the weight is a negative number.
  """

  base: Callable
  """A baseline of a recipe: `(batch, reward, num_groups=)` to A."""
  pos_weight: float = 0.0
  """0: relative negatives alone; 1: the base itself."""
  schedule: Callable | None = None
  """In its place: a function of the loop step, from 0, such as
  `LinearWeight`."""
  renormalize: bool = False
  """Whether a mean over tokens is one over the tokens of rows that teach.
  Otherwise all tokens divide, rows without an advantage too."""

  def __post_init__(self) -> None:
    if not self.pos_weight >= 0:
      raise ValueError(f"pos_weight must not be negative: {self.pos_weight}")
    if self.schedule is not None and self.pos_weight:
      raise ValueError(
        f"pos_weight = {self.pos_weight} and a schedule: say one of them"
      )

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
    memory: PyTree | None = None,
  ) -> Float[Array, "row"] | Remembered:
    """The weighed advantage, with the memory of a base that has one."""
    call = partial(self.base, num_groups=num_groups)
    if memory is None:
      return self._weighed(batch, call(batch, reward))
    found = call(batch, reward, memory=memory)
    return found._replace(value=self._weighed(batch, found.value))

  def watch(
    self, batch: PolicyBatch, signals: Signals, *, num_groups: int
  ) -> dict[str, Total]:
    """The share of tokens that teach."""
    del batch, num_groups
    return _watched(signals)

  def _weighed(
    self, batch: PolicyBatch, advantage: Float[Array, "row"]
  ) -> Float[Array, "row"]:
    weight: float | Array = self.pos_weight
    if self.schedule is not None:
      step = jnp.max(needed(batch.step, "step")).astype(jnp.float32)
      weight = jnp.asarray(self.schedule(step))
    advantage = keep(
      weighted_relative(advantage, pos_weight=weight), batch.valid
    )
    return _renormalized(batch, advantage) if self.renormalize else advantage


@dataclasses.dataclass(frozen=True, kw_only=True)
class OutcomeSign:
  """The sign of a binary reward as advantage: PSR, NSR and W-REINFORCE.

  See `advantages.psr_nsr`. Rewards other than 0 and 1 make the advantage of
  their row NaN, which the loop refuses.

  Raises:
    ValueError: for an unknown mode or a negative weight.
  """

  mode: Literal["positive", "negative", "weighted"]
  """Which rows teach."""
  pos_weight: float = 0.1
  """Of right answers in "weighted"."""
  renormalize: bool = False
  """As in `RelativeSign`; True divides as the published code does, which
  leaves the other rows out of the batch."""

  def __post_init__(self) -> None:
    if self.mode not in ("positive", "negative", "weighted"):
      raise ValueError(f"no such mode: {self.mode!r}")
    if not self.pos_weight >= 0:
      raise ValueError(f"pos_weight must not be negative: {self.pos_weight}")

  def __call__(
    self, batch: PolicyBatch, reward: Float[Array, "row"], *, num_groups: int
  ) -> Float[Array, "row"]:
    """The advantage of each row; groups do not matter."""
    del num_groups
    reward = keep(reward, batch.valid)
    advantage = psr_nsr(
      reward == 1, batch.valid, mode=self.mode, pos_weight=self.pos_weight
    )
    if self.renormalize:
      advantage = _renormalized(batch, advantage)
    binary = (reward == 0) | (reward == 1)
    return jnp.where(binary, advantage, jnp.nan)

  def watch(
    self, batch: PolicyBatch, signals: Signals, *, num_groups: int
  ) -> dict[str, Total]:
    """The share of tokens that teach."""
    del batch, num_groups
    return _watched(signals)


def _renormalized(
  batch: PolicyBatch, advantage: Float[Array, "row"]
) -> Float[Array, "row"]:
  share = active_tokens(advantage, batch.mask & batch.valid[:, None]).mean()
  return jnp.where(share > 0, advantage / jnp.where(share > 0, share, 1.0), 0.0)


def _watched(signals: Signals) -> dict[str, Total]:
  row = jnp.max(jnp.abs(keep(signals.advantage, signals.mask)), axis=-1)
  return {"active_tokens": active_tokens(row, signals.mask)}
