"""SALT as a part of a `PolicyRecipe`: an advantage for each step."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, ClassVar

import jax.numpy as jnp

from rl_jax.advantages.salt import (
  StateBaseline,
  Weighting,
  salt_step_advantages,
)
from rl_jax.advantages.segments import spread_segments
from rl_jax.algorithms.recipe import PolicyBatch, found

if TYPE_CHECKING:
  from jaxtyping import Array, Float, Int

__all__ = ["Salt"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Salt:
  """Credit: steps that several episodes of a prompt share get their mean.

  It refines any comparison of outcomes (the recipe's `baseline`) and changes
  nothing else. The graph that says what is shared comes from the judge, see
  `rewards.EpisodeReward` and its `graph`; see `salt_step_advantages`.

  Raises:
    ValueError: if `mix` is not in [0, 1] or `min_shared` is below 1.
  """

  wants: ClassVar[tuple[str, ...]] = ("edge", "node", "turn")
  """What the judge must give."""

  weighting: Weighting = "trajectory"
  """Whether an episode that takes a step twice counts once or twice."""
  mix: float = 1.0
  """Share of the step's advantage; the rest is the episode's."""
  min_shared: int = 2
  """Episodes that a step needs to be shared."""
  baseline: StateBaseline = "none"
  """"node" also subtracts the mean of all who were in the state: an ablation,
  which compares actions in a state as anchor-state methods do."""

  def __post_init__(self) -> None:
    if not 0 <= self.mix <= 1:
      raise ValueError(f"mix must be in [0, 1], got {self.mix}")
    if self.min_shared < 1:
      raise ValueError(f"min_shared must be at least 1, got {self.min_shared}")

  def __call__(
    self, batch: PolicyBatch, compared: Float[Array, "row"]
  ) -> tuple[Float[Array, "row time"], None]:
    """Advantages of tokens.

    Args:
      batch: all rows of every group in it.
      compared: the advantage of each episode.

    Returns:
      A number for each token of an action, 0 elsewhere, NaN for one in a
      turn without an edge; and no target.

    Raises:
      ValueError: if the batch lacks the graph.
    """
    edge = _of_group(found(batch, "edge"), batch.group)
    step = salt_step_advantages(
      compared,
      edge,
      _of_group(found(batch, "node"), batch.group),
      batch.valid,
      num_edges=edge.size,
      weighting=self.weighting,
      mix=self.mix,
      min_shared=self.min_shared,
      baseline=self.baseline,
    )
    # A token of a step that is in no graph shows as NaN.
    step = jnp.where(edge < 0, jnp.nan, step)
    return spread_segments(step, found(batch, "turn")), None


def _of_group(
  id_: Int[Array, "row turn"], group: Int[Array, "row"]
) -> Int[Array, "row turn"]:
  """Ids below rows x turns that rows of different groups never share.

  A judge numbers the steps of one batch. Groups that waited for others
  (`refill`) come from several, whose numbers are the same.
  """
  key = group[:, None] * (jnp.max(id_) + 1) + id_
  _, dense = jnp.unique(
    jnp.where(id_ < 0, -1, key), return_inverse=True, size=id_.size
  )
  return jnp.where(id_ < 0, -1, dense.reshape(id_.shape))
