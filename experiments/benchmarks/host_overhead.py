"""Share of a step's time that passes outside of the compiled functions.

The loop of a run is timed whole, with its records; then the very same compiled
functions are called back to back on inputs that are already on the device. Two
lengths of each, taking turns in one process: their difference is what a step
costs, free of what a run costs once. What a step of the loop takes longer is
the overhead: reading indices, moving items, checks, records. The claim is less
than 5 % of a step at digits size. A checkpoint's price is told apart, since how
often it is paid is the experiment's choice.

    python -m experiments.benchmarks.host_overhead            about 2 minutes
    python -m experiments.benchmarks.host_overhead --steps 20 --repeats 3
"""

from __future__ import annotations

import dataclasses
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import tyro

from experiments.flow import digits_awm
from rl_jax.data.source import start, take
from rl_jax.experiment import Experiment
from rl_jax.launch.records import Records
from rl_jax.launch.run import compile_experiment, run_stages
from rl_jax.training.checkpoints import Store
from rl_jax.training.compiled import Compiled
from rl_jax.training.loop import Plan, run_loop
from rl_jax.training.sharding import make_mesh

__all__ = ["Shares", "Size", "main", "measure"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Size:
  """What is measured."""

  steps: int = 60
  """Loop steps of a short run; a long one has four times as many."""
  repeats: int = 5
  """Runs of each kind; medians are reported."""
  save_every: int = 20
  """Steps between two checkpoints, where there are any."""
  root: Path = Path("runs")
  """Where results of the base and the judges are, or are put."""


class Shares(NamedTuple):
  """Median milliseconds.

  Attributes:
    whole: a step of the loop, without checkpoints.
    bare: a step's compiled functions alone.
    checkpoint: what one checkpoint adds to the loop.
  """

  whole: float
  bare: float
  checkpoint: float

  def outside(self) -> float:
    """Share of a step outside of the compiled functions."""
    return 1.0 - self.bare / self.whole


def measure(experiment: Experiment, size: Size) -> Shares:
  """Times the loop and its compiled functions, taking turns.

  Args:
    experiment: what to run; its stages are run first if missing.
    size: how long and how often.

  Returns:
    Medians over the repeats.
  """
  stopped = run_stages(experiment, root=size.root, observers=lambda *_: ())
  if stopped is not None:
    raise KeyboardInterrupt
  mesh = make_mesh(devices=jax.devices()[:1])
  compiled = compile_experiment(experiment, mesh, root=size.root)
  short, long = size.steps, 4 * size.steps
  never = long + 1
  found: list[Shares] = []
  # One round more than counted: the first also warms up.
  for i in range(size.repeats + 1):
    loop = [_loop(compiled, experiment, n, never) for n in (short, long)]
    bare = [_bare(compiled, experiment, n) for n in (short, long)]
    saved = _loop(compiled, experiment, long, size.save_every) - loop[1]
    if i:
      times = [1000 * (b - a) / (long - short) for a, b in (loop, bare)]
      # The last step is saved either way.
      saves = (long - 1) // size.save_every
      found.append(Shares(*times, 1000 * saved / max(saves, 1)))
  return Shares(*map(statistics.median, zip(*found, strict=True)))


def _loop(
  compiled: Compiled, experiment: Experiment, steps: int, every: int
) -> float:
  """Seconds of a whole run of the loop."""
  with tempfile.TemporaryDirectory() as name:
    store = Store(Path(name) / "checkpoints", keep=2)
    records = Records(Path(name))
    plan = Plan(
      steps=steps,
      seed=experiment.seed,
      save_every=every,
      guard=experiment.guard,
      about={},
    )
    state = jax.block_until_ready(compiled.init())
    _, outcome = run_loop(
      compiled, state, experiment.data, store, plan, (records,)
    )
    store.close()
  return outcome.seconds


def _bare(compiled: Compiled, experiment: Experiment, steps: int) -> float:
  """Seconds of the same calls of compiled functions, and nothing else."""
  data = experiment.data
  source = data.source()
  indices, _ = take(
    len(source),
    start(),
    rows=data.rows,
    seed=experiment.seed,
    shuffle=data.shuffle,
  )
  items = compiled.put(source[indices])
  state = jax.block_until_ready(compiled.init())
  began = time.monotonic()
  metrics, seen = None, compiled.evaluate(state)
  for step in range(1, steps + 1):
    batch = compiled.collect(state, items)
    state, metrics = compiled.update(state, batch)
    if step % compiled.evaluate_every == 0 or step == steps:
      seen = compiled.evaluate(state)
  jax.block_until_ready((state, metrics, seen))
  return time.monotonic() - began


def main(arguments: Sequence[str] | None = None) -> int:
  """Prints the table.

  Args:
    arguments: of the command line; those of the process when None.

  Returns:
    0, or 1 if the claim does not hold here.
  """
  size = tyro.cli(Size, description=__doc__, args=arguments)
  found = measure(digits_awm.experiment, size)
  rows = (
    ("the loop and its records", found.whole, "ms a step"),
    ("its compiled functions alone", found.bare, "ms a step"),
    ("a checkpoint besides", found.checkpoint, "ms each"),
  )
  print(
    f"{digits_awm.experiment.name}, medians of {size.repeats} differences of"
  )
  print(
    f"{size.steps} and {4 * size.steps} steps on {jax.devices()[0].device_kind}"
  )
  for name, value, unit in rows:
    print(f"  {name:36} {value:8.2f} {unit}")
  print(f"  {'outside of compiled functions':36} {found.outside():8.1%}")
  return 0 if found.outside() < 0.05 else 1


if __name__ == "__main__":
  sys.exit(main())
