"""chain_sum_grpo.py over seeds: is the rise more than chance?

    python -m experiments.language.chain_sum_seeds
    python -m experiments.language.chain_sum_seeds --seeds 5

Every seed has its own warm start. Writes a table and the numbers it is made
of to results/chain_sum_seeds/.
"""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

import tyro

from experiments.language import chain_sum_grpo, chain_sum_sft
from rl_jax.experiment import Trained
from rl_jax.launch.records import Records, read_records
from rl_jax.launch.run import train

__all__ = ["Size", "main"]

REWARD, INTERVAL = "evaluation/reward", "evaluation/reward_interval"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Size:
  """What is run, and where."""

  seeds: int = 3
  """How many."""
  root: Path = Path("runs")
  """Where runs are, or go."""
  out: Path = Path(__file__).parent / "results" / "chain_sum_seeds"
  """Where the table goes."""


def one(seed: int, root: Path) -> dict[str, float]:
  """Held-out accuracy before and after, with half the width of its interval."""
  warm = dataclasses.replace(chain_sum_sft.experiment, seed=seed)
  experiment = dataclasses.replace(
    chain_sum_grpo.experiment, seed=seed, start=Trained(by=warm)
  )
  workdir = root / f"{experiment.name}-{experiment.hash}"
  outcome = train(
    experiment,
    workdir=workdir,
    root=root,
    observers=lambda _, directory: (Records(directory),),
  )
  if outcome.status != "finished":
    raise KeyboardInterrupt
  rows = [r.metrics for r in read_records(workdir) if REWARD in r.metrics]
  return {
    "before": rows[0][REWARD],
    "before_interval": rows[0][INTERVAL],
    "after": rows[-1][REWARD],
    "after_interval": rows[-1][INTERVAL],
    "seconds": read_records(workdir)[-1].seconds,
  }


def table(found: Sequence[dict[str, float]]) -> str:
  """One line for each seed, and their mean with its standard error."""
  lines = ["| seed | before | after | seconds |", "|---|---|---|---|"]
  for seed, row in enumerate(found):
    lines.append(
      f"| {seed} | {row['before']:.3f} ± {row['before_interval']:.3f}"
      f" | {row['after']:.3f} ± {row['after_interval']:.3f}"
      f" | {row['seconds']:.0f} |"
    )
  rises = [row["after"] - row["before"] for row in found]
  mean = statistics.mean(rises)
  error = 0.0
  if len(rises) > 1:
    error = statistics.stdev(rises) / math.sqrt(len(rises))
  lines.append("")
  lines.append(f"Mean rise {mean:.3f}, standard error {error:.3f}.")
  return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
  """Runs all seeds and writes the table.

  Args:
    arguments: of the command line; those of the process when None.

  Returns:
    0, or 1 if a seed's rise is within its intervals.
  """
  size = tyro.cli(Size, description=__doc__, args=arguments)
  found = []
  for seed in range(size.seeds):
    found.append(one(seed, size.root))
    print(f"seed {seed}: {found[-1]}", flush=True)
  size.out.mkdir(parents=True, exist_ok=True)
  (size.out / "table.md").write_text(table(found))
  (size.out / "results.json").write_text(json.dumps(found, indent=2) + "\n")
  print(table(found))
  apart = all(
    row["after"] - row["before"]
    > math.hypot(row["before_interval"], row["after_interval"])
    for row in found
  )
  return 0 if apart else 1


if __name__ == "__main__":
  sys.exit(main())
