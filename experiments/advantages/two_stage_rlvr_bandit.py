"""Two stages of policy gradients, and relative negatives, on a tabular policy.

    python -m experiments.advantages.two_stage_rlvr_bandit
    python -m experiments.advantages.two_stage_rlvr_bandit --seeds 1

What it shows: 256 states with six actions, one good and likely (reward 0.5),
one optimal and rare (reward 1). GRPO first moves the mass to the good one and
leaves the optimal one where it was; only when the good one is nearly certain,
so that its advantage is gone, is the optimal one found. Relative negatives
alone do the same more slowly, with more entropy at any one step. Steps that
are too large trap the policy: the optimal action is never found.
Time: under 40 seconds of one core for 5 seeds.
Expected: the bounds of results/two_stage_rlvr/bandit.md hold for 5 of 5
seeds, but for the entropy that relative negatives gain at step 800, when GRPO
is in the middle of its second stage: 0.148 in one seed. At equal reward the
entropies are the same to 0.02: what relative negatives keep, they keep by
being slower.

arXiv:2510.04028, sections 3 and 4; numbers of the problem are ours. Writes
bandit.md, bandit.json and bandit.png to results/two_stage_rlvr/.
"""

from __future__ import annotations

import dataclasses
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import tyro
from matplotlib.figure import Figure

from rl_jax.environments.bandit import Course, TwoStageBandit

__all__ = ["ARMS", "BOUNDS", "Size", "checks", "main"]

SHOWN = (0, 200, 400, 800, 1600, 3200)

# Problem and settings of each arm.
_COMMON = {"steps": 3200, "group_size": 8, "rate": 0.05}
ARMS: dict[str, tuple[TwoStageBandit, dict[str, Any]]] = {
  "GRPO": (TwoStageBandit(), _COMMON | {"pos_weight": 1.0}),
  "relative negative": (TwoStageBandit(), _COMMON | {"pos_weight": 0.0}),
  "too large steps": (
    TwoStageBandit(low_actions=8, high_logit=1.5, optimal_logit=-1.5),
    {"steps": 3200, "group_size": 16, "rate": 0.1, "pos_weight": 1.0},
  ),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Size:
  """What is run, and where it goes."""

  seeds: int = 5
  """How many."""
  out: Path = Path(__file__).parent / "results" / "two_stage_rlvr"
  """Folder of the results."""


# What should be seen, and between which numbers.
BOUNDS = {
  "stage 1: rise of the good action by step 200": (0.25, 1.0),
  "stage 1: change of the optimal action by step 200": (-0.02, 0.02),
  "stage 2: mass of the optimal action at step 1600": (0.9, 1.0),
  "stage 2: mass of the good action at step 1600": (0.0, 0.1),
  "relative negatives: entropy gained at step 200": (0.15, math.inf),
  "relative negatives: entropy gained at step 400": (0.15, math.inf),
  "relative negatives: entropy gained at step 800": (0.15, math.inf),
  "relative negatives: entropy gained at equal reward": (-0.1, 0.1),
  "too large steps: mass of the optimal action at step 1600": (0.0, 0.001),
  "too large steps: its greatest mass after that": (0.0, 0.001),
}


def checks(courses: dict[str, Course]) -> dict[str, float]:
  """The numbers that have bounds, for one seed.

  Args:
    courses: of all arms.

  Returns:
    By name, in the order of `BOUNDS`.
  """
  full = courses["GRPO"]
  negative = courses["relative negative"]
  trapped = courses["too large steps"].optimal
  # The first step at which relative negatives earn what GRPO had at step 200.
  same = int(np.argmax(negative.reward >= full.reward[200]))
  numbers = (
    full.high[200] - full.high[0],
    full.optimal[200] - full.optimal[0],
    full.optimal[1600],
    full.high[1600],
    *(negative.entropy[s] - full.entropy[s] for s in (200, 400, 800)),
    negative.entropy[same] - full.entropy[200],
    trapped[1600],
    trapped[1600:].max(),
  )
  return dict(zip(BOUNDS, map(float, numbers), strict=True))


def held(name: str, number: float) -> bool:
  """Whether a number is within its bounds."""
  low, high = BOUNDS[name]
  return low <= number <= high


def table(runs: Sequence[dict[str, Course]]) -> str:
  """Numbers at some steps, means over seeds, and the checks."""
  lines = [
    f"Means over {len(runs)} seeds: mass of the good action, mass of the"
    " optimal one, entropy in nats, expected reward.",
    "",
    "| arm | step | good | optimal | entropy | reward |",
    "|---|---|---|---|---|---|",
  ]
  for arm in ARMS:
    for step in SHOWN:
      numbers = [
        np.mean([getattr(run[arm], name)[step] for run in runs])
        for name in ("high", "optimal", "entropy", "reward")
      ]
      cells = " | ".join(f"{number:.4f}" for number in numbers)
      lines.append(f"| {arm} | {step} | {cells} |")
  lines += [
    "",
    "| number | bounds | mean | seeds within |",
    "|---|---|---|---|",
  ]
  each = [checks(run) for run in runs]
  for name, (low, high) in BOUNDS.items():
    numbers = [own[name] for own in each]
    inside = sum(held(name, number) for number in numbers)
    lines.append(
      f"| {name} | {low} to {high} | {np.mean(numbers):.4f}"
      f" | {inside} of {len(numbers)} |"
    )
  return "\n".join(lines) + "\n"


def picture(runs: Sequence[dict[str, Course]]) -> Figure:
  """Masses and entropy over steps; a line per seed."""
  figure = Figure(figsize=(13, 3.8), layout="constrained")
  axes = figure.subplots(1, len(ARMS) + 1)
  for axis, arm in zip(axes, ARMS, strict=False):
    for number, run in enumerate(runs):
      for name, colour in (("high", "C0"), ("optimal", "C3")):
        label = {"high": "good action", "optimal": "optimal action"}[name]
        axis.plot(
          getattr(run[arm], name),
          color=colour,
          alpha=0.5,
          label=label if number == 0 else None,
        )
    axis.set(title=arm, xlabel="step", ylim=(0, 1))
  axes[0].set_ylabel("mean mass")
  axes[0].legend(fontsize=8)
  for arm in ARMS:
    mean = np.mean([run[arm].entropy for run in runs], axis=0)
    axes[-1].plot(mean, label=arm)
  axes[-1].set(title="entropy, nats", xlabel="step")
  axes[-1].legend(fontsize=8)
  return figure


def main(arguments: Sequence[str] | None = None) -> int:
  """Runs all seeds and writes what came out.

  Args:
    arguments: of the command line; those of the process when None.

  Returns:
    0, or 1 if a mean over seeds is out of its bounds.
  """
  size = tyro.cli(Size, description=__doc__, args=arguments)
  runs = []
  for seed in range(size.seeds):
    run = {
      arm: jax.device_get(task.train(jax.random.key(seed), **settings))
      for arm, (task, settings) in ARMS.items()
    }
    runs.append(run)
    print(f"seed {seed}: {checks(run)}", flush=True)
  size.out.mkdir(parents=True, exist_ok=True)
  text = table(runs)
  (size.out / "bandit.md").write_text(text)
  each = [checks(run) for run in runs]
  stored = {
    "checks": each,
    "courses": [
      {
        arm: {
          name: np.round(getattr(course, name)[list(SHOWN)], 5).tolist()
          for name in Course._fields
        }
        for arm, course in run.items()
      }
      for run in runs
    ],
    "steps": SHOWN,
  }
  (size.out / "bandit.json").write_text(json.dumps(stored) + "\n")
  picture(runs).savefig(size.out / "bandit.png", dpi=110)
  print(text)
  means = {name: float(np.mean([own[name] for own in each])) for name in BOUNDS}
  return 0 if all(held(*one) for one in means.items()) else 1


if __name__ == "__main__":
  sys.exit(main())
