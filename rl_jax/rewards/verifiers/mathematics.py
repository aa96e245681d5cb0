"""Mathematical answers, compared by what they mean."""

from __future__ import annotations

import dataclasses
import logging
from typing import Any

from rl_jax.rewards.verifiers.judgement import Judgement, no_verdict
from rl_jax.rewards.verifiers.match import (
  boxed,
  final_answer,
  normalised,
  plain_number,
)
from rl_jax.rewards.verifiers.pool import limited

__all__ = ["Math"]

_WARM = (
  (r"x^2+2x+1", r"(x+1)^2"),
  (r"\frac{\sqrt{3}}{2}", r"\sin(\pi/3)"),
  (r"(1,2]", r"1 < x \le 2"),
  (r"\{1,2\}", r"2,1"),
  (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}1\\3\end{pmatrix}"),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Math:
  r"""1 if the final answer is equal to the reference, else 0.

  Fractions, roots, intervals, sets, matrices, units and the like are parsed
  by math-verify and compared by sympy. The answer is the last closed
  \boxed{...}, or what follows the last "####", "answer is" or "answer:", or
  with `anywhere` whatever formula or number math-verify finds last.

  What takes too long to compare is no verdict: every call is made in a
  process that can be killed (see `pool.limited`).

  Raises:
    ValueError: if `longest` is below 1.

  Answers that are the same plain number or text need no sympy:

  >>> Math()(r"It is \boxed{1,234}.", "1234")
  Judgement(reward=1.0, reason='')
  """

  anywhere: bool = True
  """Whether an answer that is not announced is looked for."""
  longest: int = 2000
  """Most characters of an answer, and of the end of a completion in which one
  is looked for."""

  def __post_init__(self):
    if self.longest < 1:
      raise ValueError(f"longest must be at least 1, got {self.longest}")

  def prepare(self) -> None:
    """Import math-verify and sympy, and fill the caches of the parser.

    Raises:
      ImportError: if math-verify is missing.
    """
    _Symbolic(boxed=True).prepare()

  def __call__(self, completion: str, reference: str) -> Judgement:
    """Extract, parse and compare; see `Verifier`."""
    answer = final_answer(completion)
    if answer is None:
      if not self.anywhere:
        return Judgement(0.0, "no answer")
      answer = completion[-self.longest :]
    elif len(answer) > self.longest:
      return Judgement(0.0, f"too long: an answer of {len(answer)} characters")
    # The gold of GSM8K and of MATH comes with its solution or without.
    gold = final_answer(reference) or reference.strip()
    if not gold:
      return no_verdict("bad reference: empty")
    if normalised(answer) == normalised(gold):
      return Judgement(1.0)
    left, right = plain_number(answer), plain_number(gold)
    if left is not None and right is not None:
      return Judgement(float(left == right))
    inside = boxed(completion) is not None
    return limited(_Symbolic(boxed=inside), answer, gold)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Symbolic:
  """The comparison itself, which may never end."""

  boxed: bool
  """Whether the answer stood in a box, and so is one formula."""

  def prepare(self) -> None:
    try:
      import math_verify  # noqa: F401
    except ImportError as error:
      raise ImportError(
        "grading mathematics needs math-verify: pip install rl-jax[verifiers]"
      ) from error
    # Its own alarms are off, and it would warn of that with every process.
    logging.getLogger("math_verify").setLevel(logging.CRITICAL)
    # Second-long imports and tables that would count as somebody's time.
    for gold, answer in _WARM:
      self(answer, gold)

  def __call__(self, completion: str, reference: str) -> Judgement:
    from math_verify import parse, verify

    # A lone surrogate is no text, and no answer.
    completion = completion.encode("utf-8", "replace").decode()

    def parsed(text: str, *, formula: bool) -> list[Any]:
      given = f"\\boxed{{{text}}}" if formula else text
      return parse(given, parsing_timeout=0)

    gold = parsed(reference, formula=True)
    if not gold:
      return no_verdict("bad reference: not parsed")
    found = parsed(completion, formula=self.boxed) or parsed(
      completion, formula=True
    )
    if not found:
      return Judgement(0.0, "not parsed")
    same = verify(gold, found, timeout_seconds=None)
    return Judgement(float(same))
