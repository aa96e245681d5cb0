"""Completions that are data: JSON, and calls of tools written in it."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from typing import TYPE_CHECKING, Any

from rl_jax.rewards.verifiers.judgement import Judgement, no_verdict

if TYPE_CHECKING:
  from collections.abc import Sequence

__all__ = ["Json", "ToolCall", "fenced", "parsed_json", "same_json"]

_FENCE = re.compile(r"^[ \t]*```([^\n`]*)\n(.*?)^[ \t]*```", re.M | re.S)
# An open string runs to the end: to look for its end anew from every quote
# would be quadratic.
_PIECES = re.compile(r'"(?:[^"\\]|\\.)*+"?|[\[\]{}]', re.S)


def fenced(text: str) -> str | None:
  """The last closed block between lines of three back quotes.

  Args:
    text: a completion.

  Returns:
    The inside of the block, or None if there is none.

  >>> fenced("Here:" + chr(10) + "```json" + chr(10) + "[1]" + chr(10) + "```")
  '[1]'
  """
  if text.count("```") < 2:
    return None
  blocks = [match.group(2) for match in _FENCE.finditer(text)]
  return blocks[-1].removesuffix("\n") if blocks else None


def parsed_json(text: str, *, longest: int, deepest: int) -> Any:
  """Strict JSON out of a hostile text.

  Refused besides what is no JSON: NaN and infinities, one key twice in an
  object, integers of more digits than Python converts, numbers that overflow.

  Args:
    text: the document, space around it allowed.
    longest: most characters.
    deepest: most brackets inside of one another.

  Returns:
    The value: dict, list, str, int, float, bool or None.

  Raises:
    ValueError: if it is refused, with the reason.

  >>> parsed_json('{"a": [1]}', longest=100, deepest=2)
  {'a': [1]}
  """
  if len(text) > longest:
    raise ValueError(f"{len(text)} characters, allowed are {longest}")
  depth = most = 0
  for match in _PIECES.finditer(text):
    if match.group() in "[{":
      depth += 1
      most = max(most, depth)
    elif match.group() in "]}":
      depth -= 1
  if most > deepest:
    raise ValueError(f"nested {most} deep, allowed are {deepest}")
  return json.loads(
    text,
    object_pairs_hook=_unique,
    parse_constant=_refused,
    parse_float=_finite,
  )


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
  found = dict(pairs)
  if len(found) != len(pairs):
    raise ValueError("an object names one key twice")
  return found


def _refused(constant: str) -> Any:
  raise ValueError(f"{constant} is no JSON")


def _finite(digits: str) -> float:
  value = float(digits)
  if not math.isfinite(value):
    raise ValueError("a number overflows")
  return value


def same_json(left: Any, right: Any) -> bool:
  """Equality that keeps true from 1, as JSON does.

  Args:
    left: a value as `parsed_json` gives it.
    right: another.

  Returns:
    Whether they are the same.
  """
  if isinstance(left, bool) or isinstance(right, bool):
    return left is right
  if isinstance(left, dict) and isinstance(right, dict):
    return left.keys() == right.keys() and all(
      same_json(left[key], right[key]) for key in left
    )
  if isinstance(left, list) and isinstance(right, list):
    return len(left) == len(right) and all(map(same_json, left, right))
  numbers = {type(left), type(right)} <= {int, float}
  return (numbers or type(left) is type(right)) and left == right


@dataclasses.dataclass(frozen=True, kw_only=True)
class Json:
  """1 if the completion is JSON of the reference's value, else 0.

  A fenced block counts as the document if there is one. Without a reference
  (None), any valid JSON is right. Numbers are equal by value (1 and 1.0), the
  order of keys does not matter.

  Raises:
    ValueError: if a limit is below 1.

  >>> Json()('{"b": 2, "a": 1}', '{"a": 1.0, "b": 2}').reward
  1.0
  """

  longest: int = 100_000
  """Most characters of a document."""
  deepest: int = 64
  """Most brackets inside of one another."""

  def __post_init__(self):
    _positive(self.longest, self.deepest)

  def __call__(self, completion: str, reference: str | None) -> Judgement:
    """Parse both and compare; see `Verifier`."""
    block = fenced(completion)
    limits = {"longest": self.longest, "deepest": self.deepest}
    try:
      found = parsed_json(completion if block is None else block, **limits)
    except (ValueError, RecursionError) as error:
      return Judgement(0.0, f"no JSON: {error}"[:200])
    if reference is None:
      return Judgement(1.0)
    try:
      wanted = parsed_json(reference, **limits)
    except (ValueError, RecursionError) as error:
      return no_verdict(f"bad reference: {error}"[:200])
    return Judgement(float(same_json(found, wanted)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ToolCall:
  """1 if a completion calls exactly the tools of the reference, else 0.

  A call is an object {"name": str, "arguments": object} between `opening` and
  `closing`. The reference is a sequence of such objects; the empty one says
  that no tool is to be called. Text around the calls does not matter.

  Raises:
    ValueError: if a limit is below 1 or a mark is empty.

  >>> wanted = [{"name": "add", "arguments": {"x": 1}}]
  >>> call = '{"name": "add", "arguments": {"x": 1}}'
  >>> ToolCall()(f"<tool_call>{call}</tool_call>", wanted).reward
  1.0
  """

  opening: str = "<tool_call>"
  """What a call begins with."""
  closing: str = "</tool_call>"
  """What it ends with."""
  ordered: bool = True
  """Whether the calls must come in the order of the reference."""
  most: int = 16
  """Most calls; more than that are wrong unread."""
  longest: int = 100_000
  """Most characters of a call."""
  deepest: int = 64
  """Most brackets inside of one another."""

  def __post_init__(self):
    _positive(self.longest, self.deepest, self.most)
    if not self.opening or not self.closing:
      raise ValueError(
        f"a call needs marks, got {self.opening!r} and {self.closing!r}"
      )

  def __call__(
    self, completion: str, reference: Sequence[dict[str, Any]]
  ) -> Judgement:
    """Find the calls and compare them; see `Verifier`."""
    wanted = list(reference)
    if not all(_is_call(call) for call in wanted):
      return no_verdict("bad reference: not a sequence of calls")
    pieces = completion.split(self.opening, self.most + 1)[1:]
    if len(pieces) > self.most:
      return Judgement(0.0, f"too many calls: more than {self.most}")
    found = []
    for piece in pieces:
      text, closed, _ = piece.partition(self.closing)
      try:
        call = parsed_json(text, longest=self.longest, deepest=self.deepest)
      except (ValueError, RecursionError) as error:
        return Judgement(0.0, f"no JSON: {error}"[:200])
      if not closed or not _is_call(call):
        return Judgement(0.0, "no call: it lacks its end, name or arguments")
      found.append(call)
    if self.ordered:
      return Judgement(float(same_json(found, wanted)))
    for call in found:
      # Equal calls may come twice: each takes one of the wanted away.
      index = next(
        (i for i, w in enumerate(wanted) if same_json(call, w)), None
      )
      if index is None:
        return Judgement(0.0)
      del wanted[index]
    return Judgement(float(not wanted))


def _is_call(call: Any) -> bool:
  return (
    isinstance(call, dict)
    and call.keys() == {"name", "arguments"}
    and isinstance(call["name"], str)
    and isinstance(call["arguments"], dict)
  )


def _positive(*limits: int) -> None:
  if min(limits) < 1:
    raise ValueError(f"limits must be at least 1, got {limits}")
