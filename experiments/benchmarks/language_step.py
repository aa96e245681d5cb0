"""Seconds of a step that samples and learns, beside TRL and Tunix.

The work is the same for all: the weights in one Hugging Face folder, written
here; float32; GRPO without a KL; a few prompts of equal length, several
responses to each, sampled at temperature one and always of full length, since
nothing ends them; a reward that is computed at once; one AdamW step of all
parameters. No one recomputes activations. A step is timed whole, with
tokenizer and reward, in the trainer's own loop; the first ones, which compile
and allocate, are left out. Each trainer has the machine for itself, in turn;
TRL and Tunix run in their own environments, in processes of their own, as
their authors made them. The claim is half of the seconds of either.

A processor's seconds are told too, of all threads together. Threads that wait
for each other may spin, so on a machine that others use neither is fair; where
it has to be, give all of them one core (taskset -c 0) and read the processor's.

    python -m experiments.benchmarks.language_step               some minutes
    python -m experiments.benchmarks.language_step --quick       a minute
    python -m experiments.benchmarks.language_step --trl-python PATH \
      --tunix-python PATH

where PATH is the interpreter of an environment with trl and torch, or with
google-tunix. Meant for a CPU: `peer_trl_step.py` asks for one.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib import metadata
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
import tyro

from experiments import recipes
from rl_jax import algorithms, data, models, rewards, sampling
from rl_jax.data.source import start, take
from rl_jax.experiment import Experiment
from rl_jax.launch.run import compile_experiment
from rl_jax.models import huggingface
from rl_jax.training.optimisers import AdamW
from rl_jax.training.sharding import make_mesh

__all__ = ["Seen", "Size", "experiment", "export", "main", "measure", "prompts"]

_CLAIM = 2.0
_PEERS = {"trl": "peer_trl_step.py", "tunix": "peer_tunix_step.py"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Size:
  """What is measured."""

  model: Literal["smollm2", "tiny"] = "smollm2"
  """SmolLM2-135M, or a small one with random weights."""
  prompts: int = 4
  """Prompts of a step."""
  group_size: int = 4
  """Responses to each."""
  length: int = 16
  """Tokens of every response."""
  steps: int = 8
  """Steps of each trainer, one after the other."""
  warm_up: int = 2
  """The first of them, which are not counted."""
  unroll: bool = True
  """See `Autoregressive.unroll`."""
  scan: bool = True
  """See `Decoder.scan`."""
  trl_python: pathlib.Path | None = None
  """Interpreter of an environment with trl and torch."""
  tunix_python: pathlib.Path | None = None
  """Interpreter of an environment with google-tunix."""
  quick: bool = False
  """Start from a size that takes a minute."""

  def __post_init__(self) -> None:
    if not 0 < self.warm_up < self.steps:
      raise ValueError(
        "at least one step is for warming up and one is counted, got"
        f" warm_up = {self.warm_up} and steps = {self.steps}"
      )


QUICK = Size(model="tiny", length=4, steps=4, quick=True)


class Seen(NamedTuple):
  """What one trainer did.

  Attributes:
    name: of the trainer, with versions.
    seconds: of each step, the first ones included: elapsed, and of the
      processor, all threads together.
    load: load average of the last minute, before it began.
  """

  name: str
  seconds: list[Sequence[float]]
  load: float


def main(arguments: Sequence[str] | None = None) -> int:
  """Parse the command line, measure and print the table.

  Args:
    arguments: the command line; that of the process if None.

  Returns:
    0, or 1 if the claim does not hold here.
  """
  arguments = sys.argv[1:] if arguments is None else arguments
  size = tyro.cli(
    Size,
    args=arguments,
    default=QUICK if "--quick" in arguments else Size(),
    description=__doc__,
  )
  lines, holds = measure(size)
  print("\n".join(lines), flush=True)
  return 0 if holds else 1


def measure(size: Size) -> tuple[list[str], bool]:
  """Let every trainer do its steps.

  Args:
    size: the work, and where the others are.

  Returns:
    The lines of a table, and whether the claim holds.
  """
  pythons = {"trl": size.trl_python, "tunix": size.tunix_python}
  with tempfile.TemporaryDirectory() as place:
    folder = pathlib.Path(place) / "model"
    export(size.model, folder)
    load = os.getloadavg()[0]
    found = [Seen(*_ours(size, folder), load)]
    for name, python in pythons.items():
      if python is not None:
        load = os.getloadavg()[0]
        found.append(Seen(*_asked(python, name, _work(size, folder)), load))
  skipped = [name for name, python in pythons.items() if python is None]
  return _table(size, found, skipped)


def experiment(size: Size, folder: pathlib.Path) -> Experiment:
  """The work, for this project's trainer.

  Args:
    size: the work.
    folder: with weights and tokenizer.

  Returns:
    The experiment.
  """
  weights = models.Folder(path=f"{folder}")
  model = dataclasses.replace(weights.model(), scan=size.scan)
  texts = prompts(size)
  longest = max(len(weights.load().encode(text)) for text in texts)
  return Experiment(
    name="language_step",
    model=model,
    start=models.Pretrained(weights=weights),
    data=data.Prompts(
      task=data.Texts(
        rows=size.prompts, origin=tuple((text,) for text in texts)
      ),
      vocabulary=weights,
      length=longest,
    ),
    reward=rewards.TextReward(
      terms=(rewards.Term(name="different", judge=different),)
    ),
    algorithm=algorithms.PolicyOptimisation(
      recipe=recipes.trl_grpo,
      sampler=sampling.Autoregressive(length=size.length, unroll=size.unroll),
      group_size=size.group_size,
      optimiser=AdamW(learning_rate=1e-6, weight_decay=0.0),
      behaviour="same",
    ),
    steps=size.steps,
  )


def export(model: Literal["smollm2", "tiny"], folder: pathlib.Path) -> None:
  """Weights and tokenizer as an ordinary Hugging Face folder.

  Args:
    model: which one.
    folder: where to; must not exist yet.
  """
  vocabulary: Any = models.SmolLm2()
  if model == "tiny":
    vocabulary = models.Characters(
      alphabet="0123456789 +=\n", bos="<start>", pad="<pad>"
    )
    decoder = models.Decoder(
      vocabulary=vocabulary.size,
      width=16,
      layers=2,
      mlp=32,
      attention=models.Attention(
        heads=2, key_value_heads=1, features=8, rope=models.Rope(theta=1e4)
      ),
    )
    params = decoder.init(jax.random.key(0))
  else:
    decoder = vocabulary.model()
    params = vocabulary.weights(decoder, dtype="float32")
  tokenizer = vocabulary.load()
  special = {
    f"{name}_token_id": tokenizer.id(token)
    for name in ("bos", "eos", "pad")
    if (token := getattr(tokenizer, name)) is not None
  }
  huggingface.save(folder, decoder, params, dtype="float32", config=special)
  tokenizer.save(folder)


def prompts(size: Size) -> list[str]:
  """Sums, as many as all steps need, of as many tokens each.

  Args:
    size: the work.

  Returns:
    The prompts.
  """
  draws = np.random.default_rng(0).integers(
    10, 100, (size.steps * size.prompts, 2)
  )
  return [f"3 + 4 = 7\n{a} + {b} =" for a, b in draws.tolist()]


def different(completions: Sequence[str], **_: Any) -> list[float]:
  """A reward that needs no thought: how many characters are used."""
  return [float(len(set(text))) for text in completions]


def _ours(
  size: Size, folder: pathlib.Path
) -> tuple[str, list[Sequence[float]]]:
  """This project's name and the seconds of its steps."""
  own = experiment(size, folder)
  mesh = make_mesh(devices=jax.devices()[:1])
  compiled = compile_experiment(own, mesh, root=folder.parent)
  state = jax.block_until_ready(compiled.init())
  source, cursor = own.data.source(), start()
  ends = [(time.perf_counter(), time.process_time())]
  for _ in range(size.steps):
    indices, cursor = take(
      len(source),
      cursor,
      rows=size.prompts,
      seed=own.seed,
      shuffle=own.data.shuffle,
    )
    batch = compiled.collect(state, compiled.put(source[indices]))
    state, metrics = compiled.update(state, batch)
    jax.block_until_ready((state, metrics))
    ends.append((time.perf_counter(), time.process_time()))
  return f"rl_jax, jax {metadata.version('jax')}", np.diff(
    ends, axis=0
  ).tolist()


def _work(size: Size, folder: pathlib.Path) -> dict[str, Any]:
  return {
    "folder": f"{folder}",
    "prompts": prompts(size),
    "rows": size.prompts,
    "group_size": size.group_size,
    "length": size.length,
    "steps": size.steps,
    "learning_rate": 1e-6,
  }


def _asked(
  python: pathlib.Path, name: str, work: dict[str, Any]
) -> tuple[str, list[Sequence[float]]]:
  """The same of another trainer, which works in a process of its own."""
  script = pathlib.Path(__file__).with_name(_PEERS[name])
  done = subprocess.run(
    # Isolated: files beside the script are no modules of its environment.
    [str(python), "-I", str(script)],
    input=json.dumps(work),
    capture_output=True,
    text=True,
    check=False,
    cwd=pathlib.Path(work["folder"]).parent,
    env=os.environ | {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"},
  )
  if done.returncode:
    raise RuntimeError(f"{script.name} failed:\n{done.stderr[-8000:]}")
  said = json.loads(done.stdout)
  return said["name"], said["seconds"]


def _table(
  size: Size, found: Sequence[Seen], skipped: Sequence[str]
) -> tuple[list[str], bool]:
  rows = size.prompts * size.group_size
  counted = size.steps - size.warm_up
  lines = [
    f"{size.model}, {rows} responses of {size.length} tokens to"
    f" {size.prompts} prompts, float32, all parameters; {counted} steps after"
    f" {size.warm_up}; {jax.devices()[0].device_kind}, {_cores()} of"
    f" {os.cpu_count()} cores",
    f"{'seconds of a step':31}{'median':>8}{'least':>8}{'most':>8}{'':9}"
    f"{'CPU':>8}{'':9}{'first':>8}{'load':>6}",
  ]
  medians, processor = [], []
  for one in found:
    seconds, own = zip(*one.seconds[size.warm_up :], strict=True)
    medians.append(statistics.median(seconds))
    processor.append(statistics.median(own))
    lines.append(
      f"{one.name:31}{medians[-1]:8.3f}{min(seconds):8.3f}{max(seconds):8.3f}"
      f"{medians[-1] / medians[0]:8.2f}x{processor[-1]:8.3f}"
      f"{processor[-1] / processor[0]:8.2f}x{one.seconds[0][0]:8.2f}"
      f"{one.load:6.2f}"
    )
  lines += [f"{name}: skipped, give --{name}-python" for name in skipped]
  holds = all(peer >= _CLAIM * medians[0] for peer in medians[1:])
  if len(found) > 1:
    verdict = "holds" if holds else "does not hold"
    lines.append(f"at least {_CLAIM} times as fast as each: {verdict} here")
  return lines, holds


def _cores() -> int:
  """How many cores this process may use; all where nobody can say."""
  ask = getattr(os, "sched_getaffinity", None)
  return len(ask(0)) if ask else os.cpu_count() or 1


if __name__ == "__main__":
  sys.exit(main())
