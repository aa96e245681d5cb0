"""Which steps of trajectories are the same, and what the graph says of them."""

from __future__ import annotations

import numpy as np
import pytest

from rl_jax.rewards.trajectory_graph import (
  AgentStep,
  CanonicalText,
  GraphSettings,
  Trajectory,
  build_edges,
)

FOUR = ("0a1b2c:E", "0a1b2d:F", "0a1e3c:E", "0f4c:F")


def walk(text, outcome=0.0, *, task="task", ended=True):
  """Action a in state 0, then b in 1, which leads to 2, is "0a1b:2"."""
  path, final = text.split(":")
  steps = zip(path[::2], path[1::2], strict=True)
  return Trajectory(
    task, tuple(AgentStep(*step) for step in steps), final, outcome, ended
  )


def graph(*texts, **settings):
  trajectories = [
    each if isinstance(each, Trajectory) else walk(each) for each in texts
  ]
  return build_edges(trajectories, GraphSettings(**settings))


def described(found):
  """Edges as texts of what they are, with their counts."""
  return {
    f"{found.nodes[e.start]}{e.action}"
    + ("" if e.end is None else found.nodes[e.end]): (e.trajectories, e.visits)
    for e in found.edges
  }


def test_steps_of_the_specification():
  found = build_edges(
    [
      walk(text, outcome)
      for text, outcome in zip(FOUR, (1, 0, 1, 0), strict=True)
    ],
    GraphSettings(),
  )
  assert described(found) == {
    "0a1": (3, 3),
    "1b2": (2, 2),
    "2ce": (1, 1),
    "2df": (1, 1),
    "1e3": (1, 1),
    "3ce": (1, 1),
    "0f4": (1, 1),
    "4cf": (1, 1),
  }
  assert found.edge_id.dtype == np.int32
  assert found.edge_id[3].tolist() == [6, 7, -1]
  assert found.edge_id[:3, 0].tolist() == [0, 0, 0]
  assert found.edge_counts.tolist() == [3, 2, 1, 1, 1, 1, 1, 1]
  assert found.shared_steps == 5 / 11
  outcomes = [edge.outcome for edge in found.edges]
  np.testing.assert_allclose(outcomes[:3], [2 / 3, 1 / 2, 1.0])
  assert (
    found.text().splitlines()[1] == "   3    3    0.667  [0] 0 --a--> [1] 1"
  )


def test_nodes_of_steps_come_before_those_that_are_only_reached():
  found = graph(*FOUR)
  starts = {found.nodes[n] for n in range(5)}
  assert starts == set("01234")
  assert found.node_id.shape == (4, 4)
  assert found.node_id[3].tolist()[2:] == [found.node_id[1, 3], -1]


def test_the_same_action_with_another_result_is_another_step():
  texts = ("0a1b:E", "0a2b:E")
  assert described(graph(*texts)) == {
    "0a1": (1, 1),
    "0a2": (1, 1),
    "1be": (1, 1),
    "2be": (1, 1),
  }
  merged = graph(*texts, merge="state_action")
  assert described(merged) == {"0a": (2, 2), "1b": (1, 1), "2b": (1, 1)}
  assert "[0] 0 --a--> \n" in merged.text()


def test_loops_are_visits_of_one_trajectory():
  found = graph("0x0x0y:1", "0x0z:2")
  assert described(found)["0x0"] == (2, 3)
  assert found.edge_id.tolist() == [[0, 0, 1], [0, 2, -1]]


@pytest.mark.parametrize(
  "again", [{"merge": "tree"}, {"history_window": "full"}]
)
def test_a_tree_is_the_same_if_no_state_is_reached_in_two_ways(again):
  np.testing.assert_array_equal(
    graph("0a1b:2", "0a1c:3", "0d4b:5").edge_id,
    graph("0a1b:2", "0a1c:3", "0d4b:5", **again).edge_id,
  )
  # 3 is reached from 1 and from 2: one state, or two prefixes.
  twice = ("0a1b3c:E", "0d2b3c:E")
  assert graph(*twice).shared_steps == 2 / 6
  assert graph(*twice, **again).shared_steps == 0.0


def test_history_tells_states_apart_that_look_the_same():
  """With the key, 0 opens the door; without it, it does not: hidden state."""
  texts = ("0k0o:E", "0o0o:0")
  assert graph(*texts).node_id[0, :2].tolist() == [0, 0]
  found = graph(*texts, history_window=1)
  assert len(set(found.node_id[:, 1].tolist())) == 2
  assert found.node_id[0, 0] == found.node_id[1, 0]
  # A window of one forgets what was done two steps ago, a longer one does not.
  texts = ("0a1b2c3d:E", "0z1b2c3d:E")
  for window, shared in ((0, 6), (1, 4), (2, 2), (3, 0), ("full", 0)):
    found = graph(*texts, history_window=window)
    assert found.shared_steps == shared / 8


def test_the_end_of_a_cut_trajectory_is_a_state_to_go_on_from():
  over, cut = walk("0a:1"), walk("0a:1", ended=False)
  longer = walk("0a1b:2")
  assert build_edges([over, longer], GraphSettings()).shared_steps == 0.0
  found = build_edges([cut, longer], GraphSettings())
  assert found.shared_steps == 2 / 3
  assert found.node_id[0].tolist() == [0, 1, -1]


def test_tasks_share_nothing():
  trajectories = [
    walk("0a:1", task="first"),
    walk("0a:1", task="second"),
    walk("0a:1", task="first"),
    walk("0a:1", task="second"),
  ]
  found = build_edges(trajectories, GraphSettings())
  assert found.edge_id[:, 0].tolist() == [0, 1, 0, 1]


def test_what_is_volatile_does_not_keep_steps_apart():
  pair = [
    Trajectory(0, (AgentStep(f"Step {n}: a  DOOR\n", "Open"),), f"{n}$", 0.0)
    for n in (1, 2)
  ]
  assert build_edges(pair, GraphSettings()).shared_steps == 0.0
  canonical = CanonicalText(volatile=(r"step \d+:", r"\d+\$"))
  found = build_edges(pair, GraphSettings(canonical=canonical))
  assert found.shared_steps == 1.0
  assert found.nodes == ("a door", "")


def test_only_the_parsed_action_counts():
  written = ("I think. <do>go\nleft</do>", "<do>no</do> So: <DO>Go left</do>")
  pair = [
    Trajectory(0, (AgentStep("o", action),), "e", 0.0) for action in written
  ]
  assert build_edges(pair, GraphSettings()).shared_steps == 0.0
  settings = GraphSettings(action=r"<do>(.*?)</do>")
  assert build_edges(pair, settings).shared_steps == 1.0
  assert settings.canonical_action("No tag") == "no tag"
  assert GraphSettings(action="b.").canonical_action("abcabd") == "bd"


def test_permuted_trajectories_give_permuted_rows():
  one, other = graph(*FOUR), graph(*FOUR[::-1])
  for row in range(4):
    counts = [found.edge_counts[i] for found, i in ((one, one.edge_id[row]),)]
    mirrored = other.edge_counts[other.edge_id[3 - row]]
    keep = one.edge_id[row] >= 0
    np.testing.assert_array_equal(counts[0][keep], mirrored[keep])


def test_an_episode_of_which_nothing_is_known_has_no_step():
  empty = Trajectory("task", (), "", 0.0, ended=False)
  found = build_edges([walk("0a:1"), empty], GraphSettings())
  assert found.edge_id.tolist() == [[0], [-1]]
  assert found.node_id[1].tolist() == [-1, -1]
  nothing = build_edges([empty, empty], GraphSettings())
  assert nothing.edge_id.shape == (2, 0)
  assert nothing.shared_steps == 0.0


def test_a_trajectory_alone_is_refused():
  with pytest.raises(ValueError, match="task 'task' has one"):
    graph("0a:1")
  pair = [walk("0a:1"), walk("0a:1"), walk("0a:1", task=7)]
  with pytest.raises(ValueError, match="task 7 has one"):
    build_edges(pair, GraphSettings())


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    ({"history_window": -1}, "history_window must be"),
    ({"merge": "node"}, "merge must be"),
    ({"action": "("}, "no regular expression"),
  ],
)
def test_settings_are_checked(unchecked, settings, message):
  with pytest.raises(ValueError, match=message):
    GraphSettings(**settings)


def test_expressions_of_volatile_text_are_checked():
  with pytest.raises(ValueError, match="no regular expression"):
    CanonicalText(volatile=("[",))
