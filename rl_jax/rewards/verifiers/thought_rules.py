"""An evaluator of thoughts that goes by marker words and shared words."""

from __future__ import annotations

import dataclasses
import re

from rl_jax.rewards.verifiers.thoughts import (
  Evaluated,
  Evaluation,
  Response,
  step_spans,
)

__all__ = ["Markers"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Markers:
  """An evaluator of rules, so that everything runs without a language model.

  Correct response: a step with a marker is a reflection. Of the `reach` steps
  before it, back to the last reflection, it takes back the one whose words it
  shares most, the later of two that are equal, and those after it that share
  the words of one that is taken back. Wrong response: a step is adopted if it
  shares the words of the answer. Two texts share words if

      |A and B| >= overlap min(|A|, |B|) > 0

  Raises:
    ValueError: if there is no end of a step or no marker, `reach` < 1, or
      `overlap` is not in (0, 1].
  """

  ends: tuple[str, ...] = ("\n",)
  """What ends a step."""
  markers: tuple[str, ...] = ("wait", "mistake", "actually")
  """What makes a step a reflection; letters match whole words, any case."""
  reach: int = 1
  """Most steps that a reflection takes back."""
  word: str = r"\w+"
  """Expression for the words of a text; of a group if it has one."""
  overlap: float = 0.5
  """Share of words."""

  def __post_init__(self) -> None:
    if not all(self.ends) or not all(self.markers):
      raise ValueError("ends and markers must not be empty strings")
    if not self.ends or not self.markers or self.reach < 1:
      raise ValueError(f"needs ends, markers and reach >= 1, got {self}")
    if not 0 < self.overlap <= 1:
      raise ValueError(f"overlap must be in (0, 1], got {self.overlap}")

  def __call__(self, problem: str, response: Response) -> Evaluated:
    """The evaluation; there always is one."""
    del problem
    span = step_spans(response.text, response.think, ends=self.ends)
    texts = [response.of(one) for one in span]
    words = [self._words(text) for text in texts]
    reflections = []
    if response.correct:
      label = [1] * len(span)
      for r, a, b in self._reflections(texts):
        reflections.append((r, a, b))
        for k in self._taken_back(words, r, a, b):
          label[k] = 0
    else:
      answer = self._words(response.of(response.answer))
      label = [int(self._share(own, answer)) for own in words]
    evaluation = Evaluation(
      span, tuple(label), response.correct, tuple(reflections), "markers"
    )
    return Evaluated(evaluation)

  def _reflections(self, texts: list[str]) -> list[tuple[int, int, int]]:
    marked = "|".join(
      rf"\b{re.escape(m)}\b" if m.isalnum() else re.escape(m)
      for m in self.markers
    )
    found, before = [], -1
    for r, text in enumerate(texts):
      if re.search(marked, text, re.IGNORECASE):
        first = max(before + 1, r - self.reach)
        if first < r:
          found.append((r, first, r - 1))
        before = r
    return found

  def _taken_back(
    self, words: list[set[str]], r: int, a: int, b: int
  ) -> list[int]:
    said = max(range(a, b + 1), key=lambda k: (len(words[k] & words[r]), k))
    wrong = [said]
    for k in range(said + 1, b + 1):
      if any(self._share(words[k], words[i]) for i in wrong):
        wrong.append(k)
    return wrong

  def _words(self, text: str) -> set[str]:
    return set(re.findall(self.word, text.lower()))

  def _share(self, one: set[str], other: set[str]) -> bool:
    smaller = min(len(one), len(other))
    return bool(smaller) and len(one & other) >= self.overlap * smaller
