"""A graph of what several trajectories of one task did, for the host.

Nodes are states as far as text tells them apart, edges are steps. Two
trajectories share an edge where they did the same in the same state and it
came to the same; `rl_jax.advantages.salt` averages advantages over edges.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import re
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

if TYPE_CHECKING:
  from collections.abc import Hashable, Sequence

  from jaxtyping import Int

__all__ = [
  "AgentStep",
  "CanonicalText",
  "Edge",
  "GraphSettings",
  "Trajectory",
  "TrajectoryGraph",
  "build_edges",
]


class AgentStep(NamedTuple):
  """One turn of an agent.

  Attributes:
    observation: what it saw.
    action: what it wrote then.
    action_span: first and last column, the latter exclusive, of the action's
      tokens; None where there are none.
  """

  observation: str
  action: str
  action_span: tuple[int, int] | None = None


class Trajectory(NamedTuple):
  """What an agent did in one episode.

  Attributes:
    task_id: which task; different tasks share nothing.
    steps: in order; none for an episode of which nothing is known.
    final_observation: after the last step.
    outcome: reward of the episode, any unit.
    ended: whether the episode was over. Else it was cut, and its last state
      is one that others may have gone on from.
  """

  task_id: Hashable
  steps: tuple[AgentStep, ...]
  final_observation: str
  outcome: float
  ended: bool = True


class Edge(NamedTuple):
  """A step that one trajectory took, or several.

  Attributes:
    start: id of the node that it starts from.
    action: canonical.
    end: id of the node that it came to; None where the graph merges steps
      without regard to that.
    trajectories: how many took it.
    visits: how often it was taken.
    outcome: mean outcome of the trajectories that took it.
  """

  start: int
  action: str
  end: int | None
  trajectories: int
  visits: int
  outcome: float


@functools.cache
def _compiled(expressions: tuple[str, ...]) -> tuple[re.Pattern[str], ...]:
  found = []
  for expression in expressions:
    try:
      found.append(re.compile(expression, re.IGNORECASE | re.DOTALL))
    except re.error as error:
      raise ValueError(
        f"{expression!r} is no regular expression: {error}"
      ) from error
  return tuple(found)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CanonicalText:
  r"""Text without what does not tell states apart.

  Volatile parts are removed, white space is collapsed, case is folded.

  Raises:
    ValueError: if an expression cannot be compiled.

  >>> CanonicalText(volatile=(r"step \d+",))("  Step 7:  You SEE a door. ")
  ': you see a door.'
  """

  volatile: tuple[str, ...] = ()
  """Regular expressions, case ignored, of what differs without meaning, such
  as counters of steps, times and prices."""

  def __post_init__(self):
    _compiled(self.volatile)

  def __call__(self, text: str) -> str:
    """The canonical form."""
    for expression in _compiled(self.volatile):
      text = expression.sub("", text)
    return " ".join(text.split()).casefold()


@dataclasses.dataclass(frozen=True, kw_only=True)
class GraphSettings:
  """When two steps are the same.

  Raises:
    ValueError: if the window is negative, the merge unknown, or an expression
      cannot be compiled.
  """

  history_window: int | Literal["full"] = 0
  """Pairs of observation and action before the present observation that are
  part of a state; "full" is the whole prefix. With 0, equal observations are
  equal states, which merges too much where an observation hides something."""
  merge: Literal["edge", "state_action", "tree"] = "edge"
  """What must be equal: state, action and next state; the first two alone; or
  the whole prefix, action and next observation ("full", by another name)."""
  canonical: CanonicalText = CanonicalText()
  """What text is compared as."""
  action: str | None = None
  """Regular expression of the action proper, its last match, and its first
  group if it has one. A thought before the action would make every step
  different; where nothing matches the whole text is the action."""

  def __post_init__(self):
    window = self.history_window
    if window != "full" and window < 0:
      raise ValueError(
        f"history_window must be 'full' or not negative, got {window!r}"
      )
    if self.merge not in ("edge", "state_action", "tree"):
      raise ValueError(
        f"merge must be 'edge', 'state_action' or 'tree', got {self.merge!r}"
      )
    if self.action is not None:
      _compiled((self.action,))

  @property
  def whole_prefix(self) -> bool:
    """Whether a state is all that came before it."""
    return self.merge == "tree" or self.history_window == "full"

  def canonical_action(self, text: str) -> str:
    """The action proper, in canonical form."""
    if self.action is not None:
      expression = _compiled((self.action,))[0]
      last = collections.deque(expression.finditer(text), maxlen=1)
      if last:
        text = last[0].group(1 if expression.groups else 0) or ""
    return self.canonical(text)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class TrajectoryGraph:
  """Integer ids of what trajectories of one prompt have in common."""

  edge_id: Int[np.ndarray, "trajectory turn"]
  """Id of each step's edge, from 0; -1 behind the last step."""
  node_id: Int[np.ndarray, "trajectory state"]
  """Id of each state, one more than there are steps; -1 behind the last. Ids
  of states that steps start from come first."""
  edges: tuple[Edge, ...]
  """By id."""
  nodes: tuple[str, ...]
  """What each node shows, by id: its canonical observation."""

  @property
  def edge_counts(self) -> Int[np.ndarray, "edge"]:
    """How many trajectories took each edge."""
    return np.array([edge.trajectories for edge in self.edges], np.int32)

  @property
  def shared_steps(self) -> float:
    """Share of all steps whose edge several trajectories took; 0 of none."""
    steps = sum(edge.visits for edge in self.edges)
    shared = sum(e.visits for e in self.edges if e.trajectories > 1)
    return shared / max(steps, 1)

  def text(self) -> str:
    """One line for each edge, those that most trajectories took first.

    Returns:
      Columns: trajectories, visits, mean outcome, and what the edge is.
    """
    order = sorted(self.edges, key=lambda e: (-e.trajectories, e.start))
    lines = [
      f"{edge.trajectories:4d} {edge.visits:4d} {edge.outcome:8.3f} "
      f" [{edge.start}] {self.nodes[edge.start]} --{edge.action}--> "
      + ("" if edge.end is None else f"[{edge.end}] {self.nodes[edge.end]}")
      for edge in order
    ]
    return "\n".join(["traj vis   outcome  edge", *lines]) + "\n"


def build_edges(
  trajectories: Sequence[Trajectory], settings: GraphSettings
) -> TrajectoryGraph:
  """The graph of the trajectories of one prompt.

  Keys are compared whole, never as hashes alone; building takes time linear
  in the number of steps, times the history window.

  Args:
    trajectories: of which at least two are of each task.
    settings: when two steps are the same.

  Returns:
    The graph; an id of an edge is at most the number of steps.

  Raises:
    ValueError: if a task has one trajectory alone, which has nothing to be
      compared with.
  """
  tasks = collections.Counter(each.task_id for each in trajectories)
  alone = [task for task, count in tasks.items() if count < 2]
  if alone:
    raise ValueError(
      "a graph compares two or more trajectories of a task, task"
      f" {alone[0]!r} has one"
    )
  prefixes = _Ids()
  walks = [_walk(each, settings, prefixes) for each in trajectories]
  nodes = _Ids()
  for keys, _ in walks:  # states that a step starts from have the first ids
    for key in keys[:-1]:
      nodes.of(key)
  longest = max(len(actions) for _, actions in walks)
  edge_id = np.full((len(walks), longest), -1, np.int32)
  node_id = np.full((len(walks), longest + 1), -1, np.int32)
  edge_ids, visitors = _Ids(), collections.defaultdict(list)
  for row, (keys, actions) in enumerate(walks):
    ids = [nodes.of(key) for key in keys] if actions else []
    node_id[row, : len(ids)] = ids
    for turn, action in enumerate(actions):
      end = None if settings.merge == "state_action" else ids[turn + 1]
      edge = (ids[turn], action, end)
      edge_id[row, turn] = edge_ids.of(edge)
      visitors[edge].append(row)
  edges = []
  for key, rows in visitors.items():
    own = sorted(set(rows))
    outcome = sum(trajectories[row].outcome for row in own) / len(own)
    start, action, end = key
    edges.append(Edge(start, action, end, len(own), len(rows), outcome))
  return TrajectoryGraph(
    edge_id=edge_id,
    node_id=node_id,
    edges=tuple(edges),
    nodes=tuple(key.observation for key in nodes.number),
  )


class _Node(NamedTuple):
  """What makes a state; two with the same are one."""

  task_id: Hashable
  before: Hashable
  observation: str
  terminal: bool


class _Ids:
  """Integers for things, in the order in which they are first seen."""

  def __init__(self):
    self.number: dict[Any, int] = {}

  def of(self, key: Hashable) -> int:
    return self.number.setdefault(key, len(self.number))


def _walk(
  trajectory: Trajectory, settings: GraphSettings, prefixes: _Ids
) -> tuple[list[_Node], list[str]]:
  """The states of a trajectory, the final one too, and its actions."""
  steps = trajectory.steps
  seen = [step.observation for step in steps] + [trajectory.final_observation]
  seen = [settings.canonical(text) for text in seen]
  actions = [settings.canonical_action(step.action) for step in steps]
  keys: list[_Node] = []
  prefix = None
  for turn, observation in enumerate(seen):
    last = max(turn - 1, 0)
    if settings.whole_prefix:
      # The id of a prefix stands for all of it, and is not a hash.
      before = (prefix, *actions[last:turn])
      prefix = prefixes.of((trajectory.task_id, before, observation))
    else:
      assert settings.history_window != "full"
      first = max(turn - settings.history_window, 0)
      before = tuple(zip(seen[first:turn], actions[first:turn], strict=True))
    over = trajectory.ended and turn == len(steps)
    keys.append(_Node(trajectory.task_id, before, observation, over))
  return keys, actions
