"""What an experiment, a judge or a command starts from, as parameters."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax

from rl_jax.experiment import (
  Checkpoint,
  Experiment,
  Scratch,
  Trained,
  from_dict,
)
from rl_jax.launch.files import FileError
from rl_jax.launch.workdir import find
from rl_jax.training.checkpoints import CheckpointError, Store

if TYPE_CHECKING:
  from jaxtyping import PyTree

__all__ = ["Starts", "Stored", "check_fit", "restored_params"]


class Starts:
  """Finds and reads the parameters of starts.

  What a run of a model with `lora` trained is a change of weights: they are
  found by what that run started from, and the change is added to them.

  Args:
    places: directories of work directories. What a run started from is looked
      for beside that run too.
    where: every array goes there.
  """

  def __init__(
    self, places: tuple[Path, ...], where: jax.sharding.Sharding
  ) -> None:
    self._places, self._where = places, where

  def params(self, start: Any, model: Any) -> PyTree | None:
    """The parameters of a start.

    Args:
      start: `Scratch`, `Checkpoint`, `Trained`, or a value with
        `params(model)`.
      model: what they are for; `Trained` says itself which model it is of.

    Returns:
      The parameters, of the model without a low-rank change; None from
      scratch.

    Raises:
      CheckpointError: if a checkpoint is missing or cannot be trusted.
      FileError: if a work directory does not say what its run was.
      ValueError: if a change was trained of another model.
    """
    return self._params(start, model, None)

  def of_run(
    self,
    workdir: Path,
    model: Any,
    start: Callable[[], Any],
    *,
    step: int | None,
  ) -> PyTree:
    """What a run made of its model, a low-rank change added in.

    Args:
      workdir: of the run.
      model: which it trained.
      start: gives what it started from; asked only where that is needed.
      step: which checkpoint; None = the newest.

    Returns:
      Parameters as `model.init` makes them, in the precision of the start.

    Raises:
      As `params`.
    """
    if getattr(model, "lora", None) is None:
      return restored_params(workdir, model.init, self._where, step=step)
    change = restored_params(
      workdir, model.init_adapter, self._where, step=step
    )
    base = self._params(start(), model, workdir)
    if base is None:
      raise FileError(f"{workdir} trained a low-rank change of nothing")
    check_fit(base, model, of=f"what {workdir} started from")
    return model.merged(jax.device_put(base, self._where), change)

  def _params(self, start: Any, model: Any, of: Path | None) -> PyTree | None:
    """`params`, where they are what the run in `of` started from."""
    if isinstance(start, Scratch):
      return None
    if isinstance(start, Trained):
      by = start.by
      return self.of_run(
        self._look(by, of), by.model, lambda: by.start, step=by.steps
      )
    if isinstance(start, Checkpoint):
      path, step = Path(start.path), start.step
      if not _adapted(path):
        return restored_params(path, model.init, self._where, step=step)
      stored = Stored(path / "experiment.json")
      own = stored.read("model")
      found = self.of_run(path, own, lambda: stored.read("start"), step=step)
      check_fit(found, model, of=f"{path}")
      return found
    return start.params(model)

  def _look(self, by: Experiment, of: Path | None) -> Path:
    places = self._places if of is None else (*self._places, of.parent)
    for place in places:
      if found := find(by, place):
        return found
    result = f"result of {by.name} ({by.hash})"
    said = " or ".join(dict.fromkeys(map(str, places)))
    if of is None:
      raise CheckpointError(f"no {result} in {said}")
    raise FileError(
      f"{of} trained a low-rank change of the {result}, which is not in {said}"
    )


def _adapted(workdir: Path) -> bool:
  """Whether its run trained a low-rank change, as far as it says so."""
  path = workdir / "experiment.json"
  return path.is_file() and Stored(path).has("model", "lora")


def check_fit(params: PyTree, model: Any, *, of: str) -> None:
  """Refuses parameters of another model.

  Args:
    params: what was read.
    model: what they are for.
    of: what they were read from, for the message.

  Raises:
    ValueError: with the first array that is missing, left over or of another
      shape.
  """
  like = jax.eval_shape(model.init, jax.random.key(0))
  there, here = _shapes(params), _shapes(like)
  differ = sorted(
    name for name in there | here if there.get(name) != here.get(name)
  )
  if differ:
    name = differ[0]
    raise ValueError(
      f"{of} is of another model: its {name} has shape {there.get(name)}, and"
      f" the model that it is for has {here.get(name)} ({len(differ)} of"
      f" {len(there | here)} arrays differ): start from a run of this model, or"
      " take the model of that run"
    )


def _shapes(tree: PyTree) -> dict[str, tuple[int, ...]]:
  return {
    jax.tree_util.keystr(path, simple=True, separator="/"): x.shape
    for path, x in jax.tree_util.tree_leaves_with_path(tree)
  }


def restored_params(
  workdir: Path,
  init: Callable[[Any], PyTree],
  where: jax.sharding.Sharding,
  *,
  step: int | None,
) -> PyTree:
  """What a run trained, from one of its checkpoints.

  Args:
    workdir: of the run.
    init: key -> parameters, of which only the shapes are asked.
    where: every array goes there.
    step: which checkpoint; None = the newest.

  Returns:
    The parameters.

  Raises:
    CheckpointError: if there is none, or it cannot be trusted.
  """
  directory = workdir / "checkpoints"
  if not directory.is_dir():
    raise CheckpointError(f"no checkpoints in {workdir}")
  like = jax.tree.map(
    lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where),
    jax.eval_shape(init, jax.random.key(0)),
  )
  store = Store(directory, keep=2**30, read_only=True)
  try:
    return store.restore_params(like, step=step)
  finally:
    store.close()


class Stored:
  """An experiment as a run stored it, of which only parts are made again.

  The others may need what is not here: data, judges, the script that began
  the run.

  Args:
    path: of the file.

  Raises:
    FileError: if it holds no experiment.
  """

  def __init__(self, path: Path) -> None:
    self._path = path
    try:
      stored = json.loads(path.read_text(encoding="utf-8"))
      self._encoded, command = stored["experiment"], stored["command"]
      self._encoded["fields"]["model"]
      self._roots = (Path.cwd(), *map(_root, command))
    except (ValueError, KeyError, TypeError) as error:
      raise FileError(f"{path} is not what a run wrote: {error}") from error

  def has(self, *names: str) -> bool:
    """Whether there is something in that field of a field; nothing is made."""
    return self._at(names) is not None

  def read(self, *names: str) -> Any:
    """The component in that field of a field; None where there is none."""
    # Components may be defined in experiment files.
    for root in self._roots:
      if root is not None and str(root) not in sys.path:
        sys.path.append(str(root))
    try:
      return from_dict(self._at(names))
    except ValueError as error:
      raise FileError(
        f"{self._path}, {'.'.join(names)}: {error}; go to where the files of"
        " the experiment are"
      ) from error

  def kind(self, name: str) -> str:
    """What stands in a field, by the name of its class."""
    found = self._at((name,))
    return found["type"] if isinstance(found, dict) else repr(found)

  def _at(self, names: tuple[str, ...]) -> Any:
    found = self._encoded
    for name in names:
      fields = found.get("fields", {}) if isinstance(found, dict) else {}
      found = fields.get(name)
    return found


def _root(argument: str) -> Path | None:
  """From where an experiment file is imported, if the argument is one."""
  path = Path(argument)
  if path.suffix != ".py" or not path.is_file():
    return None
  root = path.resolve().parent
  while (root / "__init__.py").exists():
    root = root.parent
  return root
