"""SALT in a recipe, and through the whole program with a maze."""

from __future__ import annotations

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip(
  "tokenizers", reason="needs the extra `language` (tokenizers)"
)

from algorithms.steps import items, program
from experiments.advantages import salt_parts
from rl_jax import algorithms
from rl_jax.advantages import salt_step_advantages, spread_segments
from rl_jax.algorithms.components import EveryToken, Raw
from rl_jax.algorithms.estimators.salt import Salt
from rl_jax.algorithms.recipe import PolicyBatch
from rl_jax.experiment import Experiment, from_dict, to_dict
from rl_jax.training.optimisers import AdamW

pytestmark = pytest.mark.slow

# Two groups of two, in turn; the second turn of row 2 has two tokens.
TURN = np.array(
  [[0, -1, 1, -1], [0, -1, 1, -1], [0, -1, 1, 1], [0, -1, -1, -1]]
)
EDGE = np.array([[0, 1], [3, 4], [0, 2], [3, -1]])
NODE = np.array([[0, 1], [2, 3], [0, 1], [2, -1]])
MASK = jnp.asarray(TURN >= 0)
BLANK = jnp.zeros(MASK.shape)
REWARD = jnp.array([1.0, 0.5, 0.0, 1.0])


def batch(**changed):
  found = PolicyBatch(
    log_prob=BLANK,
    behaviour_log_prob=BLANK,
    mask=MASK,
    reward=REWARD,
    group=jnp.array([0, 1, 0, 1]),
    valid=jnp.ones(4, bool),
    step=jnp.zeros(4, int),
    extra={
      "edge": jnp.asarray(EDGE),
      "node": jnp.asarray(NODE),
      "turn": jnp.asarray(TURN),
    },
  )
  return found._replace(**changed)


def advantages(name, batch=None, **changed):
  recipe = salt_parts.ARMS[name]
  if changed:
    recipe = dataclasses.replace(recipe, **changed)
  found = recipe.signals(batch or globals()["batch"](), num_groups=2)
  return np.asarray(found.advantage)


def test_shared_steps_get_the_mean_and_others_their_episode_s():
  """Of GRPO: 1 and 0 are 1/sqrt(2) apart from their mean, by their spread."""
  half = np.sqrt(0.5)
  expected = [
    [0, 0, half, 0],
    [0, 0, -half, 0],
    [0, 0, -half, -half],
    [0, 0, 0, 0],
  ]
  np.testing.assert_allclose(advantages("salt+grpo"), expected, atol=1e-5)
  # Leave-one-out: the difference to the other of two.
  expected = [[0, 0, 1, 0], [0, 0, -0.5, 0], [0, 0, -1, -1], [0, 0, 0, 0]]
  np.testing.assert_allclose(advantages("salt+rloo"), expected, atol=1e-6)


def test_without_mixing_it_is_the_base_on_every_token():
  for name in ("grpo", "rloo"):
    base = advantages(name)
    np.testing.assert_array_equal(
      advantages(f"salt+{name}", credit=Salt(mix=0.0)), base
    )
    np.testing.assert_array_equal(
      advantages(f"salt+{name}", credit=Salt(min_shared=3)), base
    )
    assert base.any()


@pytest.mark.parametrize(
  "options",
  [
    {"weighting": "occurrence"},
    {"mix": 0.25},
    {"min_shared": 3},
    {"baseline": "node"},
  ],
)
def test_options_are_those_of_the_function(options):
  own = batch()
  settings = Salt(**options)
  defaults = dataclasses.asdict(Salt()) | options
  assert settings != Salt()
  found, target = settings(own, REWARD)
  expected = salt_step_advantages(
    REWARD,
    own.extra["edge"],
    own.extra["node"],
    own.valid,
    num_edges=8,
    **defaults,
  )
  assert target is None
  np.testing.assert_array_equal(
    found, spread_segments(expected, own.extra["turn"])
  )


def test_a_row_without_verdict_shares_nothing():
  own = batch(
    valid=jnp.array([True, True, False, True]),
    reward=REWARD.at[2].set(jnp.nan),
  )
  found = advantages("salt+grpo", own)
  assert not found[0].any(), "alone in its group"
  assert not found[2].any()
  assert np.isfinite(found).all()


def test_a_batch_without_the_graph_is_refused():
  with pytest.raises(ValueError, match="needs `edge`"):
    Salt()(batch(extra={}), REWARD)


@pytest.mark.parametrize(
  ("options", "message"),
  [({"mix": -0.1}, "mix must be in"), ({"min_shared": 0}, "min_shared must")],
)
def test_settings_are_checked(options, message):
  with pytest.raises(ValueError, match=message):
    Salt(**options)


def experiment(**changed):
  algorithm = algorithms.PolicyOptimisation(
    recipe=salt_parts.ARMS["salt+grpo"],
    sampler=salt_parts.EPISODES,
    group_size=4,
    optimiser=AdamW(learning_rate=1e-3),
    behaviour="same",
    reference=True,
  )
  return Experiment(
    name="maze",
    model=dataclasses.replace(
      salt_parts.MODEL,
      width=8,
      mlp=8,
      layers=1,
      attention=dataclasses.replace(
        salt_parts.MODEL.attention, heads=1, features=8
      ),
    ),
    data=salt_parts.prompts(rows=2),
    reward=salt_parts.REWARD,
    algorithm=dataclasses.replace(algorithm, **changed),
    steps=1,
  )


def test_an_experiment_is_read_as_it_was_written():
  own = experiment()
  written = to_dict(own)
  assert to_dict(from_dict(json.loads(json.dumps(written)))) == written


def test_a_reward_without_a_graph_is_refused():
  from rl_jax.rewards import Term, TextReward
  from rl_jax.rewards.verifiers import Exact

  reward = TextReward(terms=(Term(name="right", judge=Exact()),))
  with pytest.raises(ValueError, match=r"wants \['edge', 'node', 'turn'\]"):
    program(dataclasses.replace(experiment(), reward=reward))


@pytest.mark.slow
def test_a_step_of_the_program():
  """Sampled, replayed, put into a graph, and followed."""
  own = experiment()
  parts = own.algorithm.build(own, lambda start: None)
  state = jax.jit(parts.init, static_argnums=1)(jax.random.key(0), None)
  rows = items(own, jax.device_get(state.cursor))
  batch = jax.jit(parts.collect)(state, parts.frozen, rows)
  judged = jax.device_get(batch)
  judged = parts.score(judged)
  assert judged.valid.all()
  assert jax.tree.map(np.shape, judged.extra) == jax.tree.map(
    np.shape, batch.extra
  )
  assert (judged.extra["turn"] >= 0).tolist() == judged.mask.tolist()
  assert judged.metric["turns"].tolist() == [12] * 8
  # Somebody has to have opened the door.
  judged = judged._replace(reward=np.arange(8, dtype=np.float32))
  signals = jax.jit(parts.signals)(state, parts.frozen, batch)
  after, metrics = jax.jit(parts.update)(state, parts.frozen, (judged, signals))
  assert float(metrics["first_ratio"].mean()) == pytest.approx(1, abs=1e-6)
  assert float(metrics["sampler_gap"].mean()) < 1e-5
  # What all four did has the mean of their advantages.
  assert float(metrics["common_advantage"].mean()) < 1e-6
  assert float(metrics["absolute_advantage"].mean()) > 0.1
  moved = jax.tree.map(lambda a, b: jnp.any(a != b), after.params, state.params)
  assert all(jax.tree.leaves(moved))


def test_the_walks_of_the_warm_start_are_episodes_of_the_maze():
  walks, task = salt_parts.Walks(rows=1, length=60), salt_parts.mazes(1)
  rows = walks.source()[np.arange(60)]
  opened = 0
  for item, text in enumerate(rows["reference"]):
    path = text[::4]
    assert len(path) <= 12
    for turn in range(len(path)):
      seen = task.observe(item % 12, path[: turn + 1])
      shown = text[4 * turn + 1 : 4 * turn + 4]
      assert shown == ("" if turn + 1 == len(path) else seen.text)
    opened += seen.ended
    assert seen.ended or len(path) == 12
  assert 2 <= opened <= 20, "now and then, blindly"
  assert rows["prompt"][:2].tolist() == ["wsa-.", "wse-."]


def test_arms_differ_in_two_fields():
  plain = salt_parts.ARMS["grpo"]
  for name, recipe in salt_parts.ARMS.items():
    assert recipe.loss == plain.loss or recipe.loss.args == plain.loss.args
    kind = Salt if "salt" in name else EveryToken
    assert isinstance(recipe.credit.credit, kind)
  assert Raw() != plain.baseline


def test_groups_from_several_batches_may_have_the_same_numbers():
  """As those that waited for each other, each numbered by its own judge."""
  edge, node = EDGE.copy(), NODE.copy()
  for ids in (edge, node):
    for group in (0, 1):
      own = ids[group::2]
      own[own >= 0] -= own[own >= 0].min()
  assert set(edge[0::2].ravel()) & set(edge[1::2].ravel()) - {-1}
  same = batch(
    extra={
      "edge": jnp.asarray(edge),
      "node": jnp.asarray(node),
      "turn": jnp.asarray(TURN),
    }
  )
  for name in ("salt+grpo", "salt+rloo"):
    np.testing.assert_allclose(
      advantages(name, same), advantages(name), atol=1e-6
    )
