"""GRPO against relative negatives alone: pass@1, pass@64, solved and lost.

    python -m experiments.advantages.two_stage_rlvr_study
    python -m experiments.advantages.two_stage_rlvr_study --seeds 1

All arms of a seed start from one warm start. Besides what `arms.study` writes
there is solved.md: how many held-out sums that the warm start solved in none
of 64 tries are solved after training, and how many are lost.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import tyro

from experiments import arms
from experiments.advantages import two_stage_rlvr
from rl_jax.evaluation.mass import SolvedSetChange, solved_set_change
from rl_jax.experiment import Experiment
from rl_jax.launch.texts import read_texts

__all__ = ["ARMS", "Size", "main"]

METRICS = (
  "evaluation/pass_at_64",
  "evaluation/pass_at_1",
  "evaluation/entropy",
)


def arm(name: str, pos_weight: float) -> Experiment:
  """The experiment with another weight of what is better than its group."""
  base = two_stage_rlvr.experiment
  recipe = base.algorithm.recipe
  baseline = dataclasses.replace(recipe.baseline, pos_weight=pos_weight)
  return dataclasses.replace(
    base,
    name=f"two_stage_rlvr_{name}",
    algorithm=dataclasses.replace(
      base.algorithm, recipe=dataclasses.replace(recipe, baseline=baseline)
    ),
  )


ARMS = {
  "GRPO": arm("grpo", 1.0),
  "relative negative": arm("negative", 0.0),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Size:
  """What is run, and where it goes."""

  seeds: int = 3
  """How many."""
  root: Path = Path("runs")
  """Where runs are, or go."""
  out: Path = Path(__file__).parent / "results" / "two_stage_rlvr"
  """Folder of the results."""


def changes(experiment: Experiment, size: Size) -> list[SolvedSetChange]:
  """What each seed solves now and did not before, and what it lost."""
  answers = two_stage_rlvr.EVALUATION.answers
  found = []
  for seed in range(size.seeds):
    own = arms.seeded(experiment, seed)
    written = read_texts(size.root / f"{own.name}-{own.hash}")
    right = [
      np.array([text["reward"] == 1 for text in one.record]).reshape(
        answers.prompts, answers.samples
      )
      for one in (written[0], written[-1])
    ]
    found.append(solved_set_change(*right))
  return found


def main(arguments: Sequence[str] | None = None) -> int:
  """Trains all arms with all seeds.

  Args:
    arguments: of the command line; those of the process when None.

  Returns:
    0.
  """
  size = tyro.cli(Size, description=__doc__, args=arguments)
  found = arms.study(
    ARMS,
    seeds=size.seeds,
    metrics=METRICS,
    out=size.out,
    root=size.root,
    baseline="GRPO",
  )
  lines = [
    f"Of {two_stage_rlvr.EVALUATION.answers.prompts} held-out sums, those that"
    " some of 64 tries solve; a number for each seed. The warm start is the"
    " same for both arms.",
    "",
    "| arm | before | after | newly | lost | pass@1 before | pass@64 before |",
    "|---|---|---|---|---|---|---|",
  ]
  for name, experiment in ARMS.items():
    each = changes(experiment, size)
    numbers = [
      [change.before for change in each],
      [change.after for change in each],
      [int(change.newly.sum()) for change in each],
      [int(change.lost.sum()) for change in each],
    ]
    start = [
      found.curves[name][f"evaluation/pass_at_{k}"][1][:, 0] for k in (1, 64)
    ]
    cells = [", ".join(map(str, number)) for number in numbers]
    cells += [", ".join(f"{x:.3f}" for x in values) for values in start]
    lines.append(f"| {name} | " + " | ".join(cells) + " |")
  text = "\n".join(lines) + "\n"
  (size.out / "solved.md").write_text(text)
  print(text)
  return 0


if __name__ == "__main__":
  sys.exit(main())
