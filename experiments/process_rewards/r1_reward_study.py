"""The consistency reward of R1-Reward on a tiny judge, with and without.

  python -m experiments.process_rewards.r1_reward_study

Two arms from the same teacher's pupil: StableReinforce with the reward of the
paper, and the same without its consistency part.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from experiments.arms import study
from experiments.process_rewards.r1_reward import CONSISTENCY, experiment
from rl_jax import rewards
from rl_jax.rewards.verifiers.pairwise_judge import PairwiseJudge

OUT = Path(__file__).parent / "results" / "r1_reward"

_judge, *_watched = experiment.reward.terms

ARMS = {
  "consistency rewarded": experiment,
  "not rewarded": dataclasses.replace(
    experiment,
    name="r1_reward_without",
    reward=rewards.TextReward(
      terms=(
        dataclasses.replace(
          _judge,
          judge=PairwiseJudge(consistency=CONSISTENCY, consistency_weight=0.0),
        ),
        *_watched,
      )
    ),
  ),
}


def main() -> None:
  """Runs the study and stores it."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument("--seeds", type=int, default=5)
  parser.add_argument("--out", type=Path, default=OUT)
  parsed = parser.parse_args()
  study(
    ARMS,
    seeds=parsed.seeds,
    metrics=("evaluation/consistent", "evaluation/right", "evaluation/reward"),
    out=parsed.out,
    baseline="not rewarded",
  )


if __name__ == "__main__":
  main()
