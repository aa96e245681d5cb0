"""Reward functions written for TRL, as they are."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from rl_jax.rewards.verifiers.judgement import Judgement, no_verdict

__all__ = ["RewardFunction"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class RewardFunction:
  """A callable `f(prompts=, completions=, **columns) -> list[float | None]`.

  None is no verdict, and so is a reward that is not finite. A callable that
  raises, or returns something else than one reward per row, is an error of
  the run and stops it: a reward of zero would train on the mistake.

  The callable is run in this process, without limits; it is trusted.
  """

  function: Callable[..., Sequence[float | None]]
  """Takes keyword arguments only: the prompts, the completions and the other
  columns of the data, each a list with the rows."""
  name: str
  """What the term is called in errors and logs."""

  def __call__(
    self,
    prompts: Sequence[str],
    completions: Sequence[str],
    columns: Mapping[str, Sequence[Any]],
  ) -> list[Judgement]:
    """One judgement per row.

    Raises:
      ValueError: if the inputs differ in length, or the callable returns
        another number of rewards or something that is no number.
      RuntimeError: if the callable raises; the cause is attached.
    """
    rows = len(completions)
    given = {"prompts": prompts, "completions": completions, **columns}
    lengths = {name: len(column) for name, column in given.items()}
    if set(lengths.values()) - {rows}:
      raise ValueError(
        f"reward {self.name!r} got columns of different lengths: {lengths}"
      )
    try:
      rewards = self.function(
        **{name: list(column) for name, column in given.items()}
      )
    except Exception as error:
      raise RuntimeError(
        f"reward {self.name!r} raised {type(error).__name__} on {rows} rows:"
        f" {error}"
      ) from error
    if not hasattr(rewards, "__len__") or len(rewards) != rows:
      got = f"{len(rewards)}" if hasattr(rewards, "__len__") else f"{rewards!r}"
      raise ValueError(
        f"reward {self.name!r} must return one reward per row, {rows}, and"
        f" returned {got}"
      )
    return [self._judgement(row, reward) for row, reward in enumerate(rewards)]

  def _judgement(self, row: int, reward: Any) -> Judgement:
    if reward is None:
      return no_verdict("none")
    if not isinstance(reward, int | float | np.number | np.bool):
      raise ValueError(
        f"reward {self.name!r} returned {reward!r} for row {row}: a number or"
        " None is needed"
      )
    if not math.isfinite(float(reward)):
      return no_verdict(f"not finite: {reward}")
    return Judgement(float(reward))
