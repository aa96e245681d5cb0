"""Rewards and the networks that they judge by, if any."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
  from collections.abc import Callable

  from jaxtyping import Array, Float, PyTree

__all__ = ["bound"]


def bound(
  reward: Any, load: Callable[[Any], PyTree]
) -> tuple[Callable[..., Float[Array, "row"]], PyTree]:
  """A reward as a pure function, and the parameters that it needs.

  Args:
    reward: has `judge`, the `Trained` network that it asks or None for a
      reward that is a formula, and `bind(network or None)`.
    load: parameters of an earlier experiment.

  Returns:
    (params, sample, condition) -> reward, and the params; () without a judge.
  """
  if reward.judge is None:
    return reward.bind(None), ()
  return reward.bind(reward.judge.by.model), load(reward.judge)
