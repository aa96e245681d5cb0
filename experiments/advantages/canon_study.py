"""CANON by length and by entropy against Dr. GRPO, on sums with padding.

  python -m experiments.advantages.canon_study

Compared are accuracy, the length of responses and the entropy of the policy.
"""

from __future__ import annotations

import pathlib
import sys

from experiments.advantages.canon import experiment
from experiments.advantages.canon_task import trained
from experiments.arms import study
from rl_jax.algorithms.estimators.canon import Canon

__all__ = ["ARMS"]

ARMS = {
  "dr_grpo": trained("canon_half", Canon(metric="length", mu=0.5)),
  "length, alpha 0.9": experiment,
  "entropy, mu 1": trained("canon_inter", Canon(metric="entropy", mu=1.0)),
  "entropy, mu 0": trained("canon_intra", Canon(metric="entropy", mu=0.0)),
}

if __name__ == "__main__":
  study(
    ARMS,
    seeds=int(sys.argv[1]) if len(sys.argv) > 1 else 3,
    metrics=("evaluation/reward", "evaluation/length", "evaluation/entropy"),
    out=pathlib.Path(__file__).parent / "results" / "canon",
    baseline="dr_grpo",
  )
