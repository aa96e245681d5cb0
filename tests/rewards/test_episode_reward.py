"""What episodes are worth, what they share, and which have no verdict."""

from __future__ import annotations

import dataclasses
import logging
import types

import numpy as np
import pytest

pytest.importorskip(
  "tokenizers", reason="needs the extra `language` (tokenizers)"
)

from rewards import written
from rl_jax.data import Prompts
from rl_jax.environments.key_door import KeyDoor
from rl_jax.models import Characters
from rl_jax.rewards.episodes import EpisodeReward
from rl_jax.rewards.trajectory_graph import CanonicalText, GraphSettings
from rl_jax.rewards.verifiers.per_test import PerTest, Suite
from rl_jax.rewards.verifiers.suite_notes import SuiteNote
from rl_jax.sampling.episodes import Episodes, turn_index
from rl_jax.sampling.worlds import Observation
from rl_jax.types import TextRollouts

WORDS = Characters(alphabet="abcdefghijklmnopqrstuvwxyz+-.! ")
END = 31
TASK = KeyDoor(rows=1, length=12, style="letters")
SAMPLER = Episodes(
  world=TASK,
  vocabulary=WORDS,
  turns=12,
  action_length=2,
  observation_length=3,
  length=58,
  end=(END,),
)
DATA = Prompts(task=TASK, vocabulary=WORDS, length=8)
# The start looks as after a return to it, and what a bump says does not count.
GRAPH = GraphSettings(
  canonical=CanonicalText(volatile=(r"[.!]$", r"^[nsew]{2}(?=a-)"))
)


def ids(text):
  return WORDS.load().encode(text)


def rollouts(*episodes, items=None, groups=None, sampler=SAMPLER, world=TASK):
  """What a policy hands over that took these actions, an end after each."""
  items = [0] * len(episodes) if items is None else items
  shape = (len(episodes), sampler.length)
  token, mask = np.full(shape, 7, np.int32), np.zeros(shape, bool)
  present, ended = mask.copy(), np.zeros(len(episodes), bool)
  for row, (item, path) in enumerate(zip(items, episodes, strict=True)):
    at = 0
    for k, action in enumerate(path):
      own = [*ids(action), END]
      seen = world.observe(item, list(path[: k + 1]))
      ended[row] = seen.ended
      shown = [] if k + 1 == len(path) else ids(seen.text)
      token[row, at : at + len(own) + len(shown)] = own + shown
      mask[row, at : at + len(own)] = True
      at += len(own) + len(shown)
      present[row, :at] = True
  rows = len(episodes)
  return TextRollouts(
    prompt=np.zeros((rows, 1), np.int32),
    prompt_mask=np.ones((rows, 1), bool),
    token=token,
    mask=mask,
    present=present,
    log_prob=np.zeros(shape, np.float32),
    ended=ended,
    item=np.array(items),
    group=np.array([0] * rows if groups is None else groups),
    step=np.zeros(rows, np.int32),
    key=np.zeros((rows, 2), np.uint32),
    reward=np.full(rows, np.nan, np.float32),
    valid=np.zeros(rows, bool),
    metric={"entropy": np.ones(rows, np.float32)},
    extra={"answer": np.zeros((rows, 1), np.int32)},
  )


def reward(**settings):
  return EpisodeReward(**{"episodes": SAMPLER, "graph": GRAPH} | settings)


# In maze 0 the key is west and the door south of the crossing.
RIGHT = "eesswuesu"
LONG = "e!esswueees."  # bumps, and runs out of turns
TWELVE = "eesswuwwwwww"


def test_outcomes_turns_and_ids():
  score = reward().bind(DATA)
  found = score(
    rollouts(
      RIGHT, LONG, TWELVE, RIGHT, items=[0, 0, 0, 2], groups=[0, 0, 0, 1]
    )
  )
  assert found.reward.tolist() == [1, 0, 0, 0]
  assert found.metric["success"].tolist() == [1, 0, 0, 0]
  assert found.metric["turns"].tolist() == [9, 12, 12, 9]
  # The last row stopped though it could have gone on: not what was sampled.
  assert found.valid.tolist() == [True, True, True, False]
  assert found.metric["no_verdict_changed"].tolist() == [0.25] * 4
  assert found.metric["ended"].tolist() == [1, 0, 0, 0]
  assert found.metric["length"].tolist() == [18, 24, 24, 18]
  assert found.metric["entropy"].tolist() == [1] * 4
  assert "answer" in found.extra
  edge, turn = found.extra["edge"], found.extra["turn"]
  assert turn[0, :12].tolist() == [0, 0, -1, -1, -1, 1, 1, -1, -1, -1, 2, 2]
  # All go e e s s w u; the second bumps once at b before.
  assert edge[0, :6].tolist() == edge[2, :6].tolist() == [0, 1, 2, 3, 4, 5]
  assert edge[1, [0, 2, 3, 4, 5, 6]].tolist() == edge[0, :6].tolist()
  assert edge[1, 1] not in edge[[0, 2]]
  assert (edge[3] == -1).all()
  assert edge[:3].max() < 3 * 12
  # Three episodes share six steps; the next one, east, only two.
  assert edge[0, 6] == edge[1, 7]
  assert found.metric["shared_steps"].tolist() == [np.float32(20 / 33)] * 4


def test_shapes_are_those_that_were_said():
  component = reward()
  found = component.bind(DATA)(rollouts(RIGHT, LONG))
  assert set(component.metrics) | {"entropy"} == set(found.metric)
  for name, (shape, dtype) in component.extras(SAMPLER.length).items():
    assert found.extra[name].shape == (2, *shape)
    assert found.extra[name].dtype == dtype
  for value in found.metric.values():
    assert value.dtype == np.float32


def test_ids_of_groups_do_not_meet():
  found = reward().bind(DATA)(
    rollouts(RIGHT, RIGHT, RIGHT, RIGHT, groups=[0, 0, 1, 1])
  )
  for name in ("edge", "node"):
    own = found.extra[name]
    np.testing.assert_array_equal(own[0], own[1])
    np.testing.assert_array_equal(own[2], own[3])
    assert not set(own[0][:9]) & set(own[2][:9])
    assert set(own[:, :9].ravel()) == set(range(18))
    assert (own[:, 9:] == -1).all()


def test_an_episode_alone_shares_nothing_and_is_judged(caplog):
  found = reward().bind(DATA)(rollouts(RIGHT, groups=[3]))
  assert found.reward.tolist() == [1.0]
  assert found.extra["edge"][0, :9].tolist() == list(range(9))
  assert found.metric["shared_steps"].tolist() == [0.0]
  assert not caplog.records


def test_no_shared_step_is_said_once(caplog):
  """Sentences with a counter in them, which nobody told to leave out."""

  class Counting(type(TASK)):
    def observe(self, item, actions):
      found = super().observe(item, actions)
      return found._replace(text=f"{found.text}{'z' * (item + len(actions))}")

  world = Counting(rows=1, length=12, style="letters")
  sampler = dataclasses.replace(
    SAMPLER, world=world, observation_length=20, length=300
  )
  score = reward(episodes=sampler, graph=GraphSettings()).bind(DATA)
  given = rollouts("n" * 12, "w" * 12, sampler=sampler, world=world)
  with caplog.at_level(logging.WARNING):
    score(given)
    found = score(given)
  assert found.metric["shared_steps"].tolist() == [0.0, 0.0]
  assert [r.getMessage()[:31] for r in caplog.records] == [
    "no step of this batch is shared"
  ]


def changed(name, where, value):
  def change(given):
    array = getattr(given, name).copy()
    array[where] = value
    return given._replace(**{name: array})

  return change


@pytest.mark.parametrize(
  "change",
  [
    changed("token", (0, 2), 4),  # the world says b, and has said e
    changed("ended", 0, False),
    changed("ended", 1, True),
    changed("present", (1, -1), True),
    changed("mask", 0, False),
  ],
)
def test_an_episode_that_the_world_does_not_confirm_has_no_verdict(
  change, caplog
):
  score = reward().bind(DATA)
  found = score(change(rollouts(RIGHT, LONG, TWELVE)))
  assert found.valid.sum() == 2
  assert found.reward[~found.valid].tolist() == [0.0]
  assert (found.extra["edge"][~found.valid] == -1).all()
  assert sum(score.reasons.values()) == 1
  assert caplog.records[0].getMessage().startswith("an episode has no verdict")


def test_an_episode_that_goes_on_behind_its_end_has_no_verdict():
  found = reward().bind(DATA)(rollouts(RIGHT + "nnn", RIGHT))
  assert found.valid.tolist() == [False, True]


def test_a_world_without_an_answer_gives_no_verdict_and_no_zero():
  class Failing:
    workers = 1

    def observe(self, item, actions):
      if len(actions) == 3:
        return Observation("", True, 0.0, "time limit: 1 s")
      return TASK.observe(item, actions)

  sampler = dataclasses.replace(SAMPLER, world=Failing())
  score = reward(episodes=sampler).bind(DATA)
  # The sampler stopped there too; and one that had gone on.
  found = score(rollouts("ees", RIGHT))
  assert found.valid.tolist() == [False, False]
  assert found.metric["no_verdict"].tolist() == [1.0, 1.0]
  assert found.metric["no_verdict_error"].tolist() == [1.0, 1.0]
  assert score.reasons == {"error: time limit: 1 s": 2}
  # A world that has recovered since: what it would have said was not played.
  found = reward().bind(DATA)(rollouts("ees", RIGHT))
  assert found.valid.tolist() == [False, True]


def test_graphs_can_be_looked_at():
  score = reward().bind(DATA)
  found = score(rollouts(RIGHT, LONG, RIGHT, groups=[0, 0, 4]))
  graphs = score.graphs(found)
  assert set(graphs) == {0, 4}
  trajectories, graph = graphs[0]
  assert trajectories[0].steps[1].action_span == (5, 7)
  assert trajectories[0].steps[1].observation == "b-."
  assert trajectories[0].outcome == 1.0
  assert not trajectories[1].ended
  first = graph.text().splitlines()[1]
  assert first == "   2    2    0.500  [0] a- --e--> [1] b-"


def test_rewards_are_outcomes_and_success_is_a_threshold():
  class Partial:
    workers = 1

    def observe(self, item, actions):
      return Observation("a", len(actions) == 2, 0.25 * len(actions))

  sampler = dataclasses.replace(SAMPLER, world=Partial())
  made = rollouts("ab", "cd", sampler=sampler, world=Partial())
  settings = types.SimpleNamespace(success=0.5)
  for success, expected in ((settings.success, 1.0), (1.0, 0.0)):
    found = reward(episodes=sampler, success=success).bind(DATA)(made)
    assert found.reward.tolist() == [0.5, 0.5]
    assert found.metric["success"].tolist() == [expected] * 2


class Holds:
  """A sandbox whose tests are letters that a program must hold."""

  def prepare(self):
    pass

  def run(self, program):
    source, _, letter = program.removesuffix("\n").partition("\n")
    return "" if letter in source else "AssertionError"


NOTE = SuiteNote(
  judge=PerTest(sandbox=Holds(), seconds=1.0), tests=3, turns=2, workers=0
)
SUITE = Suite("both", "", ("a", "b"))


class Counted:
  """A world that says how many tests of the suite a program passed."""

  workers = 1

  def observe(self, item, actions):
    del item
    (found,) = NOTE.results(actions[-1:], [SUITE])
    passed = int(found.results.sum())
    return Observation("xyz"[passed], passed == 2, float(passed == 2))


def programs(*episodes, **settings):
  sampler = Episodes(
    world=Counted(),
    vocabulary=WORDS,
    turns=2,
    action_length=4,
    observation_length=1,
    length=9,
    end=(END,),
  )
  given = rollouts(*episodes, sampler=sampler, world=Counted())
  component = EpisodeReward(
    **{"episodes": sampler, "graph": None, "notes": (NOTE,)} | settings
  )
  score = component.bind(written.answers(SUITE, vocabulary=WORDS))
  return component, score, given


def test_a_note_finds_what_each_turn_passed():
  # No letter of the suite; one; both at once; both in the second program,
  # though the first and what the world says (y) hold one each.
  component, score, given = programs(
    ["", "c"], ["cb", "a"], ["ab"], ["a", "ba"]
  )
  found = score(given)
  assert found.valid.all()
  assert found.reward.tolist() == [0, 0, 1, 1]
  assert found.metric["turns"].tolist() == [2, 2, 1, 2]
  np.testing.assert_array_equal(
    found.extra["passed"],
    [
      [[0, 0, 0], [0, 0, 0]],
      [[0, 1, 0], [1, 0, 0]],
      [[1, 1, 0], [0, 0, 0]],
      [[1, 0, 0], [1, 1, 0]],
    ],
  )
  np.testing.assert_array_equal(
    found.extra["turn_mask"], [[1, 1], [1, 1], [1, 0], [1, 1]]
  )
  np.testing.assert_array_equal(found.extra["test_mask"], [[1, 1, 0]] * 4)
  np.testing.assert_array_equal(found.extra["turn"], turn_index(given.mask))
  assert found.extra["turn"][3].tolist() == [0, 0, -1, 1, 1, 1, -1, -1, -1]
  shapes = component.extras(given.token.shape[1])
  assert found.extra.keys() == shapes.keys() | given.extra.keys()
  for name, (shape, dtype) in shapes.items():
    assert found.extra[name].shape == (4, *shape)
    assert found.extra[name].dtype == dtype


def test_without_a_graph_there_are_no_steps_to_share():
  component, score, given = programs(["a", "b"], notes=())
  assert component.extras(9) == {}
  found = score(given)
  assert set(found.extra) == set(given.extra)
  assert set(found.metric) == set(component.metrics) | {"entropy"}
  assert "shared_steps" not in found.metric
  with pytest.raises(ValueError, match="its graph is None"):
    score.graphs(found)


def test_what_is_found_twice_is_refused():
  twice, _, _ = programs(["a", "b"], notes=(NOTE, NOTE))
  with pytest.raises(ValueError, match=r"'turn_mask'\] found twice"):
    twice.extras(9)
  # The turns of the graph and those of the tests.
  both, _, _ = programs(["a", "b"], graph=GRAPH)
  with pytest.raises(ValueError, match=r"\['turn'\] found twice"):
    both.extras(9)
