"""What a host judge knows of data, and what else it may find in responses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
  from collections.abc import Callable

  from rl_jax.types import TextRollouts

__all__ = ["Note", "TextData"]


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
