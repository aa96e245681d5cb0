"""Functions to be written as programs of a stack machine, and their tests.

A prompt names an operator by another letter and a constant, and has a digit
that says nothing; the program that is wanted is "x", the constant and the
operator. Of the 23 tests of a function, 20 ask for
small inputs, where every operator returns its input or 0, so that the
programs "x" and "0" pass them too. The other three ask what the operator
does, then which pair of constants is meant, then which of them.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator

import numpy as np

from rl_jax import data, evaluation, models, rewards, sampling
from rl_jax.data.source import Source
from rl_jax.environments.texts import Item, Items
from rl_jax.rewards.verifiers.per_test import PerTest, Suite
from rl_jax.rewards.verifiers.suite_notes import SuiteNote

__all__ = [
  "END",
  "EVALUATION",
  "MODEL",
  "NOTE",
  "PROMPT",
  "RESPONSE",
  "REWARD",
  "TRAINED",
  "VOCABULARY",
  "Machine",
  "Programs",
  "demonstrations",
  "prompts",
]

_OPERATORS, _NAMES = "+-*/%^", "ABCDEF"
_CONSTANTS = "abcdef"
_EASY, _DIGITS = 20, 10
TRAINED = 270
"""Prompts to train on; the other 90 are of functions of their own."""
VOCABULARY = models.Characters(
  alphabet=f"{_OPERATORS}{_NAMES}{_CONSTANTS}x0123456789"
)
MODEL = models.Decoder(
  vocabulary=VOCABULARY.size,
  width=48,
  layers=2,
  mlp=96,
  attention=models.Attention(heads=4, features=12),
  context=8,
)
# Special tokens stand behind the alphabet.
END = VOCABULARY.size - 1
PROMPT = 3
RESPONSE = sampling.Autoregressive(length=4, end=(END,))


def _value(operator: int, constant: int, given: int) -> int:
  """What the machine's operators do."""
  if given < _EASY:
    return given if operator % 2 else 0
  place = given - _EASY
  known = (0, constant // 2, constant)[place]
  return given + 10 * operator + 100 * known


def _run(program: str, given: int) -> int:
  """The number on the stack, which must be alone there."""
  stack: list[tuple[int, bool]] = []  # numbers, and which are constants
  for letter in program:
    if letter in _OPERATORS:
      (first, _), (constant, is_constant) = stack[-2], stack[-1]
      if not is_constant:
        raise ValueError("an operator wants a constant on top")
      value = _value(_OPERATORS.index(letter), constant, first)
      stack[-2:] = [(value, False)]
    elif letter in _CONSTANTS:
      stack.append((_CONSTANTS.index(letter), True))
    elif letter in "x0":
      stack.append((given if letter == "x" else 0, False))
    else:
      raise ValueError(f"no such letter: {letter!r}")
  ((result, _),) = stack
  return result


@dataclasses.dataclass(frozen=True, kw_only=True)
class Machine:
  """The stack machine as a sandbox: a program, then "input=value" or nothing.

  Programs have a few letters and no loops, so it needs no limits.
  """

  def prepare(self) -> None:
    """Nothing is needed."""

  def run(self, program: str) -> str:
    """Empty if the program returns the value; see `Sandbox`."""
    source, _, test = program.removesuffix("\n").partition("\n")
    given, _, value = (test or "1=").partition("=")
    try:
      found = _run(source, int(given))
    except (ValueError, IndexError) as error:
      return type(error).__name__
    return "" if value in ("", str(found)) else "AssertionError"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Programs:
  """Functions to be written, ten prompts to each of 36, in an order of a seed.

  Raises:
    ValueError: if the range exceeds what there is.
  """

  rows: int
  """Prompts of a batch."""
  length: int
  """Prompts of the task."""
  first: int = 0
  """Where in the order they begin."""
  seed: int = 0
  """Which order."""
  shuffle: bool = True
  """Whether every pass has an order of its own."""

  def __post_init__(self) -> None:
    end, most = self.first + self.length, _DIGITS * len(_order(self.seed))
    if min(self.rows, self.length) < 1 or self.first < 0 or end > most:
      raise ValueError(f"prompts {self.first} to {end} of {most}")

  def source(self) -> Source:
    """The prompts with their suites."""
    return Items(self.length, self._item)

  def numbers(self, index: int) -> tuple[int, int, int]:
    """Operator, constant and digit of an item."""
    place, digit = divmod(self.first + index, _DIGITS)
    operator, constant = divmod(int(_order(self.seed)[place]), len(_CONSTANTS))
    return operator, constant, digit

  def prompt(self, index: int) -> str:
    """Name of the operator, the digit, and the constant."""
    operator, constant, digit = self.numbers(index)
    return f"{_NAMES[operator]}{digit}{_CONSTANTS[constant]}"

  def _item(self, index: int) -> Item:
    operator, constant, _ = self.numbers(index)
    given = [*range(_EASY), *range(_EASY, _EASY + 3)]
    tests = tuple(f"{x}={_value(operator, constant, x)}" for x in given)
    return self.prompt(index), Suite(self.prompt(index), "", tests)


@functools.cache
def _order(seed: int) -> np.ndarray:
  count = len(_OPERATORS) * len(_CONSTANTS)
  return np.random.default_rng(seed).permutation(count)


def demonstrations(*, count: int, seed: int) -> Iterator[tuple[str, str]]:
  """Programs of somebody who knows the language and seldom the function.

  Args:
    count: how many.
    seed: of the mistakes.

  Yields:
    Prompt and program.
  """
  task, rng = Programs(rows=1, length=TRAINED), np.random.default_rng(seed)
  for _ in range(count):
    index = int(rng.integers(TRAINED))
    operator, constant, _ = task.numbers(index)
    kind = rng.random()
    if kind < 0.4:
      # The easy way out, for the right kind of operator more often than not.
      right = rng.random() < 0.7
      yield task.prompt(index), "x" if (operator % 2 == 1) == right else "0"
      continue
    if rng.random() > 0.1:
      operator = int(rng.integers(len(_OPERATORS)))
    if rng.random() > 0.1:
      constant = int(rng.integers(len(_CONSTANTS)))
    program = f"x{_CONSTANTS[constant]}{_OPERATORS[operator]}"
    yield task.prompt(index), program


def prompts(*, rows: int, first: int, length: int) -> data.Prompts:
  """A range of the functions as prompts."""
  return data.Prompts(
    task=Programs(rows=rows, first=first, length=length),
    vocabulary=VOCABULARY,
    length=PROMPT,
  )


NOTE = SuiteNote(
  judge=PerTest(sandbox=Machine(), seconds=1.0), tests=_EASY + 3, workers=0
)
PASSES = rewards.Term(name="passes", judge=NOTE.outcome)
REWARD = rewards.TextReward(terms=(PASSES,), notes=(NOTE,))
EVALUATION = evaluation.TextSamples(
  data=prompts(rows=1, first=TRAINED, length=90),
  sampler=RESPONSE,
  prompts=90,
  samples=2,
  reward=rewards.TextReward(terms=(PASSES,)),
  every=25,
)
