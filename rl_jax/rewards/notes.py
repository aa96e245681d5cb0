"""What a host judge knows of data, and what else it may find in responses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
  from collections.abc import Callable, Iterable, Mapping

  from rl_jax.types import TextRollouts

__all__ = ["Note", "TextData", "joined", "noted"]


@runtime_checkable
class TextData(Protocol):
  """What a reward needs to know of data, as `rl_jax.data.Prompts` has it."""

  @property
  def vocabulary(self) -> Any:
    """Whose `load()` gives a tokenizer with `decode`, `eos` and `id`."""
    ...

  def source(self) -> Any:
    """Has `columns(items)`: lists by name, "prompt" and "reference" too."""
    ...


@runtime_checkable
class Note(Protocol):
  """Finds arrays in what was written: labels of steps, tests passed."""

  def shapes(self, time: int) -> dict[str, tuple[tuple[int, ...], Any]]:
    """Shape after the row and dtype of each array, for responses that long."""
    ...

  def bind(self, data: TextData) -> Callable[[TextRollouts], dict[str, Any]]:
    """Judged rollouts, as NumPy arrays, -> the arrays by name, rows first."""
    ...


def joined(shapes: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
  """What several judges or notes find, as one.

  Args:
    shapes: of the arrays of each, by name.

  Returns:
    All of them.

  Raises:
    ValueError: if two have one name.
  """
  found: dict[str, Any] = {}
  for own in shapes:
    again = sorted(found.keys() & own.keys())
    if again:
      raise ValueError(
        f"{again} found twice, by two notes or by a note and the reward itself"
      )
    found |= own
  return found


def noted(
  rollouts: TextRollouts,
  notes: Iterable[Callable[[TextRollouts], dict[str, Any]]],
) -> TextRollouts:
  """What notes find, put beside what is known.

  Args:
    rollouts: judged, as NumPy arrays.
    notes: bound ones; a later one sees what an earlier one found.

  Returns:
    The rollouts with it in `extra`.
  """
  for note in notes:
    rollouts = rollouts._replace(extra={**rollouts.extra, **note(rollouts)})
  return rollouts
