"""From an experiment to its result: stages, work directory, resume."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from rl_jax.experiment import (
  Experiment,
  Scratch,
  Trained,
  stages,
)
from rl_jax.launch.starts import Starts, check_fit, restored_params
from rl_jax.launch.workdir import (
  claimed,
  default_workdir,
  find,
  is_finished,
  write_json,
)
from rl_jax.training.checkpoints import Store
from rl_jax.training.compiled import Compiled
from rl_jax.training.loop import Observer, Outcome, Plan, run_loop
from rl_jax.training.sharding import make_mesh, replicated

if TYPE_CHECKING:
  from jaxtyping import PyTree

  from rl_jax.training.state import Program

  Observers = Callable[[Experiment, Path], Sequence[Observer]]

__all__ = [
  "build_program",
  "compile_abstractly",
  "compile_experiment",
  "restored_params",
  "run_stages",
  "train",
]


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
  workdir = Path(workdir) if workdir else default_workdir(experiment, root)
  with claimed(workdir, experiment, command):
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
    if outcome.status == "finished" and not is_finished(workdir):
      write_json(workdir / "result.json", outcome._asdict())
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
    if not is_finished(find(stage.by, root)):
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

  starts = Starts((Path(root),), replicated(mesh))
  loaded: list[tuple[Any, PyTree]] = []

  def load(start: Any, model: Any = experiment.model) -> PyTree:
    # Several may ask for the same parameters, and large ones are held once.
    for known, params in loaded:
      if known == (start, model):
        return params
    params = starts.params(start, model)
    if _adapted(start) and start == experiment.start:
      check_fit(params, experiment.model, of=f"the result of {start.by.name}")
    loaded.append(((start, model), params))
    return params

  program = experiment.algorithm.build(experiment, load)
  return program, _begun(program, load(experiment.start))


def _adapted(start: Any) -> bool:
  by = getattr(start, "by", None)
  return getattr(getattr(by, "model", None), "lora", None) is not None


def _begun(program: Program, start: PyTree | None) -> PyTree | None:
  return start if program.start is None else program.start(start)


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
  return Compiled(
    program,
    mesh,
    start=start,
    items=_item_shapes(experiment.data),
    seed=experiment.seed,
  )


def compile_abstractly(
  experiment: Experiment, mesh: jax.sharding.Mesh
) -> Compiled:
  """The experiment's steps compiled from shapes alone.

  No parameter, no row of data and no earlier result is read, so what needs a
  pod can be compiled on a laptop. There is no evaluation in it.

  Args:
    experiment: what to build; its data has a `layout`.
    mesh: from `make_mesh`.

  Returns:
    Compiled functions with `abstract_state`, not to be called.

  Raises:
    ValueError: if parts of the experiment do not fit each other.
  """

  def load(start: Any, model: Any = experiment.model) -> PyTree | None:
    if isinstance(start, Scratch):
      return None
    model = start.by.model if isinstance(start, Trained) else model
    return jax.eval_shape(model.init, jax.random.key(0))

  bare = dataclasses.replace(experiment, evaluation=None)
  program = bare.algorithm.build(bare, load)
  return Compiled(
    program,
    mesh,
    start=_begun(program, load(bare.start)),
    items=_item_shapes(bare.data),
    seed=bare.seed,
  )


def _item_shapes(data: Any) -> dict[str, jax.ShapeDtypeStruct]:
  if hasattr(data, "layout"):
    layout = data.layout
  else:
    one = data.source()[np.zeros(1, np.int64)]
    layout = {
      name: ((data.rows, *x.shape[1:]), x.dtype) for name, x in one.items()
    }
  return {name: jax.ShapeDtypeStruct(*item) for name, item in layout.items()}


def _default_observers(experiment: Experiment, workdir: Path):
  from rl_jax.launch.console import Console
  from rl_jax.launch.records import Records
  from rl_jax.launch.report import Report

  return (
    Records(workdir),
    Console(experiment.name),
    Report(workdir, experiment),
  )
