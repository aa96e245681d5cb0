"""Rewards of steps in a recipe: returns and generalized advantages of both."""

from __future__ import annotations

import dataclasses
import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import recipes
from experiments.process_rewards import clip_delta_chain
from rl_jax.advantages import discounted_returns, generalized_advantage
from rl_jax.advantages.multistep import length_adaptive_trace
from rl_jax.advantages.recursion import next_values
from rl_jax.algorithms.components import Generalized, ToGo
from rl_jax.algorithms.estimators.process_reward import (
  ProcessReward,
  reached_by,
)
from rl_jax.algorithms.recipe import PolicyBatch
from rl_jax.masks import last_valid

pytestmark = pytest.mark.slow

RNG = np.random.default_rng(6)
ROWS, TIME, STEPS = 8, 7, 5
LENGTH = RNG.integers(1, TIME + 1, ROWS)
MASK = np.arange(TIME) < LENGTH[:, None]
# Steps rise from 0; the last tokens of the first two rows are in none.
RISES = RNG.uniform(size=(ROWS, TIME)) < 0.5
RISES[:, 0] = False
STEP = np.cumsum(RISES, axis=1).clip(max=STEPS - 1)
STEP = np.where(MASK, STEP, -1)
LENGTH_OF_TWO = LENGTH[:2]
STEP[np.arange(2), LENGTH_OF_TWO - 1] = -1
COUNT = STEP.max(axis=1) + 1
THERE = np.arange(STEPS) < COUNT[:, None]
SCORE = RNG.uniform(size=(ROWS, STEPS)).astype(np.float32)
REWARD = RNG.integers(0, 2, ROWS).astype(np.float32)
VALUE = RNG.normal(size=(ROWS, TIME)).astype(np.float32)
BATCH = PolicyBatch(
  log_prob=jnp.zeros(MASK.shape),
  behaviour_log_prob=jnp.asarray(RNG.normal(size=MASK.shape), jnp.float32),
  reference_log_prob=jnp.zeros(MASK.shape),
  mask=jnp.asarray(MASK),
  reward=jnp.asarray(REWARD),
  group=jnp.zeros(ROWS, jnp.int32),
  valid=jnp.ones(ROWS, bool),
  behaviour_value=jnp.asarray(VALUE),
  extra={
    "step": jnp.asarray(STEP),
    "step_score": jnp.asarray(np.where(THERE, SCORE, np.nan)),
  },
)
TO_GO = ToGo(discount=1.0, kl_weight=0.0, bound=float("inf"))
EVERY = ("none", "clip", "delta", "clip_delta", "mean", "orm")


def by_hand(refine, *, alpha=0.3, eta=0.8, coefficient=2.0, kl=0.0):
  """Rewards of all tokens, the outcome at the end, written as a loop."""
  found = np.zeros((ROWS, TIME))
  for row in range(ROWS):
    score = SCORE[row, : COUNT[row]].astype(float)
    if refine.startswith("clip"):
      score = np.minimum(score - eta, 0.0)
    if refine.endswith("delta"):
      score = np.array([*score[:-1], 0.0])[: len(score)]
      score -= np.array([*score[1:], 0.0])[: len(score)]
    if refine == "mean":
      score /= max(len(score), 1)
    if refine == "orm":
      score[:-1] = 0.0
    for k, own in enumerate(score):
      found[row, np.flatnonzero(STEP[row] == k)[-1]] += alpha * own
    found[row, LENGTH[row] - 1] += coefficient * REWARD[row]
  nats = np.where(MASK, np.asarray(BATCH.behaviour_log_prob), 0.0)
  return jnp.asarray(found - kl * nats, jnp.float32)


@functools.partial(jax.jit, static_argnames="component")
def credited(component, batch):
  return component(batch, batch.reward)


def component(refine, **changes):
  settings = {"returns": TO_GO, "alpha": 0.3, "success_coef": 2.0}
  return ProcessReward(**(settings | {"refine": refine} | changes))


LAST = jnp.arange(TIME)[None] == last_valid(BATCH.mask)[:, None]


@pytest.fixture(scope="module")
def all_returns():
  return jax.jit(
    lambda batch: {
      refine: component(refine)(batch, batch.reward) for refine in EVERY
    }
  )(BATCH)


@pytest.mark.parametrize("refine", EVERY)
def test_returns_of_each_refinement(all_returns, refine):
  found, target = all_returns[refine]
  expected = discounted_returns(
    by_hand(refine), BATCH.mask, last=LAST, discount=1.0
  )
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=2e-6)
  assert target is None


def test_discount_and_kl_are_those_of_the_returns():
  returns = ToGo(discount=0.5, kl_weight=0.25, bound=float("inf"))
  found, _ = credited(component("none", returns=returns), BATCH)
  reward = by_hand("none", kl=0.25)
  expected = discounted_returns(reward, BATCH.mask, last=LAST, discount=0.5)
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize(
  "trace", [0.75, functools.partial(length_adaptive_trace, alpha=0.5)]
)
def test_generalized_advantages_of_all_rewards_together(trace):
  """A second way: the recursion over the sum of both rewards."""
  returns = Generalized(
    discount=0.9, trace=trace, target_trace=1.0, kl_weight=0.25
  )
  found, target = credited(component("clip_delta", returns=returns), BATCH)

  def together(trace):
    return generalized_advantage(
      by_hand("clip_delta", kl=0.25),
      BATCH.behaviour_value,
      next_values(BATCH.behaviour_value, BATCH.mask, last=LAST),
      BATCH.mask,
      terminated=LAST,
      last=LAST,
      discount=0.9,
      trace=trace,
    )

  own = trace(BATCH.mask) if callable(trace) else trace
  np.testing.assert_allclose(found, together(own), rtol=1e-5, atol=2e-6)
  expected = together(1.0) + np.where(MASK, VALUE, 0.0)
  np.testing.assert_allclose(target, expected, rtol=1e-5, atol=2e-6)


def test_what_the_clip_leaves_is_not_above_the_outcome(all_returns):
  found, _ = all_returns["clip_delta"]
  assert (np.asarray(found) <= 2.0 * REWARD[:, None] + 1e-6).all()


def test_a_threshold_read_from_the_batch():
  one = component("clip", reached=0.75)
  right = THERE & (REWARD > 0)[:, None]
  eta = float(np.quantile(SCORE[right], 0.25))
  found, _ = credited(one, BATCH)
  expected, _ = credited(component("clip", eta=eta), BATCH)
  np.testing.assert_allclose(found, expected, atol=1e-6)
  # Where nobody is right nobody falls short of what the right ones reach.
  wrong = BATCH._replace(reward=jnp.zeros(ROWS))
  np.testing.assert_array_equal(credited(one, wrong)[0], np.zeros(MASK.shape))


def test_what_is_watched():
  metric = jax.jit(
    lambda batch: component("clip").watch(batch, None, num_groups=1)
  )(BATCH)
  found = {name: float(total.mean()) for name, total in metric.items()}
  assert found == pytest.approx(
    {
      "steps": COUNT.mean(),
      "step_score": SCORE[THERE].mean(),
      "step_short": (SCORE[THERE] < 0.8).mean(),
    }
  )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Half:
  """A process reward model that always says a half; every token is a step."""

  def ask(self, view):
    mask = view.responses.mask
    step = jnp.where(mask, jnp.arange(mask.shape[1])[None], -1)
    return {"step": step, "step_score": jnp.full(mask.shape, 0.5)}


def test_scores_from_a_model_that_is_asked():
  settings = component("none", scores=Half())
  recipe = dataclasses.replace(recipes.reinforce_plus_plus, credit=settings)
  recipe.check_given(frozenset())
  view = types.SimpleNamespace(responses=types.SimpleNamespace(mask=BATCH.mask))
  batch = BATCH._replace(extra=recipe.ask(view))
  found, _ = credited(settings, batch)
  left = np.cumsum(MASK[:, ::-1], axis=1)[:, ::-1]
  expected = np.where(MASK, 0.15 * left + 2.0 * REWARD[:, None], 0.0)
  np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_without_scores_the_program_is_not_built():
  recipe = dataclasses.replace(
    recipes.reinforce_plus_plus, credit=component("none")
  )
  with pytest.raises(ValueError, match=r"ProcessReward wants .*step_score"):
    recipe.check_given(frozenset({"step"}))
  recipe.check_given(frozenset({"step", "step_score"}))


@pytest.mark.parametrize(
  ("changes", "said"),
  [
    ({"alpha": -0.1}, "alpha"),
    ({"success_coef": float("nan")}, "success_coef"),
    ({"eta": 1.5}, "eta must be"),
    ({"reached": -0.5}, "reached must be"),
  ],
)
def test_bad_settings_are_refused(changes, said):
  with pytest.raises(ValueError, match=said):
    component("clip", **changes)


def test_threshold_is_a_quantile_of_what_counts():
  values, scores = SCORE[THERE], BATCH.extra["step_score"]
  for fraction in (0.0, 0.3, 0.9, 1.0):
    found = reached_by(scores, jnp.asarray(THERE), fraction=fraction)
    expected = np.quantile(values, 1 - fraction)
    assert float(found) == pytest.approx(expected, abs=1e-6)
  nobody = reached_by(
    jnp.full((2, 3), jnp.nan), jnp.zeros((2, 3), bool), fraction=0.9
  )
  assert float(nobody) == 0.0

  with pytest.raises(ValueError, match=r"fraction must be .* 1\.5"):
    reached_by(jnp.asarray(SCORE), jnp.asarray(THERE), fraction=1.5)


@pytest.mark.slow
def test_the_chain_of_the_specification_keeps_its_thresholds():
  found = clip_delta_chain.of_seeds(2)
  assert clip_delta_chain.failures(found) == []
  # And the thresholds can be missed.
  hacked = found | {"clip": found["raw"], "delta": found["raw"]}
  assert len(clip_delta_chain.failures(hacked)) == 3
