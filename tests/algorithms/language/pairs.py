"""Stored text for the offline programs: answers to imitate, and pairs."""

from __future__ import annotations

import functools

from algorithms.language import letters
from rl_jax import algorithms, data, losses

PAIRS = (
  ("a", "ab", "b"),
  ("b", "b", "cdd"),
  ("dc", "c", "a"),
  ("d", "dd", "ca"),
  ("ba", "a", "c"),
  ("c", "cd", "d"),
  ("cd", "d", "ab"),
  ("ab", "bbb", "d"),
)
SCORED = tuple(
  (*pair, 0.25 * number) for number, pair in enumerate(PAIRS, start=1)
)
DPO = algorithms.PreferenceOptimisation(
  loss=functools.partial(losses.logistic_preference_loss, beta=0.5),
  beta=0.5,
  optimiser=letters.OPTIMISER,
)
TUNING = algorithms.FineTuning(optimiser=letters.OPTIMISER)
RANKING = algorithms.RewardModelling(optimiser=letters.OPTIMISER)


def preferences(rows=8, pairs=PAIRS, **changes):
  return data.Preferences(
    rows=rows,
    pairs=pairs,
    vocabulary=letters.WORDS,
    length=6,
    identical="refuse",
    shuffle=False,
    **changes,
  )


def demonstrations(pack=False, rows=8, length=8):
  return data.Demonstrations(
    task=letters.Letters(rows=rows, length=8),
    vocabulary=letters.WORDS,
    length=length,
    pack=pack,
  )


def offline(algorithm, source, **changes):
  """An experiment on stored text, which starts from drawn parameters."""
  fields = {"data": source, "reward": None, "start": letters.Drawn()}
  return letters.experiment(algorithm, **(fields | changes))
