"""Saving and restoring a run with Orbax: asynchronous, verified, resharded.

A checkpoint carries a digest of every array, computed on the devices from
integer sums that do not depend on the mesh, so that what was restored is
known to be what was saved even on other hardware. A checkpoint that is not is
named and refused; an older one is used only when the caller says so.
"""

from __future__ import annotations

import gc
import logging
import shutil
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from rl_jax.training.state import State

if TYPE_CHECKING:
  from jaxtyping import Array, PyTree, UInt32

__all__ = ["CheckpointError", "Store", "digest"]


class CheckpointError(RuntimeError):
  """A checkpoint that cannot be written, read or trusted."""


class Store:
  """The checkpoints of one run.

  Args:
    directory: where they live; one sub-directory per step.
    keep: how many of the newest to keep.
    keep_every: besides, keep steps that are multiples of this.
    read_only: leave everything as it is, for the checkpoints of other runs;
      otherwise what killed saves left behind is removed.
  """

  def __init__(
    self,
    directory: Path,
    *,
    keep: int,
    keep_every: int | None = None,
    read_only: bool = False,
  ) -> None:
    self.directory = Path(directory).absolute()
    self._keep, self._keep_every = keep, keep_every
    self._writing: int | None = None
    self._quiet = ExitStack()
    self._quiet.enter_context(_HOOKS.quiet())
    self._manager = ocp.CheckpointManager(
      self.directory,
      options=ocp.CheckpointManagerOptions(
        # Orbax's own read_only warns of every option it overrides.
        max_to_keep=None if read_only else keep,
        keep_period=keep_every,
        enable_async_checkpointing=True,
        create=not read_only,
        cleanup_tmp_directories=not read_only,
      ),
    )
    self._digest = jax.jit(digest)

  def steps(self) -> list[int]:
    """Steps with a complete checkpoint, oldest first.

    Raises:
      CheckpointError: if a directory looks like a checkpoint and is none.
    """
    complete = sorted(self._manager.all_steps())
    named = {
      int(path.name)
      for path in self.directory.glob("*")
      if path.name.isdecimal()
    }
    broken = sorted(named - set(complete))
    if broken:
      raise CheckpointError(
        self._refusal(broken[-1], "is incomplete", complete)
      )
    return complete

  def save(self, step: int, state: State, about: dict[str, Any]) -> None:
    """Starts writing the state; returns before it is on disk.

    Args:
      step: its name.
      state: what to save.
      about: a JSON value to keep beside it.

    Raises:
      CheckpointError: if the previous save failed.
    """
    parts = _parts(state)
    sums = _plain(self._digest(parts))
    items = {k: ocp.args.StandardSave(v) for k, v in parts.items()}
    meta = ocp.args.JsonSave({"about": about, "digest": sums})
    self.wait()
    self._writing = step
    try:
      begun = self._manager.save(
        step, args=ocp.args.Composite(**items, meta=meta)
      )
    except Exception as error:
      raise self._not_written(error) from error
    if not begun:
      raise CheckpointError(
        f"the checkpoint of step {step} was not written:"
        f" {self.directory} has one of step {self._manager.latest_step()}"
      )

  def wait(self) -> None:
    """Blocks until every save is on disk.

    Raises:
      CheckpointError: if one failed, a full disk for instance.
    """
    try:
      self._manager.wait_until_finished()
      self._manager.check_for_errors()
    except Exception as error:
      raise self._not_written(error) from error

  def prune(self) -> None:
    """Removes what should not be kept, where a kill came before that was done.

    A save removes older checkpoints once it is complete; a run that is killed
    between the two after its last save has no later one to do so.
    """
    complete = sorted(self._manager.all_steps())
    for step in complete[: -self._keep]:
      if self._keep_every is None or step % self._keep_every:
        self._manager.delete(step)

  def restore(
    self, like: State, *, step: int | None = None
  ) -> tuple[State, dict[str, Any]]:
    """The state of a step, on the devices and shardings of `like`.

    Args:
      like: shapes, dtypes and shardings to restore to; any mesh.
      step: which checkpoint; None = the newest.

    Returns:
      The state and what was said about it when it was saved.

    Raises:
      CheckpointError: if there is none, or it is damaged; it says which array
        or file, and which other checkpoints there are.
    """
    parts, about = self._verified(_parts(like), step)
    return parts["rest"]._replace(params=parts["params"]), about

  def restore_params(self, like: PyTree, *, step: int | None = None) -> PyTree:
    """The parameters alone; arguments and errors as `restore`."""
    return self._verified({"params": like}, step)[0]["params"]

  def set_aside_after(self, step: int) -> list[Path]:
    """Moves checkpoints later than `step` out of the way, deleting nothing.

    Returns:
      Where they are now.
    """
    moved = []
    for path in sorted(self.directory.glob("*")):
      if path.name.isdecimal() and int(path.name) > step:
        target = self.directory.parent / "set_aside" / path.name
        target.parent.mkdir(exist_ok=True)
        if target.exists():
          shutil.rmtree(target)
        moved.append(path.rename(target))
    self._manager.reload()
    return moved

  def close(self) -> None:
    """Waits for running saves and lets go of the directory."""
    self._manager.close()
    self._quiet.close()

  def _verified(
    self, likes: dict[str, PyTree], step: int | None
  ) -> tuple[dict[str, PyTree], dict[str, Any]]:
    complete = self.steps()
    if step is None:
      step = complete[-1] if complete else -1
    if step not in complete:
      raise CheckpointError(
        f"no checkpoint of step {step} in {self.directory}; there are"
        f" {complete}"
      )
    items = {k: ocp.args.StandardRestore(v) for k, v in likes.items()}
    meta = ocp.args.JsonRestore()
    try:
      found: Any = self._manager.restore(
        step, args=ocp.args.Composite(**items, meta=meta)
      )
      about, saved = found.meta["about"], found.meta["digest"]
      parts = {name: found[name] for name in likes}
    except Exception as error:
      reason = f"cannot be read ({_first_line(error)})"
      raise CheckpointError(self._refusal(step, reason, complete)) from error
    differ = [
      k for k, v in _plain(self._digest(parts)).items() if v != saved.get(k)
    ]
    if differ:
      reason = f"is damaged: {', '.join(differ[:3])} is not what was saved"
      raise CheckpointError(self._refusal(step, reason, complete))
    return parts, about

  def _refusal(self, step: int, reason: str, complete: list[int]) -> str:
    others = [s for s in complete if s != step]
    hint = (
      f"to go on from an older one, say so: --resume-from {others[-1]}"
      if others
      else "there is no other checkpoint of this run"
    )
    return f"checkpoint {self.directory / str(step)} {reason}; {hint}"

  def _not_written(self, error: Exception) -> CheckpointError:
    self._manager.reload()
    kept = sorted(self._manager.all_steps())
    return CheckpointError(
      f"the checkpoint of step {self._writing} could not be written to"
      f" {self.directory} ({_first_line(error)}); complete ones:"
      f" {kept or 'none'}"
    )


def digest(tree: PyTree) -> dict[str, UInt32[Array, "2"]]:
  """Two 32-bit sums per array that change with any bit, on any mesh alike.

      d_k = sum_i word_i * odd_k(i)  mod 2^32,   k = 0, 1

  Integer sums are exact in any order, and an odd factor is invertible, so one
  changed word always changes the sum.

  Args:
    tree: arrays of any dtype and sharding.

  Returns:
    Path of each array -> its sums.
  """
  leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
  return {
    jax.tree_util.keystr(path, simple=True, separator="/"): _sums(leaf)
    for path, leaf in leaves
  }


def _parts(state: State) -> dict[str, PyTree]:
  # Parameters apart, so that a later experiment can start from them alone.
  return {"params": state.params, "rest": state._replace(params=())}


def _plain(sums: dict[str, jax.Array]) -> dict[str, list[int]]:
  host = jax.device_get(sums)
  return {name: [int(word) for word in words] for name, words in host.items()}


def _sums(x: jax.Array) -> UInt32[Array, "2"]:
  x = jnp.asarray(x)
  if x.dtype == jnp.bool_:
    x = x.astype(jnp.uint8)
  if x.dtype.itemsize > 4:  # float64 as pairs of words
    words = jax.lax.bitcast_convert_type(x, jnp.uint32).reshape(*x.shape, 2)
  else:
    kind = np.dtype(f"uint{8 * x.dtype.itemsize}")
    words = jax.lax.bitcast_convert_type(x, kind).astype(jnp.uint32)
  place = jnp.zeros((), jnp.uint32)
  for axis, size in enumerate(words.shape):
    index = jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis)
    place = place * jnp.uint32(size) + index
  odd = [
    (place * jnp.uint32(a) + jnp.uint32(b)) | jnp.uint32(1)
    for a, b in ((0x9E3779B2, 1), (0x85EBCA6A, 0xC2B2AE35))
  ]
  return jnp.stack([jnp.sum(words * k, dtype=jnp.uint32) for k in odd])


class _Hooks:
  """Keeps threads of Orbax from printing dozens of tracebacks.

  They are about the one failure that the caller is told of in one line. There
  is one of these for good, since hooks belong to the whole process: the
  interpreter calls a hook that it holds no reference to, from threads that
  nobody waits for, so one that is made anew and dropped would be called when
  it is gone.
  """

  def __init__(self) -> None:
    self._users = 0
    self._thread_hook, self._object_hook = (
      threading.excepthook,
      sys.unraisablehook,
    )
    self._logs = [logging.getLogger(name) for name in ("asyncio", "absl")]

  @contextmanager
  def quiet(self) -> Iterator[None]:
    """As long as anybody is in here."""
    if self._users == 0:
      self._thread_hook = threading.excepthook
      self._object_hook = sys.unraisablehook
      threading.excepthook, sys.unraisablehook = _in_thread, _in_object
      for log in self._logs:
        log.addFilter(_worth)
    self._users += 1
    try:
      yield
    finally:
      gc.collect()  # Half-read arrays complain when they are collected.
      self._users -= 1
      if self._users == 0:
        threading.excepthook = self._thread_hook
        sys.unraisablehook = self._object_hook
        for log in self._logs:
          log.removeFilter(_worth)

  def in_thread(self, what: threading.ExceptHookArgs) -> None:
    if not type(what.thread).__module__.startswith("orbax."):
      self._thread_hook(what)

  def in_object(self, what: Any) -> None:
    if "Event loop is closed" not in str(what.exc_value):
      self._object_hook(what)


def _worth(record: logging.LogRecord) -> bool:
  ours = "/orbax/" in record.pathname and record.levelno >= logging.ERROR
  return not ours and "never retrieved" not in record.getMessage()


_HOOKS = _Hooks()
# Bound once: every access would make another one.
_in_thread, _in_object = _HOOKS.in_thread, _HOOKS.in_object


def _first_line(error: Exception) -> str:
  text = str(error).strip() or type(error).__name__
  return text.splitlines()[0][:200]
