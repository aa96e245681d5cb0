"""Responses with calls of tools in them: parsed, and compared."""

from __future__ import annotations

import collections
import json
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from rl_jax.rewards.verifiers.structured import parsed_json

if TYPE_CHECKING:
  from collections.abc import Callable, Sequence

__all__ = [
  "Call",
  "ParsedResponse",
  "matched",
  "multiset_jaccard",
  "ordered_equality",
  "parse_tool_response",
]


class Call(NamedTuple):
  """One line of a block of calls.

  Attributes:
    name: of the tool; a string in a call that is well formed.
    parameters: by name; None where they are missing or no object.
    whole: the object with all of its keys.
  """

  name: Any
  parameters: dict[str, Any] | None
  whole: dict[str, Any]


class ParsedResponse(NamedTuple):
  """The parts of a response.

  Attributes:
    think: after the last opening tag, up to the next closing one; None if
      either is missing in the response.
    calls: those of the first block; none if there are errors.
    response: the first block of an answer; None if there is none.
    errors: why there are no calls; empty if they could be read.
  """

  think: str | None
  calls: tuple[Call, ...]
  response: str | None
  errors: tuple[str, ...]


def parse_tool_response(
  text: str,
  *,
  longest: int = 100_000,
  deepest: int = 64,
  most: int = 256,
) -> ParsedResponse:
  r"""Take a response apart, whatever it is.

  Of blocks of calls the first one is read: from the first opening tag,
  wherever it stands, to the next tag, with the space around it removed. Each
  of its lines must be one object of strict JSON (see `parsed_json`) with a
  name, and no string may hold half of a character.

  Args:
    text: the response, without what ends it.
    longest: most characters of the block.
    deepest: most brackets inside of one another.
    most: most calls.

  Returns:
    The parts.

  >>> text = '<think>a</think>\n<tool_call>\n{"name": "f"}\n</tool_call>'
  >>> parsed = parse_tool_response(text)
  >>> parsed.think, parsed.calls[0].name, parsed.calls[0].parameters
  ('a', 'f', None)
  """
  think = response = None
  if "<think>" in text and "</think>" in text:
    think = text.rpartition("<think>")[2].partition("</think>")[0].strip()
  _, opened, rest = text.partition("<response>")
  inside, closed, _ = rest.partition("</response>")
  if opened and closed:
    response = inside
  try:
    calls, errors = _calls(text, longest, deepest, most), ()
  except (ValueError, RecursionError) as error:
    calls, errors = (), (f"{error}"[:200],)
  return ParsedResponse(think, calls, response, errors)


def _calls(
  text: str, longest: int, deepest: int, most: int
) -> tuple[Call, ...]:
  if "<tool_call>" not in text or "</tool_call>" not in text:
    raise ValueError("no block of calls")
  # Another opening tag ends the block too: the release splits by it.
  block = text.split("<tool_call>", 2)[1].partition("</tool_call>")[0].strip()
  if len(block) > longest:
    raise ValueError(f"{len(block)} characters of calls, allowed are {longest}")
  lines = block.split("\n", most)
  if len(lines) > most:
    raise ValueError(f"more than {most} calls")
  return tuple(_call(line, longest, deepest) for line in lines)


def _call(line: str, longest: int, deepest: int) -> Call:
  whole = parsed_json(line, longest=longest, deepest=deepest)
  # Half of a surrogate pair passes for JSON, raw or escaped.
  json.dumps(whole, ensure_ascii=False).encode()
  # A name that is no string only fails to match; a dict or a list is none.
  name = whole.get("name") if isinstance(whole, dict) else None
  if not isinstance(whole, dict) or "name" not in whole:
    raise ValueError(f"no object with a name: {line[:100]!r}")
  if isinstance(name, dict | list):
    raise ValueError(f"a name that is no string: {line[:100]!r}")
  parameters = whole.get("parameters")
  if not isinstance(parameters, dict):
    parameters = None
  return Call(name, parameters, whole)


def multiset_jaccard(left: Sequence[Any], right: Sequence[Any]) -> float:
  """How much two lists share, whatever their order.

      M = sum_k min(l_k, r_k) / (|l| + |r| - sum_k min(l_k, r_k))

  l_k and r_k count how often k occurs. Lists that are equal share all, empty
  ones too.

  Args:
    left: hashable values.
    right: hashable values.

  Returns:
    A number in [0, 1].

  >>> multiset_jaccard(["a", "a", "b"], ["a", "b", "c"])
  0.5
  """
  if list(left) == list(right):
    return 1.0
  counts = collections.Counter(left), collections.Counter(right)
  both = (counts[0] & counts[1]).total()
  return both / (len(left) + len(right) - both)


def ordered_equality(left: Sequence[Any], right: Sequence[Any]) -> float:
  """1 if two lists are equal in order, else 0.

  Args:
    left: anything.
    right: anything.

  Returns:
    0 or 1.
  """
  return float(list(left) == list(right))


def matched(
  wanted: Sequence[Call],
  found: Sequence[Call],
  points: Callable[[Call, Call], float],
  *,
  optimal: bool,
) -> list[float]:
  """Points of each wanted call with the found one that it is matched to.

  Greedy: in order, each takes the first of the best that are left, and none
  if the best has no points.

  Args:
    wanted: calls of a reference.
    found: predicted calls; each is matched once at most.
    points: of a wanted and a found call, not negative.
    optimal: whether the sum of points is the largest that there is instead.

  Returns:
    One number for each wanted call.
  """
  table = np.array([[points(w, f) for f in found] for w in wanted], float)
  if optimal and table.size:
    from scipy.optimize import linear_sum_assignment

    row, column = linear_sum_assignment(table, maximize=True)
    earned = np.zeros(len(wanted))
    earned[row] = table[row, column]
    return earned.tolist()
  earned, left = [], np.ones(len(found), bool)
  for row in table:
    free = np.where(left, row, 0.0)
    best = int(free.argmax()) if free.size else 0
    earned.append(float(free[best]) if free.size else 0.0)
    if earned[-1] > 0:
      left[best] = False
  return earned
