"""Judges that think, then say which of two responses is the better one.

The policy is the judge here: it writes its reasons and an answer, "1" or "2",
and is rewarded for being right, for the form, and for an answer that follows
from its reasons.
"""

from __future__ import annotations

import collections
import dataclasses
import re
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

import numpy as np

from rl_jax.rewards.verifiers.judgement import Judgement, no_verdict

if TYPE_CHECKING:
  from collections.abc import Callable, Sequence

  from jaxtyping import Int

__all__ = [
  "CONSISTENCY_TEMPLATE",
  "JUDGE_TEMPLATE",
  "AskedConsistency",
  "Consistency",
  "MentionConsistency",
  "PairwiseJudge",
  "PairwiseJudgeExample",
  "ThinkAnswer",
  "difficulty_filter",
  "judge_prompt",
  "judge_reward",
  "parse_think_answer",
  "shuffled_pairs",
]

_FORM = re.compile(r"<think>.*?</think><answer>.*?</answer>", re.S)
_ANSWERS = ("1", "2")

CONSISTENCY_TEMPLATE = """\
You compare two short texts strictly, and judge nothing else.

Reasoning: {reasoning}
Answer: Response {answer} is better.

Which response does the reasoning find better?
- Write 1 if the reasoning comes to the same choice as the answer.
- Write 0 if it comes to the other choice, is ambiguous, or approves of both.
Write that digit and nothing else."""
"""What another model is asked; see `AskedConsistency`."""

JUDGE_TEMPLATE = """\
Question: {question}

Response 1: {first}

Response 2: {second}

Which response is better? Compare them step by step between <think> and \
</think>, naming the better one at the end as response 1 or response 2. Then \
write its number alone between <answer> and </answer>, with nothing between \
the two parts and nothing after them."""
"""What the policy is asked; see `judge_prompt`."""


class PairwiseJudgeExample(NamedTuple):
  """Two responses to a question, and which one people preferred.

  Attributes:
    question: text.
    first: what is called response 1.
    second: what is called response 2.
    label: 1 or 2.
    image: path of the image that the question is about; empty without one.
  """

  question: str
  first: str
  second: str
  label: int
  image: str = ""


def judge_prompt(example: PairwiseJudgeExample) -> str:
  """What a judge is asked about an example, in `JUDGE_TEMPLATE`.

  Args:
    example: its texts.

  Returns:
    The prompt; the image, if there is one, is for the model's own input.

  Raises:
    ValueError: if a text is empty: there would be nothing to compare.
  """
  places = re.compile(r"\{(question|first|second)\}")
  for name in ("question", "first", "second"):
    if not getattr(example, name).strip():
      raise ValueError(f"the example has an empty {name}")
  # In one pass: a text may itself have such a brace.
  return places.sub(
    lambda found: getattr(example, found.group(1)), JUDGE_TEMPLATE
  )


class ThinkAnswer(NamedTuple):
  """What a judge has written, taken apart.

  Attributes:
    reasoning: what stands before the answer, without the marks around it.
    answer: "1" or "2"; None if there is no such answer.
    formed: whether the text has the form that is asked for, whatever the
      answer is.
  """

  reasoning: str
  answer: str | None
  formed: bool


def parse_think_answer(text: str) -> ThinkAnswer:
  r"""Reasons, answer and form of a judge's text.

      <think>reasons</think><answer>1</answer>

  The form: it begins with <think> and ends with </answer>, the answer follows
  the reasons with nothing between, and each opening mark comes once. Space
  around all of it does not matter. An answer is read wherever one stands, so
  that it can be right in a wrong form.

  Args:
    text: a completion.

  Returns:
    Its parts.

  Zhang et al. 2025, arXiv:2505.02835 (R1-Reward): the code's expression.

  >>> parse_think_answer("<think>x</think><answer>2</answer>")
  ThinkAnswer(reasoning='x', answer='2', formed=True)
  """
  once = text.count("<think>") == text.count("<answer>") == 1
  formed = once and _FORM.fullmatch(text.strip()) is not None
  before, opened, behind = text.partition("<answer>")
  inside, closed, _ = behind.partition("</answer>")
  answer = inside.strip() if opened and closed else None
  reasoning = before.replace("<think>", "").replace("</think>", "").strip()
  return ThinkAnswer(reasoning, answer if answer in _ANSWERS else None, formed)


class Consistency(NamedTuple):
  """Whether an answer follows from the reasons before it.

  Attributes:
    value: 1 = it does, -1 = it does not, or the reasons are ambiguous; 0 =
      nobody could tell.
    failed: why nobody could; empty otherwise.
  """

  value: int
  failed: str = ""


@runtime_checkable
class _Consistent(Protocol):
  def __call__(self, reasoning: str, answer: str) -> Consistency: ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class MentionConsistency:
  """A rule: the response that is named last is the one that was chosen.

  Raises:
    ValueError: if the expression has not exactly one group.

  >>> MentionConsistency()("Response 1 rambles; response 2 wins.", "2").value
  1
  """

  mention: str = r"response\s+([12])\b"
  """Regular expression of a mention, in any case; its group is 1 or 2."""

  def __post_init__(self):
    if re.compile(self.mention).groups != 1:
      raise ValueError(f"{self.mention!r} must have one group, the number")

  def __call__(self, reasoning: str, answer: str) -> Consistency:
    """1 if the last mention is of the answer; -1 if not, or without one."""
    found = re.findall(self.mention, reasoning, re.IGNORECASE)
    return Consistency(1 if found and found[-1] == answer else -1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AskedConsistency:
  """Another model compares the end of the reasons with the answer.

  Raises:
    ValueError: if `tries` or `lines` is below 1, or the template lacks a
      place.
  """

  ask: Callable[[str], str]
  """From a prompt to what the model writes. It may raise."""
  tries: int = 3
  """How often it is asked until it writes a digit that can be read."""
  lines: int = 3
  """Lines at the end of the reasons that it gets, joined by ";"."""
  template: str = CONSISTENCY_TEMPLATE
  """What it is asked, with {reasoning} and {answer}."""

  def __post_init__(self):
    if min(self.tries, self.lines) < 1:
      raise ValueError(
        f"tries and lines must be at least 1, got {self.tries}, {self.lines}"
      )
    for place in ("{reasoning}", "{answer}"):
      if place not in self.template:
        raise ValueError(f"the template lacks {place}")

  def __call__(self, reasoning: str, answer: str) -> Consistency:
    """1 for a reply of 1, -1 for 0, 0 after that many useless replies."""
    written = [line for line in reasoning.splitlines() if line.strip()]
    prompt = self.template.replace("{answer}", answer).replace(
      "{reasoning}", ";".join(written[-self.lines :])
    )
    failed = ""
    for _ in range(self.tries):
      try:
        reply = self.ask(prompt).strip()
      except Exception as error:
        failed = f"{type(error).__name__}: {error}"
        continue
      if reply in ("0", "1"):
        return Consistency(1 if reply == "1" else -1)
      failed = f"reply {reply!r:.50}"
    return Consistency(0, failed)


def judge_reward(
  correct: bool,
  consistency: int,
  formed: bool,
  *,
  consistency_weight: float,
  format_weight: float,
) -> float:
  r"""The reward of a judge: consistency pays, or costs, where it is right.

      R = a (1 + w_c c) + w_f f

  Args:
    correct: a, whether the answer is the label.
    consistency: c in {-1, 0, 1}.
    formed: f, whether the form is right.
    consistency_weight: w_c in [0, 1]; .5 in the paper.
    format_weight: w_f, not negative; .5 in the paper.

  Returns:
    R, in [0, 1 + w_c + w_f].

  Raises:
    ValueError: if a weight or c is outside of its range.

  Zhang et al. 2025, arXiv:2505.02835, as in its code, where an inconsistent
  answer costs; the text has a reward for a consistent one only.

  >>> judge_reward(True, -1, True, consistency_weight=0.5, format_weight=0.5)
  1.0
  """
  if consistency not in (-1, 0, 1):
    raise ValueError(f"consistency must be -1, 0 or 1, got {consistency}")
  if not 0 <= consistency_weight <= 1 or not format_weight >= 0:
    raise ValueError(
      f"consistency_weight = {consistency_weight} must be in [0, 1] and"
      f" format_weight = {format_weight} not negative"
    )
  accuracy = float(correct) * (1.0 + consistency_weight * consistency)
  return accuracy + format_weight * float(formed)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairwiseJudge:
  """`judge_reward` of a completion; the reference is the label, "1" or "2".

  What cannot be read is wrong, never right: no answer gives the reward of the
  form alone, and its reason is counted. A bad label has no verdict.

  >>> PairwiseJudge()("<think>response 1</think><answer>1</answer>", "1").reward
  2.0
  """

  consistency: _Consistent = MentionConsistency()
  """Who says whether the answer follows from the reasons. Asked only where the
  answer is right: elsewhere it pays nothing."""
  consistency_weight: float = 0.5
  """See `judge_reward`; 0 does not ask."""
  format_weight: float = 0.5
  """See `judge_reward`."""

  def __post_init__(self):
    judge_reward(
      True,
      0,
      True,
      consistency_weight=self.consistency_weight,
      format_weight=self.format_weight,
    )

  def __call__(self, completion: str, reference: str | int) -> Judgement:
    """Take the completion apart and judge it; see `Verifier`."""
    label = str(reference).strip()
    if label not in _ANSWERS:
      return no_verdict(f"bad reference: {reference!r:.50}")
    reasoning, answer, formed = parse_think_answer(completion)
    correct, reason = answer == label, ""
    said = Consistency(0)
    if answer is None:
      reason = "no answer"
    elif correct and self.consistency_weight:
      said = self.consistency(reasoning, answer)
      reason = f"no consistency: {said.failed}" if said.failed else ""
    reward = judge_reward(
      correct,
      said.value,
      formed,
      consistency_weight=self.consistency_weight,
      format_weight=self.format_weight,
    )
    return Judgement(reward, reason)


def difficulty_filter(
  attempts: Sequence[int | None], *, min_attempts: int
) -> list[int]:
  """Which examples are hard enough to learn from.

  Args:
    attempts: how many a teacher took to be right, from 1; None = it never
      was, which is the hardest.
    min_attempts: how many make an example hard; 2 in the paper.

  Returns:
    Numbers of the examples that are kept.

  Raises:
    ValueError: if a number is below 1.

  Zhang et al. 2025, arXiv:2505.02835, section 4.2.

  >>> difficulty_filter([1, 2, None, 1], min_attempts=2)
  [1, 2]
  """
  if min_attempts < 1:
    raise ValueError(f"min_attempts must be at least 1, got {min_attempts}")
  for number, count in enumerate(attempts):
    if count is not None and count < 1:
      raise ValueError(f"example {number} was right after {count} attempts")
  return [
    number
    for number, count in enumerate(attempts)
    if count is None or count >= min_attempts
  ]


def shuffled_pairs(
  examples: Sequence[PairwiseJudgeExample], *, rng: np.random.Generator
) -> list[PairwiseJudgeExample]:
  """The examples with labels 1 and 2 equally often, in their order.

  Args:
    examples: with labels of 1 or 2.
    rng: draws which are swapped.

  Returns:
    The examples, some with their responses and label swapped; of an odd
    number one label comes once more.

  Raises:
    ValueError: if a label is neither 1 nor 2.
  """
  labels = collections.Counter(example.label for example in examples)
  if set(labels) - {1, 2}:
    raise ValueError(f"labels must be 1 or 2, got {sorted(labels)}")
  wanted: Int[np.ndarray, "row"] = rng.permutation(
    np.arange(len(examples)) % 2 + 1
  )
  return [
    example
    if example.label == label
    else example._replace(
      first=example.second, second=example.first, label=int(label)
    )
    for example, label in zip(examples, wanted, strict=True)
  ]
