"""Data by index: where a run stands in its data is two integers.

A source answers "give me rows 3, 17, 4"; it holds no iterator and no state.
`take` turns a `Cursor` into the next indices and the next cursor, so the
position is part of the run's State and a resume is exact: nothing is skipped
and nothing comes twice.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

if TYPE_CHECKING:
  from jaxtyping import Int

  type Layout = dict[str, tuple[tuple[int, ...], type[np.generic]]]

__all__ = ["Arrays", "Cursor", "Data", "Source", "start", "take"]


class Cursor(NamedTuple):
  """How far a run has read.

  Attributes:
    epoch: full passes that lie behind, int32 scalar.
    offset: rows of the present pass that lie behind, int32 scalar, in
      [0, length of the source).
  """

  epoch: np.int32
  offset: np.int32


class Source(Protocol):
  """Random access to rows, many at a time."""

  def __len__(self) -> int:
    """Number of rows."""
    ...

  def __getitem__(
    self, indices: Int[np.ndarray, "row"]
  ) -> dict[str, np.ndarray]:
    """Those rows, in that order: every array has the rows as first axis."""
    ...


class Data(Protocol):
  """A component of an experiment that says which rows to read, and how."""

  @property
  def rows(self) -> int:
    """Rows of a batch."""
    ...

  @property
  def shuffle(self) -> bool:
    """Whether every pass has an order of its own."""
    ...

  def source(self) -> Source:
    """The rows; may read or prepare files."""
    ...


@dataclasses.dataclass(frozen=True, eq=False)
class Arrays:
  """A source held in memory.

  Raises:
    ValueError: if there is no array, or the arrays differ in length.

  >>> source = Arrays({"label": np.array([7, 8, 9])})
  >>> len(source), source[np.array([2, 0])]["label"].tolist()
  (3, [9, 7])
  """

  columns: dict[str, np.ndarray]
  """Arrays with the rows as first axis, by name."""

  def __post_init__(self):
    lengths = {name: len(array) for name, array in self.columns.items()}
    if len(set(lengths.values())) != 1:
      raise ValueError(
        f"a source needs arrays of one common length, got {lengths}"
      )

  def __len__(self) -> int:
    return len(next(iter(self.columns.values())))

  def __getitem__(
    self, indices: Int[np.ndarray, "row"]
  ) -> dict[str, np.ndarray]:
    return {name: array[indices] for name, array in self.columns.items()}


def start() -> Cursor:
  """The cursor of a run that has read nothing."""
  return Cursor(np.int32(0), np.int32(0))


def take(
  length: int, cursor: Cursor, *, rows: int, seed: int, shuffle: bool
) -> tuple[Int[np.ndarray, "row"], Cursor]:
  """The next `rows` indices after a cursor, and the cursor after them.

  Every epoch is a permutation of all rows, drawn from (seed, epoch) alone.
  Batches run across the edges of epochs, so no row is lost at the end of one
  and `rows` may exceed `length`. What comes next is a function of the cursor
  and of nothing else.

  Args:
    length: rows of the source.
    cursor: how far the run has read.
    rows: rows wanted; the same on every host of a run.
    seed: which sequence of permutations; unused without `shuffle`.
    shuffle: false reads the rows in their own order, every epoch.

  Returns:
    Indices into the source, int64, and the next cursor.

  Raises:
    ValueError: if `length` or `rows` is below 1, `seed` is negative, or the
      cursor lies outside of the source.

  >>> indices, cursor = take(3, start(), rows=4, seed=0, shuffle=False)
  >>> indices.tolist(), int(cursor.epoch), int(cursor.offset)
  ([0, 1, 2, 0], 1, 1)
  """
  if length < 1 or rows < 1:
    raise ValueError(
      f"need at least one row of data and one row per batch, got a source of"
      f" {length} and batches of {rows}"
    )
  if seed < 0:
    raise ValueError(f"seed must not be negative, got {seed}")
  epoch, offset = int(cursor.epoch), int(cursor.offset)
  if epoch < 0 or not 0 <= offset < length:
    raise ValueError(
      f"cursor (epoch {epoch}, offset {offset}) lies outside of a source of"
      f" {length} rows: it belongs to other data"
    )
  pieces, missing = [], rows
  while missing:
    order = _order(length, seed, epoch) if shuffle else np.arange(length)
    piece = order[offset : offset + missing]
    pieces.append(piece)
    missing -= len(piece)
    offset += len(piece)
    if offset == length:
      epoch, offset = epoch + 1, 0
  return np.concatenate(pieces), Cursor(np.int32(epoch), np.int32(offset))


# Two epochs: a batch may straddle an edge, and neither should be drawn anew
# for every batch.
@functools.lru_cache(maxsize=2)
def _order(length: int, seed: int, epoch: int) -> Int[np.ndarray, "row"]:
  # NumPy promises the raw bits of a bit generator for ever, but not what
  # `Generator.permutation` makes of them: a resume must not depend on it.
  bits = np.random.Philox(np.random.SeedSequence([seed, epoch]))
  order = np.argsort(bits.random_raw(length), kind="stable")
  order.flags.writeable = False
  return order
