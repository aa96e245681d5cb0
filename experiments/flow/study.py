"""Several runs side by side, their table and their picture.

Each run is an experiment with all its seeds vectorised into one computation;
what a run costs is counted in samples drawn and in seconds of training, with
compilation and evaluation left out.
"""

from __future__ import annotations

import dataclasses
import json
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from matplotlib.figure import Figure

from rl_jax.experiment import Experiment, to_dict
from rl_jax.launch.run import build_program, run_stages
from rl_jax.training.seeds import Curves, run_seeds

REWARD, HELD_OUT = "evaluation/reward", "evaluation/held_out"
SPREAD = "evaluation/sample_std"


class Run(NamedTuple):
  """One row of a study.

  Attributes:
    name: what is different about it.
    experiment: what was run.
    curves: what its seeds measured.
  """

  name: str
  experiment: Experiment
  curves: Curves


def changed(
  experiment: Experiment,
  *,
  steps: int | None = None,
  learning_rate: float | None = None,
  **fields: object,
) -> Experiment:
  """The experiment with other fields of its algorithm."""
  algorithm = dataclasses.replace(experiment.algorithm, **fields)
  if learning_rate is not None:
    optimiser = dataclasses.replace(
      algorithm.optimiser, learning_rate=learning_rate
    )
    algorithm = dataclasses.replace(algorithm, optimiser=optimiser)
  return dataclasses.replace(
    experiment, algorithm=algorithm, steps=steps or experiment.steps
  )


def run_all(
  experiments: dict[str, Experiment], *, seeds: int, root: str
) -> list[Run]:
  """Runs every experiment with seeds 0 .. seeds - 1, saying how it goes."""
  runs = []
  for place, (name, experiment) in enumerate(experiments.items(), 1):
    if run_stages(experiment, root=root) is not None:
      raise SystemExit("stopped while a stage was running; start again")
    program, start = build_program(experiment, root=root)
    curves = run_seeds(
      program,
      start,
      experiment.data,
      seeds=range(seeds),
      steps=experiment.steps,
    )
    runs.append(Run(name, experiment, curves))
    reward = curves.metrics[REWARD]
    print(
      f"[{place}/{len(experiments)}] {name}: reward"
      f" {np.round(reward[:, -1], 3)} after {experiment.steps} steps,"
      f" {curves.seconds[-1]:.1f} s",
      flush=True,
    )
  return runs


def steps_to(run: Run, threshold: float) -> list[int | None]:
  """Loop steps until each seed's evaluation reward is at the threshold."""
  above = run.curves.metrics[REWARD] >= threshold
  step = run.curves.step
  return [int(step[np.argmax(seed)]) if seed.any() else None for seed in above]


def samples_per_step(experiment: Experiment) -> int:
  """Rollouts drawn in a step of the loop."""
  return experiment.data.rows * experiment.algorithm.group_size


def cost_to(run: Run, threshold: float) -> tuple[float, float]:
  """Median over seeds of samples, and of seconds per seed, to a threshold.

  Infinite where most seeds do not get there.
  """
  reached = [np.inf if s is None else s for s in steps_to(run, threshold)]
  middle = float(np.median(reached))
  if not np.isfinite(middle):
    return np.inf, np.inf
  per_step = run.curves.seconds[-1] / run.curves.step[-1] / len(reached)
  return middle * samples_per_step(run.experiment), middle * per_step


def table(runs: Sequence[Run], *, threshold: float) -> list[dict[str, str]]:
  """What a reader wants of each run, as text."""
  rows = []
  for run in runs:
    samples, seconds = cost_to(run, threshold)
    last = {k: v[:, -1] for k, v in run.curves.metrics.items()}
    steps = ", ".join(str(s or "-") for s in steps_to(run, threshold))
    rows.append(
      {
        "run": run.name,
        f"steps to {threshold:g}": steps,
        "samples": f"{samples:.0f}" if np.isfinite(samples) else "-",
        "seconds": f"{seconds:.2f}" if np.isfinite(seconds) else "-",
        "reward": _mean(last[REWARD]),
        "held-out": _mean(last[HELD_OUT]),
        "pixel spread": _mean(last[SPREAD]),
      }
    )
  return rows


def markdown(rows: Sequence[dict[str, str]]) -> str:
  """The rows as a table."""
  names = list(rows[0])
  lines = ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]
  lines += ["| " + " | ".join(row.values()) + " |" for row in rows]
  return "\n".join(lines)


def store(
  runs: Sequence[Run],
  said: Sequence[str],
  *,
  title: str,
  threshold: float,
  directory: Path,
) -> None:
  """Writes results.json, table.md and curves.png, and prints the table."""
  directory.mkdir(parents=True, exist_ok=True)
  text = markdown(table(runs, threshold=threshold))
  lines = "\n".join(f"- {line}" for line in said)
  where = (
    f"{platform.machine()}, {len(runs[0].curves.metrics[REWARD])} seeds per"
    f" run side by side, jax {jax.__version__} on {jax.default_backend()};"
    " seconds are per seed, without compilation and evaluation."
  )
  (directory / "table.md").write_text(
    f"# {title}\n\n{text}\n\n{lines}\n\nMeasured on {where}\n"
  )
  results = {
    run.name: {
      "experiment": to_dict(run.experiment),
      "hash": run.experiment.hash,
      "step": run.curves.step.tolist(),
      "seconds": run.curves.seconds.round(4).tolist(),
      "metrics": {
        k: v.round(5).tolist() for k, v in run.curves.metrics.items()
      },
    }
    for run in runs
  }
  (directory / "results.json").write_text(json.dumps(results) + "\n")
  _draw(runs, title, threshold).savefig(directory / "curves.png", dpi=110)
  print(f"\n{text}\n\n{lines}\n\nstored in {directory}")


def _draw(runs: Sequence[Run], title: str, threshold: float) -> Figure:
  figure = Figure(figsize=(10, 4.2), layout="constrained")
  axes = figure.subplots(1, 2)
  figure.suptitle(title)
  for run in runs:
    samples = run.curves.step * samples_per_step(run.experiment)
    for axis, name in zip(axes, (REWARD, SPREAD), strict=True):
      value = run.curves.metrics[name]
      (line,) = axis.plot(samples, np.median(value, 0), label=run.name)
      axis.fill_between(
        samples, value.min(0), value.max(0), alpha=0.15, color=line.get_color()
      )
  axes[0].axhline(threshold, color="gray", linestyle=":")
  axes[0].set(xlabel="samples", ylabel="evaluation reward", ylim=(0, 1))
  axes[1].axhspan(0.66, 0.82, color="gray", alpha=0.12)
  axes[1].set(xlabel="samples", ylabel="pixel spread", ylim=(0.4, 1.4))
  axes[0].legend(fontsize=8)
  return figure


def _mean(value: np.ndarray) -> str:
  mean = float(np.mean(value))
  return f"{mean:.3f}" if abs(mean) < 1000 else f"{mean:.1e}"
