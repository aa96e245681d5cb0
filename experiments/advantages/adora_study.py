"""GRPO with and without ADORA's weights, on chains of sums.

  python -m experiments.advantages.adora_study

The first arm is GRPO, the second ADORA as in the paper's vision-language runs,
the third as in its language runs. Compared are accuracy on chains of three and
four numbers and on all, the length of responses, and the share of groups that
were, or would have been, weighted down.
"""

from __future__ import annotations

import dataclasses
import pathlib
import sys

from experiments.advantages.adora import experiment
from experiments.advantages.adora_task import trained
from experiments.arms import study
from rl_jax.algorithms.estimators.adora import ADORA_LLM_PAPER, ADORA_VLM

__all__ = ["ARMS"]

ATTENUATED = dataclasses.replace(ADORA_VLM, cap=None, max_reward=1.0)
# Weights of one change nothing, and the share of groups is reported.
UNWEIGHTED = dataclasses.replace(ATTENUATED, other=1.0)
AMPLIFIED = dataclasses.replace(ADORA_LLM_PAPER, max_reward=1.0)

ARMS = {
  "grpo": trained("adora_grpo", UNWEIGHTED),
  "attenuate": experiment,
  "amplify": trained("adora_amplify", AMPLIFIED),
}

if __name__ == "__main__":
  study(
    ARMS,
    seeds=int(sys.argv[1]) if len(sys.argv) > 1 else 3,
    metrics=(
      "evaluation/long_chains",
      "evaluation/length",
      "evaluation/reward",
      "adora_weighted_down",
    ),
    out=pathlib.Path(__file__).parent / "results" / "adora",
    baseline="grpo",
  )
