"""Tasks in text: a prompt, a reference, and a verifier that compares."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np

if TYPE_CHECKING:
  from collections.abc import Callable, Iterable

  from jaxtyping import Int

  from rl_jax.data.source import Source
  from rl_jax.rewards.verifiers import Verifier

__all__ = ["Item", "Items", "TextTask", "filled", "listed"]

type Item = tuple[str, Any]


@runtime_checkable
class TextTask(Protocol):
  """A component that is `rl_jax.data.Data` and says how to judge.

  Its items are {"prompt": str, "reference": anything} as object arrays, and
  `verifier(completion, reference)` judges an answer to a prompt.
  """

  @property
  def rows(self) -> int:
    """Prompts of a batch."""
    ...

  @property
  def shuffle(self) -> bool:
    """Whether every pass has an order of its own."""
    ...

  @property
  def verifier(self) -> Verifier:
    """What compares a completion with a reference."""
    ...

  def source(self) -> Source:
    """The items."""
    ...


@dataclasses.dataclass(frozen=True, eq=False)
class Items:
  """A source whose row i is made when it is asked for.

  Raises:
    ValueError: if there is no row.

  >>> squares = Items(100, lambda i: (f"{i} x {i} =", f"{i * i}"))
  >>> squares[np.array([3])]["reference"].tolist()
  ['9']
  """

  length: int
  """Number of rows."""
  item: Callable[[int], Item]
  """Prompt and reference of row i, a function of i alone."""

  def __post_init__(self):
    if self.length < 1:
      raise ValueError(f"a task needs at least one row, got {self.length}")

  def __len__(self) -> int:
    return self.length

  def __getitem__(
    self, indices: Int[np.ndarray, "row"]
  ) -> dict[str, np.ndarray]:
    rows = [self.item(int(index)) for index in indices]
    columns = {}
    for place, name in enumerate(("prompt", "reference")):
      # Filled one by one: numpy would make axes out of tuples and lists.
      column = np.empty(len(rows), object)
      for row, pair in enumerate(rows):
        column[row] = pair[place]
      columns[name] = column
    return columns


def listed(items: Iterable[Item]) -> Items:
  """A source of items that are all in memory.

  Args:
    items: prompt and reference of each row.

  Returns:
    The source.

  Raises:
    ValueError: if there is none.
  """
  rows = list(items)
  return Items(len(rows), rows.__getitem__)


def filled(template: str, field: str, text: str) -> str:
  """A prompt: the template with the problem in its place.

  Unlike `str.format` it leaves every other brace alone.

  Args:
    template: has {field} at least once.
    field: the name of the place.
    text: what is put there.

  Returns:
    The prompt.

  Raises:
    ValueError: if the template has no such place.

  >>> filled("Q: {question} {x}", "question", "{why}")
  'Q: {why} {x}'
  """
  place = f"{{{field}}}"
  if place not in template:
    raise ValueError(f"the template {template!r} lacks {place}")
  return template.replace(place, text)
