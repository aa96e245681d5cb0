"""What a language policy wrote in evaluations, on disk.

`texts/<step>.jsonl` has one line per answer. A file appears whole or not at
all. Completions are the work of a policy that is rewarded for whatever passes:
nothing in them may break a record, a page or a terminal.
"""

from __future__ import annotations

import json
import math
import os
import unicodedata
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
  from collections.abc import Sequence
  from pathlib import Path

__all__ = [
  "LONGEST",
  "NEWEST",
  "Written",
  "drop_texts",
  "keep_texts",
  "printable",
  "read_texts",
]

LONGEST = 20_000
"""Characters of a text that are kept; a mark says how many there were."""
NEWEST = 3
"""How many of the newest evaluations are kept, besides the first."""

_DEEPEST = 8  # levels of a conversation or of whatever else a prompt may be
# Kinds of characters that move, hide or are no text: controls, formats such
# as those that turn the direction around, surrogates, private ones, line and
# paragraph separators.
_UNSEEN = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}


class Written(NamedTuple):
  """The answers of one evaluation.

  Attributes:
    step: of the evaluation.
    record: one for each answer, `prompt` (text or messages), `completion`,
      `reference` and `reward` (None: no verdict) among its keys.
  """

  step: int
  record: tuple[dict[str, Any], ...]


def keep_texts(
  workdir: Path, step: int, record: Sequence[dict[str, Any]]
) -> None:
  """Writes the answers of an evaluation and lets go of older ones.

  The first and the `NEWEST` newest evaluations stay. What is kept depends on
  which evaluations there were and not on how often a run was killed: one that
  goes on from an earlier step has the same files again once it has come to
  where it was.

  Args:
    workdir: of the run.
    step: of the evaluation.
    record: what was written; longer texts than `LONGEST` are cut, and what
      JSON cannot say is kept as text.
  """
  path = workdir / "texts" / f"{step}.jsonl"
  path.parent.mkdir(parents=True, exist_ok=True)
  temporary = path.with_name(path.name + ".partial")
  with temporary.open("w", encoding="ascii") as file:
    for item in record:
      file.write(json.dumps(_plain(item), allow_nan=False) + "\n")
  os.replace(temporary, path)
  for old, _ in _files(workdir)[1:-NEWEST]:
    old.unlink()


def drop_texts(workdir: Path, *, after: int) -> None:
  """Takes back what later evaluations wrote.

  Args:
    workdir: of the run.
    after: the last step whose evaluation stays.
  """
  for path, step in _files(workdir):
    if step > after:
      path.unlink()


def read_texts(workdir: Path) -> list[Written]:
  """The kept answers of a run.

  Args:
    workdir: of the run.

  Returns:
    Evaluations, earliest first; none where nothing was written.

  Raises:
    ValueError: if a line cannot be read; it names the line.
  """
  found = []
  for path, step in _files(workdir):
    record = []
    for i, line in enumerate(path.read_bytes().splitlines(), start=1):
      try:
        record.append({"prompt": "", "completion": "", "reward": None})
        record[-1] |= json.loads(line)
      except (ValueError, TypeError) as error:
        raise ValueError(
          f"{path}, line {i} is not what a policy wrote ({error}); move the"
          " file away to go on without it"
        ) from error
    found.append(Written(step, tuple(record)))
  return found


def printable(text: str, *, keep: str = "\n\t") -> str:
  r"""A text that does nothing but show.

  Args:
    text: anything.
    keep: characters that stay although they move what follows.

  Returns:
    The text with escapes in place of what would control a terminal, turn the
    direction of writing around, or not be seen.

  >>> print(printable("a\x1b[2Jb \u202ec"))
  a\x1b[2Jb \u202ec
  """
  if text.isprintable():
    return text
  return "".join(
    one
    if one in keep or unicodedata.category(one) not in _UNSEEN
    else one.encode("ascii", "backslashreplace").decode()
    if ord(one) > 0x7F
    else f"\\x{ord(one):02x}"
    for one in text
  )


def _files(workdir: Path) -> list[tuple[Path, int]]:
  found = [
    (path, int(path.stem))
    for path in (workdir / "texts").glob("*.jsonl")
    if path.stem.isdecimal()
  ]
  return sorted(found, key=lambda item: item[1])


def _plain(value: Any, depth: int = 0) -> Any:
  """A JSON value of bounded size that says the same."""
  match value:
    case np.generic():
      return _plain(value.item(), depth)
    case None | bool():
      return value
    case str():
      return _cut(value)
    case int() if abs(value) < 1 << 63:
      return int(value)
    case float() if math.isfinite(value):
      return float(value)
    case dict() if depth < _DEEPEST:
      return {
        _cut(f"{name}"): _plain(own, depth + 1) for name, own in value.items()
      }
    case list() | tuple() if depth < _DEEPEST:
      return [_plain(own, depth + 1) for own in value]
    case int():
      return hex(value)[:LONGEST]
  return _cut(f"{value}")


def _cut(text: str) -> str:
  if len(text) <= LONGEST:
    return str(text)
  return f"{text[:LONGEST]}… [{LONGEST} of {len(text)} characters]"
