"""Rewards of programs compared: the outcome, the pass rate, VeRPO.

  python -m experiments.process_rewards.verpo_study

All arms add a centred reward of tests to the centred outcome: none, the share
of tests passed, or VeRPO's. Compared are held-out functions of which all
tests pass, and the share of groups that teach nothing. Writes results/verpo/.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from experiments.arms import study
from experiments.process_rewards import verpo
from rl_jax.algorithms.estimators.verpo import Verpo

ARMS = {
  "outcome": Verpo(beta=0.0),
  "pass_rate": Verpo(alpha=0.0, density=False, normaliser="weight_sum"),
  "verpo": Verpo(),
}


def main() -> None:
  """Train all arms with all seeds."""
  parser = argparse.ArgumentParser()
  parser.add_argument("--seeds", type=int, default=5)
  parser.add_argument("--arms", nargs="+", default=list(ARMS))
  settings = parser.parse_args()
  base = verpo.experiment
  arms = {
    name: dataclasses.replace(
      base,
      name=f"verpo_{name}",
      algorithm=dataclasses.replace(
        base.algorithm, recipe=verpo.recipe(ARMS[name])
      ),
    )
    for name in settings.arms
  }
  study(
    arms,
    seeds=settings.seeds,
    metrics=(
      "evaluation/reward",
      "verpo_degenerate",
      "verpo_turn_scale",
      "verpo_trajectory_scale",
    ),
    out=Path(__file__).parent / "results" / "verpo",
    baseline=settings.arms[0],
  )


if __name__ == "__main__":
  main()
