"""What baselines and spreads do to the expected gradient, by enumeration.

A softmax policy over three actions with fixed rewards: every group of four
responses is listed with its probability, so expectations are exact sums.
"""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.advantages import (
  above_baseline,
  best_minus_second,
  group_relative,
  leave_one_out,
  length_weighted_relative,
  whiten,
)

LOGITS = np.array([0.5, -0.25, 0.0])
POLICY = np.exp(LOGITS) / np.exp(LOGITS).sum()
REWARD = np.array([1.0, 0.0, 3.0])
SIZE = 4
GROUPS = np.array(list(itertools.product(range(3), repeat=SIZE)))
CHANCE = POLICY[GROUPS].prod(axis=1)
# d log pi(a) / d logits, by action.
SCORE = np.eye(3) - POLICY
EXACT_GRADIENT = POLICY @ (REWARD[:, None] * SCORE)
TOKENS = np.array([2.0, 5.0, 3.0])


def expected_gradient(estimator):
  """E over groups of the mean over rows of A_i d log pi(a_i)."""
  reward = jnp.asarray(REWARD[GROUPS], jnp.float32)
  advantage = np.asarray(jax.jit(jax.vmap(estimator))(reward), np.float64)
  per_group = np.einsum("gi,gid->gd", advantage, SCORE[GROUPS]) / SIZE
  return CHANCE @ per_group


def grouped(function, **options):
  ids, kept = jnp.zeros(SIZE, jnp.int32), jnp.ones(SIZE, bool)
  return lambda reward: function(reward, ids, kept, num_groups=1, **options)


def cosine(x, y):
  return x @ y / np.linalg.norm(x) / np.linalg.norm(y)


@pytest.mark.parametrize("baseline", [0.0, 1.25, -7.0])
def test_baseline_that_ignores_the_action_changes_nothing(baseline):
  def estimator(reward):
    kept = jnp.ones((SIZE, 1), bool)
    signal = above_baseline(reward[:, None], jnp.full(SIZE, baseline), kept)
    return signal[:, 0]

  found = expected_gradient(estimator)
  np.testing.assert_allclose(found, EXACT_GRADIENT, atol=1e-6)


def test_leave_one_out_is_unbiased():
  found = expected_gradient(grouped(leave_one_out))
  np.testing.assert_allclose(found, EXACT_GRADIENT, atol=1e-6)


def test_group_mean_gives_the_gradient_up_to_its_size():
  """It contains the row itself: (G - 1) / G of the gradient, no other bias."""
  found = expected_gradient(
    grouped(group_relative, scale="none", ddof=0, epsilon=0.0)
  )
  np.testing.assert_allclose(
    found, (SIZE - 1) / SIZE * EXACT_GRADIENT, atol=1e-6
  )


@pytest.mark.slow
@pytest.mark.parametrize("ddof", [0, 1])
def test_group_spread_is_biased_in_direction(ddof):
  """The step turns: no learning rate makes it the gradient again."""
  found = expected_gradient(
    grouped(group_relative, scale="group", ddof=ddof, epsilon=0.0)
  )
  assert 0 < cosine(found, EXACT_GRADIENT) < 0.999


@pytest.mark.parametrize("shift_mean", [True, False])
def test_whitening_is_biased_in_direction(shift_mean):
  def estimator(reward):
    return whiten(
      reward,
      jnp.ones(SIZE, bool),
      ddof=1,
      epsilon=1e-8,
      guard="inside_root",
      shift_mean=shift_mean,
    )

  found = expected_gradient(estimator)
  assert 0 < cosine(found, EXACT_GRADIENT) < 0.9999


def test_whitening_of_one_group_is_the_group_spread():
  """The same numbers but for where epsilon stands: the bias is the spread's."""
  white = expected_gradient(
    lambda reward: whiten(
      reward,
      jnp.ones(SIZE, bool),
      ddof=1,
      epsilon=0.0,
      guard="floor",
      shift_mean=True,
    )
  )
  relative = expected_gradient(
    grouped(group_relative, scale="group", ddof=1, epsilon=0.0)
  )
  np.testing.assert_allclose(white, relative, atol=1e-6)


@pytest.mark.slow
def test_length_weighted_baseline_is_biased_by_the_rows_own_share():
  """E b s_i is not zero: the baseline holds the reward of row i."""
  tokens = jnp.asarray(TOKENS[GROUPS], jnp.float32)
  reward = jnp.asarray(REWARD[GROUPS], jnp.float32)
  ids, kept = jnp.zeros(SIZE, jnp.int32), jnp.ones(SIZE, bool)
  advantage = jax.vmap(
    lambda r, t: length_weighted_relative(r, t, ids, kept, num_groups=1)
  )(reward, tokens)
  found = CHANCE @ (
    np.einsum("gi,gid->gd", np.float64(advantage), SCORE[GROUPS]) / SIZE
  )
  share = TOKENS[GROUPS] / TOKENS[GROUPS].sum(axis=1, keepdims=True)
  baseline = (share * REWARD[GROUPS]).sum(axis=1, keepdims=True)
  baseline = np.broadcast_to(baseline, share.shape)
  bias = CHANCE @ np.einsum("gi,gid->gd", baseline, SCORE[GROUPS])
  np.testing.assert_allclose(found, EXACT_GRADIENT - bias / SIZE, atol=1e-6)
  assert np.linalg.norm(found - EXACT_GRADIENT) > 0.01


def test_best_minus_second_is_the_gradient_of_the_expected_maximum():
  """d/dlogits E max_i r_i over groups, by enumeration of its own."""
  maximum = REWARD[GROUPS].max(axis=1)
  exact = CHANCE @ (maximum[:, None] * SCORE[GROUPS].sum(axis=1))
  found = SIZE * expected_gradient(
    grouped(best_minus_second, scale="none", ddof=0, epsilon=0.0)
  )
  np.testing.assert_allclose(found, exact, atol=1e-6)
