from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from advantages import oracles
from rl_jax.advantages import (
  above_baseline,
  best_minus_second,
  discounted_returns,
  group_relative,
  group_size,
  informative_groups,
  init_moving_baseline,
  leave_one_out,
  leave_one_out_scaled,
  length_weighted_relative,
  nonzero_relative,
  update_moving_baseline,
)
from rl_jax.rewards import at_last_token

EXACT = {"rtol": 1e-6, "atol": 1e-6}
NONE = {"scale": "none", "ddof": 1, "epsilon": 0.0}

# The worked example of the sheet: one group of three, lengths 3, 2, 4.
REWARD = jnp.array([1.0, 0.0, 0.5])
TOKENS = jnp.array([3.0, 2.0, 4.0])
ONE_GROUP = jnp.zeros(3, jnp.int32), jnp.ones(3, bool)


@pytest.fixture(scope="module")
def rows():
  """Ragged, interleaved groups: one empty, one alone, one of equal rewards."""
  rng = np.random.default_rng(2)
  group = np.array([0, 1, 2, 0, 5, 1, 0, 4, 4, 1, 4, 0, 2, 1])
  reward = rng.normal(size=14).astype(np.float32)
  reward[group == 4] = np.float32(0.1)
  valid = np.ones(14, bool)
  valid[[3, 9, 12]] = False
  tokens = rng.integers(0, 6, 14).astype(np.float32)
  unseen = np.where(valid, reward, np.nan).astype(np.float32)
  return {
    "reward": reward.astype(np.float64),
    "tokens": tokens,
    "group": group,
    "valid": valid,
    "inputs": tuple(map(jnp.asarray, (unseen, group.astype(np.int32), valid))),
  }


def test_advantages_of_the_worked_example():
  inputs = REWARD, *ONE_GROUP
  found = group_relative(
    *inputs, num_groups=1, scale="group", ddof=1, epsilon=1e-6
  )
  np.testing.assert_allclose(found, [0.999998, -0.999998, 0.0], atol=1e-6)
  found = group_relative(*inputs, num_groups=1, **NONE)
  assert found.tolist() == [0.5, -0.5, 0.0]
  assert leave_one_out(*inputs, num_groups=1).tolist() == [0.75, -0.75, 0.0]
  found = length_weighted_relative(REWARD, TOKENS, *ONE_GROUP, num_groups=1)
  np.testing.assert_allclose(found, [4 / 9, -5 / 9, -1 / 18], **EXACT)
  found = nonzero_relative(*inputs, num_groups=1, count="reward")
  np.testing.assert_allclose(found, [0.75, -0.75, 0.0], **EXACT)


def test_leave_one_out_equals_the_mean_of_the_others(rows):
  found = leave_one_out(*rows["inputs"], num_groups=7)
  expected = oracles.without_one(rows["reward"], rows["group"], rows["valid"])
  np.testing.assert_allclose(found, expected, **EXACT)


def test_leave_one_out_is_the_group_mean_stretched(rows):
  """RLOO = n / (n - 1) Dr. GRPO."""
  found = leave_one_out(*rows["inputs"], num_groups=7)
  centred = group_relative(*rows["inputs"], num_groups=7, **NONE)
  size = group_size(*rows["inputs"][1:], num_groups=7)
  stretch = jnp.where(size > 1, size / jnp.maximum(size - 1, 1), 0.0)
  np.testing.assert_allclose(found, stretch * centred, **EXACT)


@pytest.mark.parametrize(("ddof", "epsilon"), [(0, 1e-4), (1, 0.0)])
def test_leave_one_out_scaled_equals_the_moments_of_the_others(
  rows, ddof, epsilon
):
  found = leave_one_out_scaled(
    *rows["inputs"], num_groups=7, ddof=ddof, epsilon=epsilon
  )
  expected = oracles.without_one_scaled(
    rows["reward"], rows["group"], rows["valid"], ddof, epsilon
  )
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_leave_one_out_scaled_does_not_cancel():
  """One row unlike the others, which are equal: they have no spread at all.

  Mean square minus squared mean, the peer's way, leaves rounding noise of
  three times 0.9 in float32, and an advantage beyond a thousand.
  """
  reward = np.array([0.9, 0.9, 0.9, 0.1], np.float32)
  third = np.float32(3.0)
  square, mean = np.sum(reward[:3] ** 2) / third, np.sum(reward[:3]) / third
  noise = np.sqrt((square - mean**2) * third / 2)
  assert (reward[3] - mean) / noise < -1000
  inputs = jnp.asarray(reward), jnp.zeros(4, jnp.int32), jnp.ones(4, bool)
  found = leave_one_out_scaled(*inputs, num_groups=1, ddof=1, epsilon=0.0)
  np.testing.assert_allclose(found[3], -0.8, rtol=1e-6)
  spread = np.std(np.float64([0.9, 0.9, 0.1]), ddof=1)
  alone = 0.9 - (0.9 + 0.9 + 0.1) / 3
  np.testing.assert_allclose(found[:3], [alone / spread] * 3, rtol=1e-5)


def test_leave_one_out_scaled_far_from_zero():
  """Rewards of 4096 and quarters: the spread is a millionth of the square."""
  reward = np.array([4096.25, 4096.0, 4096.5, 4096.0, 4097.0])
  inputs = (
    jnp.asarray(reward, jnp.float32),
    jnp.zeros(5, jnp.int32),
    jnp.ones(5, bool),
  )
  found = leave_one_out_scaled(*inputs, num_groups=1, ddof=1, epsilon=0.0)
  expected = oracles.without_one_scaled(
    reward, np.zeros(5), np.ones(5, bool), 1, 0.0
  )
  # The mean itself is rounded to 4096 * 2^-24 of the difference.
  np.testing.assert_allclose(found, expected, atol=2e-3)


def test_group_of_two_is_not_scaled_with_ddof_one():
  inputs = jnp.array([3.0, 1.0]), jnp.zeros(2, jnp.int32), jnp.ones(2, bool)
  found = leave_one_out_scaled(*inputs, num_groups=1, ddof=1, epsilon=0.0)
  assert found.tolist() == [2.0, -2.0]


def test_length_weighted_equals_the_weighted_mean(rows):
  reward, group, valid = rows["inputs"]
  tokens = jnp.where(valid, jnp.asarray(rows["tokens"]), jnp.nan)
  found = length_weighted_relative(reward, tokens, group, valid, num_groups=7)
  expected = oracles.length_weighted(
    rows["reward"], rows["tokens"], rows["group"], rows["valid"]
  )
  equal = rows["group"] == 4
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
  assert (np.asarray(found)[equal] == 0).all()


def test_length_weighted_with_equal_lengths_is_the_group_mean(rows):
  reward, group, valid = rows["inputs"]
  found = length_weighted_relative(
    reward, jnp.full(14, 3.0), group, valid, num_groups=7
  )
  expected = group_relative(*rows["inputs"], num_groups=7, **NONE)
  np.testing.assert_allclose(found, expected, **EXACT)


def test_nonzero_scale_counts_what_it_says():
  reward = jnp.array([1.0, 0.0, 2.0, 2.0, 0.0, 0.0, jnp.nan])
  group = jnp.array([0, 0, 1, 1, 2, 2, 2])
  inputs = reward, group, jnp.arange(7) < 6
  centred = jnp.array([0.5, -0.5, 0.0, 0.0, 0.0, 0.0, 0.0])
  by_reward = nonzero_relative(*inputs, num_groups=3, count="reward")
  np.testing.assert_allclose(by_reward, 6 / 3 * centred, **EXACT)
  by_advantage = nonzero_relative(*inputs, num_groups=3, count="advantage")
  np.testing.assert_allclose(by_advantage, 6 / 2 * centred, **EXACT)
  shifted = (reward + 8.0, *inputs[1:])
  found = nonzero_relative(*shifted, num_groups=3, count="advantage")
  np.testing.assert_allclose(found, by_advantage, **EXACT)


@pytest.mark.parametrize("scale", ["none", "group", "global"])
@pytest.mark.parametrize("ddof", [0, 1])
def test_best_minus_second_equals_the_loop(rows, scale, ddof):
  options = {"scale": scale, "ddof": ddof, "epsilon": 1e-6}
  found = best_minus_second(*rows["inputs"], num_groups=7, **options)
  expected = oracles.best(
    rows["reward"], rows["group"], rows["valid"], **options
  )
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("scale", ["none", "group", "global"])
@pytest.mark.parametrize("ddof", [0, 1])
def test_group_relative_equals_the_loop(rows, scale, ddof):
  options = {"scale": scale, "ddof": ddof, "epsilon": 1e-6}
  found = group_relative(*rows["inputs"], num_groups=7, **options)
  expected = oracles.relative(
    rows["reward"], rows["group"], rows["valid"], **options
  )
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_group_relative_does_not_change_with_scale_and_shift(rows):
  reward, group, valid = rows["inputs"]
  options = {"num_groups": 7, "scale": "group", "ddof": 1, "epsilon": 0.0}
  found = group_relative(4.0 * reward + 2.0, group, valid, **options)
  expected = group_relative(reward, group, valid, **options)
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
  total = jax.ops.segment_sum(found, group, 7)
  np.testing.assert_allclose(total, np.zeros(7), atol=1e-5)


def test_two_best_rows_add_nothing():
  found = best_minus_second(
    jnp.array([2.0, 2.0, 1.0]), *ONE_GROUP, num_groups=1, **NONE
  )
  assert found.tolist() == [0.0, 0.0, 0.0]


def test_best_minus_second_is_the_gradient_of_the_best_of_n():
  """A best row changes the maximum by what it has over the second best."""
  reward = np.array([3.0, 1.0, 2.5])
  found = best_minus_second(
    jnp.asarray(reward, jnp.float32), *ONE_GROUP, num_groups=1, **NONE
  )
  expected = [reward.max() - np.delete(reward, i).max() for i in range(3)]
  np.testing.assert_allclose(found, np.maximum(expected, 0.0), **EXACT)


def test_informative_groups():
  metric = jnp.array([1.0, 0.0, 1.0, 1.0, 0.0, jnp.nan, 0.0, 1.0])
  group = jnp.array([0, 0, 1, 1, 2, 2, 3, 4])
  valid = jnp.ones(8, bool).at[5].set(False)
  found = informative_groups(metric, group, valid, num_groups=6)
  assert found.tolist() == [True, True] + [False] * 6


def test_group_size():
  group, valid = jnp.array([0, 2, 2, 0, 2]), jnp.arange(5) != 4
  assert group_size(group, valid, num_groups=3).tolist() == [2, 2, 2, 2, 2]


def test_reinforce_with_a_greedy_baseline():
  """ReMax by hand: returns of a score 1 at the end, minus the greedy score."""
  mask = jnp.array([[True, True, True], [True, False, False]])
  last = jnp.array([[False, False, True], [True, False, True]])
  score, greedy = jnp.array([1.0, 0.0]), jnp.array([0.25, 0.5])
  signal = discounted_returns(
    at_last_token(score, mask), mask, last=last, discount=1.0
  )
  found = above_baseline(signal, greedy, mask)
  assert found.tolist() == [[0.75, 0.75, 0.75], [-0.5, 0.0, 0.0]]


def test_moving_baseline_is_the_weighted_average_of_the_past():
  rng = np.random.default_rng(0)
  batches, decay = rng.normal(size=(5, 4)), 0.75
  state, kept = init_moving_baseline(), jnp.ones(4, bool)
  for count, batch in enumerate(batches, start=1):
    state = update_moving_baseline(
      state, jnp.asarray(batch, jnp.float32), kept, decay=decay
    )
    weight = decay ** np.arange(count)[::-1]
    average = np.sum(weight * batches[:count].mean(axis=1)) / weight.sum()
    np.testing.assert_allclose(state.mean, average, rtol=1e-5)


def test_constant_reward_is_its_own_moving_baseline():
  state, reward = init_moving_baseline(), jnp.array([0.7, jnp.nan])
  for _ in range(3):
    state = update_moving_baseline(
      state, reward, jnp.array([True, False]), decay=0.99
    )
    np.testing.assert_allclose(state.mean, 0.7, rtol=1e-6)


def test_batch_without_rows_leaves_the_moving_baseline_alone():
  state = update_moving_baseline(
    init_moving_baseline(), jnp.array([2.0]), jnp.array([True]), decay=0.5
  )
  after = update_moving_baseline(
    state, jnp.array([jnp.nan]), jnp.array([False]), decay=0.5
  )
  assert after == state


@pytest.mark.parametrize(
  ("function", "options"),
  [
    (leave_one_out, {}),
    (leave_one_out_scaled, {"ddof": 1, "epsilon": 0.0}),
    (best_minus_second, NONE),
  ],
)
def test_one_row_cannot_be_compared(function, options):
  row = jnp.ones(1), jnp.zeros(1, jnp.int32), jnp.ones(1, bool)
  with pytest.raises(ValueError, match=r"two rows.*got 1"):
    function(*row, num_groups=1, **options)


@pytest.mark.parametrize(
  ("function", "options", "message"),
  [
    (leave_one_out, {"num_groups": 0}, "num_groups must be .* got 0"),
    (
      leave_one_out_scaled,
      {"num_groups": 0, "ddof": 1, "epsilon": 0.0},
      "num_groups must be .* got 0",
    ),
    (
      leave_one_out_scaled,
      {"num_groups": 1, "ddof": 2, "epsilon": 0.0},
      "ddof must be 0 or 1, got 2",
    ),
    (
      leave_one_out_scaled,
      {"num_groups": 1, "ddof": 1, "epsilon": -1.0},
      "epsilon must not be negative, got -1",
    ),
    (
      best_minus_second,
      {"num_groups": 0, **NONE},
      "num_groups must be .* got 0",
    ),
    (informative_groups, {"num_groups": 0}, "num_groups must be .* got 0"),
  ],
)
def test_bad_options_raise(function, options, message):
  with pytest.raises(ValueError, match=message):
    function(REWARD, *ONE_GROUP, **options)


@pytest.mark.parametrize("decay", [-0.5, 1.0])
def test_decay_out_of_range_raises(decay):
  with pytest.raises(ValueError, match=f"decay must be in .*{decay}"):
    update_moving_baseline(
      init_moving_baseline(), REWARD, ONE_GROUP[1], decay=decay
    )
