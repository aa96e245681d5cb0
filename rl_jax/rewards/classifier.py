"""A trained classifier as the judge of class-conditional samples."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from rl_jax.rewards.transforms import class_match

if TYPE_CHECKING:
  from collections.abc import Callable

  from jaxtyping import Array, Float, Int

__all__ = ["ClassifierReward"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassifierReward:
  """1 if the judge sees the class that was asked for; see `class_match`."""

  judge: Any
  """Where the judge's parameters come from: `Trained(by=experiment)`; its
  network is `judge.by.model`."""

  def bind(self, model: Any) -> Callable[..., Float[Array, "row"]]:
    """The reward as a pure function, for one judge network.

    Args:
      model: has `apply(params, x [row, inputs]) -> logits [row, class]`.

    Returns:
      (params, sample, condition) -> reward. The axes of a sample are
      flattened; a row without verdict is NaN.
    """

    def reward(
      params: Any,
      sample: Float[Array, "row *event"],
      condition: Int[Array, "row"],
    ) -> Float[Array, "row"]:
      flat = sample.reshape(sample.shape[0], -1)
      return class_match(model.apply(params, flat), condition)

    return reward
