from __future__ import annotations

import types

import jax
import numpy as np
import pytest

from rl_jax.evaluation import mass
from rl_jax.evaluation.texts import TextSamples
from rl_jax.sampling import Autoregressive


@pytest.mark.slow
def test_mass_by_class_and_entropy_of_the_sheet():
  """One good action, one optimal, and one that is neither."""
  pi = np.array([[0.7, 0.25, 0.05], [1.0, 0.0, 0.0]], np.float32)
  kind = np.array([[0, -1, 1], [1, 0, 0]])
  found = mass.probability_mass_tracker(pi, kind, classes=2)
  np.testing.assert_allclose(found.mass, [[0.7, 0.05], [0, 1]], atol=1e-7)
  first = -(0.7 * np.log(0.7) + 0.25 * np.log(0.25) + 0.05 * np.log(0.05))
  np.testing.assert_allclose(found.entropy, [first, 0], atol=1e-6)
  assert found.ahead.tolist() == [[True, False], [False, True]]


def test_solved_sets_of_a_worked_case():
  base = np.array([[0, 0], [0, 1], [1, 1], [0, 0]], bool)
  new = np.array([[0, 1], [0, 0], [1, 0], [0, 0]], bool)
  found = mass.solved_set_change(base, new)
  assert found.newly.tolist() == [True, False, False, False]
  assert found.lost.tolist() == [False, True, False, False]
  assert (found.before, found.after) == (2, 2)


def test_the_boundary_is_one_over_k():
  rate = np.array([0.0, 0.2, 0.25, 0.26])
  assert mass.inside_boundary(rate, k=4).tolist() == [False] * 3 + [True]
  assert not mass.inside_boundary(rate, k=1).any()


def asked(**change):
  answers = TextSamples(
    data=None, sampler=Autoregressive(length=1), prompts=2, samples=4, every=7
  )
  given = {"answers": answers, "tries": (1, 2, 4)} | change
  return mass.PassAtKSamples(**given)


def test_pass_at_k_of_judged_answers():
  """Two of four right; of the other prompt one has no verdict, none right."""
  # As in the loop, where nothing goes to a device that is not sent there.
  with jax.transfer_guard("disallow"):
    found = asked().totals([1.0, 0.0, 1.0, 0.0, 0.0, None, 0.25, 0.0])
  means = {name: float(total.mean()) for name, total in found.items()}
  assert means == {
    "evaluation/solved": 0.5,
    "evaluation/pass_at_1": 0.25,
    "evaluation/pass_at_2": pytest.approx((1 - 1 / 6) / 2),
    # Three verdicts are no four tries: the other prompt alone.
    "evaluation/pass_at_4": 1.0,
  }


def test_the_numbers_join_those_of_the_answers():
  evaluation = asked()
  texts = tuple({"reward": 1.0} for _ in range(8))
  inner = types.SimpleNamespace(
    prompts=2,
    samples=4,
    every=7,
    inspection=lambda experiment: lambda m, a: ({"old": a}, {}, texts),
  )
  object.__setattr__(evaluation, "answers", inner)
  metrics, pictures, said = evaluation.inspection(None)({}, "answers")
  assert metrics["old"] == "answers"
  assert metrics["evaluation/pass_at_4"].mean() == 1
  assert (pictures, said, evaluation.every) == ({}, texts, 7)


@pytest.mark.parametrize(
  ("call", "words"),
  [
    (lambda: mass.inside_boundary(np.ones(1), k=0), "k must be at least 1"),
    (
      lambda: mass.solved_set_change(np.ones((2, 3)) > 0, np.ones((2, 4)) > 0),
      r"\(2, 3\) and \(2, 4\)",
    ),
    (
      lambda: mass.probability_mass_tracker(
        np.ones(1), np.zeros(1, int), classes=0
      ),
      "classes must be at least 1",
    ),
    (lambda: asked(tries=(5,)), r"tries = \(5,\) must be in \[1, samples = 4"),
    (lambda: asked(tries=()), r"tries = \(\)"),
  ],
)
def test_nonsense_is_refused(call, words, unchecked):
  with pytest.raises(ValueError, match=words):
    call()
