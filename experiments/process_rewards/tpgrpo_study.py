"""TP-GRPO against GRPO of the outcome alone, and two ablations, over seeds.

    python -m experiments.process_rewards.tpgrpo_study

All arms have the same warm start, problems and off-policy rounds, and differ
in their credit. Writes a table, curves and the numbers of both to
results/tpgrpo/, with the number of solutions at which each arm first reaches
what GRPO reaches at the end.
"""

from __future__ import annotations

import dataclasses
import statistics
from pathlib import Path

import tyro

from experiments.arms import Found, study
from experiments.process_rewards import tpgrpo_task as task
from rl_jax.advantages.tp_grpo import sample_efficiency
from rl_jax.algorithms.components import EveryToken
from rl_jax.algorithms.estimators.tp_grpo import TpGrpo

__all__ = ["ARMS", "Size", "main", "reached"]

METRICS = (
  "evaluation/correct",
  "evaluation/right_steps",
  "evaluation/length",
)
BASELINE = "grpo"
ARMS = {
  "grpo": EveryToken(),
  "tpgrpo": TpGrpo(),
  "not merged": TpGrpo(merge=False),
  "static": TpGrpo(static_reward=1.0),
}
SOLUTIONS = task.PROMPTS * task.GROUP


@dataclasses.dataclass(frozen=True, kw_only=True)
class Size:
  """What is run, and where."""

  seeds: int = 5
  """How many."""
  root: Path = Path("runs")
  """Where runs are, or go."""
  out: Path = Path(__file__).parent / "results" / "tpgrpo"
  """Where the table goes."""


def reached(found: Found) -> str:
  """Solutions until the baseline's last accuracy, by arm and seed.

  Args:
    found: of the study.

  Returns:
    A table; "-" where an arm does not get there.
  """
  goal = found.last[BASELINE][METRICS[0]]
  lines = [
    f"| arm | solutions until {BASELINE}'s last accuracy, by seed | median |"
    " gain per 100 000 solutions |",
    "|---|---|---|---|",
  ]
  for arm, curves in found.curves.items():
    step, value = curves[METRICS[0]]
    counts = []
    for own, level in zip(value, goal, strict=True):
      there = [s for s, v in zip(step, own, strict=True) if v >= level]
      counts.append(SOLUTIONS * int(there[0]) if there else None)
    # An arm that never arrives is later than all that do.
    late = [float("inf") if x is None else x for x in counts]
    gains = [
      sample_efficiency(
        score=100 * own[-1], base=100 * own[0], solutions=SOLUTIONS * step[-1]
      )
      for own in value
    ]
    shown = ", ".join("-" if x is None else str(x) for x in counts)
    lines.append(
      f"| {arm} | {shown} | {statistics.median(late):.0f} |"
      f" {statistics.mean(gains):.0f} |"
    )
  return "\n".join(lines) + "\n"


def main(size: Size) -> None:
  """Trains what is not trained yet and writes what came out."""
  arms = {
    name: task.trained("tpgrpo_" + name.replace(" ", "_"), credit)
    for name, credit in ARMS.items()
  }
  found = study(
    arms,
    seeds=size.seeds,
    metrics=METRICS,
    out=size.out,
    baseline=BASELINE,
    root=size.root,
  )
  text = reached(found)
  with (size.out / "table.md").open("a") as table:
    table.write("\n" + text)
  print(text)


if __name__ == "__main__":
  main(tyro.cli(Size))
