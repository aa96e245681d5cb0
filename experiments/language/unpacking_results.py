"""Table, sentences and picture of the comparison of DPO and PPO."""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import jax
import numpy as np
from matplotlib.figure import Figure

from rl_jax.experiment import Experiment, to_dict
from rl_jax.launch.records import read_records

if TYPE_CHECKING:
  Seeds = Sequence[Mapping[str, "Curve"]]

__all__ = [
  "Cost",
  "Curve",
  "Difference",
  "difference",
  "read",
  "reward_at",
  "sentences",
  "store",
  "table",
  "verdict",
]

REWARD, KL = "evaluation/reward", "evaluation/kl"
LOW, HIGH = "evaluation/low/reward", "evaluation/high/reward"
AGREEMENT = "evaluation/agreement"
# Reward models and what is trained against them.
JUDGES = {
  "PPO, 35 % flips": "RM, 35 % flips",
  "PPO, RM of 2560 pairs": "RM, 2560 pairs",
}


class Curve(NamedTuple):
  """What the evaluations of a run measured.

  Attributes:
    step: of each.
    metrics: name -> one value for each.
  """

  step: list[int]
  metrics: dict[str, list[float]]

  def last(self, name: str) -> float:
    """The value at the end."""
    return self.metrics[name][-1]


class Cost(NamedTuple):
  """What the comparison took.

  Attributes:
    wall: seconds.
    processor: seconds of all processes.
    load: of the machine at the end, over five minutes.
  """

  wall: float
  processor: float
  load: float


class Difference(NamedTuple):
  """A difference between two settings, paired by seed.

  Attributes:
    mean: over seeds.
    error: its standard error; infinite for one seed.
  """

  mean: float
  error: float

  def __str__(self) -> str:
    return f"{self.mean:+.3f} (s.e. {self.error:.3f})"


def read(experiment: Experiment, root: str) -> Curve:
  """The evaluations of a run that is finished."""
  (workdir,) = Path(root).glob(f"*-{experiment.hash}")
  rows = [row for row in read_records(workdir) if row.kind == "evaluation"]
  names = sorted(rows[0].metrics) if rows else []
  return Curve(
    [row.step for row in rows],
    {name: [row.metrics[name] for row in rows] for name in names},
  )


def reward_at(curve: Curve, nats: float) -> float:
  """The gold reward where a run was that far from the reference.

  Args:
    curve: its evaluations.
    nats: at most its KL at the end.

  Returns:
    Between the evaluations around the first time that it was there.
  """
  # A KL that falls again must not make the curve turn back.
  reached = np.maximum.accumulate(curve.metrics[KL])
  return float(np.interp(nats, reached, curve.metrics[REWARD]))


def difference(values: Sequence[float]) -> Difference:
  """Mean and standard error of differences, one for each seed."""
  own = np.asarray(values, float)
  if len(own) < 2:
    return Difference(float(own.mean()), float("inf"))
  return Difference(float(own.mean()), float(own.std(ddof=1) / len(own) ** 0.5))


def verdict(found: Difference) -> str:
  """Whether a difference that should be positive is there.

  >>> verdict(Difference(0.03, 0.01)), verdict(Difference(0.01, 0.01))
  ('reproduced', 'not reproduced at this scale (within two s.e.)')
  """
  if not abs(found.mean) >= 2 * found.error:
    return "not reproduced at this scale (within two s.e.)"
  return "reproduced" if found.mean > 0 else "the other way round"


def table(seeds: Seeds) -> str:
  """Means over seeds with their standard errors, as Markdown."""
  lines = [
    "| run | gold reward | low digits | high digits | KL, nats | RM agrees |",
    "|---|---|---|---|---|---|",
  ]
  start = {
    name: [seed["DPO"].metrics[name][0] for seed in seeds]
    for name in (REWARD, LOW, HIGH, KL)
  }
  cells = " | ".join(_cell(start[name]) for name in (REWARD, LOW, HIGH, KL))
  lines.append(f"| SFT | {cells} | - |")
  for name in _policies(seeds):
    own = [[seed[name].last(m) for seed in seeds] for m in (REWARD, LOW, HIGH)]
    own.append([seed[name].last(KL) for seed in seeds])
    judge = "-"
    if name.startswith("PPO"):
      which = JUDGES.get(name, "RM")
      judge = _cell([seed[which].last(AGREEMENT) for seed in seeds])
    lines.append(f"| {name} | {' | '.join(map(_cell, own))} | {judge} |")
  return "\n".join(lines)


def sentences(seeds: Seeds) -> list[str]:
  """What the comparison says, with the honest verdict on each claim."""

  def end(name: str, metric: str = REWARD) -> list[float]:
    return [seed[name].last(metric) for seed in seeds]

  def over(one: str, other: str, metric: str = REWARD) -> Difference:
    pairs = zip(end(one, metric), end(other, metric), strict=True)
    return difference([a - b for a, b in pairs])

  def matched(seed: Mapping[str, Curve]) -> float:
    nats = min(max(seed[name].metrics[KL]) for name in ("PPO", "DPO"))
    return reward_at(seed["PPO"], nats) - reward_at(seed["DPO"], nats)

  def gain(name: str) -> Difference:
    """Over the fine-tuned policy."""
    return difference(
      [own[name].last(REWARD) - own[name].metrics[REWARD][0] for own in seeds]
    )

  gains = {name: gain(name) for name in _policies(seeds)}
  least = min(gains, key=lambda name: gains[name].mean)
  algorithm = over("PPO", "DPO")
  level = difference([matched(seed) for seed in seeds])
  harm = [over(name, f"{name}, 35 % flips") for name in ("DPO", "PPO")]
  data = difference(
    [
      sum(
        seed[n].last(REWARD) - seed[f"{n}, 35 % flips"].last(REWARD)
        for n in ("DPO", "PPO")
      )
      / 2
      - abs(seed["PPO"].last(REWARD) - seed["DPO"].last(REWARD))
      for seed in seeds
    ]
  )
  judge = over("PPO", "PPO, RM of 2560 pairs")
  said = [
    f"above SFT: DPO {gains['DPO']}, PPO {gains['PPO']}, the least {least}"
    f" {gains[least]}",
    f"algorithm, PPO - DPO: {algorithm}: {verdict(algorithm)}",
    f"the same at equal KL: {level}: {verdict(level)}",
    f"data, 10 % - 35 % flips: DPO {harm[0]}, PPO {harm[1]}",
    f"data matter more than the algorithm, by {data}: {verdict(data)}",
    f"reward model, 10 240 - 2560 pairs: {judge}: {verdict(judge)}",
  ]
  for name in ("mixed", "in-domain"):
    run = f"PPO, {name} prompts"
    said.append(
      f"policy prompts, {name} - as labelled: {over(run, 'PPO')}, on high"
      f" digits {over(run, 'PPO', HIGH)}"
    )
  return said


def store(
  seeds: Seeds,
  settings: Mapping[str, Experiment],
  cost: Cost,
  *,
  directory: Path,
) -> None:
  """Writes results.json, table.md and curves.png, and prints the table."""
  directory.mkdir(parents=True, exist_ok=True)
  said = "\n".join(f"- {line}" for line in sentences(seeds))
  where = (
    f"Means over {len(seeds)} seeds with their standard errors; each seed has"
    " its own fine-tuned policy, labels and reward models. Measured on"
    f" {platform.machine()}, jax {jax.__version__}, {cost.wall:.0f} s of wall"
    f" and {cost.processor:.0f} s of processor time, load {cost.load:.1f}."
  )
  text = f"{table(seeds)}\n\n{said}\n\n{where}\n"
  (directory / "table.md").write_text(f"# DPO and PPO on digits\n\n{text}")
  results = {
    name: {
      "experiment": to_dict(experiment),
      "seeds": [
        {
          "step": seed[name].step,
          "metrics": {
            k: np.round(v, 5).tolist() for k, v in seed[name].metrics.items()
          },
        }
        for seed in seeds
      ],
    }
    for name, experiment in settings.items()
  }
  (directory / "results.json").write_text(json.dumps(results) + "\n")
  _draw(seeds).savefig(directory / "curves.png", dpi=110)
  print(f"\n{text}\nstored in {directory}")


def _draw(seeds: Seeds) -> Figure:
  figure = Figure(figsize=(7, 4.6), layout="constrained")
  axis = figure.subplots()
  for name in _policies(seeds):
    mean = {
      metric: np.mean([seed[name].metrics[metric] for seed in seeds], axis=0)
      for metric in (KL, REWARD)
    }
    style = "--" if name.startswith("DPO") else "-"
    axis.plot(mean[KL], mean[REWARD], style, marker=".", label=name)
  axis.set(
    xlabel="KL to the fine-tuned policy, nats per answer",
    ylabel="gold reward",
    title="Gold reward over KL, mean of seeds at each evaluation",
  )
  axis.legend(fontsize=8)
  return figure


def _policies(seeds: Seeds) -> list[str]:
  """The runs that an answer of a policy comes out of, but for the first."""
  return [name for name in seeds[0] if name.startswith(("DPO", "PPO"))]


def _cell(values: Sequence[float]) -> str:
  found = difference(values)
  if not np.isfinite(found.error):
    return f"{found.mean:.3f}"
  return f"{found.mean:.3f} ± {found.error:.3f}"
