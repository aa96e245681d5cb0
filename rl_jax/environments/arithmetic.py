"""Sums: the smallest task that can be right or wrong."""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING

import numpy as np

from rl_jax.environments.texts import Item, Items, filled
from rl_jax.rewards.verifiers import FirstNumber, Verifier

if TYPE_CHECKING:
  from rl_jax.data.source import Source

__all__ = ["Sums"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sums:
  """Chains like "17 + 5 - 3 =" with the number that comes out.

  A seed puts all possible chains in one order, in which each comes once; the
  task is `length` of them from `first` on. Two tasks of one seed whose ranges
  do not overlap therefore share no chain: train on one, test on the other.

  Raises:
    ValueError: if a number is out of range, or the range exceeds the number
      of chains.

  >>> task = Sums(rows=1, terms=2, digits=1, length=100, seed=0)
  >>> items = task.source()[np.arange(100)]
  >>> len(set(items["prompt"])), items["prompt"][0].endswith(" =")
  (100, True)
  """

  rows: int
  """Prompts of a batch."""
  terms: int = 2
  """Numbers of a chain."""
  digits: int = 2
  """Most digits of a number; each is uniform in [0, 10^digits)."""
  minus: bool = False
  """Whether numbers are also subtracted."""
  length: int
  """Chains of the task."""
  first: int = 0
  """Where in the order they begin."""
  seed: int = 0
  """Which order."""
  template: str = "{sum} ="
  """The prompt; {sum} stands for the chain."""
  shuffle: bool = True
  """Whether every pass has an order of its own."""
  verifier: Verifier = FirstNumber()
  """What judges; the reference is the result in digits."""

  def __post_init__(self):
    least = min(self.rows, self.digits, self.length, self.terms - 1)
    if least < 1 or self.first < 0 or self.seed < 0:
      raise ValueError(f"a number is out of range in {self}")
    if self.first + self.length > self._chains:
      raise ValueError(
        f"rows {self.first} to {self.first + self.length} of"
        f" {self._chains} chains: there are no more"
      )
    filled(self.template, "sum", "")

  @property
  def _chains(self) -> int:
    return 10 ** (self.digits * self.terms) * 2 ** (
      self.minus * (self.terms - 1)
    )

  def source(self) -> Source:
    """The chains; nothing is held in memory."""
    return Items(self.length, self._item)

  def _item(self, index: int) -> Item:
    number = self.first + index
    # Each round is one to one on 0 .. chains - 1, and so is their sequence.
    # Turning the digits round in between keeps neighbours from being alike.
    for factor, shift in _rounds(self.seed, self._chains):
      number = (number * factor + shift) % self._chains
      number = self._turned(number)
    text, total = "", 0
    for term in range(self.terms):
      number, value = divmod(number, 10**self.digits)
      sign = 1
      if term and self.minus:
        number, sign = number // 2, 1 - 2 * (number % 2)
      text += f" {'+' if sign > 0 else '-'} {value}" if term else f"{value}"
      total += sign * value
    return filled(self.template, "sum", text), f"{total}"

  def _turned(self, number: int) -> int:
    """The decimal digits below the signs in the opposite order."""
    count = self.digits * self.terms
    high, low = divmod(number, 10**count)
    return high * 10**count + int(f"{low:0{count}d}"[::-1])


@functools.lru_cache(maxsize=64)
def _rounds(seed: int, chains: int) -> tuple[tuple[int, int], ...]:
  # Raw bits are promised to stay as they are; see `rl_jax.data.source`.
  bits = np.random.Philox(np.random.SeedSequence([seed])).random_raw(6)
  draws = [int(value) % chains for value in bits]
  rounds = []
  for factor, shift in zip(draws[::2], draws[1::2], strict=True):
    # Without a factor in common with 2^a 10^b a product is one to one.
    factor |= 1
    while factor % 5 == 0:
      factor += 2
    rounds.append((factor, shift))
  return tuple(rounds)
