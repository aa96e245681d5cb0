"""`rl-jax reference`: what a reference says of preference pairs, once."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from rl_jax.algorithms import PreferenceOptimisation
from rl_jax.algorithms.stored_reference import policy_digest
from rl_jax.data import Preferences
from rl_jax.data.reference_scores import ReferenceScores, write_reference
from rl_jax.launch.console import Console
from rl_jax.launch.run import build_program, run_stages
from rl_jax.training.loop import Outcome, Row
from rl_jax.training.sharding import (
  batch_sharding,
  check_rows,
  make_mesh,
  replicated,
  shard_like,
)

if TYPE_CHECKING:
  from collections.abc import Callable, Iterator

  from rl_jax.experiment import Experiment
  from rl_jax.training.loop import Observer

__all__ = ["store_reference"]

_SIDES = ("chosen", "rejected")


def store_reference(
  experiment: Experiment,
  path: str | Path,
  *,
  root: str | Path = "runs",
  observer: Observer | None = None,
  command: Sequence[str] = (),
) -> Outcome | None:
  """Scores all pairs of an experiment under the policy that it starts from.

      chosen[i] = sum_t log ref(y_t | x, y_<t),   y the chosen answer of pair i

  and likewise for rejected answers, in the batches and by the very function
  that training would ask in each step. An experiment whose
  `data.reference` is the path then trains without asking. What it starts from
  is run first if its result is missing.

  Args:
    experiment: its algorithm is a `PreferenceOptimisation` with a reference;
      whether its data name a `reference` already is no matter.
    path: of the file to write; there must be none.
    root: where work directories without a path of their own live.
    observer: who watches; default shows progress.
    command: how this was started, for the report of what is run first.

  Returns:
    None when the file is written, else the outcome of the stage that was
    stopped.

  Raises:
    ValueError: if there is such a file, the experiment has no reference, its
      data are no `Preferences`, or a log-probability is not finite.
    CheckpointError: if what it starts from cannot be read.
  """
  path = Path(path)
  bare = _bare(experiment)
  if path.exists():
    raise ValueError(
      f"{path} is there already: remove it, or name a file that is new"
    )
  path.parent.mkdir(parents=True, exist_ok=True)
  stopped = run_stages(bare, root=root, command=command)
  if stopped is not None:
    return stopped
  own = bare.mesh
  mesh = make_mesh(data=own.data, fsdp=own.fsdp, tensor=own.tensor)
  check_rows(bare.data.rows, mesh)
  source = bare.data.source()
  score, policy = _scorer(bare, mesh, root)
  watch = observer or Console(
    f"{experiment.name}, reference", show=tuple(f"{s}_nats" for s in _SIDES)
  )
  sums, counts = _watched(
    watch, _scored(source, bare.data.rows, score), len(source), bare.data.rows
  )
  scores = ReferenceScores(*sums, *counts, data=source.digest, policy=policy)
  if jax.process_index() == 0:
    write_reference(path, scores)
  return None


def _bare(experiment: Experiment) -> Experiment:
  """The experiment without what scoring does not need."""
  algorithm, data = experiment.algorithm, experiment.data
  if not isinstance(algorithm, PreferenceOptimisation):
    raise ValueError(
      f"{experiment.name} trains by {type(algorithm).__name__}: only"
      " PreferenceOptimisation takes stored log-probabilities of a reference"
    )
  if not algorithm.reference:
    raise ValueError(f"{experiment.name} has no reference: reference = False")
  if not isinstance(data, Preferences):
    raise ValueError(
      f"{experiment.name} reads {type(data).__name__}, not Preferences"
    )
  data = dataclasses.replace(data, reference=None)
  return dataclasses.replace(experiment, data=data, evaluation=None)


def _scorer(
  experiment: Experiment, mesh: jax.sharding.Mesh, root: str | Path
) -> tuple[Callable[[dict[str, np.ndarray]], dict[str, Any]], str]:
  """Rows of data -> sums of log-probabilities; and the policy's digest."""
  program, start = build_program(experiment, root=root, mesh=mesh)
  policy = policy_digest(experiment.model, start)
  rows = batch_sharding(mesh)
  frozen = jax.device_put(
    program.frozen, shard_like(program.frozen_axes, program.frozen, mesh)
  )
  nothing: Any = None  # of a state: a reference does not change

  def asked(frozen: Any, items: dict[str, jax.Array]) -> dict[str, jax.Array]:
    assert program.signals is not None
    batch = program.collect(nothing, frozen, items)
    batch = jax.lax.with_sharding_constraint(batch, rows)
    return program.signals(nothing, frozen, batch)

  # Whole on every device, so that every host can read them.
  jitted = jax.jit(asked, out_shardings=replicated(mesh))

  def score(items: dict[str, np.ndarray]) -> dict[str, Any]:
    with jax.set_mesh(mesh):
      return jax.device_get(jitted(frozen, jax.device_put(items, rows)))

  return score, policy


def _scored(
  source: Any,
  rows: int,
  score: Callable[[dict[str, np.ndarray]], dict[str, Any]],
) -> Iterator[tuple[list[np.ndarray], list[np.ndarray]]]:
  """Sums and counts of both sides, batch by batch, in the source's order."""
  for first in range(0, len(source), rows):
    index = np.arange(first, first + rows)
    # The last batch is filled up with its last pair, which counts once.
    items = source[np.minimum(index, len(source) - 1)]
    found, count = score(items), int(np.sum(index < len(source)))
    sums = [found[side][:count].astype(np.float32) for side in _SIDES]
    for side, own in zip(_SIDES, sums, strict=True):
      bad = np.flatnonzero(~np.isfinite(own))
      if bad.size:
        raise ValueError(
          f"the reference says {own[bad[0]]} of the {side} answer of pair"
          f" {first + bad[0]}: its parameters are damaged, or too large for"
          " its dtype"
        )
    masks = (items[f"{side}_mask"][:count] for side in _SIDES)
    yield sums, [mask.sum(axis=1, dtype=np.int32) for mask in masks]


def _watched(
  watch: Observer,
  batches: Iterator[tuple[list[np.ndarray], list[np.ndarray]]],
  pairs: int,
  rows: int,
) -> tuple[list[np.ndarray], list[np.ndarray]]:
  """All batches in one, while somebody watches them come."""
  begun, steps = time.monotonic(), -(-pairs // rows)
  found: list[tuple[list[np.ndarray], list[np.ndarray]]] = []

  def seconds() -> float:
    return time.monotonic() - begun

  watch.started(step=0, steps=steps)
  try:
    for batch in batches:
      found.append(batch)
      watch.measured(Row(len(found), "train", _nats(*batch), seconds(), {}))
  except BaseException as error:
    said = str(error) or type(error).__name__
    watch.ended(Outcome("failed", len(found), None, seconds(), {}, said))
    raise
  sums, counts = (
    [np.concatenate(side) for side in zip(*each, strict=True)]
    for each in zip(*found, strict=True)
  )
  nats = _nats(sums, counts)
  watch.ended(Outcome("finished", steps, None, seconds(), nats))
  return sums, counts


def _nats(sums: list[np.ndarray], counts: list[np.ndarray]) -> dict[str, float]:
  """Per token, so that a person sees whether they can be right."""
  return {
    f"{side}_nats": -float(own.sum() / count.sum())
    for side, own, count in zip(_SIDES, sums, counts, strict=True)
  }
