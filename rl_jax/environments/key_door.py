"""A key and a door in a maze of 5 x 5 cells, as text."""

from __future__ import annotations

import dataclasses
import itertools
from typing import TYPE_CHECKING, Literal, NamedTuple

from rl_jax.environments.texts import Item, Items
from rl_jax.sampling.worlds import Observation

if TYPE_CHECKING:
  from collections.abc import Sequence

  from rl_jax.data.source import Source

__all__ = ["KeyDoor", "Maze"]

_SIZE = 5
_MOVES = {"n": (-1, 0), "s": (1, 0), "e": (0, 1), "w": (0, -1)}
_WORDS = {"n": "north", "s": "south", "e": "east", "w": "west", "u": "use"}
_LETTERS = {word: letter for letter, word in _WORDS.items()}
_CROSSING = (2, 2)
_CORRIDOR = ((0, 0), (0, 1), (0, 2), (1, 2))
_BRANCHES = "wse"
# Which branch has the key and which the door.
_PAIRS = tuple(itertools.permutations(_BRANCHES, 2))


class Maze(NamedTuple):
  """One maze.

  Attributes:
    start: row and column of the first cell of the corridor.
    free: cells that are no wall.
    key: where the key lies.
    door: where the door is.
    key_side: on which side of the crossing the key is.
    door_side: on which side of it the door is.
  """

  start: tuple[int, int]
  free: frozenset[tuple[int, int]]
  key: tuple[int, int]
  door: tuple[int, int]
  key_side: str
  door_side: str


class _State(NamedTuple):
  cell: tuple[int, int]
  has_key: bool = False
  opened: bool = False
  changed: bool = True


@dataclasses.dataclass(frozen=True, kw_only=True)
class KeyDoor:
  """Episodes in which a key must be found and a door opened with it.

      S . .        a corridor of four forced steps leads to a crossing;
          .        on one of its three other sides lies the key, on another
      . . + . .    is the door, one step away. The third side is a dead end.
          .
          .        Mirrored in every other maze: there are twelve.

  An action is one of n, s, e, w (move) and u (take the key, open the door),
  or its word (north, ..., use); anything else changes nothing and is said to.
  The outcome is 1 once the door is open, which ends the episode, and 0
  before. The shortest way has nine actions. It is a `World`: what is seen is
  a function of the item and the actions.

  Raises:
    ValueError: if a number is below 1.

  >>> task = KeyDoor(rows=1, length=12)
  >>> task.source()[np.array([0])]["prompt"][0]
  'The key is west of the crossing, the door south. You are at a1.'
  >>> task.observe(0, ["e", "jump"]).text
  'Nothing happens. You are at b1.'
  """

  rows: int
  """Prompts of a batch."""
  length: int
  """Items; item i is maze i modulo 12."""
  style: Literal["sentences", "letters"] = "sentences"
  """What is seen in words; or as three letters: the cell from a to y by rows,
  + with the key else -, and ! if nothing changed else a point. The prompt
  then is the sides of key and door, and the start."""
  shows_key: bool = True
  """Whether it is seen that one has the key. Else equal observations hide
  different states."""
  shuffle: bool = True
  """Whether every pass has an order of its own."""

  def __post_init__(self):
    if min(self.rows, self.length) < 1:
      raise ValueError(f"rows and length must be at least 1, got {self}")

  @property
  def workers(self) -> int:
    """One: it takes no time."""
    return 1

  def source(self) -> Source:
    """Prompts, and as references the letters of the shortest way."""
    return Items(self.length, self._item)

  def maze(self, item: int) -> Maze:
    """The maze of an item.

    Args:
      item: which item.

    Returns:
      Its maze.

    Raises:
      ValueError: if there is no such item.
    """
    if not 0 <= item < self.length:
      raise ValueError(f"item {item} of {self.length}")
    mirrored = item % 2 == 1

    def placed(cell: tuple[int, int]) -> tuple[int, int]:
      return (cell[0], _SIZE - 1 - cell[1]) if mirrored else cell

    def away(side: str, steps: int) -> tuple[int, int]:
      row, column = _MOVES[side]
      return _CROSSING[0] + steps * row, _CROSSING[1] + steps * column

    key_side, door_side = _PAIRS[item // 2 % len(_PAIRS)]
    branches = {away(side, n) for side in _BRANCHES for n in (1, 2)}
    free = frozenset(map(placed, {*_CORRIDOR, _CROSSING, *branches}))
    return Maze(
      start=placed(_CORRIDOR[0]),
      free=free,
      key=away(key_side, 1),
      door=away(door_side, 1),
      key_side=key_side,
      door_side=door_side,
    )

  def observe(self, item: int, actions: Sequence[str]) -> Observation:
    """What is seen after these actions.

    Args:
      item: which item.
      actions: as the policy wrote them.

    Returns:
      The observation; its outcome is 1 if the door is open.

    Raises:
      ValueError: if there is no such item.
    """
    maze = self.maze(item)
    state = _State(maze.start)
    for action in actions:
      state = _after(maze, state, action)
    return Observation(
      self._seen(state), state.opened, 1.0 if state.opened else 0.0
    )

  def _item(self, index: int) -> Item:
    maze = self.maze(index)
    sides, seen = maze.key_side + maze.door_side, self._seen(_State(maze.start))
    if self.style == "sentences":
      key, door = (_WORDS[side] for side in sides)
      seen = f"The key is {key} of the crossing, the door {door}. {seen}"
    else:
      seen = sides + seen
    first = "w" if index % 2 else "e"
    back = {"n": "s", "s": "n", "e": "w", "w": "e"}[maze.key_side]
    way = f"{2 * first}ss{maze.key_side}u{back}{maze.door_side}u"
    return seen, way

  def _seen(self, state: _State) -> str:
    row, column = state.cell
    has_key = self.shows_key and state.has_key
    if self.style == "letters":
      cell = chr(ord("a") + row * _SIZE + column)
      mark = ("+" if has_key else "-") if self.shows_key else ""
      return f"{cell}{mark}{'.' if state.changed else '!'}"
    parts = [
      "" if state.changed else "Nothing happens.",
      "The door is open." if state.opened else "",
      f"You are at {chr(ord('a') + column)}{row + 1}.",
      "You have the key." if has_key else "",
    ]
    return " ".join(filter(None, parts))


def _after(maze: Maze, state: _State, action: str) -> _State:
  """The state that an action leads to; none leads out of an open door."""
  word = action.strip().casefold()
  letter = _LETTERS.get(word, word)
  still = state._replace(changed=False)
  if state.opened:
    return still
  if letter in _MOVES:
    row, column = _MOVES[letter]
    cell = state.cell[0] + row, state.cell[1] + column
    return (
      state._replace(cell=cell, changed=True) if cell in maze.free else still
    )
  if letter == "u" and state.cell == maze.key and not state.has_key:
    return state._replace(has_key=True, changed=True)
  if letter == "u" and state.cell == maze.door and state.has_key:
    return state._replace(opened=True, changed=True)
  return still
