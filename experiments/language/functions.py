"""Small Python functions to be completed, in the shape of HumanEval."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np

from rl_jax import environments
from rl_jax.rewards.verifiers import Code, Monty, UnitTests, Verifier

__all__ = ["OPERATIONS", "Functions", "demonstrations"]

# What the docstring says, and what is right.
OPERATIONS = (
  ("sum of {x} and {y}", "{x} + {y}"),
  ("{x} minus {y}", "{x} - {y}"),
  ("product of {x} and {y}", "{x} * {y}"),
  ("{x} over {y}, rounded down", "{x} // {y}"),
  ("remainder of {x} by {y}", "{x} % {y}"),
  ("larger of {x} and {y}", "max({x}, {y})"),
  ("smaller of {x} and {y}", "min({x}, {y})"),
)
_NAMES, _LETTERS = "fgh", "abcdnkmpqxyz"
_TESTS = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class Functions:
  """Heads of functions whose docstring says what they return.

  A record has the keys of HumanEval: "prompt", "test" (defines
  `check(candidate)`) and "entry_point". The reference is made of it as
  `rl_jax.environments.Programs` makes it, which reads such records from a
  file. All combinations of an operation, the names and the order of the
  arguments come once in an order that a seed gives, 5544 in all.

  Raises:
    ValueError: if the range exceeds what there is.
  """

  rows: int
  """Prompts of a batch."""
  length: int
  """Functions of the task."""
  first: int = 0
  """Where in the order they begin."""
  seed: int = 0
  """Which order, and the numbers that the tests use."""
  shuffle: bool = True
  """Whether every pass has an order of its own."""
  verifier: Verifier = Code(sandbox=Monty(seconds=1.0))
  """What judges: the hidden tests, in a sandbox."""

  def __post_init__(self) -> None:
    end, most = self.first + self.length, len(_combinations())
    if self.rows < 1 or self.first < 0 or end > most:
      raise ValueError(f"functions {self.first} to {end} of {most}")

  def source(self) -> environments.Items:
    """The functions; see `rl_jax.environments.TextTask`."""
    return environments.Items(self.length, self._item)

  def record(self, index: int) -> dict[str, str]:
    """A function as HumanEval would publish it."""
    (_, text), name, x, y, turned = self._made(index)
    said, value = text
    head = (y, x) if turned else (x, y)
    prompt = (
      f"def {name}({', '.join(head)}):\n"
      f'  """{said.format(x=x, y=y)}"""\n'
      "  return"
    )
    checks = []
    random = np.random.default_rng([self.seed, self.first + index])
    for _ in range(_TESTS):
      given = dict(
        zip((x, y), map(int, random.integers(1, 20, 2)), strict=True)
      )
      wanted = _value(value, given[x], given[y])
      numbers = ", ".join(str(given[letter]) for letter in head)
      checks.append(f"  assert candidate({numbers}) == {wanted}")
    test = "\n".join(["def check(candidate):", *checks])
    return {"prompt": prompt, "test": test, "entry_point": name}

  def answer(self, index: int, operation: int | None = None) -> str:
    """What belongs after the prompt, or what another operation would be."""
    (own, _), _, x, y, _ = self._made(index)
    _, value = OPERATIONS[own if operation is None else operation]
    return f" {value.format(x=x, y=y)}"

  def _item(self, index: int) -> tuple[str, UnitTests]:
    record = self.record(index)
    test = f"{record['test']}\ncheck({record['entry_point']})"
    return record["prompt"], UnitTests(record["prompt"], test)

  def _made(self, index: int) -> Any:
    return _combinations()[_order(self.seed)[self.first + index]]


@functools.cache
def _order(seed: int) -> np.ndarray:
  # Raw bits are promised to stay as they are; see `rl_jax.data.source`.
  bits = np.random.Philox(np.random.SeedSequence([seed]))
  return np.argsort(bits.random_raw(len(_combinations())), kind="stable")


@functools.cache
def _combinations() -> list[Any]:
  """(number and texts of an operation), name, letters, whether turned."""
  return [
    (operation, name, *letters, turned)
    for operation, name, letters, turned in itertools.product(
      enumerate(OPERATIONS),
      _NAMES,
      itertools.permutations(_LETTERS, 2),
      (False, True),
    )
  ]


def _value(expression: str, x: int, y: int) -> int:
  return {
    "{x} + {y}": x + y,
    "{x} - {y}": x - y,
    "{x} * {y}": x * y,
    "{x} // {y}": x // y,
    "{x} % {y}": x % y,
    "max({x}, {y})": max(x, y),
    "min({x}, {y})": min(x, y),
  }[expression]


def demonstrations(
  *, count: int, skill: float, endless: float, seed: int
) -> Iterator[tuple[str, str]]:
  """Functions completed by somebody who reads half of the docstrings.

  Args:
    count: how many.
    skill: share for which the operation is the right one; any otherwise.
    endless: share of bodies that call themselves for ever.
    seed: of the mistakes.

  Yields:
    Prompt and completion.
  """
  task = Functions(rows=1, length=count)
  random = np.random.default_rng(seed)
  for index in range(count):
    record = task.record(index)
    guess = int(random.integers(len(OPERATIONS)))
    text = task.answer(index, None if random.random() < skill else guess)
    if random.random() < endless:
      inside = record["prompt"].partition("(")[2].partition(")")[0]
      text = f" {record['entry_point']}({inside})"
    yield record["prompt"], text
