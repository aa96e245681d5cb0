"""Which texts share a row."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
  from collections.abc import Sequence

__all__ = ["packed"]


def packed(lengths: Sequence[int], capacity: int) -> list[list[int]]:
  """Texts in rows: each goes into the first row that has room, else a new one.

  First fit in the given order, by a tree over the room that rows have left:
  O(n log n). It needs at most 1.7 times as many rows as the best packing
  (Dosa and Sgall 2013).

  Args:
    lengths: tokens of each text.
    capacity: tokens of a row.

  Returns:
    For each row the numbers of its texts, ascending. Every text comes once.

  Raises:
    ValueError: if a text has no token or more than a row has.

  >>> packed([3, 4, 1, 2, 1], 5)
  [[0, 2, 4], [1], [3]]
  """
  wrong = [n for n, size in enumerate(lengths) if not 1 <= size <= capacity]
  if wrong:
    raise ValueError(
      f"text {wrong[0]} has {lengths[wrong[0]]} tokens, and a row takes 1 to"
      f" {capacity}"
    )
  leaves = 1 << max(len(lengths) - 1, 0).bit_length()
  # Node k has the greatest room among the rows below it; its children are
  # 2k and 2k + 1. Rows that do not exist yet are empty and stand on the right.
  room = [capacity] * (2 * leaves)
  rows: list[list[int]] = []
  for text, size in enumerate(lengths):
    node = 1
    while node < leaves:
      node = 2 * node + (room[2 * node] < size)
    row = node - leaves
    if row == len(rows):
      rows.append([])
    rows[row].append(text)
    room[node] -= size
    while node > 1:
      node //= 2
      room[node] = max(room[2 * node], room[2 * node + 1])
  return rows
