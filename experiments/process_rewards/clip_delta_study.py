"""Rewards of steps from a learned model: which of them are hacked?

    python -m experiments.process_rewards.clip_delta_study

Arms have the same warm start, problems and process reward model, and differ
in what is done to its scores. Writes a table, curves and the numbers of both
to results/clip_delta/.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import tyro

from experiments.arms import study
from experiments.process_rewards import clip_delta_task as task

__all__ = ["ARMS", "Size", "main"]

METRICS = ("evaluation/correct", "evaluation/fillers", "evaluation/length")
BASELINE = "success"
ARMS: dict[str, dict[str, Any]] = {
  "success": {"refine": "none", "alpha": 0.0},
  "raw": {"refine": "none", "alpha": 0.3},
  "clip_delta": {"refine": "clip_delta", "alpha": 0.3},
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Size:
  """What is run, and where."""

  seeds: int = 5
  """How many."""
  root: Path = Path("runs")
  """Where runs are, or go."""
  out: Path = Path(__file__).parent / "results" / "clip_delta"
  """Where the table goes."""


def main(size: Size) -> None:
  """Trains what is not trained yet and writes what came out."""
  _, accuracy = task.prm(task.StepScores())
  found = {
    name: task.trained(f"clip_delta_{name}", **own)
    for name, own in ARMS.items()
  }
  study(
    found,
    seeds=size.seeds,
    metrics=METRICS,
    out=size.out,
    baseline=BASELINE,
    root=size.root,
  )
  said = f"The process reward model is right on {accuracy:.3f} of new steps."
  with (size.out / "table.md").open("a") as table:
    table.write(f"\n{said}\n")
  print(said)


if __name__ == "__main__":
  main(tyro.cli(Size))
