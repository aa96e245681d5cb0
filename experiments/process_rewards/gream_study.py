"""Exact-match GRPO, a reward for beginnings, and a bonus for exact items.

    python -m experiments.process_rewards.gream_study
    python -m experiments.process_rewards.gream_study --seeds 1

All arms of a seed start from one warm start. `dead_groups` is the share of
prompts whose ten rewards are all the same, and which teach nothing; in
table.md it is that of the last step, in groups.md the mean of all.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import tyro

from experiments import arms
from experiments.process_rewards import gream
from rl_jax import rewards
from rl_jax.advantages import group_relative
from rl_jax.algorithms.components import WithinGroup
from rl_jax.experiment import Experiment

__all__ = ["ARMS", "Size", "exactly", "main"]

METRICS = (
  "evaluation/hit_at_1",
  "evaluation/hit_at_10",
  "evaluation/ndcg_at_10",
  "dead_groups",
)
GRPO = WithinGroup(
  estimator=partial(group_relative, scale="group", ddof=1, epsilon=1e-6)
)


def exactly(
  prompts: list[str], completions: list[str], **columns: list
) -> list[float | None]:
  """1 where the item is the right one, else 0."""
  del prompts
  return gream.judged(gream.EXACT, completions, columns["reference"])


def without_bonus(name: str, judge=None) -> Experiment:
  """The experiment with the group advantage alone, and maybe another reward."""
  base, reward = gream.experiment, gream.experiment.reward
  if judge is not None:
    terms = (rewards.Term(name="match", judge=judge),)
    reward = dataclasses.replace(reward, terms=terms)
  recipe = dataclasses.replace(base.algorithm.recipe, baseline=GRPO)
  return dataclasses.replace(
    base,
    name=f"gream_{name}",
    reward=reward,
    algorithm=dataclasses.replace(base.algorithm, recipe=recipe),
  )


ARMS = {
  "exact": without_bonus("exact", exactly),
  "prefix": without_bonus("prefix"),
  "prefix and bonus": gream.experiment,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Size:
  """What is run, and where it goes."""

  seeds: int = 3
  """How many."""
  root: Path = Path("runs")
  """Where runs are, or go."""
  out: Path = Path(__file__).parent / "results" / "gream"
  """Folder of the results."""


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
    baseline="exact",
  )
  lines = [
    "Means over all steps and over seeds: groups with an advantage, and what"
    " beam search found before and after.",
    "",
    "| arm | groups that teach | hit@1 at 0 | after | hit@10 at 0 | after |",
    "|---|---|---|---|---|---|",
  ]
  for name, curves in found.curves.items():
    cells = [1.0 - curves["dead_groups"][1].mean()]
    for k in (1, 10):
      value = curves[f"evaluation/hit_at_{k}"][1].mean(axis=0)
      cells += [value[0], value[-1]]
    lines.append(f"| {name} | " + " | ".join(f"{x:.3f}" for x in cells) + " |")
  text = "\n".join(lines) + "\n"
  (size.out / "groups.md").write_text(text)
  print(text)
  return 0


if __name__ == "__main__":
  sys.exit(main())
