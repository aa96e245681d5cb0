from __future__ import annotations

import functools

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
REWARD = np.array([1.0, 0.0, 0.5])
TOKENS = np.array([3.0, 2.0, 4.0])
ROWS = 14


@functools.partial(jax.jit, static_argnums=(0, 1))
def _jitted(function, options, *inputs):
  return function(*inputs, num_groups=7, **dict(options))


def compute(function, *signals, group=None, valid=None, **options):
  """The function on a few rows, padded so that one shape serves all tests."""
  count = len(signals[0] if group is None else group)
  group = np.zeros(count, int) if group is None else group
  valid = np.ones(count, bool) if valid is None else valid

  def padded(value, fill, dtype):
    return jnp.full(ROWS, fill, dtype).at[:count].set(jnp.asarray(value, dtype))

  found = _jitted(
    function,
    tuple(options.items()),
    *(padded(signal, np.nan, jnp.float32) for signal in signals),
    padded(group, 0, jnp.int32),
    padded(valid, False, bool),
  )
  return np.asarray(found[:count])


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


def on_rows(function, rows, **options):
  return _jitted(function, tuple(options.items()), *rows["inputs"])


@pytest.mark.slow
def test_advantages_of_the_worked_example():
  found = compute(group_relative, REWARD, scale="group", ddof=1, epsilon=1e-6)
  np.testing.assert_allclose(found, [0.999998, -0.999998, 0.0], atol=1e-6)
  found = compute(group_relative, REWARD, **NONE)
  assert found.tolist() == [0.5, -0.5, 0.0]
  assert compute(leave_one_out, REWARD).tolist() == [0.75, -0.75, 0.0]
  found = compute(length_weighted_relative, REWARD, TOKENS)
  np.testing.assert_allclose(found, [4 / 9, -5 / 9, -1 / 18], **EXACT)
  found = compute(nonzero_relative, REWARD, count="reward")
  np.testing.assert_allclose(found, [0.75, -0.75, 0.0], **EXACT)


def test_leave_one_out_equals_the_mean_of_the_others(rows):
  found = on_rows(leave_one_out, rows)
  expected = oracles.without_one(rows["reward"], rows["group"], rows["valid"])
  np.testing.assert_allclose(found, expected, **EXACT)


@pytest.mark.slow
def test_leave_one_out_is_the_group_mean_stretched(rows):
  """RLOO = n / (n - 1) Dr. GRPO."""
  found = on_rows(leave_one_out, rows)
  centred = on_rows(group_relative, rows, **NONE)
  size = compute(group_size, group=rows["group"], valid=rows["valid"])
  stretch = jnp.where(size > 1, size / jnp.maximum(size - 1, 1), 0.0)
  np.testing.assert_allclose(found, stretch * centred, **EXACT)


@pytest.mark.slow
@pytest.mark.parametrize(("ddof", "epsilon"), [(0, 1e-4), (1, 0.0)])
def test_leave_one_out_scaled_equals_the_moments_of_the_others(
  rows, ddof, epsilon
):
  found = on_rows(leave_one_out_scaled, rows, ddof=ddof, epsilon=epsilon)
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
  found = compute(leave_one_out_scaled, reward, ddof=1, epsilon=0.0)
  np.testing.assert_allclose(found[3], -0.8, rtol=1e-6)
  spread = np.std(np.float64([0.9, 0.9, 0.1]), ddof=1)
  alone = 0.9 - (0.9 + 0.9 + 0.1) / 3
  np.testing.assert_allclose(found[:3], [alone / spread] * 3, rtol=1e-5)


def test_leave_one_out_scaled_far_from_zero():
  """Rewards of 4096 and quarters: the spread is a millionth of the square."""
  reward = np.array([4096.25, 4096.0, 4096.5, 4096.0, 4097.0])
  found = compute(leave_one_out_scaled, reward, ddof=1, epsilon=0.0)
  expected = oracles.without_one_scaled(
    reward, np.zeros(5), np.ones(5, bool), 1, 0.0
  )
  # The mean itself is rounded to 4096 * 2^-24 of the difference.
  np.testing.assert_allclose(found, expected, atol=2e-3)


def test_group_of_two_is_not_scaled_with_ddof_one():
  found = compute(leave_one_out_scaled, [3.0, 1.0], ddof=1, epsilon=0.0)
  assert found.tolist() == [2.0, -2.0]


def test_length_weighted_equals_the_weighted_mean(rows):
  tokens = np.where(rows["valid"], rows["tokens"], np.nan)
  found = compute(
    length_weighted_relative,
    rows["reward"],
    tokens,
    group=rows["group"],
    valid=rows["valid"],
  )
  expected = oracles.length_weighted(
    rows["reward"], rows["tokens"], rows["group"], rows["valid"]
  )
  equal = rows["group"] == 4
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
  assert (np.asarray(found)[equal] == 0).all()


def test_length_weighted_with_equal_lengths_is_the_group_mean(rows):
  found = compute(
    length_weighted_relative,
    rows["reward"],
    np.full(ROWS, 3.0),
    group=rows["group"],
    valid=rows["valid"],
  )
  expected = on_rows(group_relative, rows, **NONE)
  np.testing.assert_allclose(found, expected, **EXACT)


@pytest.mark.slow
def test_nonzero_scale_counts_what_it_says():
  reward = np.array([1.0, 0.0, 2.0, 2.0, 0.0, 0.0])
  found = functools.partial(
    compute, nonzero_relative, group=np.array([0, 0, 1, 1, 2, 2])
  )
  centred = np.array([0.5, -0.5, 0.0, 0.0, 0.0, 0.0])
  by_reward = found(reward, count="reward")
  np.testing.assert_allclose(by_reward, 6 / 3 * centred, **EXACT)
  by_advantage = found(reward, count="advantage")
  np.testing.assert_allclose(by_advantage, 6 / 2 * centred, **EXACT)
  shifted = found(reward + 8.0, count="advantage")
  np.testing.assert_allclose(shifted, by_advantage, **EXACT)


@pytest.mark.slow
@pytest.mark.parametrize(
  ("scale", "ddof"), [("none", 0), ("group", 1), ("global", 0)]
)
def test_best_minus_second_equals_the_loop(rows, scale, ddof):
  options = {"scale": scale, "ddof": ddof, "epsilon": 1e-6}
  found = on_rows(best_minus_second, rows, **options)
  expected = oracles.best(
    rows["reward"], rows["group"], rows["valid"], **options
  )
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_two_best_rows_add_nothing():
  found = compute(best_minus_second, [2.0, 2.0, 1.0], **NONE)
  assert found.tolist() == [0.0, 0.0, 0.0]


def test_best_minus_second_is_the_gradient_of_the_best_of_n():
  """A best row changes the maximum by what it has over the second best."""
  reward = np.array([3.0, 1.0, 2.5])
  found = compute(best_minus_second, reward, **NONE)
  expected = [reward.max() - np.delete(reward, i).max() for i in range(3)]
  np.testing.assert_allclose(found, np.maximum(expected, 0.0), **EXACT)


def test_informative_groups():
  metric = np.array([1.0, 0.0, 1.0, 1.0, 0.0, np.nan, 0.0, 1.0])
  found = compute(
    informative_groups,
    metric,
    group=np.array([0, 0, 1, 1, 2, 2, 3, 4]),
    valid=np.arange(8) != 5,
  )
  assert found.tolist() == [True, True] + [False] * 6


def test_group_size():
  found = compute(
    group_size, group=np.array([0, 2, 2, 0, 2]), valid=np.arange(5) != 4
  )
  assert found.tolist() == [2, 2, 2, 2, 2]


@pytest.mark.slow
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


@pytest.mark.slow
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
  inputs = jnp.ones(3), jnp.zeros(3, jnp.int32), jnp.ones(3, bool)
  with pytest.raises(ValueError, match=message):
    function(*inputs, **options)


@pytest.mark.parametrize("decay", [-0.5, 1.0])
def test_decay_out_of_range_raises(decay):
  with pytest.raises(ValueError, match=f"decay must be in .*{decay}"):
    update_moving_baseline(
      init_moving_baseline(), jnp.ones(2), jnp.ones(2, bool), decay=decay
    )
