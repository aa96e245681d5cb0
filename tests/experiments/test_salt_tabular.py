from __future__ import annotations

import jax
import numpy as np
import pytest

from experiments.advantages import salt_parts
from experiments.advantages import salt_tabular as study
from experiments.advantages import salt_tabular_parts as parts
from rl_jax.rewards.trajectory_graph import AgentStep, Trajectory, build_edges

gradient = jax.jit(parts.gradient, static_argnums=0)


@pytest.fixture(scope="module")
def world():
  return parts.enumerated()


@pytest.fixture(scope="module")
def start():
  return parts.knowing_the_rules(walks=512)


@pytest.fixture(scope="module")
def walked(world, start):
  # Flatter than at the beginning, so that there are loops.
  return parts.rolled(world, 0.6 * start, jax.random.key(3))


def seen(item, actions):
  return parts.TASK.observe(item, actions)


def letters(walked, row):
  mask = np.asarray(walked.mask[row])
  return "".join(parts.ACTIONS[a] for a in np.asarray(walked.action[row])[mask])


def test_the_table_is_the_environment(world):
  rng = np.random.default_rng(0)
  following = np.asarray(world.next)
  for item in range(parts.MAZES):
    state, path = int(world.start[item]), ""
    for number in rng.integers(len(parts.ACTIONS), size=60):
      path += parts.ACTIONS[number]
      state = following[item, state, number]
      now = seen(item, path)
      assert (state == parts.OPEN) == now.ended
      assert now.ended or state == parts.numbered(now.text)


def test_the_shortest_ways_open_the_door(world):
  following = np.asarray(world.next)
  ways = parts.TASK.source()[np.arange(parts.MAZES)]["reference"]
  for item, way in enumerate(ways):
    state, forced = int(world.start[item]), []
    for action in way:
      forced.append(bool(world.corridor[item, state]))
      state = following[item, state, parts.ACTIONS.index(action)]
    assert state == parts.OPEN
    assert forced == [True] * 4 + [False] * 5


@pytest.mark.slow
def test_episodes_are_those_of_the_environment(walked):
  for row, item in enumerate(np.asarray(walked.maze).tolist()):
    last = seen(item, letters(walked, row))
    assert last.outcome == walked.reward[row]
    assert last.ended or bool(np.all(walked.mask[row]))


@pytest.mark.slow
@pytest.mark.parametrize(
  ("same", "reward"),
  [("edge", salt_parts.REWARD), ("tree", salt_parts.PREFIXES)],
)
def test_steps_are_the_same_as_in_the_graph(walked, same, reward):
  trajectories = []
  for row, item in enumerate(np.asarray(walked.maze).tolist()):
    path = letters(walked, row)
    prompt = str(parts.TASK.source()[np.array([item])]["prompt"][0])
    texts = [prompt] + [
      seen(item, path[: k + 1]).text for k in range(len(path))
    ]
    steps = tuple(AgentStep(*pair) for pair in zip(texts, path, strict=False))
    last = seen(item, path)
    trajectories.append(
      Trajectory(item, steps, texts[-1], last.outcome, last.ended)
    )
  graph = build_edges(trajectories, reward.graph)
  own = np.asarray(parts.edges(walked, same))
  wanted = np.full_like(own, -1)
  wanted[:, : graph.edge_id.shape[1]] = graph.edge_id
  np.testing.assert_array_equal(own < 0, wanted < 0)
  pairs = {*zip(own.ravel().tolist(), wanted.ravel().tolist(), strict=True)}
  # One to one.
  assert len(pairs) == len({a for a, _ in pairs}) == len({b for _, b in pairs})
  assert len(pairs) > 100


def test_an_unknown_graph_is_refused(walked):
  with pytest.raises(ValueError, match="'none'"):
    parts.edges(walked, "none")


@pytest.mark.slow
@pytest.mark.parametrize("arm", ["salt+grpo tree", "salt+grpo occurrence"])
def test_some_graphs_leave_the_gradient_on_policy_alone(
  world, start, walked, arm
):
  """Steps they merge have one gradient, and its factors keep their sum."""
  table = 0.6 * start
  own, advantage = gradient(arm, world, table, walked)
  base, plain = gradient("grpo", world, table, walked)
  assert np.abs(advantage - plain).max() > 0.1
  assert np.abs(base).max() > 1e-4
  np.testing.assert_allclose(own, base, atol=1e-7)


@pytest.mark.slow
def test_loops_alone_make_salt_differ(world, start, walked):
  """Without episodes that take a step twice it is GRPO, too."""
  edge = np.asarray(parts.edges(walked, "edge"))
  loops = [len({*row[row >= 0]}) < (row >= 0).sum() for row in edge]
  assert any(loops)
  still = walked._replace(mask=walked.mask & ~np.array(loops)[:, None])
  table = 0.6 * start
  own, _ = gradient("salt+grpo", world, table, walked)
  base, _ = gradient("grpo", world, table, walked)
  assert np.abs(own - base).max() > 1e-5
  own, _ = gradient("salt+grpo", world, table, still)
  base, _ = gradient("grpo", world, table, still)
  assert np.abs(base).max() > 1e-4
  np.testing.assert_allclose(own, base, atol=1e-7)


def test_episodes_needed():
  success = np.zeros((2, 10))
  success[0, 3:] = 0.8
  assert study.needed(success) == [8 * parts.ROWS, 10 * parts.ROWS]


@pytest.mark.slow
def test_it_learns_and_common_steps_get_nothing_of_salt(world, start):
  seeds = np.arange(2)
  courses = {
    arm: parts.learnt(arm, world, start, 30.0, seeds, updates=40)
    for arm in ("grpo", "salt+grpo")
  }
  for course in courses.values():
    assert course.success[:, :3].mean() < 0.2
    assert course.success[:, -3:].mean() > 0.6
  assert courses["grpo"].common_advantage.max() > 0.1
  assert courses["salt+grpo"].common_advantage.max() <= 1e-6
