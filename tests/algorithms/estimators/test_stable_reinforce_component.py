"""StableReinforce as a recipe: its filter, its report, its bounded ratio."""

from __future__ import annotations

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.advantages import whiten
from rl_jax.algorithms.estimators.stable_reinforce import (
  FilteredWhitening,
  StableReinforce,
)
from rl_jax.algorithms.recipe import PolicyBatch
from rl_jax.losses import clipped_policy_terms

pytestmark = pytest.mark.slow

ROWS, TIME = 64, 4


def batch(reward, fault=None):
  rng = np.random.default_rng(0)
  behaviour = -rng.exponential(1.0, (ROWS, TIME)).astype(np.float32)
  log_prob = behaviour + 0.05 * rng.normal(size=behaviour.shape)
  if fault is not None:
    behaviour[fault] -= 120.0
  mask = np.arange(TIME) < rng.integers(1, TIME + 1, ROWS)[:, None]
  return PolicyBatch(
    log_prob=jnp.asarray(log_prob, jnp.float32),
    behaviour_log_prob=jnp.asarray(behaviour),
    mask=jnp.asarray(mask),
    reward=jnp.asarray(reward, jnp.float32),
    group=jnp.arange(ROWS),
    valid=jnp.ones(ROWS, bool),
    reference_log_prob=jnp.asarray(behaviour) - 0.1,
  )


def once_wrong():
  reward = np.ones(ROWS)
  reward[5] = 0.0
  return reward


@partial(jax.jit, static_argnames=("recipe",))
def objective(log_prob, batch, recipe):
  given = batch._replace(log_prob=log_prob)
  return recipe.totals(given, num_groups=ROWS).objective()


def test_the_rare_mistake_is_dropped_and_reported():
  rows = batch(once_wrong())
  estimated = StableReinforce().recipe.estimate(rows, num_groups=ROWS)
  advantage = np.asarray(estimated.signals.advantage)
  assert not advantage[5].any()
  others = np.delete(np.asarray(rows.mask), 5, axis=0)
  assert (np.delete(advantage, 5, axis=0)[others] > 0).all()
  share = rows.mask[5].sum() / rows.mask.sum()
  np.testing.assert_allclose(
    estimated.metric["filtered"].mean(), share, rtol=1e-6
  )


def test_a_batch_without_differences_has_dropped_nothing():
  estimated = StableReinforce().recipe.estimate(
    batch(np.ones(ROWS)), num_groups=ROWS
  )
  assert estimated.metric["filtered"].mean() == 0


def test_without_its_additions_it_is_reinforce_plus_plus():
  reward = np.random.default_rng(1).integers(0, 2, ROWS)
  rows = batch(reward)
  plain = StableReinforce(bound=1e6, low=1e-9, high=1e9, kl_weight=0.01).recipe
  other = dataclasses.replace(
    plain,
    whitening=partial(
      whiten, ddof=0, epsilon=1e-8, guard="floor", shift_mean=True
    ),
    loss=partial(clipped_policy_terms, clip_low=0.2, clip_high=0.2),
  )
  found = [
    jax.value_and_grad(objective)(rows.log_prob, rows, recipe)
    for recipe in (plain, other)
  ]
  np.testing.assert_allclose(*(value for value, _ in found), rtol=1e-5)
  np.testing.assert_allclose(*(slope for _, slope in found), atol=1e-6)


def test_a_mismatch_of_the_sampler_breaks_the_one_and_not_the_other():
  """One response recorded as 120 nats less likely than it was."""
  reward = np.random.default_rng(1).integers(0, 2, ROWS)
  fault = int(np.flatnonzero(reward == 0)[0])
  rows = batch(reward, fault)
  stable = StableReinforce().recipe
  value, slope = jax.value_and_grad(objective)(rows.log_prob, rows, stable)
  assert np.isfinite(value)
  assert np.isfinite(slope).all()
  assert not np.asarray(slope)[fault].any()
  bare = dataclasses.replace(
    stable, loss=partial(clipped_policy_terms, clip_low=0.2, clip_high=0.2)
  )
  value, slope = jax.value_and_grad(objective)(rows.log_prob, rows, bare)
  assert value == np.inf
  assert not np.isfinite(slope).all()


def test_bad_settings():
  with pytest.raises(ValueError, match="bound must be positive"):
    FilteredWhitening(bound=0.0)
  for bounds in ({"low": 0.0}, {"low": -6.9}, {"high": 1.0}):
    with pytest.raises(ValueError, match="0 < low < 1 < high"):
      StableReinforce(**bounds)
