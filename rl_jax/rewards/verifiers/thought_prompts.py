"""An evaluator of thoughts that asks a language model for indices.

Four questions: where steps begin; which of them take something back
(reflections); which steps each of those blames; and, step by step, whether
it is wrong. For a response whose outcome is wrong there is one instead of the
last three: which steps the answer adopts. Every question shows numbered lines
or steps, wants JSON with numbers only, and forbids to solve the problem, for
which a judge would have to be as good as the policy.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
from collections.abc import Callable
from typing import Any

from rl_jax.rewards.verifiers.thoughts import (
  Evaluated,
  Evaluation,
  Response,
  check_evaluation,
)

__all__ = [
  "LOCATE",
  "MATCH",
  "SEGMENT",
  "TRACE",
  "VERIFY",
  "Prompted",
  "indices",
]

_RULES = (
  "Do not solve the problem and do not judge with a solution of your own: read"
  " only what is written below. Reply with one JSON object and nothing else."
)
SEGMENT = (
  "Below are the numbered lines in which somebody thought about a problem."
  " Divide them into steps, each of which pursues one idea. Give the number of"
  ' the first line of every step, in order, as {{"starts": [0, ...]}}. '
  + _RULES
  + "\n\nProblem:\n{problem}\n\nLines:\n{listed}\n"
)
LOCATE = (
  "Below are the numbered steps of a solution that ended well. Which of them"
  " admit or repair an error made in an earlier step? Give their numbers, in"
  ' order, as {{"reflections": [...]}}, an empty list if there is none. '
  + _RULES
  + "\n\nProblem:\n{problem}\n\nSteps:\n{listed}\n"
)
TRACE = (
  "Below are the numbered steps of a solution. Step {reflection} takes back"
  " something that came before. Give the first and the last of the earlier"
  ' steps that it blames, as {{"interval": [first, last]}}, or'
  ' {{"interval": []}} if it blames none. '
  + _RULES
  + "\n\nProblem:\n{problem}\n\nSteps:\n{listed}\n"
)
VERIFY = (
  "Below are the numbered steps of a solution. Step {reflection} takes back"
  " something that came before, and these steps are known to be wrong:"
  " {wrong}. Step {step} is wrong too if step {reflection} says so, or if it"
  ' depends on one that is. Reply {{"wrong": [{step}]}} if it is wrong and'
  ' {{"wrong": []}} if not. '
  + _RULES
  + "\n\nProblem:\n{problem}\n\nSteps:\n{listed}\n"
)
MATCH = (
  "Below are the numbered steps of somebody's thoughts, and the answer that"
  " was given after them. In which steps does the content stand that the"
  ' answer adopts? Give their numbers, in order, as {{"matched": [...]}}. '
  + _RULES
  + "\n\nProblem:\n{problem}\n\nSteps:\n{listed}\n\nAnswer:\n{answer}\n"
)

_FENCE = re.compile(r"\s*```(?:json)?\s*(.*?)\s*```\s*", re.DOTALL)


def indices(reply: str, field: str, *, low: int, high: int) -> list[int]:
  """The numbers of a reply, read strictly.

  Args:
    reply: one JSON object with one field, in a code fence or not.
    field: its name.
    low: smallest number allowed.
    high: one more than the greatest.

  Returns:
    Rising numbers.

  Raises:
    ValueError: if the reply is anything else, with what it is.

  >>> indices('{"starts": [0, 4]}', "starts", low=0, high=9)
  [0, 4]
  """
  inside = _FENCE.fullmatch(reply)
  try:
    said = json.loads(inside.group(1) if inside else reply)
  except (json.JSONDecodeError, RecursionError) as error:
    raise ValueError(f"no JSON: {error}") from error
  if not isinstance(said, dict) or set(said) != {field}:
    raise ValueError(f"needs one field {field!r}, got {str(said)[:80]!r}")
  found = said[field]
  # A bool is an int to Python.
  if not isinstance(found, list) or any(type(x) is not int for x in found):
    raise ValueError(f"{field!r} must be a list of numbers, got {found!r:.80}")
  pairs = itertools.pairwise(found)
  if any(a >= b for a, b in pairs) or not all(low <= x < high for x in found):
    raise ValueError(
      f"{field!r} must rise within [{low}, {high}), got {found!r:.80}"
    )
  return found


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prompted:
  """An evaluator that asks: any callable from a prompt to a reply.

  A reply that breaks a rule, and an error of the connection (OSError), are
  met with the question again; after `attempts` there is no verdict, and the
  response is left out and counted. Other errors stop the run.

  Raises:
    ValueError: if `attempts` < 1 or there is no name.
  """

  ask: Callable[[str], str]
  """From a prompt to a reply, such as a request to a server; called from
  several threads if `Thoughts` has several."""
  name: str
  """Which model it is, for `Evaluation.evaluator`."""
  attempts: int = 3
  """Times that a question is put."""

  def __post_init__(self) -> None:
    if self.attempts < 1 or not self.name:
      raise ValueError(f"needs a name and attempts >= 1, got {self}")

  def __call__(self, problem: str, response: Response) -> Evaluated:
    """The evaluation, or what the last refused reply was refused for."""
    try:
      evaluation = self._evaluated(problem, response)
    except _RefusedError as error:
      return Evaluated(None, f"{self.name}: {response.name}: {error}")
    check_evaluation(evaluation, response)
    return Evaluated(evaluation)

  def _evaluated(self, problem: str, response: Response) -> Evaluation:
    span = self._segmented(problem, response)
    given: dict[str, Any] = {
      "problem": problem,
      "listed": _listed([response.of(one) for one in span]),
    }
    count, reflections = len(span), []
    label = [int(response.correct)] * count
    if not response.correct:
      answer = response.of(response.answer)
      for k in self._indices(
        MATCH, "matched", (0, count), given | {"answer": answer}
      ):
        label[k] = 1
    elif count > 1:
      for r in self._indices(LOCATE, "reflections", (0, count), given):
        interval = self._interval(r, given) if r else None
        if interval is not None:
          reflections.append((r, *interval))
          for k in self._wrong(r, interval, given):
            label[k] = 0
      # A step that repairs another is right itself, whoever blames it later.
      for r, *_ in reflections:
        label[r] = 1
    return Evaluation(
      span, tuple(label), response.correct, tuple(reflections), self.name
    )

  def _segmented(
    self, problem: str, response: Response
  ) -> tuple[tuple[int, int], ...]:
    first, last = response.think
    lines = response.of(response.think).splitlines(keepends=True)
    if not "".join(lines).strip():
      return ()
    starts = self._indices(
      SEGMENT,
      "starts",
      (0, len(lines)),
      {"problem": problem, "listed": _listed(lines)},
      accept=lambda found: found[:1] == [0],
    )
    places = [first]
    for line in lines:
      places.append(places[-1] + len(line))
    edges = [*(places[line] for line in starts), last]
    return tuple(itertools.pairwise(edges))

  def _interval(self, r: int, given: dict[str, Any]) -> tuple[int, int] | None:
    found = self._indices(
      TRACE,
      "interval",
      (0, r),
      given | {"reflection": r},
      accept=lambda found: len(found) in (0, 1, 2),
    )
    return (found[0], found[-1]) if found else None

  def _wrong(
    self, r: int, interval: tuple[int, int], given: dict[str, Any]
  ) -> list[int]:
    wrong: list[int] = []
    for k in range(interval[0], interval[1] + 1):
      wrong += self._indices(
        VERIFY,
        "wrong",
        (k, k + 1),
        given | {"reflection": r, "step": k, "wrong": wrong},
      )
    return wrong

  def _indices(
    self,
    template: str,
    field: str,
    bounds: tuple[int, int],
    given: dict[str, Any],
    *,
    accept: Callable[[list[int]], bool] | None = None,
  ) -> list[int]:
    low, high = bounds
    prompt, last = template.format(**given), ""
    for _ in range(self.attempts):
      try:
        found = indices(self.ask(prompt), field, low=low, high=high)
      except (ValueError, OSError) as error:
        last = str(error)
        continue
      if accept is None or accept(found):
        return found
      last = f"{field!r} cannot be {found}"
    raise _RefusedError(f"{field} after {self.attempts} attempts: {last}")


class _RefusedError(Exception):
  """No reply could be used."""


def _listed(parts: list[str]) -> str:
  return "\n".join(f"[{k}] {part.strip()}" for k, part in enumerate(parts))
