"""Worlds that answer in text: what a policy of many turns acts in."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple, Protocol, runtime_checkable

if TYPE_CHECKING:
  from collections.abc import Sequence

__all__ = ["Observation", "World", "observe_all"]


class Observation(NamedTuple):
  """What a world says after an action.

  Attributes:
    text: what the policy sees.
    ended: whether the episode is over.
    outcome: reward of the episode so far, any unit.
    error: why the world has no answer; empty where it has one. The rest
      means nothing then, and the episode has no verdict.
  """

  text: str
  ended: bool
  outcome: float
  error: str = ""


@runtime_checkable
class World(Protocol):
  """Answers actions, as a pure function of the item and all of them.

  The same actions in the same item always come to the same. Whatever a world
  keeps to be faster must not show, for a run that is resumed has lost it.
  Prompts say what is seen before the first action: a world is mostly a task
  for `data.Prompts` too.
  """

  @property
  def workers(self) -> int:
    """How many calls of `observe` may be under way at one time."""
    ...

  def observe(self, item: int, actions: Sequence[str]) -> Observation:
    """What is seen after these actions, of which there is at least one."""
    ...


def observe_all(
  world: World, items: Sequence[int], actions: Sequence[Sequence[str]]
) -> list[Observation]:
  """`world.observe` of many episodes, what is the same asked once.

  Args:
    world: is asked.
    items: of the episodes.
    actions: so far, of each.

  Returns:
    The observations, in order.

  Raises:
    ValueError: if there are not as many items as lists of actions.
  """
  asked = [
    (int(item), tuple(own)) for item, own in zip(items, actions, strict=True)
  ]
  different = list(dict.fromkeys(asked))
  if world.workers > 1 and len(different) > 1:
    with ThreadPoolExecutor(world.workers) as threads:
      found = list(threads.map(lambda pair: world.observe(*pair), different))
  else:
    found = [world.observe(*pair) for pair in different]
  known = dict(zip(different, found, strict=True))
  return [known[pair] for pair in asked]
