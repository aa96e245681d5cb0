"""VeRPO in a recipe: its parts in their slots, and what it reports."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from algorithms.language import letters
from experiments import recipes
from rl_jax import advantages as pure
from rl_jax.algorithms.components import EveryToken
from rl_jax.algorithms.estimators.verpo import SuiteOutcome, Verpo
from rl_jax.algorithms.recipe import PolicyBatch
from rl_jax.launch.run import train
from rl_jax.rewards import Term, TextReward
from rl_jax.rewards.verifiers.per_test import PerTest, Suite
from rl_jax.rewards.verifiers.suite_notes import SuiteNote
from training import tiny

pytestmark = pytest.mark.slow

# Two prompts, ids far apart, rows in between each other; the last row does not
# count. Turns of two tokens, one of the environment's between them.
GROUP = jnp.array([90, 7, 90, 7, 90, 7])
VALID = jnp.arange(6) < 5
TURN_MASK = np.array([[1, 1], [1, 0], [1, 0], [1, 1], [1, 1], [1, 1]], bool)
TURN = np.where(TURN_MASK[:, [0, 0, 0, 1, 1]], [[0, 0, -1, 1, 1]], -1)
PASSED = np.array(
  [
    [[1, 0, 0], [1, 1, 1]],
    [[1, 0, 0], [0, 0, 0]],
    [[1, 1, 0], [0, 0, 0]],
    [[1, 1, 0], [1, 1, 0]],
    [[0, 0, 0], [1, 0, 0]],
    [[1, 1, 0], [1, 1, 0]],
  ],
  np.uint8,
)
TEST_MASK = np.arange(3) < np.array([3, 2, 3, 2, 3, 2])[:, None]
BLANK = jnp.zeros((6, 5))
BATCH = PolicyBatch(
  log_prob=BLANK,
  behaviour_log_prob=BLANK,
  mask=jnp.asarray(TURN >= 0),
  reward=jnp.full(6, jnp.nan),
  group=GROUP,
  valid=VALID,
  extra={
    "passed": jnp.asarray(PASSED),
    "turn_mask": jnp.asarray(TURN_MASK),
    "test_mask": jnp.asarray(TEST_MASK),
    "turn": jnp.asarray(TURN),
  },
)
VERPO = Verpo(discount=0.5, beta=0.25)


def recipe_of(verpo, **changes):
  return dataclasses.replace(
    recipes.dapo,
    shaping=(verpo.outcome,),
    baseline=verpo.trajectory,
    credit=verpo,
    rows=None,
    **changes,
  )


def by_hand(verpo, scale="none"):
  """Advantages of turns by the pure functions, with small ids."""
  mask = jnp.asarray(TURN_MASK) & VALID[:, None]
  group = jnp.asarray(np.where(np.asarray(GROUP) == 90, 0, 1))
  tests, passed = jnp.asarray(TEST_MASK), jnp.asarray(PASSED, jnp.float32)
  rate = pure.pass_rates(passed, mask, tests, group, num_groups=2)
  weight = pure.verpo_test_weights(
    rate,
    tests,
    alpha=verpo.alpha,
    sigma=verpo.sigma,
    delta=verpo.delta,
    density=verpo.density,
    sum_to_one=verpo.normaliser == "weight_sum",
  )
  outcome = pure.discounted_outcome(
    pure.suite_passed(passed, mask, tests),
    mask.sum(-1),
    discount=verpo.discount,
  )
  reward = pure.turn_rewards(passed, weight, mask, tests)
  advantage = pure.verpo_advantage(
    reward, outcome, mask, group, num_groups=2, beta=verpo.beta, scale=scale
  )
  return np.asarray(advantage), np.asarray(outcome), np.asarray(reward)


@pytest.mark.parametrize("normaliser", ["none", "std", "weight_sum"])
def test_every_token_of_a_turn_has_what_the_functions_say(normaliser):
  verpo = dataclasses.replace(VERPO, normaliser=normaliser)
  found = recipe_of(verpo).signals(BATCH, num_groups=100).advantage
  scale = "group" if normaliser == "std" else "none"
  turns, outcome, _ = by_hand(verpo, scale)
  np.testing.assert_allclose(outcome, [0.25, 0, 0, 0.25, 0, 0])
  for row, numbers in enumerate(TURN):
    for column, turn in enumerate(numbers):
      expected = turns[row, turn] if turn >= 0 and VALID[row] else 0.0
      assert found[row, column] == pytest.approx(expected, abs=1e-6)


def test_what_is_reported():
  recipe = recipe_of(VERPO)
  found = recipe.estimate(BATCH, num_groups=100).metric
  found = {name: float(total.mean()) for name, total in found.items()}
  turns, outcome, reward = by_hand(dataclasses.replace(VERPO, beta=0.0))
  whole, _, _ = by_hand(VERPO)
  counted = TURN_MASK & np.asarray(VALID)[:, None]
  assert found["verpo_trajectory_scale"] == pytest.approx(
    np.abs(turns)[counted].mean(), abs=1e-6
  )
  assert found["verpo_turn_scale"] == pytest.approx(
    np.abs(whole - turns)[counted].mean(), abs=1e-6
  )
  assert found["verpo_outcome_degenerate"] == 0.0
  assert found["verpo_degenerate"] == 0.0
  # Nobody passes all: the outcome says nothing and the tests still do.
  extra = BATCH.extra | {"passed": jnp.asarray(PASSED).at[:, :, 1].set(0)}
  failed = BATCH._replace(extra=extra)
  found = recipe.estimate(failed, num_groups=100).metric
  assert float(found["verpo_outcome_degenerate"].mean()) == 1.0
  assert float(found["verpo_degenerate"].mean()) == 0.5
  assert reward.shape == (*outcome.shape, 2)


def test_one_turn_needs_no_turn_numbers():
  extra = {
    "passed": jnp.asarray(PASSED[:, :1]),
    "turn_mask": jnp.ones((6, 1), bool),
    "test_mask": jnp.asarray(TEST_MASK),
  }
  batch = BATCH._replace(extra=extra)
  found = recipe_of(VERPO).signals(batch, num_groups=100).advantage
  mask = np.asarray(batch.mask & VALID[:, None])
  for row in range(5):
    assert np.ptp(np.asarray(found[row])[mask[row]]) == 0
  assert not np.asarray(found)[~mask].any()
  whole = BATCH._replace(
    extra={k: v for k, v in BATCH.extra.items() if k != "turn"}
  )
  with pytest.raises(ValueError, match="needs `turn`"):
    recipe_of(VERPO).signals(whole, num_groups=100)


def test_with_beta_zero_it_is_the_baseline_alone():
  plain = dataclasses.replace(VERPO, beta=0.0)
  found = recipe_of(plain).signals(BATCH, num_groups=100)
  other = dataclasses.replace(recipe_of(plain), credit=EveryToken())
  expected = other.signals(BATCH, num_groups=100)
  np.testing.assert_allclose(found.advantage, expected.advantage, atol=1e-7)


def test_another_baseline_is_added_to():
  """Nothing of the credit depends on who compared the trajectories."""
  changed = dataclasses.replace(
    recipe_of(VERPO), baseline=recipes.trl_grpo.baseline
  )
  found = changed.signals(BATCH, num_groups=100).advantage
  mine = recipe_of(VERPO).signals(BATCH, num_groups=100).advantage
  outcome = VERPO.outcome(BATCH, BATCH.reward)
  parts = [
    each.baseline(BATCH, outcome, num_groups=100)[:, None]
    for each in (changed, recipe_of(VERPO))
  ]
  mask = np.asarray(BATCH.mask & VALID[:, None])
  np.testing.assert_allclose(
    np.asarray(found - parts[0])[mask],
    np.asarray(mine - parts[1])[mask],
    atol=1e-6,
  )


def test_what_it_wants_is_checked_before_anything_runs():
  recipe = recipe_of(VERPO)
  recipe.check_given(frozenset(BATCH.extra))
  with pytest.raises(ValueError, match=r"wants \[.passed.\]"):
    recipe.check_given(frozenset(["turn_mask", "test_mask"]))


@pytest.mark.parametrize(
  "changes",
  [
    {"alpha": -1.0},
    {"delta": -1.0},
    {"beta": -1.0},
    {"sigma": 0.0},
    {"discount": 0.0},
    {"discount": 1.5},
  ],
)
def test_numbers_out_of_range(changes):
  with pytest.raises(ValueError, match=next(iter(changes))):
    Verpo(**changes)
  assert SuiteOutcome().discount == 1.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Letter:
  """A sandbox for programs that are letters: "any" and "is x" are its tests."""

  def prepare(self):
    pass

  def run(self, program):
    letters, _, test = program.removesuffix("\n").partition("\n")
    good = letters[:1] == test[-1:] if test.startswith("is") else letters
    return "" if good or not test else "AssertionError"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Suites(letters.Letters):
  """The letters, with two tests of each: any letter, and the right one."""

  def _item(self, index):
    prompt, answer = super()._item(index)
    return prompt, Suite(prompt, "", ("any", f"is {answer}"))


@pytest.mark.slow
def test_a_policy_learns_from_the_tests_of_a_suite(tmp_path):
  note = SuiteNote(
    judge=PerTest(sandbox=Letter(), seconds=1.0), tests=2, workers=0
  )
  experiment = letters.experiment(
    dataclasses.replace(letters.GRPO, recipe=recipe_of(Verpo())),
    data=dataclasses.replace(letters.prompts(), task=Suites()),
    reward=TextReward(
      terms=(Term(name="passes", judge=note.outcome),), notes=(note,)
    ),
    steps=40,
  )
  recorder, observers = tiny.watched()
  outcome = train(experiment, root=tmp_path, observers=observers)
  assert outcome.status == "finished"
  rows = [row.metrics for row in recorder.rows]
  assert rows[-1]["passes"] > rows[0]["passes"] + 0.2
  for row in rows:
    assert row["verpo_degenerate"] <= row["verpo_outcome_degenerate"]
  assert max(row["verpo_turn_scale"] for row in rows) > 0.1
