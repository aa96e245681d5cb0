"""Verifiers in processes of their own, with time and memory limits.

Nothing that a completion does to a verifier reaches the run: an item that is
late is killed, one that takes its worker down is reported, and both are rows
without verdict.
"""

from __future__ import annotations

import collections
import functools
import json
import os
import pathlib
import pickle
import select
import socket
import subprocess
import sys
import time
import weakref
from typing import TYPE_CHECKING, Any, NamedTuple

from rl_jax.rewards.verifiers.judgement import Judgement, no_verdict
from rl_jax.rewards.verifiers.warden import Limits, framed, frames, working

if TYPE_CHECKING:
  from collections.abc import Callable, Mapping, Sequence

  from rl_jax.rewards.verifiers.judgement import Verifier

__all__ = ["Pool", "Report", "limited"]

_START = pathlib.Path(__file__).with_name("start.py")
_LOST = "died: the process that runs the pool"


class Report(NamedTuple):
  """What a pool has done so far.

  Attributes:
    judged: items with a verdict.
    without: items without, by kind of reason.
    replaced: workers that were killed or died and were replaced, by kind of
      reason.
  """

  judged: int
  without: Mapping[str, int]
  replaced: Mapping[str, int]


class Pool:
  """Judges batches in parallel; results keep the order of the rows.

  `submit` returns at once and the workers judge while the device works;
  `collect` waits. What an item returns does not depend on its neighbours or
  on the number of workers. Use it from one thread, as a context manager or
  with `close`; it also ends with the process that made it, however that ends.

  A verifier is sent once, by pickle: its class must live in a module, not in
  a notebook cell.

  Args of the constructor: see `Limits`. Nothing is started before the first
  `submit`.
  """

  def __init__(self, *, workers: int, seconds: float, memory: int = 1 << 30):
    self._limits = Limits(workers=workers, seconds=seconds, memory=memory)
    self._process: subprocess.Popen[bytes] | None = None
    self._channel: socket.socket | None = None
    self._stop: Callable[[], Any] | None = None
    self._inbox = bytearray()
    self._known: dict[bytes, int] = {}
    self._answers: list[str | None] = []
    self._open: dict[int, list[Judgement | None]] = {}
    self._tickets = 0
    self._judged = 0
    self._without: collections.Counter[str] = collections.Counter()
    self._replaced: collections.Counter[str] = collections.Counter()

  def __enter__(self) -> Pool:
    return self

  def __exit__(self, *_: object) -> None:
    self.close()

  @property
  def report(self) -> Report:
    """Counts since the pool was made."""
    return Report(self._judged, dict(self._without), dict(self._replaced))

  def judge(
    self,
    verifier: Verifier,
    completions: Sequence[str],
    references: Sequence[Any],
    *,
    seconds: float | None = None,
  ) -> list[Judgement]:
    """`submit` and `collect` in one."""
    ticket = self.submit(verifier, completions, references)
    return self.collect(ticket, seconds=seconds)

  def submit(
    self,
    verifier: Verifier,
    completions: Sequence[str],
    references: Sequence[Any],
  ) -> int:
    """Start judging a batch.

    The first time that it sees a verifier it waits for its imports.

    Args:
      verifier: what judges.
      completions: one per row.
      references: one per row, anything that can be pickled.

    Returns:
      A ticket for `collect`.

    Raises:
      ValueError: if the numbers of rows differ, or the verifier cannot be
        pickled.
      RuntimeError: if the pool's process cannot load the verifier.
    """
    if len(completions) != len(references):
      raise ValueError(
        f"got {len(completions)} completions but {len(references)} references"
      )
    which = self._learn(verifier)
    self._tickets += 1
    ticket = self._tickets
    self._open[ticket] = [None] * len(completions)
    for row, item in enumerate(zip(completions, references, strict=True)):
      payload = pickle.dumps((which, *item))
      if not self._send("job", (ticket, row), payload):
        break
    return ticket

  def collect(
    self, ticket: int, *, seconds: float | None = None
  ) -> list[Judgement]:
    """Wait for a batch.

    Args:
      ticket: from `submit`; may be collected once.
      seconds: longest to wait, after which what is not judged has no verdict.
        None waits for every item, each of which has its own limit.

    Returns:
      A judgement per row, in the order of the rows.

    Raises:
      ValueError: if the ticket is unknown or was collected before.
    """
    if ticket not in self._open:
      raise ValueError(f"ticket {ticket} is unknown or was collected before")
    until = None if seconds is None else time.monotonic() + seconds
    rows = self._open[ticket]
    while any(row is None for row in rows):
      if not self._receive(until):
        self._send("cancel", ticket)
        self._fill(rows, "total time limit")
    del self._open[ticket]
    found = [row for row in rows if row is not None]
    self._without.update(
      reason.partition(":")[0] for reward, reason in found if reward is None
    )
    self._judged += sum(reward is not None for reward, _ in found)
    return found

  def close(self) -> None:
    """End all processes; a later `submit` starts new ones."""
    for rows in self._open.values():
      self._fill(rows, "pool closed")
    if self._stop is not None:
      self._stop()
    self._process = self._channel = self._stop = None
    self._known, self._inbox = {}, bytearray()

  def _learn(self, verifier: Verifier) -> int:
    if self._process is not None and self._process.poll() is not None:
      self._lose()
    try:
      pickled = pickle.dumps(verifier)
    except Exception as error:  # pickle lets through what objects raise
      raise ValueError(
        f"{verifier!r} cannot be pickled ({error}): a verifier is a dataclass"
        " of a module that holds plain values"
      ) from error
    if pickled not in self._known:
      self._answers.clear()
      if self._process is None:
        self._start()
      self._send("learn", pickled)
      while not self._answers and self._process is not None:
        self._receive(None)
      refused = self._answers.pop() if self._answers else _LOST
      if refused is not None:
        raise RuntimeError(f"the pool cannot load {verifier!r}: {refused}")
      self._known[pickled] = len(self._known)
    return self._known[pickled]

  def _start(self) -> None:
    ours, theirs = socket.socketpair()
    limits = self._limits
    environment = os.environ | {
      # Only what can be forked safely: no device, no threads.
      "JAX_PLATFORMS": "cpu",
      "OPENBLAS_NUM_THREADS": "1",
      "OMP_NUM_THREADS": "1",
      "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    with theirs:
      self._process = subprocess.Popen(
        [
          sys.executable,
          "-P",
          f"{_START}",
          f"{theirs.fileno()}",
          f"{limits.workers}",
          f"{limits.seconds}",
          f"{limits.memory}",
        ],
        env=environment,
        stdin=subprocess.DEVNULL,
        pass_fds=(theirs.fileno(),),
        # An interrupt from the keyboard is the run's to handle.
        start_new_session=True,
      )
    self._channel = ours
    self._stop = weakref.finalize(self, _stop, self._process, ours)

  def _send(self, *message: Any) -> bool:
    try:
      if self._channel is None:
        return False
      self._channel.sendall(framed(pickle.dumps(message)))
    except OSError:
      self._lose()
      return False
    return True

  def _receive(self, until: float | None) -> bool:
    """Take in what has arrived; false if nothing has by then."""
    if self._channel is None:
      return False
    wait = None if until is None else max(0.0, until - time.monotonic())
    if not select.select([self._channel], [], [], wait)[0]:
      return False
    try:
      data = self._channel.recv(1 << 20)
    except OSError:
      data = b""
    if not data:
      self._lose()
      return True
    self._inbox += data
    for body in frames(self._inbox):
      kind, *rest = json.loads(body)
      if kind == "judgement":
        ticket, row, reward, reason = rest
        # A ticket that was given up may still have items under way.
        if ticket in self._open:
          self._open[ticket][row] = Judgement(reward, reason)
      elif kind == "replaced":
        self._replaced[rest[0].partition(":")[0]] += 1
      else:
        self._answers.append(rest[0] if kind == "refused" else None)
    return True

  def _lose(self) -> None:
    """The pool's process has died: say so of every row it had."""
    for rows in self._open.values():
      self._fill(rows, _LOST)
    self._replaced["pool"] += 1
    self.close()

  @staticmethod
  def _fill(rows: list[Judgement | None], reason: str) -> None:
    for row, judgement in enumerate(rows):
      if judgement is None:
        rows[row] = no_verdict(reason)


def _stop(process: subprocess.Popen[bytes], channel: socket.socket) -> None:
  channel.close()
  try:
    process.wait(timeout=5)
  except subprocess.TimeoutExpired:
    process.kill()
    process.wait()


def limited(judge: Verifier, completion: str, reference: Any) -> Judgement:
  """One judgement under a hard limit, wherever it is asked for.

  In a worker of a pool it is judged here and the pool sets the limit;
  elsewhere by a pool of one worker (5 seconds, 1 GiB) that this process keeps.

  Args:
    judge: judges without limits; can be pickled.
    completion: what is judged.
    reference: what it is judged by.

  Returns:
    The judgement.
  """
  if working():
    return judge(completion, reference)
  return _alone().judge(judge, [completion], [reference])[0]


@functools.cache
def _alone() -> Pool:
  return Pool(workers=1, seconds=5.0)
