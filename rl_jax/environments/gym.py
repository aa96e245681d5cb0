"""The hundred task families of reasoning-gym, by index."""

from __future__ import annotations

import ast
import dataclasses
import functools
import re
import warnings
from typing import TYPE_CHECKING, Any

from rl_jax.environments.texts import Item, Items, filled
from rl_jax.rewards.verifiers import Judgement, final_answer

if TYPE_CHECKING:
  from rl_jax.data.source import Source

__all__ = ["GymScore", "ReasoningGym"]

_ANSWER = re.compile(r"<answer>((?:(?!<answer>).)*?)</answer>", re.S)
_LONGEST_ANSWER = 10_000
# Scorers that evaluate the answer as Python, itself or by sympy's parser:
# an answer may be nothing but a formula or a literal there.
_EVALUATED = frozenset(
  {
    "binary_matrix",
    "composite",  # hands the answer on to any other
    "countdown",
    "intermediate_integration",
    "n_queens",
    "polynomial_multiplication",
    "puzzle24",
    "simple_integration",
    "spiral_matrix",
    "string_insertion",
  }
)
_FORMULA = re.compile(
  r"(?:[\d\s+\-*/^(),=]|(?<=\d)\.(?=\d)"
  r"|(?<![\w.])(?:[A-Za-z]|sin|cos|tan|exp|log|sqrt|pi)(?!\w))*+",
  re.ASCII,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class GymScore:
  """The score of a family's own scorer, in [0, 1].

  The answer is what stands in the last <answer>...</answer>, else what
  `final_answer` finds, else the whole completion. Some scorers evaluate it as
  Python: those see formulas and literals only, and anything else scores 0
  with the reason "refused". Run it in a `Pool`; formulas may be huge.
  """

  family: str
  """Name of the family."""

  def prepare(self) -> None:
    """Import reasoning-gym.

    Raises:
      ImportError: if it is missing.
    """
    _gym()

  def __call__(self, completion: str, reference: dict[str, Any]) -> Judgement:
    """Score against an entry of the family; see `Verifier`."""
    tagged = None
    if "</answer>" in completion:
      start = completion.rfind("<answer>", 0, completion.rfind("</answer>"))
      match = _ANSWER.match(completion, max(start, 0))
      tagged = match and match.group(1)
    answer = (tagged or final_answer(completion) or completion).strip()
    if len(answer) > _LONGEST_ANSWER:
      return Judgement(0.0, f"too long: an answer of {len(answer)} characters")
    known = answer == reference["answer"]
    if self.family in _EVALUATED and not known and not _harmless(answer):
      return Judgement(0.0, "refused: neither a formula nor a literal")
    dataset = _dataset(self.family, 0, 1, ())
    return Judgement(float(dataset.score_answer(answer, reference)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReasoningGym:
  """One family; row i is a function of the seed, the settings and i.

  The reference is the entry of reasoning-gym: question, answer and metadata.

  Raises:
    ValueError: if a number is out of range or the template lacks its place.
  """

  family: str
  """Name of the family, like "chain_sum"."""
  rows: int
  """Prompts of a batch."""
  length: int
  """Rows of the task."""
  seed: int = 0
  """Which rows."""
  settings: tuple[tuple[str, Any], ...] = ()
  """Names and values of the family's own configuration."""
  template: str = "{question}\n"
  """The prompt; {question} stands for the question."""
  shuffle: bool = True
  """Whether every pass has an order of its own."""

  def __post_init__(self):
    if min(self.rows, self.length) < 1 or self.seed < 0:
      raise ValueError(f"a number is out of range in {self}")
    filled(self.template, "question", "")

  @property
  def verifier(self) -> GymScore:
    """The family's own scorer."""
    return GymScore(family=self.family)

  def source(self) -> Source:
    """The rows, each made when it is asked for.

    Raises:
      ImportError: if reasoning-gym is missing.
      ValueError: if there is no such family or setting.
    """
    dataset = _dataset(self.family, self.seed, self.length, self.settings)

    def item(index: int) -> Item:
      entry = dataset[index]
      return filled(self.template, "question", entry["question"]), entry

    return Items(self.length, item)


def _harmless(answer: str) -> bool:
  if _FORMULA.fullmatch(answer):
    return True
  try:
    ast.literal_eval(answer)
  except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
    return False
  return True


def _gym() -> Any:
  try:
    # A package that it imports has `is "..."` in it, which is said, or is an
    # error, whenever that is compiled.
    with warnings.catch_warnings():
      warnings.simplefilter("ignore", SyntaxWarning)
      import reasoning_gym
  except ImportError as error:
    raise ImportError(
      "these tasks come from reasoning-gym: pip install rl-jax[tasks]"
    ) from error
  return reasoning_gym


@functools.lru_cache(maxsize=32)
def _dataset(
  family: str, seed: int, size: int, settings: tuple[tuple[str, Any], ...]
) -> Any:
  try:
    return _gym().create_dataset(family, seed=seed, size=size, **dict(settings))
  except (TypeError, ValueError, AssertionError) as error:
    raise ValueError(
      f"reasoning-gym makes no {family!r} of {dict(settings)}: {error}"
    ) from error
