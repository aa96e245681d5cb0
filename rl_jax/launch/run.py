"""From an experiment to its result: stages, work directory, resume."""

from __future__ import annotations

import fcntl
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from rl_jax.experiment import (
  Checkpoint,
  Experiment,
  Trained,
  diff,
  from_dict,
  stages,
  to_dict,
)
from rl_jax.training.checkpoints import CheckpointError, Store
from rl_jax.training.compiled import Compiled
from rl_jax.training.loop import Observer, Outcome, Plan, run_loop
from rl_jax.training.sharding import make_mesh, replicated

if TYPE_CHECKING:
  from jaxtyping import PyTree

  from rl_jax.training.state import Program

  Observers = Callable[[Experiment, Path], Sequence[Observer]]

__all__ = [
  "WorkdirError",
  "build_program",
  "compile_experiment",
  "run_stages",
  "train",
]

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "rl-jax")


class WorkdirError(ValueError):
  """A work directory that belongs to something else."""


def train(
  experiment: Experiment,
  *,
  workdir: str | Path | None = None,
  root: str | Path = "runs",
  observers: Observers | None = None,
  resume_from: int | None = None,
  command: Sequence[str] = (),
) -> Outcome:
  """Runs an experiment, and first whatever it starts from.

  A run resumes by itself from the newest checkpoint in its work directory.
  Experiments that this one builds on (`Trained`) are looked up in `root` by
  their hash and run there if their result is missing.

  Args:
    experiment: what to run.
    workdir: where its files go; default `root/<name>-<hash>`.
    root: where work directories without a path of their own live.
    observers: (experiment, work directory) -> who watches that stage; default
      writes records and shows progress.
    resume_from: go on from this older step instead of the newest; later
      checkpoints are moved to `set_aside`.
    command: how the run was started, for the report.

  Returns:
    How it ended.

  Raises:
    WorkdirError: if the work directory holds another experiment or is in use.
    CheckpointError: if a checkpoint cannot be written, read or trusted.
    Unhealthy, Collapse: see `rl_jax.training.doctor`.
    ValueError: if the experiment cannot be built.
  """
  root = Path(root)
  watch = observers or _default_observers
  workdir = Path(workdir) if workdir else _default_workdir(experiment, root)
  with _claimed(workdir, experiment, command):
    stopped = run_stages(
      experiment, root=root, observers=observers, command=command
    )
    if stopped is not None:
      return stopped
    mesh = make_mesh(
      data=experiment.mesh.data,
      fsdp=experiment.mesh.fsdp,
      tensor=experiment.mesh.tensor,
    )
    compiled = compile_experiment(experiment, mesh, root=root)
    store = Store(
      workdir / "checkpoints",
      keep=experiment.checkpoints.keep,
      keep_every=experiment.checkpoints.keep_every,
    )
    try:
      if resume_from is not None:
        store.restore(compiled.abstract_state, step=resume_from)  # or refuse
        store.set_aside_after(resume_from)
        (workdir / "result.json").unlink(missing_ok=True)
      if store.steps():
        state, _ = store.restore(compiled.abstract_state)
      else:
        state = compiled.init()
      plan = Plan(
        steps=experiment.steps,
        seed=experiment.seed,
        save_every=experiment.checkpoints.every,
        guard=experiment.guard,
        about={"experiment": experiment.hash},
      )
      _, outcome = run_loop(
        compiled,
        state,
        experiment.data,
        store,
        plan,
        watch(experiment, workdir),
      )
    finally:
      store.close()
    # One that was finished before keeps the result of the run that made it.
    if outcome.status == "finished" and not _is_finished(workdir):
      _write_json(workdir / "result.json", outcome._asdict())
  return outcome


def run_stages(
  experiment: Experiment,
  *,
  root: str | Path = "runs",
  observers: Observers | None = None,
  command: Sequence[str] = (),
) -> Outcome | None:
  """Runs what an experiment builds on, as far as results are missing.

  Args:
    experiment: whose stages to run.
    root: where results are looked for and put.
    observers: as for `train`.
    command: as for `train`.

  Returns:
    None when all are there, else the outcome of the stage that was stopped.

  Raises:
    As `train`.
  """
  root = Path(root)
  for stage in stages(experiment):
    if not _is_finished(_find(stage.by, root)):
      outcome = train(stage.by, root=root, observers=observers, command=command)
      if outcome.status != "finished":
        return outcome
  return None


def build_program(
  experiment: Experiment,
  *,
  root: str | Path = "runs",
  mesh: jax.sharding.Mesh | None = None,
) -> tuple[Program, PyTree | None]:
  """The pure functions of an experiment, and the parameters it starts from.

  Args:
    experiment: what to build; what it builds on must be finished.
    root: where results of earlier stages are.
    mesh: where to put their parameters; default a mesh of one device.

  Returns:
    The program, and parameters for its `init` (None: from scratch).

  Raises:
    ValueError: if parts of the experiment do not fit each other.
    CheckpointError: if an earlier result cannot be read.
  """
  mesh = mesh or make_mesh(devices=jax.devices()[:1])

  def load(trained: Trained) -> PyTree:
    workdir = _find(trained.by, Path(root))
    if workdir is None:
      raise CheckpointError(
        f"no result of {trained.by.name} ({trained.by.hash}) in {root}"
      )
    return _params(workdir, trained.by.model, mesh, step=trained.by.steps)

  start = None
  if isinstance(experiment.start, Trained):
    start = load(experiment.start)
  elif isinstance(experiment.start, Checkpoint):
    start = _params(
      Path(experiment.start.path),
      experiment.model,
      mesh,
      step=experiment.start.step,
    )
  return experiment.algorithm.build(experiment, load), start


def compile_experiment(
  experiment: Experiment, mesh: jax.sharding.Mesh, *, root: str | Path
) -> Compiled:
  """The experiment's program, compiled for a mesh; see `build_program`.

  Args:
    experiment: what to build; what it builds on must be finished.
    mesh: from `make_mesh`.
    root: where results of earlier stages are.

  Returns:
    Functions ready to call.
  """
  program, start = build_program(experiment, root=root, mesh=mesh)
  data = experiment.data
  one = data.source()[np.zeros(1, np.int64)]
  items = {
    name: jax.ShapeDtypeStruct((data.rows, *x.shape[1:]), x.dtype)
    for name, x in one.items()
  }
  return Compiled(program, mesh, start=start, items=items, seed=experiment.seed)


def _params(
  workdir: Path, model: Any, mesh: jax.sharding.Mesh, *, step: int | None
) -> PyTree:
  directory = workdir / "checkpoints"
  if not directory.is_dir():
    raise CheckpointError(f"no checkpoints in {workdir}")
  shapes = jax.eval_shape(model.init, jax.random.key(0))
  like = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=replicated(mesh)),
    shapes,
  )
  store = Store(directory, keep=2**30, read_only=True)
  try:
    return store.restore_params(like, step=step)
  finally:
    store.close()


def _default_observers(experiment: Experiment, workdir: Path):
  from rl_jax.launch.console import Console
  from rl_jax.launch.records import Records
  from rl_jax.launch.report import Report

  return (
    Records(workdir),
    Console(experiment.name),
    Report(workdir, experiment),
  )


def _default_workdir(experiment: Experiment, root: Path) -> Path:
  return (
    _find(experiment, root) or root / f"{experiment.name}-{experiment.hash}"
  )


def _find(experiment: Experiment, root: Path) -> Path | None:
  """The work directory of an experiment, whatever name it was given."""
  found = sorted(root.glob(f"*-{experiment.hash}"))
  return found[0] if found else None


def _is_finished(workdir: Path | None) -> bool:
  return workdir is not None and (workdir / "result.json").exists()


@contextmanager
def _claimed(
  workdir: Path, experiment: Experiment, command: Sequence[str]
) -> Iterator[None]:
  """The work directory, locked, with the experiment written into it."""
  workdir.mkdir(parents=True, exist_ok=True)
  lock = os.open(workdir / "lock", os.O_CREAT | os.O_RDWR)
  try:
    try:
      fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      raise WorkdirError(
        f"{workdir} is in use by another process; give this run another"
        " --workdir"
      ) from None
    path = workdir / "experiment.json"
    if path.exists():
      _check_same(path, experiment)
    _write_json(
      path,
      {
        "experiment": to_dict(experiment),
        "hash": experiment.hash,
        "command": list(command),
        "python": sys.version.split()[0],
        "versions": {name: metadata.version(name) for name in _PACKAGES},
      },
    )
    yield
  finally:
    os.close(lock)


def _check_same(path: Path, experiment: Experiment) -> None:
  try:
    stored: Mapping[str, Any] = json.loads(path.read_text())
    there = stored["hash"]
  except (ValueError, KeyError) as error:
    raise WorkdirError(f"{path} cannot be read: {error}") from error
  if there == experiment.hash:
    return
  try:
    changes = diff(from_dict(stored["experiment"]), experiment)
    said = "; ".join(f"{p}: {a!r} there, {b!r} here" for p, a, b in changes[:6])
  except ValueError as error:  # It names code that is not here.
    said = str(error)
  raise WorkdirError(
    f"{path.parent} holds another experiment ({there}, not"
    f" {experiment.hash}): {said}. Give this run another --workdir, or none"
  )


def _write_json(path: Path, value: Any) -> None:
  """Writes the whole file or nothing."""
  draft = path.with_suffix(".draft")
  draft.write_text(json.dumps(value, indent=2) + "\n")
  os.replace(draft, path)
