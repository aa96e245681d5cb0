"""The outcome of episodes, and a graph of what they have in common."""

from __future__ import annotations

import collections
import dataclasses
import functools
import logging
from typing import TYPE_CHECKING, Any

import numpy as np

from rl_jax.rewards.notes import Note, TextData, joined, noted
from rl_jax.rewards.trajectory_graph import (
  AgentStep,
  GraphSettings,
  Trajectory,
  build_edges,
)

if TYPE_CHECKING:
  from collections.abc import Callable, Sequence

  from rl_jax.rewards.trajectory_graph import TrajectoryGraph
  from rl_jax.types import TextRollouts

__all__ = ["EpisodeReward", "EpisodeScore"]

_log = logging.getLogger(__name__)
_NOTHING_SHARED = (
  "no step of this batch is shared by two episodes of a prompt: SALT then"
  " changes nothing. Something in the observations may differ every time"
  " (GraphSettings.canonical.volatile), or actions hold free text"
  " (GraphSettings.action)"
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EpisodeReward:
  """What the world says an episode is worth, after all its actions.

  The world is asked again, about every turn. An episode has no verdict where
  the world has no answer (`no_verdict_error`), or one that does not lead to
  the very tokens that were sampled (`no_verdict_changed`): a world that is no
  function of the actions, or one that failed while the episode was sampled.

  Besides the reward each row gets, in `extra`, for `estimators.Salt`: "edge"
  and "node", ids of each turn's step and state that are unique over the
  batch, -1 where there is none; and "turn", of each token. Without a graph
  it gets what the notes find alone.
  """

  episodes: Any
  """The sampler that the episodes come from; see `sampling.Episodes`."""
  graph: GraphSettings | None = GraphSettings()
  """When two steps of a prompt's episodes are the same; None: nobody asks, and
  there is no graph and no `shared_steps`."""
  success: float = 1.0
  """Outcome from which an episode is a success."""
  notes: tuple[Note, ...] = ()
  """What else is found in the episodes, such as the tests that each turn
  passed (`verifiers.SuiteNote`), for components that want it."""

  @property
  def metrics(self) -> tuple[str, ...]:
    """Names of all metrics that a score fills, the same at every step."""
    return (
      "success",
      "turns",
      *(() if self.graph is None else ("shared_steps",)),
      "length",
      "ended",
      "no_verdict",
      "no_verdict_error",
      "no_verdict_changed",
    )

  def extras(self, time: int) -> dict[str, tuple[tuple[int, ...], Any]]:
    """What is found besides the reward.

    Args:
      time: longest episode, in tokens.

    Returns:
      Shape after the row and dtype of each array, by name.

    Raises:
      ValueError: if two of them, of the graph or a note, have one name.
    """
    turns = (self.episodes.turns,)
    graph = {
      "edge": (turns, np.int32),
      "node": (turns, np.int32),
      "turn": ((time,), np.int32),
    }
    notes = [note.shapes(time) for note in self.notes]
    return joined(notes if self.graph is None else [graph, *notes])

  def bind(self, data: TextData) -> EpisodeScore:
    """The reward of episodes that begin with the prompts of some data.

    Args:
      data: where the prompts come from.

    Returns:
      rollouts -> rollouts with `reward`, `valid`, `metric` and `extra`.
    """
    return EpisodeScore(self, data)


class EpisodeScore:
  """An `EpisodeReward` for some data; see `EpisodeReward.bind`.

  Attributes:
    reasons: how many episodes had which reason to have no verdict, since the
      beginning.
  """

  def __init__(self, reward: EpisodeReward, data: TextData):
    self._reward, self._data = reward, data
    self.reasons: collections.Counter[str] = collections.Counter()
    self._warned = False

  # A program can be compiled for a pod on a machine that has no data.
  @functools.cached_property
  def _source(self) -> Any:
    return self._data.source()

  @functools.cached_property
  def _notes(self) -> tuple[Callable[[TextRollouts], dict[str, Any]], ...]:
    return tuple(note.bind(self._data) for note in self._reward.notes)

  def __call__(self, rollouts: TextRollouts) -> TextRollouts:
    """Ask the world about every row, and draw the graph of each group.

    Args:
      rollouts: with NumPy arrays, or arrays that can be read as such.

    Returns:
      The same with `reward` (0 where there is no verdict), `valid`, `metric`
      and `extra`. Of `shared_steps`, `no_verdict` and its kinds every row has
      that of the batch.
    """
    token, mask, present, item, ended = map(
      np.asarray,
      (
        rollouts.token,
        rollouts.mask,
        rollouts.present,
        rollouts.item,
        rollouts.ended,
      ),
    )
    replays = self._reward.episodes.replayed(item, token, mask)
    reasons = [
      _reason(replay, token[row][present[row]].tolist(), bool(ended[row]))
      for row, replay in enumerate(replays)
    ]
    self._report(reasons)
    valid = np.array([not reason for reason in reasons])
    outcome = [
      0.0 if reason else replay.observations[-1].outcome
      for replay, reason in zip(replays, reasons, strict=True)
    ]
    reward: Any = np.array(outcome, np.float32)
    share = {
      kind: np.mean([reason.startswith(kind) for reason in reasons])
      for kind in ("error", "changed")
    }
    extra, of_batch = self._graph(
      replays, valid, item=item, group=np.asarray(rollouts.group)
    )
    of_batch |= {
      "no_verdict": 1 - valid.mean(),
      **{f"no_verdict_{kind}": own for kind, own in share.items()},
    }
    metric: dict[str, Any] = {
      "success": reward >= self._reward.success,
      "turns": [len(replay.actions) for replay in replays],
      "length": mask.sum(axis=1),
      "ended": ended,
      **{name: np.full(len(valid), own) for name, own in of_batch.items()},
    }
    metric = {name: np.asarray(x, np.float32) for name, x in metric.items()}
    filled: dict[str, Any] = {
      "reward": reward,
      "valid": valid,
      "metric": {**rollouts.metric, **metric},
      "extra": {**rollouts.extra, **extra},
    }
    return noted(rollouts._replace(**filled), self._notes)

  def graphs(
    self, rollouts: TextRollouts
  ) -> dict[int, tuple[list[Trajectory], TrajectoryGraph]]:
    """Trajectories and graphs of judged rollouts, to be looked at.

    Args:
      rollouts: as this returned them.

    Returns:
      By group; `TrajectoryGraph.text` writes one down.

    Raises:
      ValueError: if the reward has no graph.
    """
    if self._reward.graph is None:
      raise ValueError("this reward draws no graph: its graph is None")
    token, mask = np.asarray(rollouts.token), np.asarray(rollouts.mask)
    item, group = np.asarray(rollouts.item), np.asarray(rollouts.group)
    replays = self._reward.episodes.replayed(item, token, mask)
    walks = self._walks(replays, np.asarray(rollouts.valid), item)
    found = {}
    for own in np.unique(group).tolist():
      rows = np.flatnonzero(group == own)
      trajectories = _several([walks[row] for row in rows])
      graph = build_edges(trajectories, self._reward.graph)
      found[own] = trajectories, graph
    return found

  def _report(self, reasons: Sequence[str]) -> None:
    for reason in filter(None, reasons):
      if reason not in self.reasons:
        _log.warning("an episode has no verdict: %s", reason)
      self.reasons[reason] += 1

  def _walks(self, replays, valid, item) -> list[Trajectory]:
    different, where = np.unique(item, return_inverse=True)
    prompts = self._source.columns(different)["prompt"]
    return [
      _trajectory(replay, counts, task, f"{prompts[place]}")
      for replay, counts, task, place in zip(
        replays, valid.tolist(), item.tolist(), where, strict=True
      )
    ]

  def _graph(self, replays, valid, *, item, group):
    """Ids of edges, nodes and turns, and the share of shared steps."""
    if self._reward.graph is None:
      return {}, {}
    shape = (len(item), self._reward.episodes.turns)
    ids = {name: np.full(shape, -1, np.int32) for name in ("edge", "node")}
    walks = self._walks(replays, valid, item)
    first = {"edge": 0, "node": 0}
    visits, shared, alone = 0, 0, True
    for own in np.unique(group):
      rows = np.flatnonzero(group == own)
      alone &= len(rows) == 1
      graph = build_edges(
        _several([walks[row] for row in rows]), self._reward.graph
      )
      found = {"edge": graph.edge_id, "node": graph.node_id[:, :-1]}
      for name, value in found.items():
        value = value[: len(rows)]
        ids[name][rows, : value.shape[1]] = np.where(
          value < 0, -1, value + first[name]
        )
        first[name] += int(value.max(initial=-1)) + 1
      visits += sum(edge.visits for edge in graph.edges)
      shared += sum(e.visits for e in graph.edges if e.trajectories > 1)
    if visits and not shared and not alone and not self._warned:
      self._warned = True
      _log.warning(_NOTHING_SHARED)
    ids["turn"] = np.stack([replay.turn for replay in replays])
    return ids, {"shared_steps": shared / max(visits, 1)}


def _reason(replay: Any, token: list[int], ended: bool) -> str:
  """Why an episode has no verdict; empty if it is what the world says."""
  for observation in replay.observations:
    if observation.error:
      return f"error: {observation.error}"
  if not replay.actions:
    return "changed: there is no action"
  same = token == replay.token and ended == replay.ended
  if not same or not (replay.ended or replay.full):
    return "changed: the world now says something else"
  return ""


def _trajectory(replay: Any, counts: bool, task: int, prompt: str):
  """What the graph needs of an episode; nothing of one without verdict."""
  if not counts:
    return Trajectory(task, (), "", 0.0, ended=False)
  last = replay.observations[-1]
  before = (prompt, *(one.text for one in replay.observations[:-1]))
  steps = []
  for turn, pair in enumerate(zip(before, replay.actions, strict=True)):
    columns = np.flatnonzero(replay.turn == turn)
    steps.append(AgentStep(*pair, (int(columns[0]), int(columns[-1]) + 1)))
  return Trajectory(task, tuple(steps), last.text, last.outcome, replay.ended)


def _several(walks: list[Trajectory]) -> list[Trajectory]:
  """An episode alone, as in an evaluation, beside one of which is nothing."""
  if len(walks) > 1:
    return walks
  return [*walks, Trajectory(walks[0].task_id, (), "", 0.0, ended=False)]
