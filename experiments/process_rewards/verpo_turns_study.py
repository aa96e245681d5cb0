"""Credit in episodes of two programs compared: the outcome, and VeRPO.

  python -m experiments.process_rewards.verpo_turns_study

"outcome" is GRPO: the centred outcome on all tokens of an episode, whichever
turn they are in. The others have the outcome discounted by .9 a turn: alone,
with the share of tests that each turn passed, and with VeRPO's rewards of
turns. Compared are held-out functions of which all tests pass within two
turns, the share of groups that teach nothing, and the turns of an episode.
Writes results/verpo_turns/.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from experiments.arms import study
from experiments.process_rewards import verpo, verpo_turns
from rl_jax.algorithms.estimators.verpo import Verpo

ARMS = {
  "outcome": Verpo(beta=0.0),
  "discounted": Verpo(beta=0.0, discount=0.9),
  "pass_rate": Verpo(
    alpha=0.0, density=False, normaliser="weight_sum", discount=0.9
  ),
  "verpo": Verpo(discount=0.9),
}


def main() -> None:
  """Train all arms with all seeds."""
  parser = argparse.ArgumentParser()
  parser.add_argument("--seeds", type=int, default=5)
  parser.add_argument("--arms", nargs="+", default=list(ARMS))
  settings = parser.parse_args()
  base = verpo_turns.experiment
  arms = {
    name: dataclasses.replace(
      base,
      name=f"verpo_turns_{name}",
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
      "evaluation/success",
      "evaluation/turns",
      "verpo_degenerate",
      "verpo_turn_scale",
      "verpo_trajectory_scale",
    ),
    out=Path(__file__).parent / "results" / "verpo_turns",
    baseline=settings.arms[0],
  )


if __name__ == "__main__":
  main()
