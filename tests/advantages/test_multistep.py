from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from advantages import oracles
from advantages.records import (
  SCANNED,
  arrays,
  by_row,
  consistent,
  flags,
  make_batch,
)
from rl_jax.advantages import (
  carried_back,
  discounted_returns,
  following,
  generalized_advantage,
  lambda_returns,
  length_adaptive_trace,
  next_values,
)
from rl_jax.masks import keep
from rl_jax.rewards import at_last_token

TRUE3, FALSE3 = jnp.ones(3, bool), jnp.zeros(3, bool)
END = jnp.array([False, False, True])


@pytest.fixture(scope="module")
def batch():
  return make_batch()


# The case of the style sheet: r = [1, 2, 3], v = 1/2, v' = [1/2, 1/2, 9],
# discount 1/2, trace 1, worked by hand from the end.
BY_HAND = [(END, [2.25, 3.0, 2.5]), (FALSE3, [3.375, 5.25, 7.0])]


@pytest.mark.slow
@pytest.mark.parametrize(("terminated", "expected"), BY_HAND)
def test_advantage_by_hand(terminated, expected):
  found = generalized_advantage(
    jnp.array([1.0, 2.0, 3.0]),
    jnp.full(3, 0.5),
    jnp.array([0.5, 0.5, 9.0]),
    TRUE3,
    terminated=terminated,
    last=END,
    discount=0.5,
    trace=1.0,
  )
  assert found.tolist() == expected


@pytest.mark.slow
def test_two_records_packed_in_one_row_give_the_same_twice():
  both = [(FALSE3, BY_HAND[1][1]), (END, BY_HAND[0][1])]
  found = generalized_advantage(
    jnp.array([1.0, 2.0, 3.0] * 2),
    jnp.full(6, 0.5),
    jnp.array([0.5, 0.5, 9.0, 0.5, 0.5, jnp.nan]),
    jnp.ones(6, bool),
    terminated=jnp.concatenate([end for end, _ in both]),
    last=jnp.concatenate([END, END]),
    discount=0.5,
    trace=1.0,
  )
  assert found.tolist() == [x for _, expected in both for x in expected]


def test_tool_output_in_the_middle_takes_no_time():
  """Columns put between the tokens of a record change none of its numbers."""
  at = jnp.array([0, 2, 5])
  hole = jnp.full(6, jnp.nan)
  end = jnp.zeros(6, bool).at[5].set(True)
  found = generalized_advantage(
    hole.at[at].set(jnp.array([1.0, 2.0, 3.0])),
    hole.at[at].set(0.5),
    hole.at[at].set(jnp.array([0.5, 0.5, 9.0])),
    jnp.zeros(6, bool).at[at].set(True),
    terminated=jnp.zeros(6, bool),
    last=end,
    discount=0.5,
    trace=1.0,
  )
  assert found[at].tolist() == [3.375, 5.25, 7.0]
  assert found.sum() == found[at].sum()


def test_record_that_ends_in_tool_output_ends_there():
  mask = jnp.array([True, False, True])
  last = jnp.array([False, True, True])
  found = discounted_returns(jnp.ones(3), mask, last=last, discount=1.0)
  assert found.tolist() == [1.0, 0.0, 1.0]
  assert next_values(jnp.ones(3), mask, last=last).tolist() == [0.0, 0.0, 0.0]


def test_time_passes_in_the_middle_when_every_column_counts():
  """The other mask semantics, composed: r, V zero outside, plain recursion."""
  mask = jnp.array([True, False, True])
  reward = keep(jnp.array([0.0, jnp.nan, 4.0]), mask)
  value = keep(jnp.array([1.0, jnp.nan, 2.0]), mask)
  # d = (0 + 0 - 1, 0 + 2/2 - 0, 4 - 2); A_2 = 2, A_1 = 1 + 2/2, A_0 = -1 + 1.
  found = generalized_advantage(
    reward,
    value,
    following(value, last=FALSE3),
    TRUE3,
    terminated=END,
    last=END,
    discount=0.5,
    trace=1.0,
  )
  assert keep(found, mask).tolist() == [0.0, 0.0, 2.0]


@pytest.mark.slow
def test_worked_example_of_the_sheet():
  """Lengths 3, 2, 4, discount 1, trace .95; computed outside this library."""
  lengths = jnp.array([3, 2, 4])
  mask = jnp.arange(4)[None] < lengths[:, None]
  end = jnp.arange(4)[None] == lengths[:, None] - 1
  nan = jnp.nan
  value = jnp.array(
    [[0.2, 0.4, 0.6, nan], [0.1, 0.1, nan, nan], [0.3, 0.2, 0.5, 0.4]]
  )
  reward = at_last_token(jnp.array([1.0, 0.0, 0.5]), mask)
  found = generalized_advantage(
    reward,
    value,
    next_values(value, mask, last=end),
    mask,
    terminated=end,
    last=end,
    discount=1.0,
    trace=0.95,
  )
  expected = [
    [0.751, 0.58, 0.4, 0.0],
    [-0.095, -0.1, 0.0, 0.0],
    [0.180488, 0.29525, -0.005, 0.1],
  ]
  np.testing.assert_allclose(found, expected, atol=1e-6)
  returns = [
    [0.951, 0.98, 1.0, 0.0],
    [0.005, 0.0, 0.0, 0.0],
    [0.480488, 0.49525, 0.495, 0.5],
  ]
  np.testing.assert_allclose(found + keep(value, mask), returns, atol=1e-6)


def test_worked_example_of_the_language_ppo_paper():
  """Unpacking DPO and PPO: r = (-.01, 1.505), V = (1, 1.2), trace .95."""
  end = jnp.array([False, True])
  found = generalized_advantage(
    jnp.array([-0.01, 1.505]),
    jnp.array([1.0, 1.2]),
    jnp.array([1.2, jnp.nan]),
    jnp.ones(2, bool),
    terminated=end,
    last=end,
    discount=1.0,
    trace=0.95,
  )
  np.testing.assert_allclose(found, [0.47975, 0.305], atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("trace", [0.0, 0.75, 1.0])
def test_advantage_equals_the_double_sum(batch, trace):
  found = generalized_advantage(
    *arrays(batch, "reward", "value", "next_value"),
    jnp.asarray(batch["mask"]),
    **flags(batch, "terminated", "last"),
    discount=0.9,
    trace=trace,
  )
  names = ("reward", "value", "next_value", "mask", "terminated", "last")
  expected = by_row(oracles.advantage, batch, names, discount=0.9, trace=trace)
  np.testing.assert_allclose(found, expected, **SCANNED)


def test_trace_by_row_is_each_row_with_its_own(batch):
  trace = jnp.linspace(0.0, 1.0, 6)
  call = functools.partial(
    generalized_advantage, discount=0.9, **flags(batch, "terminated", "last")
  )
  inputs = (
    *arrays(batch, "reward", "value", "next_value"),
    jnp.asarray(batch["mask"]),
  )
  found = call(*inputs, trace=trace)
  for row in (0, 3, 5):
    alone = call(*inputs, trace=float(trace[row]))[row]
    np.testing.assert_allclose(found[row], alone, **SCANNED)


def test_returns_equal_the_double_sum(batch):
  found = discounted_returns(
    *arrays(batch, "reward"),
    jnp.asarray(batch["mask"]),
    **flags(batch, "last"),
    discount=0.9,
  )
  expected = by_row(
    oracles.returns, batch, ("reward", "mask", "last"), discount=0.9
  )
  np.testing.assert_allclose(found, expected, **SCANNED)


@pytest.mark.slow
def test_advantage_plus_value_is_the_lambda_return(batch):
  after, mask = consistent(batch), jnp.asarray(batch["mask"])
  both = {"discount": 0.9, "trace": 0.7, **flags(batch, "terminated", "last")}
  reward, value = arrays(batch, "reward", "value")
  advantage = generalized_advantage(reward, value, after, mask, **both)
  target = lambda_returns(reward, after, mask, **both)
  np.testing.assert_allclose(advantage + keep(value, mask), target, **SCANNED)


def test_limits_of_the_trace(batch):
  """Trace 1: the return minus the value; trace 0: the one-step error."""
  reward, value = arrays(batch, "reward", "value")
  mask, last = jnp.asarray(batch["mask"]), jnp.asarray(batch["last"])
  after = consistent(batch)
  call = functools.partial(
    generalized_advantage, reward, value, after, mask, last=last, discount=0.9
  )
  whole = call(terminated=last, trace=1.0)
  returns = discounted_returns(reward, mask, last=last, discount=0.9)
  np.testing.assert_allclose(whole, returns - keep(value, mask), **SCANNED)
  error = reward + 0.9 * jnp.where(last, 0.0, after) - value
  np.testing.assert_allclose(
    call(terminated=last, trace=0.0), keep(error, mask), **SCANNED
  )


def test_terminated_column_is_last_whatever_last_says():
  middle = jnp.array([False, True, False])
  call = functools.partial(
    lambda_returns,
    jnp.ones(3),
    jnp.ones(3),
    TRUE3,
    terminated=middle,
    discount=1.0,
    trace=1.0,
  )
  assert call(last=middle | END).tolist() == call(last=END).tolist()
  assert call(last=END).tolist() == [2.0, 1.0, 2.0]


def test_length_adaptive_trace():
  mask = jnp.arange(80)[None] < jnp.array([80, 40, 20, 5, 0])[:, None]
  found = length_adaptive_trace(mask, alpha=0.05)
  np.testing.assert_allclose(found, [0.75, 0.5, 0.0, 0.0, 0.0], atol=1e-6)


@pytest.mark.slow
def test_recursion_equals_a_python_loop():
  rng = np.random.default_rng(1)
  step, decay = rng.normal(size=(2, 3, 40)), rng.uniform(size=(2, 3, 40))
  y, expected = np.zeros((2, 3)), []
  for t in reversed(range(40)):
    y = step[..., t] + decay[..., t] * y
    expected.append(y)
  found = carried_back(
    jnp.asarray(step, jnp.float32),
    jnp.asarray(decay, jnp.float32),
    jnp.ones((2, 3, 40), bool),
    last=jnp.zeros((2, 3, 40), bool),
  )
  expected = np.stack(expected[::-1], axis=-1)
  np.testing.assert_allclose(found, expected, **SCANNED)


@pytest.mark.slow
def test_nothing_is_differentiable(batch):
  inputs = arrays(batch, "reward", "value", "next_value")
  slopes = jax.grad(
    lambda x: jnp.sum(
      generalized_advantage(
        *x,
        jnp.asarray(batch["mask"]),
        **flags(batch, "terminated", "last"),
        discount=0.9,
        trace=0.5,
      )
    )
  )(inputs)
  assert all((slope == 0).all() for slope in slopes)


@pytest.mark.parametrize(
  "wrong",
  [
    {"discount": 1.5},
    {"discount": -0.5},
    {"trace": 2.0},
    {"discount": float("nan")},
  ],
)
def test_fraction_out_of_range_raises(wrong):
  ((name, value),) = wrong.items()
  options = {"discount": 1.0, "trace": 1.0} | wrong
  with pytest.raises(ValueError, match=rf"{name} must be in .*{value}"):
    lambda_returns(
      jnp.ones(3), jnp.ones(3), TRUE3, terminated=END, last=END, **options
    )


def test_alpha_out_of_range_raises():
  with pytest.raises(ValueError, match="alpha must be positive, got 0"):
    length_adaptive_trace(jnp.ones((1, 3), bool), alpha=0.0)
