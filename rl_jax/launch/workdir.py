"""The directory of a run: whose it is, who is in it, what came out."""

from __future__ import annotations

import fcntl
import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

from rl_jax.experiment import Experiment, diff, from_dict, to_dict

__all__ = [
  "WorkdirError",
  "claimed",
  "default_workdir",
  "find",
  "is_finished",
  "write_json",
]

_PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "rl-jax")


class WorkdirError(ValueError):
  """A work directory that belongs to something else."""


def default_workdir(experiment: Experiment, root: Path) -> Path:
  """Where a run goes that was not told.

  Args:
    experiment: what runs.
    root: where work directories without a path of their own live.

  Returns:
    The directory, which may exist.
  """
  return find(experiment, root) or root / f"{experiment.name}-{experiment.hash}"


def find(experiment: Experiment, root: Path) -> Path | None:
  """The work directory of an experiment, whatever name it was given.

  Args:
    experiment: looked for by its hash.
    root: where.

  Returns:
    The directory; None if there is none.
  """
  found = sorted(root.glob(f"*-{experiment.hash}"))
  return found[0] if found else None


def is_finished(workdir: Path | None) -> bool:
  """Whether a run has come to its end there.

  Args:
    workdir: the directory, or None.

  Returns:
    True with a result.
  """
  return workdir is not None and (workdir / "result.json").exists()


@contextmanager
def claimed(
  workdir: Path, experiment: Experiment, command: Sequence[str]
) -> Iterator[None]:
  """The work directory, locked, with the experiment written into it.

  Args:
    workdir: made if absent.
    experiment: what runs.
    command: how it was started.

  Yields:
    Once, while the lock is held.

  Raises:
    WorkdirError: if it holds another experiment or is in use.
  """
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
    write_json(
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


def write_json(path: Path, value: Any) -> None:
  """Writes the whole file or nothing.

  Args:
    path: of the file.
    value: what JSON can say.
  """
  draft = path.with_suffix(".draft")
  draft.write_text(json.dumps(value, indent=2) + "\n")
  os.replace(draft, path)
