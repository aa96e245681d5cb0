"""Digit strings and a hidden rule: the task of the comparison of DPO and PPO.

A prompt is seven digits and "=", the answer seven digits more, each of which
should be what a substitution makes of the digit in its place. Prompts come in
two categories that share no digit, and so no part of the rule either:

    low    digits 0 to 4:   answer_t = prompt_t + 3
    high   digits 5 to 9:   answer_t = 9 - prompt_t

The gold reward is the share of the answer that is right. Nothing that is
trained ever sees it; preference labels are made of it.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, Any

import numpy as np

from rl_jax import data, environments, models, rewards
from rl_jax.rewards.verifiers import FirstNumber, RewardFunction

if TYPE_CHECKING:
  from collections.abc import Iterator, Sequence

  from jaxtyping import Array, Bool, Float, Int

__all__ = [
  "DIGITS",
  "END",
  "GOLD",
  "LENGTH",
  "PROMPT",
  "VOCABULARY",
  "Strings",
  "demonstrations",
  "gold",
  "gold_of_texts",
  "prompts",
  "right",
]

DIGITS = 7
# The ids of digits are the digits.
VOCABULARY = models.Characters(alphabet="0123456789=")
END = 11
PROMPT = DIGITS + 1
# One token more than an answer and its end need.
LENGTH = DIGITS + 2

_STRINGS = 5**DIGITS


def right(
  prompt: Int[Array | np.ndarray, "row digit"],
) -> Int[Array | np.ndarray, "row digit"]:
  """The digits that the rule asks for.

  Args:
    prompt: digits, of NumPy or JAX.

  Returns:
    Digits.
  """
  high = prompt >= 5
  return high * (9 - prompt) + (1 - high) * (prompt + 3)


def gold(
  prompt: Int[Array | np.ndarray, "row digit"],
  token: Int[Array | np.ndarray, "row time"],
  mask: Bool[Array | np.ndarray, "row time"],
) -> Float[Array | np.ndarray, "row"]:
  """The share of an answer that is right.

      (tokens that the rule asks for, in their places) / max(7, tokens)

  Args:
    prompt: its digits, of NumPy or JAX.
    token: ids of the answer, the end token perhaps among them.
    mask: true = a token of the answer.

  Returns:
    In [0, 1].
  """
  written = mask & (token != END)
  correct = (token[:, :DIGITS] == right(prompt)) & written[:, :DIGITS]
  # max(7, n) without a function that belongs to one of the two packages.
  tokens = written.sum(1)
  return correct.sum(1) / (DIGITS + (tokens - DIGITS) * (tokens > DIGITS))


def gold_of_texts(
  *, prompts: Sequence[str], completions: Sequence[str], **columns: Any
) -> list[float]:
  """`gold` as a reward function: of texts.

  Args:
    prompts: digits and "=".
    completions: without their end.
    **columns: not asked for.

  Returns:
    One reward per row.
  """
  del columns
  alphabet = VOCABULARY.alphabet
  asked = [[int(digit) for digit in text[:DIGITS]] for text in prompts]
  token = np.full((len(completions), LENGTH), END)
  for row, text in enumerate(completions):
    token[row, : len(text)] = [alphabet.index(one) for one in text]
  return gold(np.array(asked), token, token != END).tolist()


GOLD = rewards.TextReward(
  terms=(
    rewards.Term(
      name="rule", judge=RewardFunction(function=gold_of_texts, name="rule")
    ),
  )
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Strings:
  """Prompts; the reference is the right answer.

  A seed puts the strings of each category in an order in which each comes
  once. Tasks of one seed whose ranges do not overlap share none.

  Raises:
    ValueError: if the range exceeds the 78 125 strings of a category, or the
      share is not in tenths.
  """

  rows: int
  """Prompts of a batch."""
  length: int
  """Prompts of the task."""
  first: int = 0
  """Where in the order they begin."""
  high: int = 5
  """How many of ten are of the category `high`."""
  seed: int = 0
  """Which order."""
  shuffle: bool = True
  """Whether every pass has an order of its own."""
  verifier: Any = FirstNumber()
  """What compares an answer with the reference as a whole; not used here."""

  def __post_init__(self) -> None:
    if self.rows < 1 or self.first < 0 or self.first + self.length > _STRINGS:
      raise ValueError(f"prompts {self.first} to {self.first + self.length}")
    if not 0 <= self.high <= 10:
      raise ValueError(f"high is how many of ten, got {self.high}")

  def source(self) -> environments.Items:
    """The prompts; see `rl_jax.environments.TextTask`."""
    return environments.Items(self.length, self.item)

  def item(self, index: int) -> tuple[str, str]:
    """A prompt and its answer."""
    place = self.first + index
    number = int(_order(self.seed)[place])
    digits = number // 5 ** np.arange(DIGITS) % 5
    digits += 5 * (place % 10 < self.high)
    prompt, answer = (
      "".join(map(str, own)) for own in (digits, right(digits[None])[0])
    )
    return f"{prompt}=", answer


@functools.lru_cache(maxsize=4)
def _order(seed: int) -> Int[np.ndarray, "string"]:
  # Raw bits are promised to stay as they are; see `rl_jax.data.source`.
  bits = np.random.Philox(np.random.SeedSequence([seed]))
  return np.argsort(bits.random_raw(_STRINGS), kind="stable")


def demonstrations(
  *, count: int, skill: float, seed: int
) -> Iterator[tuple[str, str]]:
  """Prompts, half of each category, with answers of somebody who half knows.

  Args:
    count: how many.
    skill: probability of each digit to be right; else it is any digit.
    seed: of the mistakes.

  Yields:
    Prompt and answer.
  """
  task = Strings(rows=1, length=count)
  random = np.random.default_rng(seed)
  for index in range(count):
    prompt, answer = task.item(index)
    knows = random.random(DIGITS) < skill
    guess = random.integers(0, 10, DIGITS)
    yield (
      prompt,
      "".join(
        own if known else str(other)
        for own, known, other in zip(answer, knows, guess, strict=True)
      ),
    )


def prompts(*, rows: int, length: int, first: int, high: int) -> data.Prompts:
  """A range of the strings as prompts; see `Strings`."""
  return data.Prompts(
    task=Strings(rows=rows, length=length, first=first, high=high),
    vocabulary=VOCABULARY,
    length=PROMPT,
  )
