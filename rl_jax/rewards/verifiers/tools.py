"""The reward of ToolRL: a response that thinks, calls tools, and answers.

Qian et al. 2025, arXiv:2504.13958, as the released reward function computes
it, with every variant of its ablations. Text comes in, numbers go out; no
model and no device.

A response is `<think>..</think>`, then, each on a line of its own, a
`<tool_call>` block with one JSON object per line and a `<response>` block,
whichever the reference has. Differences from the release, all of them in how
much a text may ask of the judge: a prediction with NaN, an infinity, one key
twice, a lone surrogate, a number that overflows, more brackets inside of one
another or more calls than allowed is no call at all and scores as text that is
no JSON does; a reference that does not parse is an error.
"""

from __future__ import annotations

import dataclasses
import operator
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from rl_jax.rewards.verifiers.judgement import Judgement, no_verdict
from rl_jax.rewards.verifiers.structured import same_json
from rl_jax.rewards.verifiers.tool_calls import (
  Call,
  ParsedResponse,
  matched,
  multiset_jaccard,
  ordered_equality,
)
from rl_jax.rewards.verifiers.tool_config import ToolRewardConfig

if TYPE_CHECKING:
  from collections.abc import Sequence

  from jaxtyping import Float

__all__ = [
  "ToolPart",
  "ToolReward",
  "ToolRewards",
  "format_reward",
  "length_reward",
  "tool_correctness",
  "tool_reward",
  "tool_rewards",
]

_CALL, _ANSWER = "<tool_call>", "<response>"
_WORDS, _FEWEST_WORDS, _MORE_WORDS, _GROWTH = 512, 384, 256, 105


def format_reward(
  text: str, truth: str, config: ToolRewardConfig, step: int = 0
) -> float:
  r"""Most if the blocks of a response are those of the reference, else least.

  With T = `<think>.*</think>`, C = `<tool_call>\n.*\n</tool_call>` and
  R = `<response>.*</response>` the whole response must be T\nC, T\nR, T\nC\nR
  or T, as the opening tags in the reference say; each tag of a C or R that is
  expected must occur once. Tags of T are not counted, and neither are those
  of blocks that are not expected, which the form has no place for anyway.

  Args:
    text: the response.
    truth: the reference.
    config: ranges and schedule.
    step: loop step.

  Returns:
    One of the two ends of the range.

  >>> config = ToolRewardConfig()
  >>> format_reward("<think>a</think>", "<think>b</think>", config)
  1.0
  """
  (low, high), _ = config.ranges(step)
  text = config.text(text)
  calls, answers = _CALL in truth, _ANSWER in truth
  pieces, tags = ["<think>", "</think>"], []
  if calls:
    pieces[-1] += "\n<tool_call>\n"
    pieces.append("\n</tool_call>")
    tags += [_CALL, "</tool_call>"]
  if answers:
    pieces[-1] += "\n<response>"
    pieces.append("</response>")
    tags += [_ANSWER, "</response>"]
  good = all(text.count(tag) == 1 for tag in tags)
  return high if good and _in_order(text, pieces) else low


def _in_order(text: str, pieces: Sequence[str]) -> bool:
  """Whether a text is the pieces with anything in between.

  A regular expression would try every place of every piece; the first place
  of each is enough, because the first and the last are at the ends.
  """
  first, *middle, last = pieces
  if not text.startswith(first):
    return False
  at = len(first)
  for piece in middle:
    found = text.find(piece, at)
    if found < 0:
      return False
    at = found + len(piece)
  return text.endswith(last) and len(text) - len(last) >= at


def tool_correctness(
  predicted: ParsedResponse,
  truth: ParsedResponse,
  config: ToolRewardConfig,
  step: int = 0,
) -> float:
  """How much of the calls of the reference a response makes.

      r = c_min + (c_max - c_min) S / S_max,   c_max if the lists are equal

      fine:  S     = M(names of G, names of P) + sum_g t(g, p_g)
             t     = M(keys of g, keys of p_g) + #{k: g_k = p_k}
             S_max = 1 + sum_g (1 + number of parameters of g)
      intermediate:  t = 1 for a call that is equal as a whole, S_max = 1 + |G|
      coarse:        r = c_min unless the lists are equal
      strict:        as fine; M(a, b) is 1 if a = b in order, else 0

  G are the calls of the reference and P those predicted, M is
  `multiset_jaccard`, and p_g is a call of the same name that no other took.

  Args:
    predicted: the response.
    truth: the reference.
    config: ranges, granularity, matching.
    step: loop step.

  Returns:
    A number in the range; its least for a response whose calls cannot be
    read.

  Raises:
    ValueError: if the calls of the reference cannot be read.
  """
  _, (worst, best) = config.ranges(step)
  _check_truth(truth)
  wanted, found = truth.calls, predicted.calls
  if predicted.errors:
    return worst
  same = same_json if config.strict_types else operator.eq
  whole = [call.whole for call in wanted], [call.whole for call in found]
  if same(*whole):
    return best
  if config.granularity == "coarse":
    return worst
  names = {call.name for call in wanted}
  fine = config.granularity != "intermediate"
  if fine and any(
    call.parameters is None and call.name in names for call in found
  ):
    return worst
  similar = (
    ordered_equality if config.granularity == "strict" else multiset_jaccard
  )

  def points(want: Call, call: Call) -> float:
    if call.name != want.name:
      return 0.0
    if not fine:
      return float(same(want.whole, call.whole))
    asked, given = want.parameters or {}, call.parameters or {}
    right = sum(k in given and same(v, given[k]) for k, v in asked.items())
    return similar(list(asked), list(given)) + right

  score = similar([c.name for c in wanted], [c.name for c in found])
  # One after the other, as the release does: sums of floats have an order.
  for more in matched(
    wanted, found, points, optimal=config.matching == "optimal"
  ):
    score += more
  most = 1.0 + sum(
    1.0 + (len(call.parameters or {}) if fine else 0) for call in wanted
  )
  return (best - worst) * score / most + worst


def _check_truth(truth: ParsedResponse) -> None:
  bad = list(truth.errors)
  for call in truth.calls:
    if not isinstance(call.name, str) or call.parameters is None:
      bad.append(f"a call lacks its name or parameters: {call.whole}"[:200])
  if bad:
    raise ValueError(f"the reference has no calls that can be read: {bad[0]}")


def length_reward(text: str, config: ToolRewardConfig, step: int = 0) -> float:
  """A share of the words of thinking that are paid for.

      min(1, round(w / n, 2)),   n = 512, or 384 + 256 step / 105

  Args:
    text: the response; its thinking stands after the last opening tag.
    config: which n; 0 is returned where it pays nothing.
    step: loop step.

  Returns:
    A number in [0, 1], 0 where a tag of the thinking is missing.

  Raises:
    ValueError: if the step is negative.
  """
  if step < 0:
    raise ValueError(f"step must not be negative, got {step}")
  think = config.parse(text).think
  if config.length == "none" or think is None:
    return 0.0
  words: float = _WORDS
  if config.length == "dynamic":
    words = _MORE_WORDS * step / _GROWTH + _FEWEST_WORDS
  return min(1.0, round(len(think.split()) / words, 2))


def tool_reward(
  text: str, truth: str, step: int, config: ToolRewardConfig
) -> dict[str, float]:
  r"""The reward of one response and its parts.

      total = format + correctness + length

  A reference without calls has a correctness of 0, whatever is called.

  Args:
    text: what the policy wrote.
    truth: the reference, in the same grammar.
    step: loop step, from 0.
    config: which of the published rewards.

  Returns:
    "total", "format", "correctness", "length".

  Raises:
    ValueError: if the calls of the reference cannot be read, or the step is
      negative.

  >>> truth = "<think>a</think>\n<tool_call>\n"
  >>> truth += '{"name": "f", "parameters": {"a": 1}}\n</tool_call>'
  >>> wrong = truth.replace("1}", '"1"}')
  >>> tool_reward(wrong, truth, 0, ToolRewardConfig())["correctness"]
  1.0
  """
  correctness = 0.0
  if _CALL in truth:
    correctness = tool_correctness(
      config.parse(text), config.parse(truth), config, step
    )
  form = format_reward(text, truth, config, step)
  length = length_reward(text, config, step)
  return {
    "total": form + correctness + length,
    "format": form,
    "correctness": correctness,
    "length": length,
  }


class ToolRewards(NamedTuple):
  """Rewards of a batch and their parts, in float32.

  Attributes:
    total: the sum of the others.
    format: of the form.
    correctness: of the calls.
    length: of the thinking.
  """

  total: Float[np.ndarray, "row"]
  format: Float[np.ndarray, "row"]
  correctness: Float[np.ndarray, "row"]
  length: Float[np.ndarray, "row"]


def tool_rewards(
  texts: Sequence[str],
  truths: Sequence[str],
  steps: Sequence[int],
  config: ToolRewardConfig,
) -> ToolRewards:
  """`tool_reward` of a batch.

  Args:
    texts: one per row.
    truths: one per row.
    steps: loop steps in which they were drawn, one per row.
    config: which of the published rewards.

  Returns:
    The rewards.

  Raises:
    ValueError: if the numbers of rows differ, or a reference cannot be read,
      with its row.
  """
  if not len(texts) == len(truths) == len(steps):
    raise ValueError(
      f"got {len(texts)} responses, {len(truths)} references and"
      f" {len(steps)} steps"
    )
  found = np.zeros((len(ToolRewards._fields), len(texts)), np.float32)
  for row, (text, truth, step) in enumerate(
    zip(texts, truths, steps, strict=True)
  ):
    try:
      parts = tool_reward(text, truth, int(step), config)
    except ValueError as error:
      raise ValueError(f"row {row}: {error}; it is {truth[:200]!r}") from error
    found[:, row] = [parts[name] for name in ToolRewards._fields]
  return ToolRewards(*found)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ToolPart:
  """A part of the reward as a function of a batch, for a term in a sum.

  Terms "format", "correctness" and "length" add up to the total, and each has
  a metric of its own.
  """

  config: ToolRewardConfig
  """Which of the published rewards."""
  part: Literal["total", "format", "correctness", "length"] = "total"
  """What is returned."""

  def __call__(
    self,
    completions: Sequence[str],
    reference: Sequence[str],
    step: Sequence[int],
    **columns: Any,
  ) -> list[float]:
    """One number per row; see `tool_rewards`."""
    del columns
    found = tool_rewards(completions, reference, step, self.config)
    return getattr(found, self.part).tolist()


@dataclasses.dataclass(frozen=True, kw_only=True)
class ToolReward:
  """The total as a verifier, which a pool can run.

  Raises:
    ValueError: if the reward depends on the loop step, which a verifier does
      not know; `ToolPart` does.
  """

  config: ToolRewardConfig = ToolRewardConfig()
  """Which of the published rewards."""

  def __post_init__(self) -> None:
    if self.config.depends_on_step:
      raise ValueError(
        "a verifier does not know the loop step that"
        f" schedule={self.config.schedule!r} and length={self.config.length!r}"
        " depend on: use a term with ToolPart"
      )

  def __call__(self, completion: str, reference: str) -> Judgement:
    """Parse and compare; see `Verifier`."""
    try:
      parts = tool_reward(completion, reference, 0, self.config)
    except ValueError as error:
      return no_verdict(f"bad reference: {error}"[:200])
    return Judgement(parts["total"])
