"""Chains of sums with written work: the tiny task that many methods share.

A problem is "3+4+5=", its reference the sum modulo a number. What a policy
writes before its answer is up to the experiment, which gives examples in a
style of its own; the answer stands after the last "#".
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable

import numpy as np

from rl_jax import models
from rl_jax.data.source import Source
from rl_jax.environments.texts import Item, Items

__all__ = [
  "ALPHABET",
  "END",
  "VOCABULARY",
  "Chains",
  "Written",
  "answered",
  "decoder",
  "prompt_length",
]

ALPHABET = "0123456789+=;#.?!~ "
VOCABULARY = models.Characters(alphabet=ALPHABET)
# Special tokens stand behind the alphabet.
END = VOCABULARY.size - 1
_ANSWER = re.compile(r"#(\d{1,9})$")

type Style = Callable[[tuple[int, ...], int, np.random.Generator], str]


def decoder(
  *, context: int, width: int = 64, layers: int = 2, vocabulary: int = 0
) -> models.Decoder:
  """A decoder small enough for hundreds of steps in seconds.

  Args:
    context: most tokens of a prompt and its response.
    width: of its features.
    layers: how many.
    vocabulary: ids; 0: those of `VOCABULARY`.

  Returns:
    The model.
  """
  return models.Decoder(
    vocabulary=vocabulary or VOCABULARY.size,
    width=width,
    layers=layers,
    mlp=2 * width,
    attention=models.Attention(heads=4, features=width // 4),
    context=context,
  )


def prompt_length(terms: int) -> int:
  """Tokens of the problem with that many one-digit terms.

  Args:
    terms: how many.

  Returns:
    Digits, signs between them and one "=".
  """
  return 2 * terms


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chains:
  """Sums of one-digit numbers modulo a number.

  A seed puts all chains of all lengths in one order; the task is `length` of
  them from `first` on, so tasks whose ranges do not overlap share none.

  Raises:
    ValueError: if a number is out of range.
  """

  rows: int
  """Prompts of a batch."""
  modulus: int = 10
  """What the sum is taken modulo; its numbers are below it, at most 10."""
  terms: tuple[int, int] = (2, 4)
  """Fewest and most numbers of a chain."""
  first: int = 0
  """Where in the order the task begins."""
  length: int = 1000
  """Chains of the task."""
  seed: int = 0
  """Which order."""
  shuffle: bool = True
  """Whether every pass has an order of its own."""
  even: bool = False
  """Whether each number of terms comes equally often, chains of the shorter
  lengths repeatedly; otherwise each chain comes once."""

  def __post_init__(self) -> None:
    low, high = self.terms
    if not 1 <= low <= high <= 5 or not 2 <= self.modulus <= 10:
      raise ValueError(f"terms or modulus out of range in {self}")
    if min(self.rows, self.length) < 1 or self.first < 0:
      raise ValueError(f"rows, length or first out of range in {self}")
    if self.first + self.length > len(self._order):
      raise ValueError(
        f"chains {self.first} to {self.first + self.length}, and there are"
        f" {len(self._order)}"
      )

  @functools.cached_property
  def _counts(self) -> np.ndarray:
    low, high = self.terms
    return self.modulus ** np.arange(low, high + 1)

  @functools.cached_property
  def _order(self) -> np.ndarray:
    """Numbers of chains, shorter ones first before they are mixed."""
    rng = np.random.default_rng(self.seed)
    total = int(self._counts.sum())
    if not self.even:
      return rng.permutation(total)
    ends = np.cumsum(self._counts)
    each = [
      np.resize(rng.permutation(count) + end - count, ends[-1])
      for count, end in zip(self._counts, ends, strict=True)
    ]
    return np.stack(each, axis=1).reshape(-1)

  def numbers(self, item: int) -> tuple[int, ...]:
    """The terms of a chain.

    Args:
      item: which chain of the task.

    Returns:
      Its numbers.
    """
    number = int(self._order[self.first + item])
    terms = self.terms[0]
    for count in self._counts:
      if number < count:
        break
      number, terms = number - int(count), terms + 1
    found = []
    for _ in range(terms):
      number, digit = divmod(number, self.modulus)
      found.append(digit)
    return tuple(found)

  def source(self) -> Source:
    """The problems with their sums."""
    return Items(self.length, self._item)

  def _item(self, index: int) -> Item:
    numbers = self.numbers(index)
    text = "+".join(map(str, numbers)) + "="
    return text, str(sum(numbers) % self.modulus)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Written:
  """Chains with a written response as their reference, to learn from.

  The response of an item is a function of the style, the seed and the item.
  """

  task: Chains
  """The chains."""
  style: Style
  """(numbers, modulus, random numbers) -> the response, without its end."""
  seed: int = 0
  """Of the random numbers."""

  @property
  def rows(self) -> int:
    """Rows of a batch."""
    return self.task.rows

  @property
  def shuffle(self) -> bool:
    """Whether every pass has an order of its own."""
    return self.task.shuffle

  def source(self) -> Source:
    """The problems with responses."""
    return Items(self.task.length, self._item)

  def _item(self, index: int) -> Item:
    numbers = self.task.numbers(index)
    rng = np.random.default_rng([self.seed, self.task.first + index])
    prompt = "+".join(map(str, numbers)) + "="
    return prompt, self.style(numbers, self.task.modulus, rng)


def answered(
  prompts: list[str], completions: list[str], **columns: list
) -> list[float]:
  """1 where the digits after the last "#", at the end, are the reference.

  Args:
    prompts: not looked at.
    completions: what was written.
    **columns: "reference" and others of the task.

  Returns:
    One reward for each.
  """
  del prompts
  found = []
  for text, reference in zip(completions, columns["reference"], strict=True):
    answer = _ANSWER.search(text)
    found.append(float(answer is not None and answer.group(1) == reference))
  return found
