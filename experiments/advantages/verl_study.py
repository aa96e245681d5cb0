"""GRPO with and without VERL's bonus, on sums that are not in the training set.

  python -m experiments.advantages.verl_study

Compared are Pass@1, Pass@8 and the entropy of held-out sums at the end.
"""

from __future__ import annotations

import dataclasses
import pathlib
import sys

from experiments.advantages.verl import GRPO, experiment
from experiments.arms import study
from rl_jax.algorithms.components import EveryToken
from rl_jax.algorithms.estimators.verl import Verl

__all__ = ["ARMS"]

STEPS = 300
SHAPED = experiment.algorithm.recipe.credit


def _arm(name: str, credit: Verl | EveryToken):
  recipe = dataclasses.replace(GRPO, credit=credit)
  return dataclasses.replace(
    experiment,
    name=f"verl_{name}",
    steps=STEPS,
    algorithm=dataclasses.replace(experiment.algorithm, recipe=recipe),
  )


ARMS = {
  "grpo": _arm("grpo", EveryToken()),
  "verl": _arm("shaped", SHAPED),
  "last_token": _arm(
    "last_token", dataclasses.replace(SHAPED, placement="last_token")
  ),
}

if __name__ == "__main__":
  study(
    ARMS,
    seeds=int(sys.argv[1]) if len(sys.argv) > 1 else 5,
    metrics=(
      "evaluation/reward",
      "evaluation/solved",
      "evaluation/entropy",
    ),
    out=pathlib.Path(__file__).parent / "results" / "verl",
    baseline="grpo",
  )
