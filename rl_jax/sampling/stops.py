"""Where a response ends: sequences of token ids, one id long or longer."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax.numpy as jnp
import numpy as np

if TYPE_CHECKING:
  from collections.abc import Sequence

  from jaxtyping import Array, Bool, Int

__all__ = ["stop_table", "stopped"]

# No id is negative: one stands for "any id" in a table, the other for "none
# yet" among the recent ids.
_ANY, NONE = -1, -2


def stop_table(
  sequences: Sequence[Sequence[int]],
) -> Int[np.ndarray, "sequences last"]:
  """Sequences of ids as one array, aligned at their ends.

  Args:
    sequences: ids in the order in which they are written.

  Returns:
    One row per sequence, as wide as the longest; -1 in front of shorter ones.

  Raises:
    ValueError: if a sequence is empty or an id is negative.

  >>> stop_table([(7,), (3, 4)]).tolist()
  [[-1, 7], [3, 4]]
  """
  for number, sequence in enumerate(sequences):
    if not sequence or min(sequence) < 0:
      raise ValueError(
        f"a stop sequence has ids, none of them negative: number {number} is"
        f" {tuple(sequence)}"
      )
  longest = max(map(len, sequences), default=0)
  table = np.full((len(sequences), longest), _ANY, np.int32)
  for row, sequence in zip(table, sequences, strict=True):
    row[longest - len(sequence) :] = sequence
  return table


def stopped(
  recent: Int[Array, "row last"], table: Int[np.ndarray, "sequences last"]
) -> Bool[Array, "row"]:
  """Whether the latest ids of each row end with one of the sequences.

  Args:
    recent: the latest ids, the newest last; -2 where there was none yet.
    table: from `stop_table`.

  Returns:
    True for rows that came to an end.

  >>> stopped(jnp.array([[3, 7], [3, 4], [4, 3]]), stop_table([(7,), (3, 4)]))
  Array([ True,  True, False], dtype=bool)
  """
  same = (recent[:, None] == table[None]) | (table == _ANY)[None]
  return jnp.any(jnp.all(same, axis=-1), axis=-1)
