"""How well scores choose among several responses, or find the first error.

All of it runs on the host, on numbers and answers that were collected before.
Rows belong to questions by `group`, an id in [0, `num_groups`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
  from collections.abc import Hashable, Sequence

  from jaxtyping import Bool, Float, Int

__all__ = [
  "FirstError",
  "any_correct",
  "best_of",
  "majority_vote",
  "processbench_f1",
  "vote",
  "weighted_vote",
]


def best_of(
  score: Float[np.ndarray, "row"],
  group: Int[np.ndarray, "row"],
  *,
  num_groups: int,
) -> Int[np.ndarray, "group"]:
  """The row with the highest score in each group: best of N.

      b_g = argmax {score_i: group_i = g}

  Args:
    score: of each response, any unit.
    group: which question it answers.
    num_groups: how many questions there are.

  Returns:
    Row numbers; of equal scores the first.

  Raises:
    ValueError: if a group has no row, an id is outside, or a score is not
      finite: it would be chosen, or not, for no reason.

  >>> best_of(np.array([0.5, 0.75, 2.0]), np.array([0, 0, 1]), num_groups=2)
  array([1, 2])
  """
  score = np.asarray(score)
  members = _members(group, num_groups)
  if not np.isfinite(score).all():
    row = int(np.argmin(np.isfinite(score)))
    raise ValueError(f"the score of row {row} is {score[row]}")
  return np.array([own[np.argmax(score[own])] for own in members])


def any_correct(
  correct: Bool[np.ndarray, "row"],
  group: Int[np.ndarray, "row"],
  *,
  num_groups: int,
) -> Bool[np.ndarray, "group"]:
  """Whether any response of a group is right: the most a choice can get.

  Args:
    correct: of each response.
    group: which question it answers.
    num_groups: how many questions there are.

  Returns:
    One truth value for each group; its mean is pass@N.

  Raises:
    ValueError: if a group has no row or an id is outside.

  >>> any_correct(np.array([False, True]), np.array([0, 0]), num_groups=1)
  array([ True])
  """
  correct = np.asarray(correct)
  return np.array([correct[own].any() for own in _members(group, num_groups)])


def majority_vote[Answer: Hashable](answers: Sequence[Answer | None]) -> Answer:
  """The answer that most responses give: self-consistency.

  Args:
    answers: one for each response; None for a response that gives none, which
      does not vote.

  Returns:
    The answer; of equally frequent ones that which came first.

  Raises:
    ValueError: if no response gives an answer.

  Wang et al. 2022, arXiv:2203.11171.

  >>> majority_vote(["7", "3", None, "3"])
  '3'
  """
  return vote(answers, [1.0] * len(answers))


def weighted_vote[Answer: Hashable](
  answers: Sequence[Answer | None], scores: Sequence[float]
) -> Answer:
  r"""The answer whose responses have the largest sum of squashed scores.

      max_a sum_{i: answer_i = a} sigmoid(score_i)

  The scale of the scores matters here, unlike in `best_of`: for scores near
  zero this is nearly the majority.

  Args:
    answers: one for each response; None does not vote.
    scores: one for each response, any real numbers.

  Returns:
    The answer; of equal ones that which came first.

  Raises:
    ValueError: if no response gives an answer, the lengths differ, or a score
      is not finite.

  Yuan et al. 2024, arXiv:2412.01981, weighted self-consistency.

  >>> weighted_vote(["A", "B", "A"], [0.1, 0.6, -0.2])
  'A'
  """
  return vote(answers, [_sigmoid(score) for score in scores])


def vote[Answer: Hashable](
  answers: Sequence[Answer | None], weights: Sequence[float]
) -> Answer:
  """The answer with the largest sum of weights.

  Args:
    answers: one for each response; None does not vote.
    weights: one for each response.

  Returns:
    The answer; of equal ones that which came first.

  Raises:
    ValueError: if no response gives an answer, the lengths differ, or a
      weight is not finite.

  >>> vote(["A", "B"], [0.25, 0.5])
  'B'
  """
  if len(answers) != len(weights):
    raise ValueError(f"{len(answers)} answers with {len(weights)} weights")
  if not all(map(math.isfinite, weights)):
    raise ValueError(f"weights must be finite, got {list(weights)}")
  sums: dict[Answer, float] = {}
  for answer, weight in zip(answers, weights, strict=True):
    if answer is not None:
      sums[answer] = sums.get(answer, 0.0) + weight
  if not sums:
    raise ValueError(f"none of {len(answers)} responses gives an answer")
  return max(sums, key=sums.__getitem__)


class FirstError(NamedTuple):
  """How well scores of steps find the first wrong one.

  Attributes:
    f1: harmonic mean of the two accuracies.
    erroneous: share of the wrong responses whose first wrong step was found.
    correct: share of the right responses in which no step was accused.
    threshold: what they were found with.
  """

  f1: float
  erroneous: float
  correct: float
  threshold: float


def processbench_f1(
  scores: Sequence[Sequence[float]],
  first_error: Sequence[int],
  *,
  thresholds: int,
  threshold: float | None = None,
) -> FirstError:
  r"""F1 of finding the first wrong step of responses, as ProcessBench has it.

      prediction_i = min {k: sigmoid(s_ik) < threshold},  -1 if there is none
      F1 = 2 a b / (a + b)
      a = mean over wrong responses of [prediction_i = first_error_i]
      b = mean over right responses of [prediction_i = -1]

  Args:
    scores: of every step of every response, in order; q at its end in the
      paper. At least one each.
    first_error: number of the first wrong step of each, from 0; -1 = right.
    thresholds: how many equally spaced ones in [0, 1], both ends included,
      are tried; at least 2. 1000 to 10000 in the paper.
    threshold: what was found on other data; then none is tried.

  Returns:
    The best F1; of equal ones that of the lowest threshold.

  Raises:
    ValueError: if the lengths differ, a response has no step, a first error
      is no step of its response, a score is not finite, or wrong or right
      responses are missing.

  Zheng et al. 2024, arXiv:2412.06559 (ProcessBench); Yuan et al. 2024,
  arXiv:2412.01981.

  >>> processbench_f1([[2.0, -1.0], [1.0, 3.0]], [1, -1], thresholds=11).f1
  1.0
  """
  if len(scores) != len(first_error):
    raise ValueError(f"{len(scores)} responses, {len(first_error)} labels")
  if thresholds < 2:
    raise ValueError(f"thresholds must be at least 2, got {thresholds}")
  longest = max(map(len, scores), default=0)
  # Infinitely good steps fill up: they are never accused.
  squashed = np.full((len(scores), longest), np.inf)
  for row, (own, error) in enumerate(zip(scores, first_error, strict=True)):
    if not len(own) or not -1 <= error < len(own):
      raise ValueError(
        f"response {row} has {len(own)} steps, of which {error} cannot be the"
        " first wrong one"
      )
    if not all(map(math.isfinite, own)):
      raise ValueError(f"response {row} has the scores {list(own)}")
    squashed[row, : len(own)] = [_sigmoid(score) for score in own]
  wanted = np.asarray(first_error)
  wrong = wanted >= 0
  if wrong.all() or not wrong.any():
    raise ValueError(
      f"of {len(wanted)} responses {wrong.sum()} are wrong: both kinds are"
      " needed"
    )
  every: list[float] = np.linspace(0.0, 1.0, thresholds).tolist()
  tried = every if threshold is None else [threshold]
  # The first step below a threshold is where the running minimum passes it.
  lowest = np.minimum.accumulate(squashed, axis=1)
  best = FirstError(-1.0, 0.0, 0.0, 0.0)
  for one in tried:
    first = (lowest >= one).sum(axis=1)
    right = np.where(first == longest, -1, first) == wanted
    a, b = float(right[wrong].mean()), float(right[~wrong].mean())
    f1 = 2 * a * b / (a + b) if a + b else 0.0
    if f1 > best.f1:
      best = FirstError(f1, a, b, one)
  return best


def _members(group, num_groups):
  group = np.asarray(group)
  if num_groups < 1 or (group < 0).any() or (group >= num_groups).any():
    raise ValueError(
      f"groups must be in [0, {num_groups}), got"
      f" {group.min(initial=0)} to {group.max(initial=0)}"
    )
  members = [np.flatnonzero(group == one) for one in range(num_groups)]
  for one, own in enumerate(members):
    if not own.size:
      raise ValueError(f"group {one} of {num_groups} has no response")
  return members


def _sigmoid(score: float) -> float:
  # Of what exp can take.
  return 1.0 / (1.0 + math.exp(-max(min(score, 700.0), -700.0)))
