from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.advantages import (
  discounted_returns,
  generalized_advantage,
  group_relative,
  next_values,
  whiten,
)
from rl_jax.masks import keep
from rl_jax.rewards import at_last_token

TRL = {"ddof": 1, "epsilon": 1e-8, "guard": "inside_root", "shift_mean": True}
FORMS = {
  "trl": TRL,
  "verl": TRL,
  "easylm": TRL | {"epsilon": 1e-6},
  "openrlhf": TRL | {"ddof": 0, "guard": "floor"},
  "gdpo": TRL | {"epsilon": 1e-4, "guard": "outside_root"},
  "rewards": TRL | {"shift_mean": False},
}
SPREADS = {
  "inside_root": lambda variance, epsilon: np.sqrt(variance + epsilon),
  "outside_root": lambda variance, epsilon: np.sqrt(variance) + epsilon,
  "floor": lambda variance, epsilon: np.sqrt(max(variance, epsilon)),
}
LENGTHS = jnp.array([3, 2, 4])
MASK = jnp.arange(4)[None] < LENGTHS[:, None]
END = jnp.arange(4)[None] == LENGTHS[:, None] - 1
REWARD = jnp.array([1.0, 0.0, 0.5])


@pytest.mark.slow
@pytest.mark.parametrize("name", FORMS)
@pytest.mark.parametrize("size", [1.0, 1e-5])
def test_form_equals_numpy(name, size):
  form = FORMS[name]
  rng = np.random.default_rng(3)
  signal, mask = rng.normal(size=(5, 7)), rng.uniform(size=(5, 7)) < 0.6
  signal = (size * (signal + 0.5)).astype(np.float32)
  kept = signal[mask].astype(np.float64)
  spread = SPREADS[form["guard"]](kept.var(ddof=form["ddof"]), form["epsilon"])
  expected = np.zeros((5, 7))
  expected[mask] = (kept - kept.mean()) / spread
  if not form["shift_mean"]:
    expected[mask] += kept.mean()
  found = whiten(
    jnp.asarray(np.where(mask, signal, np.nan)), jnp.asarray(mask), **form
  )
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_mean_is_zero_and_unbiased_variance_one():
  signal = jnp.asarray(np.random.default_rng(0).normal(3, 5, (4, 9)), "float32")
  mask = jnp.ones((4, 9), bool).at[2].set(False)
  found = np.asarray(whiten(signal, mask, **TRL))[np.asarray(mask)]
  np.testing.assert_allclose(found.mean(), 0.0, atol=1e-6)
  np.testing.assert_allclose(found.var(ddof=1), 1.0, rtol=1e-5)


@pytest.mark.slow
def test_token_advantages_of_the_worked_example():
  """REINFORCE++ and its baseline form give the same nine tokens there."""
  expected = np.where(
    MASK, np.array([[1.13707], [-1.421338], [-0.142134]]), 0.0
  )
  tokens = at_last_token(REWARD, MASK)
  signal = discounted_returns(tokens, MASK, last=END, discount=1.0)
  np.testing.assert_allclose(whiten(signal, MASK, **TRL), expected, atol=2e-6)
  centred = group_relative(
    REWARD,
    jnp.zeros(3, jnp.int32),
    jnp.ones(3, bool),
    num_groups=1,
    scale="none",
    ddof=0,
    epsilon=0.0,
  )
  signal = keep(jnp.broadcast_to(centred[:, None], MASK.shape), MASK)
  np.testing.assert_allclose(whiten(signal, MASK, **TRL), expected, atol=2e-6)


@pytest.mark.slow
def test_whitened_advantage_of_the_worked_example():
  value = jnp.array(
    [[0.2, 0.4, 0.6, 0], [0.1, 0.1, 0, 0], [0.3, 0.2, 0.5, 0.4]]
  )
  advantage = generalized_advantage(
    at_last_token(REWARD, MASK),
    value,
    next_values(value, MASK, last=END),
    MASK,
    terminated=END,
    last=END,
    discount=1.0,
    trace=0.95,
  )
  expected = [
    [1.727806, 1.156236, 0.554583, 0.0],
    [-1.099961, -1.116674, 0.0, 0.0],
    [-0.17914, 0.204455, -0.799135, -0.448171],
  ]
  np.testing.assert_allclose(
    whiten(advantage, MASK, **TRL), expected, atol=2e-6
  )


@pytest.mark.parametrize("counted", [0, 1])
def test_less_than_two_elements_raise_when_they_can_be_seen(counted):
  mask = jnp.arange(6) < counted
  with pytest.raises(ValueError, match=f"got {counted} of 6"):
    whiten(jnp.ones(6), mask, **TRL)


def test_one_element_is_seen_even_when_traced():
  with pytest.raises(ValueError, match="got 1 of 1"):
    jax.jit(lambda x, mask: whiten(x, mask, **TRL))(
      jnp.ones(1), jnp.ones(1, bool)
    )


@pytest.mark.parametrize("shift_mean", [True, False])
def test_one_counted_element_is_its_mean_when_traced(shift_mean):
  form = TRL | {"shift_mean": shift_mean, "epsilon": 0.0}
  found = jax.jit(lambda x, mask: whiten(x, mask, **form))(
    jnp.array([3.0, jnp.nan]), jnp.array([True, False])
  )
  assert found.tolist() == [0.0 if shift_mean else 3.0, 0.0]


def test_equal_elements_without_a_guard_are_zero():
  form = TRL | {"epsilon": 0.0, "guard": "floor"}
  found = whiten(jnp.full(4, 0.5), jnp.ones(4, bool), **form)
  assert found.tolist() == [0.0] * 4


@pytest.mark.parametrize(
  ("wrong", "message"),
  [
    ({"ddof": 2}, "ddof must be 0 or 1, got 2"),
    ({"epsilon": -1.0}, "epsilon must not be negative, got -1"),
  ],
)
def test_bad_options_raise(wrong, message):
  with pytest.raises(ValueError, match=message):
    whiten(jnp.ones(4), jnp.ones(4, bool), **(TRL | wrong))
