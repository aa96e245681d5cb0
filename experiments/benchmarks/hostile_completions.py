"""What verifiers make of completions that want to hang, crash or escape.

Every completion must get a verdict, which is never that it is right, or none
for a reason that is known, in bounded time; workers that die are replaced and
counted. A file and a port on the loopback show whether anything got out.

    python -m experiments.benchmarks.hostile_completions      3 minutes, 2 cores
    python -m experiments.benchmarks.hostile_completions --count 500

Needs the extra `verifiers`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import tyro

from experiments.benchmarks import hostile_texts as texts
from rl_jax.rewards.verifiers import (
  Bubblewrap,
  Code,
  Exact,
  Format,
  Json,
  Math,
  Monty,
  Pool,
  ToolCall,
  UnitTests,
  Verifier,
)
from rl_jax.rewards.verifiers import instructions as checks

__all__ = ["KINDS", "Found", "Kind", "Size", "Trap", "main", "measure", "trap"]

_SECRET = "secret"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Size:
  """How many completions."""

  count: int = 10_000
  """Completions in all."""
  workers: int = 2
  """Processes that judge."""
  seed: int = 10
  """What the completions are a function of."""


class Kind(NamedTuple):
  """A verifier and what it is given.

  Attributes:
    verifier: what judges.
    reference: what no completion is equal to.
    texts: what makes the completions.
    share: of all completions, percent.
    seconds: limit of an item.
    reasons: why there may be no verdict.
  """

  verifier: Verifier
  reference: Any
  texts: tuple[texts.Make, ...]
  share: int
  seconds: float
  reasons: frozenset[str]


class Found(NamedTuple):
  """What became of the completions of a kind.

  Attributes:
    count: completions.
    verdicts: those with a verdict.
    without: those without, by reason.
    wrong: those that were accepted, or that have no verdict for a reason which
      they should not; the text and what was said of it.
    lost: workers that were killed or died, by reason.
    seconds: in all, the start of the processes included.
  """

  count: int
  verdicts: int
  without: Mapping[str, int]
  wrong: list[tuple[str, str]]
  lost: Mapping[str, int]
  seconds: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trap:
  """A port that remembers who connects and a file that nobody may touch."""

  port: int
  canary: pathlib.Path
  connections: list[Any] = dataclasses.field(default_factory=list)

  def set_in(self, text: str) -> str:
    """The text with the port and the file in their places."""
    return text.replace("PORT", f"{self.port}").replace(
      "CANARY", f"{self.canary}"
    )

  def sprung(self) -> bool:
    """Whether the file was changed or somebody has connected."""
    return self.canary.read_text() != _SECRET or bool(self.connections)


_CHECKS = (
  checks.Words(at_least=3),
  checks.Sentences(at_least=3),
  checks.CapitalWords(at_least=3),
  checks.Bullets(at_least=3),
  checks.Highlights(at_least=3),
  checks.Placeholders(at_least=3),
  checks.Letters(letter="q", at_least=3),
  checks.Mentions(phrase="a a", at_least=3),
  checks.Keywords(phrases=("hello",)),
  checks.Forbidden(phrases=("answer",)),
  checks.Paragraphs(count=2),
  checks.Sections(word="Section", at_least=2),
  checks.StartsWith(phrase="So"),
  checks.EndsWith(phrase="end"),
  checks.Postscript(),
  checks.OneOf(options=("yes", "no")),
  checks.Tagged(tags=("think", "answer")),
  checks.NoCommas(),
  checks.Lowercase(),
  checks.Uppercase(),
  checks.Quoted(),
  checks.Title(),
  checks.TwoAnswers(),
  checks.IsJson(),
)
_EVERYTHING = (
  *texts.TEXTS,
  *texts.FORMULAS,
  *texts.DOCUMENTS,
  *texts.PROGRAMS,
)


def _plain(verifier: Verifier, reference: Any) -> Kind:
  # Linear in the text: not one needs its limit, even on a busy machine.
  return Kind(verifier, reference, _EVERYTHING, 17, 10.0, frozenset())


def _programs(
  sandbox: Monty | Bubblewrap, makes: tuple[texts.Make, ...], share: int
) -> Kind:
  # The sandbox keeps the time itself, and where a busy machine does not get
  # it up in time, it says so.
  reference = UnitTests("", "assert stolen")
  reasons = frozenset({"sandbox"})
  return Kind(Code(sandbox=sandbox), reference, makes, share, 30.0, reasons)


KINDS: dict[str, Kind] = {
  "exact": _plain(Exact(), "right"),
  "json": _plain(Json(), '{"right": 1}'),
  "tool call": _plain(ToolCall(), ({"name": "right", "arguments": {}},)),
  "format": _plain(Format(partial=False), _CHECKS),
  "mathematics": Kind(
    Math(),
    "12345/678",
    (*texts.TEXTS, *texts.FORMULAS),
    14,
    0.3,
    frozenset({"time limit", "memory limit", "died", "error"}),
  ),
  "monty": _programs(Monty(seconds=0.1, memory=1 << 26), texts.PROGRAMS, 16),
  "bubblewrap": _programs(
    Bubblewrap(seconds=0.6, memory=1 << 28),
    (*texts.PROGRAMS, *texts.FORKS),
    2,
  ),
}


@contextlib.contextmanager
def trap() -> Iterator[Trap]:
  """A trap that is set.

  Yields:
    The trap; its port is closed at the end.
  """
  with (
    tempfile.TemporaryDirectory() as folder,
    socket.create_server(("127.0.0.1", 0)) as listener,
  ):
    # Readable and writable by anyone, so that no permission hides an escape.
    pathlib.Path(folder).chmod(0o755)
    canary = pathlib.Path(folder) / "canary"
    canary.write_text(_SECRET)
    canary.chmod(0o666)
    found = Trap(port=listener.getsockname()[1], canary=canary)

    def listen() -> None:
      while True:
        try:
          connection, address = listener.accept()
        except OSError:
          return
        found.connections.append(address)
        connection.close()

    thread = threading.Thread(target=listen, daemon=True)
    thread.start()
    try:
      yield found
    finally:
      with contextlib.suppress(OSError):
        listener.shutdown(socket.SHUT_RDWR)
      thread.join(5)


def measure(
  kind: Kind, count: int, *, workers: int, seed: int, trap: Trap
) -> Found:
  """Judges completions of one kind, in processes of their own.

  Args:
    kind: which.
    count: how many.
    workers: processes that judge.
    seed: what the completions are a function of.
    trap: what they try to reach.

  Returns:
    What became of them.
  """
  start = time.monotonic()
  made = [trap.set_in(t) for t in texts.generated(kind.texts, count, seed)]
  with Pool(workers=workers, seconds=kind.seconds) as pool:
    judgements = pool.judge(kind.verifier, made, [kind.reference] * count)
    report = pool.report
  wrong = []
  for text, (reward, reason) in zip(made, judgements, strict=True):
    known = reason.partition(":")[0] in kind.reasons
    if reward != 0.0 and not (reward is None and known):
      wrong.append((text[:200], f"{reward} {reason}"))
  return Found(
    count=count,
    verdicts=report.judged,
    without=report.without,
    wrong=wrong,
    lost=report.replaced,
    seconds=time.monotonic() - start,
  )


def _counts(counts: Mapping[str, int]) -> str:
  return ", ".join(f"{n} {name}" for name, n in sorted(counts.items())) or "-"


def main(arguments: Sequence[str] | None = None) -> int:
  """Prints the table.

  Args:
    arguments: of the command line; those of the process when None.

  Returns:
    0, or 1 if something was accepted or got out.
  """
  size = tyro.cli(Size, description=__doc__, args=arguments)
  row = "{:12} {:>6} {:>9} {:>8}  {:36} {}"
  head = ("verifier", "count", "verdicts", "seconds", "no verdict")
  print(row.format(*head, "workers lost"))
  every, failed = [], False
  with trap() as around:
    for name, kind in KINDS.items():
      count = max(1, size.count * kind.share // 100)
      found = measure(
        kind, count, workers=size.workers, seed=size.seed, trap=around
      )
      every.append(found)
      numbers = (found.count, found.verdicts, f"{found.seconds:.1f}")
      reasons = (_counts(found.without), _counts(found.lost))
      print(row.format(name, *numbers, *reasons), flush=True)
      for text, said in found.wrong:
        print(f"  wrong: {said}: {text!r}")
        failed = True
    sprung = around.sprung()
  total = (sum(f.count for f in every), sum(f.verdicts for f in every))
  seconds = f"{sum(f.seconds for f in every):.1f}"
  print(row.format("all", *total, seconds, "", ""))
  print(f"what got out: {'SOMETHING' if sprung else 'nothing'}")
  return int(failed or sprung)


if __name__ == "__main__":
  sys.exit(main())
