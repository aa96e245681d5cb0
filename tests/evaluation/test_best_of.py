"""Choosing among responses, and finding the first error."""

from __future__ import annotations

import math

import numpy as np
import pytest

from rl_jax.evaluation.best_of import (
  any_correct,
  best_of,
  majority_vote,
  processbench_f1,
  weighted_vote,
)

GROUP = np.array([0, 1, 0, 2, 1, 2, 0, 1])


def test_best_of_against_a_loop():
  rng = np.random.default_rng(0)
  group = np.concatenate([np.arange(5), rng.integers(0, 5, 40)])
  score = rng.normal(size=45)
  found = best_of(score, group, num_groups=5)
  for one in range(5):
    rows = [row for row in range(45) if group[row] == one]
    assert found[one] == max(rows, key=lambda row: score[row])
  # Ties: the first, as argmax has it.
  assert best_of(np.zeros(8), GROUP, num_groups=3).tolist() == [0, 1, 3]


def test_the_upper_bound():
  correct = np.array([0, 0, 1, 0, 0, 0, 1, 1], bool)
  assert any_correct(correct, GROUP, num_groups=3).tolist() == [
    True,
    True,
    False,
  ]


def test_votes():
  """Sheet: sigmoid(.1) + sigmoid(-.2) = .975145 beats sigmoid(.6) = .645656."""
  assert weighted_vote(["A", "B", "A"], [0.1, 0.6, -0.2]) == "A"
  sums = [1 / (1 + math.exp(-x)) for x in (0.1, -0.2, 0.6)]
  np.testing.assert_allclose(sums[0] + sums[1], 0.975145, atol=1e-6)
  np.testing.assert_allclose(sums[2], 0.645656, atol=1e-6)
  # One sure response beats two that are surely wrong, not the majority.
  assert weighted_vote([1, 2, 2], [800.0, -800.0, -9.0]) == 1
  assert majority_vote([1, 2, 2]) == 2
  assert majority_vote([3, None, 1, 1, 3]) == 3


def test_first_errors():
  """Two wrong responses, two right ones; q falls below zero at errors."""
  scores = [[2.0, -2.0, -3.0], [-1.0, -2.0], [1.0, 0.5], [0.1]]
  found = processbench_f1(scores, [1, 0, -1, -1], thresholds=1001)
  assert found.f1 == found.erroneous == found.correct == 1.0
  assert 0.2689 < found.threshold <= 0.525
  # A threshold from elsewhere is used as it is.
  far = processbench_f1(scores, [1, 0, -1, -1], thresholds=2, threshold=0.9)
  assert (far.erroneous, far.correct, far.f1) == (0.5, 0.0, 0.0)


def test_first_errors_against_a_loop():
  rng = np.random.default_rng(1)
  scores = [rng.normal(size=rng.integers(1, 6)).tolist() for _ in range(30)]
  first = [int(rng.integers(-1, len(own))) for own in scores]
  best = (-1.0, None)
  for threshold in np.linspace(0, 1, 51):
    right = []
    for own in scores:
      below = [
        k for k, x in enumerate(own) if 1 / (1 + math.exp(-x)) < threshold
      ]
      right.append(below[0] if below else -1)
    hit = np.array(right) == np.array(first)
    wrong = np.array(first) >= 0
    a, b = hit[wrong].mean(), hit[~wrong].mean()
    f1 = 2 * a * b / (a + b) if a + b else 0.0
    best = max(best, (f1, -threshold))
  found = processbench_f1(scores, first, thresholds=51)
  np.testing.assert_allclose((found.f1, -found.threshold), best, atol=1e-12)


@pytest.mark.parametrize(
  ("call", "message"),
  [
    (lambda: best_of(np.ones(2), np.array([0, 2]), num_groups=2), "groups"),
    (lambda: best_of(np.ones(2), np.zeros(2, int), num_groups=2), "group 1"),
    (
      lambda: best_of(np.array([1.0, np.nan]), np.zeros(2, int), num_groups=1),
      "score of row 1 is nan",
    ),
    (lambda: majority_vote([None, None]), "none of 2"),
    (lambda: majority_vote([]), "none of 0"),
    (lambda: weighted_vote(["A"], [1.0, 2.0]), "1 answers with 2"),
    (lambda: weighted_vote(["A"], [math.nan]), "finite"),
    (lambda: processbench_f1([[1.0]], [0, 1], thresholds=9), "2 labels"),
    (lambda: processbench_f1([[]], [-1], thresholds=9), "0 steps"),
    (lambda: processbench_f1([[1.0]], [1], thresholds=9), "of which 1"),
    (lambda: processbench_f1([[math.inf]], [0], thresholds=9), "inf"),
    (lambda: processbench_f1([[1.0]], [0], thresholds=9), "1 are wrong"),
    (lambda: processbench_f1([[1.0]], [0], thresholds=1), "thresholds"),
  ],
)
def test_bad_input(call, message):
  with pytest.raises(ValueError, match=message):
    call()
