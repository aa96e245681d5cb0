"""Arms of a comparison: experiments that differ in one thing, over seeds."""

from __future__ import annotations

import dataclasses
import json
import math
import platform
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
from matplotlib.figure import Figure

from rl_jax.experiment import Experiment, Trained, to_dict
from rl_jax.launch.records import Records, read_records
from rl_jax.launch.run import train
from rl_jax.launch.workdir import default_workdir, is_finished

__all__ = ["Found", "seeded", "study"]


class Found(NamedTuple):
  """What the arms measured.

  Attributes:
    last: by arm and metric: the last value of each seed.
    curves: by arm and metric: the steps at which it was measured and its
      values [seed, step].
    seconds: by arm: of each seed's run, stages before it left out.
  """

  last: dict[str, dict[str, list[float]]]
  curves: dict[str, dict[str, tuple[np.ndarray, np.ndarray]]]
  seconds: dict[str, list[float]]


def seeded(experiment: Experiment, seed: int) -> Experiment:
  """The experiment, and the stages that it starts from, with a seed.

  Args:
    experiment: any.
    seed: theirs.

  Returns:
    The changed experiment.
  """
  start = experiment.start
  if isinstance(start, Trained):
    start = dataclasses.replace(start, by=seeded(start.by, seed))
  return dataclasses.replace(experiment, seed=seed, start=start)


def study(
  arms: Mapping[str, Experiment],
  *,
  seeds: int,
  metrics: tuple[str, ...],
  out: Path,
  baseline: str,
  root: Path = Path("runs"),
) -> Found:
  """Trains every arm with every seed and writes what came out.

  Runs that are finished are not repeated. Arms of a seed share the stages
  they start from. Writes results.json, table.md and curves.png.

  Args:
    arms: experiments by name.
    seeds: 0, 1, .. of them.
    metrics: names of what is compared, as the records of a run have them;
      the first is drawn largest.
    out: folder of the results.
    baseline: the arm that others are compared with, seed by seed.
    root: folder of the runs.

  Returns:
    What was measured.

  Raises:
    KeyError: if the baseline is no arm, or a metric was not recorded.
    KeyboardInterrupt: if a run was interrupted.
  """
  _ = arms[baseline]
  found = Found({}, {}, {})
  for name, experiment in arms.items():
    rows = []
    for seed in range(seeds):
      rows.append(_measured(seeded(experiment, seed), root))
      last = {m: round(_column(rows[-1], m)[1][-1], 4) for m in metrics}
      print(f"{name}, seed {seed}: {last}", flush=True)
    curves = {m: [_column(row, m) for row in rows] for m in metrics}
    found.curves[name] = {
      m: (np.array(each[0][0]), np.array([value for _, value in each]))
      for m, each in curves.items()
    }
    found.last[name] = {
      m: [value[-1] for _, value in each] for m, each in curves.items()
    }
    found.seconds[name] = [row[-1].seconds for row in rows]
  out.mkdir(parents=True, exist_ok=True)
  text = _table(found, metrics, baseline)
  (out / "table.md").write_text(text)
  (out / "results.json").write_text(_json(found, arms))
  _picture(found, metrics).savefig(out / "curves.png", dpi=110)
  print(f"\n{text}\nstored in {out}")
  return found


def _measured(experiment: Experiment, root: Path) -> Sequence:
  workdir = default_workdir(experiment, root)
  # `train` would compile a run before it sees that it is finished.
  if is_finished(workdir):
    return read_records(workdir)
  outcome = train(
    experiment,
    workdir=workdir,
    root=root,
    observers=lambda _, directory: (Records(directory),),
  )
  if outcome.status != "finished":
    raise KeyboardInterrupt
  return read_records(workdir)


def _column(rows: Sequence, metric: str) -> tuple[list[int], list[float]]:
  there = [row for row in rows if metric in row.metrics]
  if not there:
    known = sorted({name for row in rows for name in row.metrics})
    raise KeyError(f"{metric!r} was not recorded; there are {known}")
  return (
    [row.step for row in there],
    [float(row.metrics[metric]) for row in there],
  )


def _mean(values: Sequence[float]) -> str:
  if len(values) < 2:
    return f"{values[0]:.3f}"
  error = statistics.stdev(values) / math.sqrt(len(values))
  return f"{statistics.mean(values):.3f} ± {error:.3f}"


def _table(found: Found, metrics: Sequence[str], baseline: str) -> str:
  heads = ["arm"]
  for metric in metrics:
    heads += [metric, f"less {baseline}"]
  heads.append("seconds")
  lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
  for arm, last in found.last.items():
    cells = [arm]
    for metric in metrics:
      pairs = zip(last[metric], found.last[baseline][metric], strict=True)
      difference = [a - b for a, b in pairs]
      cells.append(_mean(last[metric]))
      cells.append("" if arm == baseline else _mean(difference))
    cells.append(f"{statistics.mean(found.seconds[arm]):.0f}")
    lines.append("| " + " | ".join(cells) + " |")
  seeds = len(found.seconds[baseline])
  lines += [
    "",
    f"Last evaluation; mean ± standard error over {seeds} seeds, differences"
    f" seed by seed. {platform.machine()}, jax {jax.__version__} on"
    f" {jax.default_backend()}.",
  ]
  return "\n".join(lines) + "\n"


def _json(found: Found, arms: Mapping[str, Experiment]) -> str:
  results = {
    name: {
      "experiment": to_dict(arms[name]),
      "seconds": found.seconds[name],
      "metrics": {
        metric: {
          "step": step.tolist(),
          "value": value.round(5).tolist(),
        }
        for metric, (step, value) in curves.items()
      },
    }
    for name, curves in found.curves.items()
  }
  return json.dumps(results) + "\n"


def _picture(found: Found, metrics: Sequence[str]) -> Figure:
  figure = Figure(figsize=(4.6 * len(metrics), 3.8), layout="constrained")
  axes = np.atleast_1d(figure.subplots(1, len(metrics)))
  for axis, metric in zip(axes, metrics, strict=True):
    for arm, curves in found.curves.items():
      step, value = curves[metric]
      (line,) = axis.plot(step, value.mean(axis=0), label=arm)
      if len(value) > 1:
        error = value.std(axis=0, ddof=1) / math.sqrt(len(value))
        axis.fill_between(
          step,
          value.mean(axis=0) - error,
          value.mean(axis=0) + error,
          alpha=0.15,
          color=line.get_color(),
        )
    axis.set(xlabel="step", title=metric.removeprefix("evaluation/"))
  axes[0].legend(fontsize=8)
  return figure
