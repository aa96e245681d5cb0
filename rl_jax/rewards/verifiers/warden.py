"""The process between a run and the workers that judge for it.

It is started fresh, holds no threads and no device, and so may fork: a worker
that is killed is replaced in milliseconds, with every import done. It sleeps
until something happens, kills what is late, and ends when its parent does.
See `rl_jax.rewards.verifiers.pool` for the other side.
"""

from __future__ import annotations

import collections
import contextlib
import ctypes
import dataclasses
import json
import os
import pickle
import resource
import select
import signal
import socket
import struct
import sys
import time
from typing import TYPE_CHECKING, Any

from rl_jax.rewards.verifiers.judgement import Prepares

if TYPE_CHECKING:
  from collections.abc import Iterator

__all__ = ["Limits", "framed", "frames", "main", "working"]

_LENGTH = struct.Struct(">I")
_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of prctl(2)
_LONGEST_REASON = 300

_is_worker = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
  """What the workers may use.

  Raises:
    ValueError: if one is not positive.
  """

  workers: int
  """Processes that judge at one time."""
  seconds: float
  """Wall clock time of one item."""
  memory: int
  """Bytes that a worker may allocate on top of what its imports take."""

  def __post_init__(self):
    if self.workers < 1 or self.seconds <= 0 or self.memory < 1:
      raise ValueError(
        f"limits must be positive, got {self.workers} workers,"
        f" {self.seconds} seconds, {self.memory} bytes"
      )


def working() -> bool:
  """Whether this process is a worker, whose items somebody else limits.

  Returns:
    True in a worker of a pool.
  """
  return _is_worker


def framed(body: bytes) -> bytes:
  """A message as it goes over a socket.

  Args:
    body: less than 4 GiB.

  Returns:
    Its length in four bytes, then the body.
  """
  return _LENGTH.pack(len(body)) + body


def frames(buffer: bytearray) -> Iterator[bytes]:
  """Take the complete messages out of what has arrived.

  Args:
    buffer: bytes in the order of arrival; shortened in place.

  Yields:
    The body of each message.
  """
  while len(buffer) >= _LENGTH.size:
    (length,) = _LENGTH.unpack_from(buffer)
    end = _LENGTH.size + length
    if len(buffer) < end:
      return
    body = bytes(buffer[_LENGTH.size : end])
    del buffer[:end]
    yield body


@dataclasses.dataclass(eq=False)
class _Worker:
  pid: int
  channel: socket.socket
  knows: int
  job: tuple[int, int] | None = None
  deadline: float = 0.0
  buffer: bytearray = dataclasses.field(default_factory=bytearray)


class _Warden:
  """Deals jobs to workers; single-threaded, never blocks on its parent."""

  def __init__(self, channel: socket.socket, limits: Limits):
    self.channel, self.limits = channel, limits
    self.parent = os.getppid()
    self.verifiers: list[Any] = []
    self.jobs: collections.deque[tuple[tuple[int, int], bytes]] = (
      collections.deque()
    )
    self.workers: list[_Worker] = []
    self.inbox, self.outbox = bytearray(), bytearray()

  def run(self) -> None:
    try:
      while os.getppid() == self.parent:
        self.deal()
        if not self.step():
          return
    finally:
      for worker in list(self.workers):
        self.end(worker)

  def step(self) -> bool:
    """Wait for one thing to happen; false when the parent has gone."""
    now = time.monotonic()
    due = [w.deadline - now for w in self.workers if w.job is not None]
    # Once a second at least, to see whether the parent still lives: a process
    # that the parent forked may hold its end of the socket open.
    wait = max(0.0, min([1.0, *due]))
    readable, writable, _ = select.select(
      [self.channel, *(w.channel for w in self.workers)],
      [self.channel] if self.outbox else [],
      [],
      wait,
    )
    if self.channel in readable and not self.read():
      return False
    if writable:
      sent = self.channel.send(self.outbox)
      del self.outbox[:sent]
    for worker in list(self.workers):
      if worker.channel in readable:
        self.listen(worker)
    now = time.monotonic()
    for worker in list(self.workers):
      if worker.job is not None and worker.deadline <= now:
        self.lose(worker, "time limit")
    return True

  def read(self) -> bool:
    data = self.channel.recv(1 << 20)
    self.inbox += data
    for body in frames(self.inbox):
      kind, *rest = pickle.loads(body)
      if kind == "job":
        job, payload = rest
        self.jobs.append((job, payload))
      elif kind == "learn":
        self.learn(*rest)
      elif kind == "cancel":
        self.cancel(*rest)
    return bool(data)

  def say(self, *message: Any) -> None:
    self.outbox += framed(json.dumps(message).encode())

  def learn(self, pickled: bytes) -> None:
    """Load a verifier here, so that the workers to come are born with it."""
    try:
      verifier = pickle.loads(pickled)
      if isinstance(verifier, Prepares):
        verifier.prepare()
    except Exception as error:  # whatever an import raises is reported
      self.say("refused", f"{type(error).__name__}: {error}")
      return
    self.verifiers.append(verifier)
    for worker in list(self.workers):
      if worker.job is None:
        self.end(worker)
    self.say("learned")

  def cancel(self, ticket: int) -> None:
    self.jobs = collections.deque(
      item for item in self.jobs if item[0][0] != ticket
    )
    for worker in list(self.workers):
      if worker.job is not None and worker.job[0] == ticket:
        self.end(worker)

  def deal(self) -> None:
    """Give waiting jobs to idle workers, making those that lack."""
    while self.jobs:
      idle = [w for w in self.workers if w.job is None]
      if not idle and len(self.workers) == self.limits.workers:
        return
      worker = idle[0] if idle else self.born()
      job, payload = self.jobs.popleft()
      worker.job = job
      worker.deadline = time.monotonic() + self.limits.seconds
      try:
        worker.channel.sendall(framed(payload))
      except OSError:  # it died while it was idle, or does not listen
        self.lose(worker, "died: before its item")

  def listen(self, worker: _Worker) -> None:
    try:
      data = worker.channel.recv(1 << 16)
    except OSError:
      data = b""
    worker.buffer += data
    for body in frames(worker.buffer):
      reward, reason, sound = json.loads(body)
      if not sound:
        # It must not be given another item before it has gone.
        self.lose(worker, reason)
        return
      if worker.job is not None:
        self.say("judgement", *worker.job, reward, reason)
      worker.job = None
    if not data:
      self.lose(worker, None)
    elif worker.job is None and worker.knows < len(self.verifiers):
      self.end(worker)

  def lose(self, worker: _Worker, reason: str | None) -> None:
    """End a worker and say what became of its item."""
    status = self.end(worker, gently=reason is None)
    if reason is None:
      code = os.waitstatus_to_exitcode(status)
      reason = f"died: {'signal' if code < 0 else 'exit code'} {abs(code)}"
    if worker.job is not None:
      self.say("judgement", *worker.job, None, reason)
    self.say("replaced", reason)

  def end(self, worker: _Worker, *, gently: bool = False) -> int:
    """Kill a worker with all that it started; its exit status."""
    self.workers.remove(worker)
    if gently:
      # Its end of the socket is closed, so it has exited or is about to.
      for _ in range(100):
        pid, status = os.waitpid(worker.pid, os.WNOHANG)
        if pid:
          worker.channel.close()
          _kill_group(worker.pid)
          return status
        time.sleep(0.001)
    _kill_group(worker.pid)
    with contextlib.suppress(ProcessLookupError):
      os.kill(worker.pid, signal.SIGKILL)
    worker.channel.close()
    return os.waitpid(worker.pid, 0)[1]

  def born(self) -> _Worker:
    ours, theirs = socket.socketpair()
    ours.settimeout(self.limits.seconds)
    warden = os.getpid()
    pid = os.fork()
    if pid == 0:
      status = 1
      try:
        ours.close()
        self.channel.close()
        for worker in self.workers:
          worker.channel.close()
        _work(theirs, self.verifiers, self.limits, warden)
        status = 0
      finally:
        # No clean-up of what belongs to the warden.
        os._exit(status)
    theirs.close()
    worker = _Worker(pid, ours, len(self.verifiers))
    self.workers.append(worker)
    return worker


def _kill_group(pid: int) -> None:
  with contextlib.suppress(ProcessLookupError, PermissionError):
    os.killpg(pid, signal.SIGKILL)


def _work(
  channel: socket.socket, verifiers: list[Any], limits: Limits, warden: int
) -> None:
  """Judge until the socket closes."""
  global _is_worker
  _is_worker = True
  os.setsid()
  if sys.platform == "linux":
    ctypes.CDLL(None).prctl(_DEATH_SIGNAL, signal.SIGKILL)
  if os.getppid() != warden:
    return  # it died before it could be watched
  quiet = os.open(os.devnull, os.O_RDWR)
  for stream in (0, 1, 2):
    os.dup2(quiet, stream)
  _limit_memory(limits.memory)
  buffer = bytearray()
  while data := channel.recv(1 << 20):
    buffer += data
    for body in frames(buffer):
      reward, reason, sound = _judge(verifiers, body)
      answer = (reward, reason[:_LONGEST_REASON], sound)
      channel.sendall(framed(json.dumps(answer).encode()))


def _judge(verifiers: list[Any], body: bytes) -> tuple[float | None, str, bool]:
  """A judgement, and whether this process is fit for another."""
  try:
    which, completion, reference = pickle.loads(body)
    reward, reason = verifiers[which](completion, reference)
    return None if reward is None else float(reward), str(reason), True
  except MemoryError:
    return None, "memory limit", False
  except BaseException as error:  # even SystemExit is one row's matter
    return None, f"error: {type(error).__name__}: {error}", True


def _limit_memory(memory: int) -> None:
  resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
  if sys.platform == "linux":
    with open("/proc/self/statm", encoding="ascii") as file:
      taken = int(file.read().split()[0]) * resource.getpagesize()
    most = taken + memory
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    if hard != resource.RLIM_INFINITY:
      most = min(most, hard)
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def main() -> None:
  """Serve the socket whose number and limits stand on the command line."""
  number, workers, seconds, memory = sys.argv[1:]
  limits = Limits(
    workers=int(workers), seconds=float(seconds), memory=int(memory)
  )
  channel = socket.socket(fileno=int(number))
  with channel, contextlib.suppress(ConnectionError):
    _Warden(channel, limits).run()
