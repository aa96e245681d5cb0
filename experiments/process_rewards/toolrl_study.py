"""ToolRL's variants of the reward compared.

  python -m experiments.process_rewards.toolrl_study

How finely correctness is taken apart, how much it may be worth besides the
form, and whether the length of thinking is paid. Compared are held-out
requests of which every call is right, and the length of thoughts, as a share
of 512 words. Writes results/toolrl/.
"""

from __future__ import annotations

import argparse
import dataclasses
from pathlib import Path

from experiments.arms import study
from experiments.process_rewards import toolrl
from experiments.process_rewards import toolrl_task as task
from rl_jax.rewards.verifiers.tool_config import ToolRewardConfig

STEPS = 200
ARMS = {
  "coarse": ToolRewardConfig(granularity="coarse"),
  "intermediate": ToolRewardConfig(granularity="intermediate"),
  "fine": ToolRewardConfig(),
  "fine_max_1": ToolRewardConfig(correct_range=(-1.0, 1.0)),
  "fine_length": ToolRewardConfig(length="fixed"),
}


def main() -> None:
  """Train all arms with all seeds."""
  parser = argparse.ArgumentParser()
  parser.add_argument("--seeds", type=int, default=5)
  parser.add_argument("--arms", nargs="+", default=list(ARMS))
  settings = parser.parse_args()
  arms = {
    name: dataclasses.replace(
      toolrl.experiment,
      name=f"toolrl_{name}",
      steps=STEPS,
      reward=task.reward(ARMS[name]),
    )
    for name in settings.arms
  }
  study(
    arms,
    seeds=settings.seeds,
    metrics=("evaluation/reward", "evaluation/thinking"),
    out=Path(__file__).parent / "results" / "toolrl",
    baseline="fine" if "fine" in arms else settings.arms[0],
  )


if __name__ == "__main__":
  main()
