"""A world behind other processes: any environment package, in its own Python.

The process reads a JSON object a line and writes one a line, in turn:

  {"id": 7, "task": ..., "actions": ["go to desk 1", "take mug 2"]}
  {"id": 7, "observation": "...", "outcome": 0.0, "ended": false}
  {"id": 7, "error": "..."}                        (if it has no answer)

`task` is that of a line in the folder's tasks.jsonl, `actions` are all from
the beginning: the process may keep episodes, and must not need them.
`serving.py` beside this file is such a process for classes with `reset` and
`step`.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import functools
import json
import math
import os
import pathlib
import select
import signal
import subprocess
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any

from rl_jax.environments.texts import listed
from rl_jax.sampling.worlds import Observation

if TYPE_CHECKING:
  from collections.abc import Sequence

  from rl_jax.data.source import Source

__all__ = ["ProcessWorld"]

_REMEMBERED = 100_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProcessWorld:
  """Episodes of a task folder, played in child processes.

  The folder holds tasks.jsonl, an object a line: "prompt", the text that an
  episode begins with (instruction and first observation), and "task",
  anything, which the process gets. A process that is late is killed, one that
  dies or answers nonsense is replaced; the observation then has the reason as
  its `error`, and the episode no verdict.

  Raises:
    ValueError: if the command is empty or a number is not positive.
  """

  folder: str
  """Where tasks.jsonl is."""
  command: tuple[str, ...]
  """Program and arguments of a process; run in the present directory."""
  rows: int
  """Prompts of a batch."""
  workers: int = dataclasses.field(default=8, metadata={"identity": False})
  """Processes."""
  seconds: float = 60.0
  """Longest that an answer may take, the start of its process included."""
  shuffle: bool = True
  """Whether every pass has an order of its own."""

  def __post_init__(self):
    if not self.command:
      raise ValueError("the command is empty: say which program to run")
    if min(self.rows, self.workers) < 1 or not self.seconds > 0:
      raise ValueError(f"a number is not positive in {self}")

  def source(self) -> Source:
    """The prompts; the references are the tasks.

    Raises:
      ValueError: if a line of tasks.jsonl lacks one.
    """
    return listed((line["prompt"], line["task"]) for line in self._lines)

  def observe(self, item: int, actions: Sequence[str]) -> Observation:
    """What the process says after these actions; may be called by threads.

    Args:
      item: which line of tasks.jsonl.
      actions: so far.

    Returns:
      Its answer, or why there is none.
    """
    return _children(self).observe(item, self._lines[item], tuple(actions))

  def close(self) -> None:
    """End the processes; a later call starts new ones."""
    _children(self).close()

  @functools.cached_property
  def _lines(self) -> list[dict[str, Any]]:
    path = pathlib.Path(self.folder) / "tasks.jsonl"
    lines = []
    for number, text in enumerate(path.read_text("utf-8").splitlines(), 1):
      line = json.loads(text)
      if not isinstance(line, dict) or not {"prompt", "task"} <= line.keys():
        raise ValueError(f'{path}, line {number} lacks "prompt" or "task"')
      lines.append(line)
    return lines


class _Child:
  """One process, and which episode it was last asked about."""

  def __init__(self, command: tuple[str, ...]):
    self.process = subprocess.Popen(
      command,
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      # An interrupt from the keyboard is the run's to handle.
      start_new_session=True,
    )
    self.latest: Any = None
    self._inbox = bytearray()
    self.stop = weakref.finalize(self, _stop, self.process)

  def ask(self, request: dict[str, Any], until: float) -> dict[str, Any]:
    """The answer; OSError or ValueError if there is none by then."""
    assert self.process.stdin is not None
    assert self.process.stdout is not None
    line = json.dumps(request).encode() + b"\n"
    waiting = self.process.stdin.fileno()
    os.set_blocking(waiting, False)
    while line:
      if not select.select([], [waiting], [], _left(until))[1]:
        raise TimeoutError("time limit")
      line = line[os.write(waiting, line[:4096]) :]
    answers = self.process.stdout.fileno()
    while b"\n" not in self._inbox:
      if not select.select([answers], [], [], _left(until))[0]:
        raise TimeoutError("time limit")
      data = os.read(answers, 1 << 16)
      if not data:
        raise BrokenPipeError(f"died: exit status {self.process.wait()}")
      self._inbox += data
    text, _, rest = bytes(self._inbox).partition(b"\n")
    self._inbox = bytearray(rest)
    answer = json.loads(text)
    if not isinstance(answer, dict) or answer.get("id") != request["id"]:
      raise ValueError(f"an answer to request {request['id']}: {text[:200]!r}")
    return answer


class _Children:
  """The processes of a world, each asked one thing at a time."""

  def __init__(self, world: ProcessWorld):
    self._world = world
    self._ready = threading.Condition()
    self._idle: list[_Child] = []
    self._count = self._asked = 0
    # Only what the process itself said: a reason to try again is not kept.
    self._known: collections.OrderedDict[Any, Observation] = (
      collections.OrderedDict()
    )

  def observe(
    self, item: int, line: dict[str, Any], actions: tuple[str, ...]
  ) -> Observation:
    episode = item, actions
    with self._ready:
      if episode in self._known:
        self._known.move_to_end(episode)
        return self._known[episode]
      self._asked += 1
      request = {
        "id": self._asked,
        "task": line["task"],
        "actions": list(actions),
      }
    child = None
    try:
      child = self._taken((item, actions[:-1]))
      until = time.monotonic() + self._world.seconds
      found = _read(child.ask(request, until))
    except TimeoutError:
      found = _no_answer(f"time limit: {self._world.seconds} s")
    except (OSError, ValueError) as error:
      reason = f"{error}"
      found = _no_answer(reason if "died" in reason else f"error: {reason}")
    else:
      child.latest = episode
      self._returned(child)
      if not found.error:
        with self._ready:
          self._known[episode] = found
          while len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
      return found
    if child is not None:
      child.stop()
    self._returned(None)
    return found

  def close(self) -> None:
    with self._ready:
      for child in self._idle:
        child.stop()
      self._count -= len(self._idle)
      self._idle.clear()

  def _taken(self, episode: Any) -> _Child:
    """A process that has this episode open, or else the longest idle one."""
    with self._ready:
      self._ready.wait_for(
        lambda: self._idle or self._count < self._world.workers
      )
      for child in self._idle:
        if child.latest == episode:
          self._idle.remove(child)
          return child
      if self._count < self._world.workers:
        self._count += 1
      else:
        return self._idle.pop(0)
    return _Child(self._world.command)

  def _returned(self, child: _Child | None) -> None:
    with self._ready:
      if child is None:
        self._count -= 1
      else:
        self._idle.append(child)
      self._ready.notify()


@functools.cache
def _children(world: ProcessWorld) -> _Children:
  return _Children(world)


def _read(answer: dict[str, Any]) -> Observation:
  if "error" in answer:
    return _no_answer(f"error: {answer['error']}")
  try:
    text, ended = answer["observation"], answer["ended"]
    outcome = float(answer["outcome"])
  except (KeyError, TypeError) as error:
    raise ValueError(f"an answer without {error}: {answer}") from error
  if not isinstance(text, str) or not isinstance(ended, bool):
    raise ValueError(f"an answer of other types: {answer}")
  if not math.isfinite(outcome):
    return _no_answer(f"error: the outcome is {outcome}")
  return Observation(text, ended, outcome)


def _no_answer(reason: str) -> Observation:
  return Observation("", True, 0.0, reason)


def _left(until: float) -> float:
  return max(0.0, until - time.monotonic())


def _stop(process: subprocess.Popen[bytes]) -> None:
  with contextlib.suppress(ProcessLookupError):
    os.killpg(process.pid, signal.SIGKILL)  # what it has started too
  process.wait()
  for stream in (process.stdin, process.stdout):
    if stream is not None:
      stream.close()
