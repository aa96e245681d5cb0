"""AWM against Flow-GRPO on real digits: samples and seconds to reward .9.

  python -m experiments.flow.awm_vs_flow_grpo

What it shows: both methods from the same base, at three learning rates with
three seeds each (vectorised), the budget of rollouts per step being equal;
then both with more updates per rollout. The paper's claim is up to 24x less
GPU time on large networks; on a network this cheap, with an exact reward,
only the direction can be expected.
Time: about 4 minutes on 2 cores.
Expected: Flow-GRPO needs at least 1.3x the samples of AWM at each one's best
learning rate, at least 1.5x at 2e-3, and at least 1.5x the seconds.
Variations: --seeds 5; --threshold 0.95.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import tyro

from experiments.flow import (
  digits_awm,
  digits_awm_reuse,
  digits_flow_grpo,
  study,
)

RATES = (1e-3, 2e-3, 4e-3)


def runs_of() -> dict[str, study.Experiment]:
  """Every run of the study, by name."""
  awm, grpo = digits_awm.experiment, digits_flow_grpo.experiment
  runs = {}
  for rate in RATES:
    runs[f"AWM {rate:g}"] = study.changed(awm, learning_rate=rate)
    runs[f"Flow-GRPO {rate:g}"] = study.changed(grpo, learning_rate=rate)
  runs["AWM 0.004, 4 updates"] = _often(digits_awm_reuse.experiment)
  for rate in (2e-3, 4e-3):
    runs[f"Flow-GRPO {rate:g}, 8 updates"] = study.changed(
      grpo, learning_rate=rate, updates=8, steps=60
    )
  return runs


def _often(experiment: study.Experiment) -> study.Experiment:
  """Evaluated at every step, since it takes so few."""
  evaluation = dataclasses.replace(experiment.evaluation, every=1)
  return dataclasses.replace(experiment, evaluation=evaluation)


def ratios(runs: list[study.Run], threshold: float) -> list[str]:
  """The study's sentences."""
  cost = {run.name: study.cost_to(run, threshold) for run in runs}

  def best(start: str, end: str = "") -> str:
    names = [n for n in cost if n.startswith(start) and n.endswith(end)]
    if not end:
      names = [n for n in names if "updates" not in n]
    return min(names, key=lambda name: cost[name])

  def compare(slow: str, fast: str) -> str:
    samples, seconds = (
      a / b if np.isfinite(b) else np.nan
      for a, b in zip(cost[slow], cost[fast], strict=True)
    )
    return (
      f"{slow} needs {samples:.2f}x the samples and {seconds:.2f}x the"
      f" seconds of {fast}"
    )

  grpo, awm = best("Flow-GRPO"), best("AWM")
  reuse = best("AWM", "updates")
  return [
    f"each at its best rate: {compare(grpo, awm)}",
    f"at the same rate: {compare('Flow-GRPO 0.002', 'AWM 0.002')}",
    f"reusing rollouts, against the recipe: {compare(grpo, reuse)}",
    "reusing rollouts, both: " + compare(best("Flow-GRPO", "updates"), reuse),
  ]


def main(
  seeds: int = 3,
  threshold: float = 0.9,
  root: str = "runs",
  out: Path = Path(__file__).parent / "results" / "awm_vs_flow_grpo",
) -> None:
  """Runs the comparison and stores its table and picture.

  Args:
    seeds: runs of each setting, side by side.
    threshold: evaluation reward to reach.
    root: where the base and the judges are looked for, or trained.
    out: where table.md, results.json and curves.png go.
  """
  runs = study.run_all(runs_of(), seeds=seeds, root=root)
  study.store(
    runs,
    ratios(runs, threshold),
    title="AWM against Flow-GRPO on real digits",
    threshold=threshold,
    directory=out,
  )


if __name__ == "__main__":
  tyro.cli(main, description=__doc__)
