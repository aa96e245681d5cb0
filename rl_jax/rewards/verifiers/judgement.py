"""What a verifier says of one completion: a reward, or why there is none."""

from __future__ import annotations

import collections
import math
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

if TYPE_CHECKING:
  from collections.abc import Mapping, Sequence

  from jaxtyping import Bool, Float

__all__ = [
  "Judged",
  "Judgement",
  "Prepares",
  "Verifier",
  "judged",
  "no_verdict",
]


class Judgement(NamedTuple):
  """A reward, or None for "no verdict", with the reason.

  No verdict means that nobody knows whether the completion is right: the
  verifier died, ran out of time, or the reference makes no sense. Such a row
  is excluded and counted; it is never a reward of zero.

  Attributes:
    reward: any unit, finite; None for no verdict.
    reason: why there is no reward, or why it is low ("time limit", "no
      answer"); empty where there is nothing to say. The part before a colon
      names the kind, and rows are counted by it.
  """

  reward: float | None
  reason: str = ""


@runtime_checkable
class Verifier(Protocol):
  """Judges one completion against one reference.

  A verifier is a frozen dataclass that can be pickled. Whatever stands in the
  completion it returns a judgement; only time and memory it leaves to the
  pool that calls it.
  """

  def __call__(self, completion: str, reference: Any) -> Judgement:
    """The judgement; the reference comes from the data and is trusted."""
    ...


@runtime_checkable
class Prepares(Protocol):
  """A verifier that needs packages which take long to import."""

  def prepare(self) -> None:
    """Imports them; raises ImportError with what to install."""
    ...


class Judged(NamedTuple):
  """Judgements of a batch as arrays.

  Attributes:
    reward: NaN where there is no verdict, as `rewards.Sum` takes it.
    valid: false where there is no verdict.
    reason: rows by kind of reason, of those that have one.
  """

  reward: Float[np.ndarray, "row"]
  valid: Bool[np.ndarray, "row"]
  reason: Mapping[str, int]


def no_verdict(reason: str) -> Judgement:
  """A judgement that leaves the row out.

  Args:
    reason: kind, and after a colon the details.

  Returns:
    The judgement.
  """
  return Judgement(None, reason)


def judged(judgements: Sequence[Judgement]) -> Judged:
  """Judgements of a batch as arrays and counts.

  Args:
    judgements: one per row.

  Returns:
    Rewards in float32, which rows have one, and the reasons counted.

  Raises:
    ValueError: if a reward is not finite, with its row.

  >>> batch = judged([Judgement(1.0), no_verdict("died: signal 9")])
  >>> batch.reward.tolist(), batch.valid.tolist(), dict(batch.reason)
  ([1.0, nan], [True, False], {'died': 1})
  """
  for row, (reward, _) in enumerate(judgements):
    if reward is not None and not math.isfinite(reward):
      raise ValueError(
        f"the reward of row {row} is {reward}: a verifier that cannot tell"
        " returns None"
      )
  reason = collections.Counter(
    text.partition(":")[0] for _, text in judgements if text
  )
  reward = np.array(
    [math.nan if reward is None else reward for reward, _ in judgements],
    np.float32,
  )
  return Judged(reward, ~np.isnan(reward), reason)
