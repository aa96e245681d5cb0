"""Which steps of a response were thought right: evaluations, on the host.

An evaluator reads a problem and a response whose outcome is known. It says
where steps begin and end, and gives each a label that means one thing for a
correct response and another for a wrong one, so that no label stands without
its outcome:

    correct: 0 = a later reflection takes the step back, 1 = it stands
    wrong:   1 = the answer adopts the step, 0 = the step leads nowhere

It never solves the problem again. `thought_rules.Markers` does this with
rules, `thought_prompts.Prompted` asks a language model, and anything else of
this shape may stand there. `Thoughts` makes arrays of what they say.
"""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
import functools
import re
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

if TYPE_CHECKING:
  from collections.abc import Sequence

  from jaxtyping import Int

  from rl_jax.rewards.notes import TextData
  from rl_jax.types import TextRollouts

__all__ = [
  "Evaluated",
  "Evaluation",
  "Evaluator",
  "Response",
  "Thoughts",
  "check_evaluation",
  "split_response",
  "step_spans",
  "token_starts",
  "token_steps",
]

type Span = tuple[int, int]


class Response(NamedTuple):
  """What an evaluator reads.

  Attributes:
    text: what the policy wrote.
    think: characters of its thoughts, first and one past the last.
    answer: characters of its answer; (n, n) if it was cut before.
    correct: the outcome.
    name: what it is called in errors.
  """

  text: str
  think: Span
  answer: Span
  correct: bool
  name: str

  def of(self, span: Span) -> str:
    """The text of some characters."""
    return self.text[slice(*span)]


class Evaluation(NamedTuple):
  """Steps of the thoughts of a response, and their labels.

  Attributes:
    span: characters of each step, contiguous, covering the thoughts.
    label: 0 or 1 for each step; what it means depends on `correct`.
    correct: the outcome that the labels go with.
    reflections: (r, a, b) for each step r that takes back steps a to b.
    evaluator: who says so.
  """

  span: tuple[Span, ...]
  label: tuple[int, ...]
  correct: bool
  reflections: tuple[tuple[int, int, int], ...]
  evaluator: str


class Evaluated(NamedTuple):
  """An evaluation, or None for "no verdict", with the reason.

  Attributes:
    evaluation: None where the evaluator could not tell; such a response is
      left out and counted, and never has labels of zero.
    reason: why there is none. The part before a colon names the kind.
  """

  evaluation: Evaluation | None
  reason: str = ""


@runtime_checkable
class Evaluator(Protocol):
  """Labels the steps of a response."""

  def __call__(self, problem: str, response: Response) -> Evaluated:
    """The evaluation; it raises only what should stop a run."""
    ...


def split_response(
  text: str, *, begin: str, end: str, ended: bool, correct: bool, name: str
) -> Response:
  """Thoughts and answer of a text.

  Args:
    text: what the policy wrote.
    begin: what stands before the thoughts; empty: they begin with the text.
    end: what stands between them and the answer.
    ended: whether the text came to its end. One that was cut has an empty
      answer if it did not get there, and is wrong.
    correct: the outcome.
    name: what the response is called in errors.

  Returns:
    Its parts.

  Raises:
    ValueError: if a delimiter is missing or comes twice, with the name.
  """
  counts = {mark: text.count(mark) for mark in (begin, end) if mark}
  cut = not ended and counts[end] == 0
  lacking = [m for m, n in counts.items() if n != 1 and not (cut and m == end)]
  start = text.find(begin) + len(begin)
  if lacking or (not cut and text.find(end) < start):
    raise ValueError(
      f"{name}: needs {begin!r} and {end!r} once each and in order, got"
      f" {counts}"
    )
  if cut:
    span = len(text), len(text)
    return Response(text, (start, len(text)), span, False, name)
  close = text.find(end)
  return Response(
    text, (start, close), (close + len(end), len(text)), correct, name
  )


def step_spans(
  text: str, think: Span, *, ends: Sequence[str]
) -> tuple[Span, ...]:
  r"""Steps that end with certain strings, blank ones joined to one before.

  Args:
    text: of the whole response.
    think: where the thoughts are in it.
    ends: what ends a step, and belongs to it.

  Returns:
    Characters of each step, contiguous and covering; none for blank thoughts,
    and one for nothing but ends.

  >>> step_spans("one\n\ntwo", (0, 8), ends=("\n",))
  ((0, 5), (5, 8))
  """
  first, last = think
  cut = re.compile("|".join(map(re.escape, ends)))
  places = [first + m.end() for m in cut.finditer(text[first:last])]
  spans: list[Span] = []
  for place in dict.fromkeys((*places, last)):
    begin = spans[-1][1] if spans else first
    if cut.sub("", text[begin:place]).strip():
      spans.append((begin, place))
    elif spans:
      spans[-1] = spans[-1][0], place
  if not spans and text[first:last].strip():
    return ((first, last),)
  return tuple(spans)


def check_evaluation(evaluation: Evaluation, response: Response) -> None:
  """Refuse an evaluation that does not fit its response.

  Args:
    evaluation: of an evaluator.
    response: what it read.

  Raises:
    ValueError: with the response's name, if spans leave a gap, overlap or do
      not cover the thoughts; labels are not 0 or 1, or not as many as steps;
      they go with another outcome; or a reflection does not look back.
  """
  span, name = evaluation.span, response.name
  first, last = response.think
  if span:
    edges = [first, *(end for _, end in span)]
    if edges[-1] != last or any(
      begin != edge or end <= begin
      for edge, (begin, end) in zip(edges, span, strict=False)
    ):
      raise ValueError(
        f"{name}: steps must cover characters {first} to {last} without gap"
        f" or overlap, got {span}"
      )
  elif response.of(response.think).strip():
    raise ValueError(f"{name}: has thoughts and no steps")
  if len(evaluation.label) != len(span) or not set(evaluation.label) <= {0, 1}:
    raise ValueError(
      f"{name}: {len(span)} steps need as many labels of 0 or 1, got"
      f" {evaluation.label}"
    )
  if evaluation.correct != response.correct:
    raise ValueError(
      f"{name}: labels are for correct = {evaluation.correct}, and the outcome"
      f" is {response.correct}: they would mean something else"
    )
  for r, a, b in evaluation.reflections:
    if not 0 <= a <= b < r < len(span):
      raise ValueError(
        f"{name}: a reflection must look back, got step {r} on {a} to {b} of"
        f" {len(span)}"
      )


def token_steps(
  start: Int[np.ndarray, "time"], evaluation: Evaluation, response: Response
) -> tuple[Int[np.ndarray, "time"], Int[np.ndarray, "step"]]:
  """Which step each token is in, and the labels, the answer being the last.

  A token is in the step in which it begins; what stands before the thoughts
  is in the first, what stands after them in the answer, whose label is 1. A
  response that was cut before its answer has its last step instead. Steps in
  which no token begins are left out.

  Args:
    start: the character at which each token begins.
    evaluation: that fits the response.
    response: that was evaluated.

  Returns:
    The step of each token, from 0 without gaps, and the label of each step.
  """
  ends = np.array([end for _, end in evaluation.span], int)
  label = np.array((*evaluation.label, 1))
  step = np.searchsorted(ends, start, side="right")
  if response.answer[0] == response.answer[1] and len(ends):
    step = np.minimum(step, len(ends) - 1)
    label = np.array((*evaluation.label[:-1], 1))
  used, step = np.unique(step, return_inverse=True)
  return step.astype(np.int32), label[used].astype(np.int32)


def token_starts(tokenizer: Any, ids: Sequence[int]) -> tuple[str, list[int]]:
  """The text of ids, and the character at which each begins.

  Args:
    tokenizer: has `decode`.
    ids: of the tokens.

  Returns:
    The text, and a number for each id; tokens that are part of one character
    begin where it is first seen.
  """
  text = tokenizer.decode(ids)
  pieces = [tokenizer.decode([one]) for one in ids]
  if "".join(pieces) != text:
    # A character of several tokens, or a rule that looks at neighbours.
    whole = [tokenizer.decode(ids[:n]) for n in range(len(ids) + 1)]
    return text, [min(len(x), len(text)) for x in whole[:-1]]
  lengths = np.array([len(piece) for piece in pieces], int)
  return text, (np.cumsum(lengths) - lengths).tolist()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Thoughts:
  """Finds labels of steps in responses, for components that want them.

  Gives "correct" [], "label" [step] and "step" [time]: the outcome that the
  labels go with, the label of each step (the answer is the last; -1: there is
  no such step), and which step a token is in (-1: none). A row without a
  verdict, of the reward or of the evaluator, has no step at all, is counted
  in `reasons` of what `bind` returns, and learns nothing.

  Raises:
    ValueError: if `steps` or `threads` is below 1, or there is no `end`.
  """

  evaluator: Evaluator
  """Who labels steps."""
  steps: int
  """Most steps of a response, the answer included."""
  begin: str = "<think>"
  """Stands before the thoughts; empty: they begin with the response."""
  end: str = "</think>"
  """Stands between thoughts and answer."""
  above: float = 0.0
  """A reward above it is a correct outcome."""
  threads: int = dataclasses.field(default=1, metadata={"identity": False})
  """Responses that are evaluated at one time, for evaluators that wait."""

  def __post_init__(self) -> None:
    if min(self.steps, self.threads) < 1 or not self.end:
      raise ValueError(f"needs steps, threads >= 1 and an end, got {self}")

  def shapes(self, time: int) -> dict[str, tuple[tuple[int, ...], Any]]:
    """See `rl_jax.rewards.text.Note`."""
    return {
      "correct": ((), np.bool_),
      "label": ((self.steps,), np.int32),
      "step": ((time,), np.int32),
    }

  def bind(self, data: TextData) -> _Found:
    """See `rl_jax.rewards.text.Note`."""
    return _Found(self, data)


class _Found:
  """A `Thoughts` for some data.

  Attributes:
    reasons: rows without labels by kind of reason, since the beginning.
  """

  def __init__(self, note: Thoughts, data: TextData):
    self._note, self._data = note, data
    self.reasons: collections.Counter[str] = collections.Counter()

  @functools.cached_property
  def _tokenizer(self) -> Any:
    return self._data.vocabulary.load()

  def __call__(self, rollouts: TextRollouts) -> dict[str, np.ndarray]:
    """The arrays of judged rollouts."""
    token, mask = np.asarray(rollouts.token), np.asarray(rollouts.mask)
    valid, ended = np.asarray(rollouts.valid), np.asarray(rollouts.ended)
    right = (np.asarray(rollouts.reward) > self._note.above) & valid
    different, where = np.unique(np.asarray(rollouts.item), return_inverse=True)
    problems = self._data.source().columns(different)["prompt"]
    step = np.full(token.shape, -1, np.int32)
    label = np.full((len(token), self._note.steps), -1, np.int32)

    def one(row: int) -> str:
      if not valid[row]:
        return "no outcome"
      ids = token[row][mask[row]].tolist()
      found = self._steps(
        ids,
        problems[where[row]],
        bool(ended[row]),
        bool(right[row]),
        f"response {row}",
      )
      if isinstance(found, str):
        return found
      step[row, mask[row]], labels, right[row] = found
      label[row, : len(labels)] = labels
      return ""

    with concurrent.futures.ThreadPoolExecutor(self._note.threads) as pool:
      reasons = list(pool.map(one, range(len(token))))
    self.reasons.update(x.partition(":")[0] for x in reasons if x)
    return {"correct": right, "label": label, "step": step}

  def _steps(
    self, ids: list[int], problem: str, ended: bool, correct: bool, name: str
  ) -> tuple[np.ndarray, np.ndarray, bool] | str:
    """Step of each token, labels and outcome; or why there are none."""
    note, tokenizer = self._note, self._tokenizer
    end = [tokenizer.id(tokenizer.eos)] if tokenizer.eos is not None else []
    kept = ids[:-1] if ids[-1:] == end else ids
    text, start = token_starts(tokenizer, kept)
    start = np.array([*start, *[len(text)] * (len(ids) - len(kept))], int)
    try:
      response = split_response(
        text,
        begin=note.begin,
        end=note.end,
        ended=ended,
        correct=correct,
        name=name,
      )
    except ValueError as error:
      return f"no answer: {error}"
    evaluation, reason = note.evaluator(problem, response)
    if evaluation is None:
      return reason or "no verdict"
    check_evaluation(evaluation, response)
    step, label = token_steps(start, evaluation, response)
    if len(label) > note.steps:
      return f"too many steps: {len(label)} of at most {note.steps}"
    return step, label, response.correct
