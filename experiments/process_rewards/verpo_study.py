"""Rewards of programs compared: the outcome, the pass rate, VeRPO.

  python -m experiments.process_rewards.verpo_study

All arms add a centred reward of tests to the centred outcome: none, the share
of tests passed, or VeRPO's. Compared are held-out functions of which all
tests pass, and the share of groups that teach nothing. Writes results/verpo/.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Mapping
from pathlib import Path

from experiments.arms import study
from experiments.process_rewards import verpo
from rl_jax.algorithms.estimators.verpo import Verpo
from rl_jax.experiment import Experiment

__all__ = ["ARMS", "compared"]

ARMS = {
  "outcome": Verpo(beta=0.0),
  "pass_rate": Verpo(alpha=0.0, density=False, normaliser="weight_sum"),
  "verpo": Verpo(),
}


def compared(
  base: Experiment, credits: Mapping[str, Verpo], *, metrics: tuple[str, ...]
) -> None:
  """Train arms that differ in their credit, as the command line asks.

  Writes results/<name of the experiment>/. The first arm is the baseline.

  Args:
    base: the experiment.
    credits: by arm.
    metrics: what is compared, besides what VeRPO reports.
  """
  parser = argparse.ArgumentParser()
  parser.add_argument("--seeds", type=int, default=5)
  parser.add_argument("--arms", nargs="+", default=list(credits))
  settings = parser.parse_args()
  arms = {
    name: dataclasses.replace(
      base,
      name=f"{base.name}_{name}",
      algorithm=dataclasses.replace(
        base.algorithm, recipe=verpo.recipe(credits[name])
      ),
    )
    for name in settings.arms
  }
  watched = ("degenerate", "turn_scale", "trajectory_scale")
  study(
    arms,
    seeds=settings.seeds,
    metrics=(*metrics, *(f"verpo_{name}" for name in watched)),
    out=Path(__file__).parent / "results" / base.name,
    baseline=settings.arms[0],
  )


if __name__ == "__main__":
  compared(verpo.experiment, ARMS, metrics=("evaluation/reward",))
