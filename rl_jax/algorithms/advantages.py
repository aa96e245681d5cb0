"""Advantage estimators as values with a memory; see `rl_jax.advantages`."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from rl_jax import advantages

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float, Int, PyTree

__all__ = ["Estimate", "GroupRelative", "PromptStatistics"]


class Estimate(NamedTuple):
  """What an estimator gives back.

  Attributes:
    advantage: A_i, zero for invalid rows.
    memory: the estimator's memory after this batch.
  """

  advantage: Float[Array, "row"]
  memory: PyTree


@dataclasses.dataclass(frozen=True, kw_only=True)
class GroupRelative:
  """Reward minus its group's mean over a spread; remembers nothing.

  See `rl_jax.advantages.group_relative`. There are no defaults: each
  framework's "GRPO" is another choice of these.
  """

  scale: Literal["none", "group", "global"]
  """Which spread divides."""
  ddof: int
  """0 for the population, 1 for the sample standard deviation."""
  epsilon: float
  """Added to the spread."""

  def check(self, data: Any) -> None:
    """Any data will do: groups are compared within a batch."""

  def init(self, num_groups: int) -> PyTree:
    """An empty memory."""
    del num_groups
    return ()

  def __call__(
    self,
    memory: PyTree,
    reward: Float[Array, "row"],
    group: Int[Array, "row"],
    valid: Bool[Array, "row"],
    *,
    num_groups: int,
  ) -> Estimate:
    """Advantages of a batch."""
    advantage = advantages.group_relative(
      reward,
      group,
      valid,
      num_groups=num_groups,
      scale=self.scale,
      ddof=self.ddof,
      epsilon=self.epsilon,
    )
    return Estimate(advantage, memory)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PromptStatistics:
  """Rewards standardised by the history of their prompt, as in DDPO.

  See `rl_jax.advantages.update_prompt_statistics`. The prompts of every batch
  must be the same ones in the same order, since a group's id is its prompt's.
  """

  buffer_size: int = 32
  """Rewards remembered per prompt."""
  min_count: int = 16
  """Remembered rewards needed before a prompt's own history is used."""
  epsilon: float = 1e-6
  """Added to the standard deviation."""

  def check(self, data: Any) -> None:
    """Refuses data whose batches are not the same prompts in the same order.

    Raises:
      ValueError: if it shuffles, or a batch is not one pass over it.
    """
    prompts = len(data.source())
    if data.shuffle or data.rows != prompts:
      raise ValueError(
        "a history per prompt needs every batch to be all prompts in their"
        f" order, but the data has {prompts} prompts, rows = {data.rows},"
        f" shuffle = {data.shuffle}"
      )

  def init(self, num_groups: int) -> PyTree:
    """An empty memory."""
    return advantages.init_prompt_statistics(
      num_prompts=num_groups, buffer_size=self.buffer_size
    )

  def __call__(
    self,
    memory: PyTree,
    reward: Float[Array, "row"],
    group: Int[Array, "row"],
    valid: Bool[Array, "row"],
    *,
    num_groups: int,
  ) -> Estimate:
    """Advantages of a batch, and the history with it."""
    del num_groups
    memory, advantage = advantages.update_prompt_statistics(
      memory,
      reward,
      group,
      valid,
      min_count=self.min_count,
      epsilon=self.epsilon,
    )
    return Estimate(advantage, memory)
