from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.divergences import k1
from rl_jax.rewards import (
  at_last_token,
  clipped_reward,
  kl_shaped,
  length_penalised,
  overlong_penalty,
  penalised_if_unfinished,
  relative_length_reward,
  replaced_if_unfinished,
)

EXACT = {"rtol": 1e-6, "atol": 1e-6}


def test_last_token_is_the_last_that_counts():
  """Tool output may follow it, and a row may be empty."""
  mask = jnp.array(
    [[True, False, True, False], [True] * 4, [False] * 4], dtype=bool
  )
  found = at_last_token(jnp.array([2.0, 3.0, jnp.nan]), mask)
  assert found.tolist() == [
    [0.0, 0.0, 2.0, 0.0],
    [0.0, 0.0, 0.0, 3.0],
    [0.0] * 4,
  ]


def test_token_rewards_of_the_language_ppo_paper():
  """log-ratios (.2, -.1), weight .05, score 1.5; not ended: -10 instead."""
  mask, zero = jnp.ones((2, 2), bool), jnp.zeros((2, 2))
  kl = k1(jnp.array([[0.2, -0.1]] * 2), zero, mask)
  score = replaced_if_unfinished(
    jnp.array([1.5, 1.5]), jnp.array([True, False]), replacement=-10.0
  )
  found = kl_shaped(at_last_token(score, mask), kl, mask, weight=0.05)
  np.testing.assert_allclose(found, [[-0.01, 1.505], [-0.01, -9.995]], **EXACT)
  np.testing.assert_allclose(found[0].sum(), 1.495, **EXACT)


@pytest.mark.slow
def test_token_rewards_sum_to_the_score_minus_the_kl():
  rng = np.random.default_rng(0)
  mask = jnp.arange(6)[None] < jnp.array([6, 3, 1])[:, None]
  kl = jnp.asarray(rng.normal(size=(3, 6)), jnp.float32)
  score = jnp.array([1.0, -2.0, 0.5])
  hidden = jnp.where(mask, kl, jnp.nan)
  found = kl_shaped(at_last_token(score, mask), hidden, mask, weight=0.25)
  expected = score - 0.25 * jnp.sum(jnp.where(mask, kl, 0.0), axis=-1)
  np.testing.assert_allclose(found.sum(axis=-1), expected, rtol=1e-5)


def test_weight_may_be_the_state_of_a_controller():
  mask, kl = jnp.ones((1, 2), bool), jnp.array([[0.5, -1.0]])
  reward = jnp.zeros((1, 2))
  found = kl_shaped(reward, kl, mask, weight=jnp.array(0.5))
  assert found.tolist() == kl_shaped(reward, kl, mask, weight=0.5).tolist()


def test_only_unfinished_responses_change():
  reward = jnp.array([1.5, 1.5, jnp.nan, jnp.nan])
  finished = jnp.array([True, False, True, False])
  replaced = replaced_if_unfinished(reward, finished, replacement=-10.0)
  np.testing.assert_array_equal(replaced, [1.5, -10.0, np.nan, -10.0])
  deducted = penalised_if_unfinished(reward, finished, penalty=0.5)
  np.testing.assert_array_equal(deducted, [1.5, 1.0, np.nan, np.nan])


def test_overlong_penalty_of_the_sheet():
  """20480 tokens, of which the last 4096 cost."""
  tokens = jnp.array([0.0, 16384.0, 18000.0, 20480.0, 30000.0])
  found = overlong_penalty(tokens, soft=16384.0, hard=20480.0, factor=1.0)
  np.testing.assert_allclose(found, [0, 0, -0.394531, -1, -1], **EXACT)
  doubled = overlong_penalty(tokens, soft=16384.0, hard=20480.0, factor=2.0)
  np.testing.assert_allclose(doubled, 2 * found, **EXACT)


def test_length_costs_by_the_token():
  reward, tokens = jnp.array([1.0, 1.0]), jnp.array([0.0, 64.0])
  found = length_penalised(reward, tokens, weight=0.03125)
  assert found.tolist() == [1.0, -1.0]


def test_relative_length_by_hand():
  """Group 0: lengths 10, 20, 30, 40; group 1 equally long; group 2 alone."""
  tokens = jnp.array([10.0, 20.0, 30.0, 40.0, 7.0, 7.0, 9.0, jnp.nan])
  correct = jnp.array([False, True, True, False, True, False, True, True])
  group = jnp.array([0, 0, 0, 0, 1, 1, 2, 0])
  found = relative_length_reward(
    tokens, correct, group, jnp.arange(8) < 7, num_groups=4
  )
  expected = [0.0, 1 / 6, -1 / 6, -0.5, 0.0, 0.0, 0.0, 0.0]
  np.testing.assert_allclose(found, expected, **EXACT)


def test_clipping_keeps_what_is_no_verdict():
  found = clipped_reward(jnp.array([-11.0, 0.5, jnp.nan]), low=-10.0, high=10.0)
  np.testing.assert_array_equal(found, [-10.0, 0.5, np.nan])


@pytest.mark.parametrize(
  ("call", "message"),
  [
    (
      lambda one: overlong_penalty(one, soft=8.0, hard=8.0, factor=1.0),
      r"soft < hard, got 8\.0 and 8\.0",
    ),
    (
      lambda one: overlong_penalty(one, soft=-1.0, hard=8.0, factor=1.0),
      r"soft < hard, got -1\.0 and 8\.0",
    ),
    (
      lambda one: overlong_penalty(one, soft=4.0, hard=8.0, factor=-1.0),
      r"factor must not be negative, got -1\.0",
    ),
    (
      lambda one: clipped_reward(one, low=1.0, high=-1.0),
      r"low must be below high, got 1\.0 and -1\.0",
    ),
    (
      lambda one: penalised_if_unfinished(one, one > 0, penalty=-1.0),
      r"penalty must not be negative, got -1\.0",
    ),
    (
      lambda one: kl_shaped(one, one, one > 0, weight=-0.5),
      r"weight must not be negative, got -0\.5",
    ),
    (
      lambda one: relative_length_reward(
        one, one > 0, one.astype(int), one > 0, num_groups=0
      ),
      r"num_groups must be at least 1, got 0",
    ),
  ],
)
def test_bad_options_raise(call, message):
  with pytest.raises(ValueError, match=message):
    call(jnp.ones(2))
