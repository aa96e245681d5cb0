"""Prompts that are class ids: what a class-conditional policy is asked for."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from rl_jax.data.source import Arrays

if TYPE_CHECKING:
  from rl_jax.data.source import Source

__all__ = ["ClassPrompts"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassPrompts:
  """Every class id once per epoch; items are {"condition": int32 [row]}.

  Raises:
    ValueError: if `classes` or `rows` is below 1.

  >>> ClassPrompts(classes=3, rows=2).source()[np.array([2, 0])]
  {'condition': array([2, 0], dtype=int32)}
  """

  classes: int = 10
  """Number of classes; ids are 0 .. classes - 1."""
  rows: int = 10
  """Prompts of a batch (each is answered by a whole group)."""
  shuffle: bool = False
  """Whether every pass over the classes has an order of its own."""

  def __post_init__(self):
    if self.classes < 1 or self.rows < 1:
      raise ValueError(
        f"classes and rows must be at least 1, got classes={self.classes},"
        f" rows={self.rows}"
      )

  def source(self) -> Source:
    """The class ids in order."""
    return Arrays({"condition": np.arange(self.classes, dtype=np.int32)})
