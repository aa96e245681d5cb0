"""SPAE and its halves against REINFORCE++ with a group baseline.

  python -m experiments.advantages.spae_study

All arms are probed, so that all report what they check; alpha = xi = 0 is the
baseline. What training itself measures is averaged over the last 20 steps.
"""

from __future__ import annotations

import dataclasses
import pathlib
import sys

import numpy as np

from experiments.advantages.spae import experiment
from experiments.arms import Found, study
from rl_jax.algorithms.estimators.spae import spae_recipe

__all__ = ["ARMS"]

OUT = pathlib.Path(__file__).parent / "results" / "spae"
HELD_OUT = (
  "evaluation/right",
  "evaluation/checks",
  "evaluation/written",
)
TRAINED = ("checking_tokens", "right_to_wrong", "spae_potential", "spae_range")
LAST = 20
STEPS = 200


def _arm(name: str, **changes: float):
  credit = dataclasses.replace(experiment.algorithm.recipe.credit, **changes)
  return dataclasses.replace(
    experiment,
    name=f"spae_{name}",
    steps=STEPS,
    algorithm=dataclasses.replace(
      experiment.algorithm, recipe=spae_recipe(credit=credit)
    ),
  )


ARMS = {
  "baseline": _arm("baseline", alpha=0.0, xi=0.0),
  "spae": _arm("both"),
  "alpha_0": _arm("alpha_0", alpha=0.0),
}


def last_steps(found: Found) -> str:
  """What training measured at its end, over seeds.

  Args:
    found: of `study`.

  Returns:
    A table.
  """
  lines = ["", "| arm | " + " | ".join(TRAINED) + " |"]
  lines.append("|" + "---|" * (len(TRAINED) + 1))
  for arm, curves in found.curves.items():
    cells = [arm]
    for metric in TRAINED:
      own = curves[metric][1][:, -LAST:].mean(axis=1)
      error = own.std(ddof=1) / np.sqrt(len(own)) if len(own) > 1 else 0.0
      cells.append(f"{own.mean():.3f} ± {error:.3f}")
    lines.append("| " + " | ".join(cells) + " |")
  lines += ["", f"Training batches of the last {LAST} steps.", ""]
  return "\n".join(lines)


if __name__ == "__main__":
  measured = study(
    ARMS,
    seeds=int(sys.argv[1]) if len(sys.argv) > 1 else 5,
    metrics=HELD_OUT + TRAINED,
    out=OUT,
    baseline="baseline",
  )
  table = OUT / "table.md"
  table.write_text(table.read_text() + last_steps(measured))
  print(table.read_text())
