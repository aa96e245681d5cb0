"""TP-GRPO in a recipe, its labels from a note, and its off-policy rounds."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip(
  "tokenizers", reason="needs the extra `language` (tokenizers)"
)

from algorithms.language import letters
from experiments import recipes
from rl_jax.advantages.groups import group_relative
from rl_jax.advantages.tp_grpo import tp_grpo_advantage
from rl_jax.algorithms.components import WithinGroup
from rl_jax.algorithms.estimators.tp_grpo import TpGrpo
from rl_jax.algorithms.recipe import PolicyBatch
from rl_jax.rewards.verifiers.thought_rules import Markers
from rl_jax.rewards.verifiers.thoughts import Thoughts

pytestmark = pytest.mark.slow

STANDARDISED = WithinGroup(
  estimator=functools.partial(
    group_relative, scale="group", ddof=1, epsilon=1e-6
  )
)


def recipe(**settings):
  return dataclasses.replace(
    recipes.trl_grpo, baseline=STANDARDISED, credit=TpGrpo(**settings)
  )


# Two prompts, of which the second has an id above the number of rows, as a
# part of a batch may have; the last row has no labels and the one before no
# verdict.
CORRECT = np.array([1, 1, 0, 1, 0, 1, 0, 1], bool)
GROUP = np.array([0, 0, 0, 0, 40, 40, 40, 40])
VALID = np.array([1, 1, 1, 1, 1, 1, 0, 1], bool)
LABEL = np.array(
  [
    [1, 0, 1, -1],
    [0, 1, 0, 1],
    [1, 0, 1, 1],
    [1, 1, -1, -1],
    [0, 1, -1, -1],
    [0, 0, 1, -1],
    [0, 1, 1, -1],
    [-1, -1, -1, -1],
  ]
)
STEP = np.sort(np.random.default_rng(2).integers(0, 4, (8, 6)), axis=1)
STEP = np.where(np.sum(LABEL >= 0, axis=1)[:, None] > STEP, STEP, -1)
MASK = np.arange(6) < np.array([6, 5, 6, 4, 6, 6, 6, 6])[:, None]
BATCH = PolicyBatch(
  log_prob=jnp.zeros(MASK.shape),
  behaviour_log_prob=jnp.zeros(MASK.shape),
  mask=jnp.asarray(MASK),
  reward=jnp.asarray(np.where(VALID, 2.0 * CORRECT - 1, np.nan), jnp.float32),
  group=jnp.asarray(GROUP),
  valid=jnp.asarray(VALID),
  extra={
    "correct": jnp.asarray(CORRECT),
    "label": jnp.asarray(LABEL),
    "step": jnp.asarray(STEP),
  },
)


@pytest.fixture(scope="module")
def estimated():
  whole = recipe(alpha=0.5)
  return jax.jit(lambda batch: whole.estimate(batch, num_groups=41))(BATCH)


def test_advantages_are_those_of_the_function(estimated):
  # Shares of correct rows by hand: 3 of 4, and 2 of the 3 with a verdict.
  accuracy = np.where(GROUP == 0, 0.75, 2 / 3).astype(np.float32)
  relative = STANDARDISED(BATCH, BATCH.reward, num_groups=41)
  np.testing.assert_allclose(
    relative[:4], [0.5, 0.5, -1.5, 0.5], rtol=0, atol=1e-5
  )
  options = {"alpha": 0.5, "static_reward": None, "merge": True}
  expected = jax.jit(functools.partial(tp_grpo_advantage, **options))(
    relative,
    jnp.asarray(accuracy),
    BATCH.extra["correct"],
    BATCH.extra["label"],
    BATCH.extra["step"],
    BATCH.mask & BATCH.valid[:, None],
  )
  np.testing.assert_allclose(estimated.signals.advantage, expected, atol=1e-6)
  assert not estimated.signals.advantage[6:].any()
  assert estimated.signals.advantage[:6].any(axis=1).all()


def test_what_is_watched(estimated):
  """Counted by hand in the table above."""
  metric = estimated.metric
  assert {
    name: (float(x.value), float(x.weight)) for name, x in metric.items()
  } == {
    "tp_unlabelled": (1.0, 7.0),
    "tp_taken_back": (1.0 + 2 + 0 + 2, 3.0 + 4 + 2 + 3),
    "tp_mismatched": (1.0 + 1, 4.0 + 2),
    "tp_thoughts": (3.0 + 4 + 3 + 1 + 2 + 2, 6.0),
  }


@pytest.mark.parametrize(
  "settings",
  [{"alpha": -1.0}, {"alpha": float("inf")}, {"static_reward": -0.5}],
)
def test_bad_settings_are_refused(settings):
  with pytest.raises(ValueError, match="must be finite and not negative"):
    TpGrpo(**settings)


# Letters: "a" ends a step, "b" takes one back, "c" closes the thoughts.
NOTE = Thoughts(
  evaluator=Markers(ends=("a",), markers=("b",), word="[abd]"),
  steps=4,
  begin="",
  end="c",
)


def begun(notes=(NOTE,), **changes):
  algorithm = dataclasses.replace(
    letters.GRPO, recipe=recipe(), group_size=8, **changes
  )
  reward = letters.judged_by(letters.begins, notes=notes)
  return letters.Begun(letters.experiment(algorithm, reward=reward))


def test_without_a_note_the_program_is_not_built():
  with pytest.raises(ValueError, match=r"TpGrpo wants .*'correct'.*'label'"):
    begun(notes=())


@pytest.mark.slow
def test_a_round_is_drawn_by_one_policy_and_learnt_in_order():
  """What is drawn while the policy learns is what it drew all at once."""
  made = begun(refresh=3, behaviour="sampler")
  start = made.state
  at_once = [
    made.collect(start._replace(step=jnp.asarray(step, start.step.dtype)))
    for step in range(3)
  ]
  assert (at_once[0].extra["label"] >= 0).any()
  assert not np.array_equal(at_once[0].token, at_once[1].token)
  state = start
  for step, stored in enumerate(at_once):
    letters.equal(made.collect(state), stored)
    # Ratios are to the log-probabilities that are stored with the responses.
    state, metrics = made.update(stored, state)
    ratio = letters.means(metrics)["ratio"]
    assert (abs(ratio - 1.0) < 1e-5) == (step == 0)
    assert "tp_unlabelled" in metrics
  # Then the next round begins, with the policy as it is now.
  letters.equal(state.memory["behaviour"], state.params)
  assert not jax.tree.all(
    jax.tree.map(lambda x, y: bool((x == y).all()), state.params, start.params)
  )
