from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax import losses


def _case(seed=0, rows=3, time=4):
  keys = jax.random.split(jax.random.key(seed), 4)
  log_prob = 0.4 * jax.random.normal(keys[0], (rows, time))
  behaviour = 0.4 * jax.random.normal(keys[1], (rows, time))
  advantage = jax.random.normal(keys[2], (rows, time))
  mask = jax.random.bernoulli(keys[3], 0.7, (rows, time))
  return log_prob, behaviour, advantage, mask


def _loss(*case, low=0.2, high=0.3):
  return losses.clipped_policy_loss(*case, clip_low=low, clip_high=high)


@pytest.mark.slow
def test_against_a_loop():
  case = _case()
  loss = _loss(*case)
  for index in np.ndindex(loss.shape):
    log_prob, behaviour, advantage = (float(x[index]) for x in case[:3])
    ratio = np.exp(log_prob - behaviour)
    bounded = min(max(ratio, 0.8), 1.3)
    expected = max(-advantage * ratio, -advantage * bounded)
    expected = expected if case[3][index] else 0.0
    np.testing.assert_allclose(loss[index], expected, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
  ("ratio", "advantage", "slope"),
  [
    (2.0, 1.0, 0.0),  # already far up, told to go up: stopped
    (2.0, -1.0, 2.0),  # far up, told to come back: not stopped
    (0.5, -1.0, 0.0),  # far down, told to go down: stopped
    (0.5, 1.0, -0.5),  # far down, told to come back
    (1.0, 3.0, -3.0),  # on policy
  ],
)
def test_where_the_gradient_stops(ratio, advantage, slope):
  one = jnp.ones(1)
  gradient = jax.grad(
    lambda x: _loss(x, 0 * one, advantage * one, one > 0).sum()
  )(jnp.log(ratio * one))
  np.testing.assert_allclose(gradient, [slope], atol=1e-6)


@pytest.mark.slow
def test_on_policy_gradient_is_minus_the_advantage():
  log_prob, _, advantage, mask = _case()
  gradient = jax.grad(lambda x: _loss(x, log_prob, advantage, mask).sum())
  expected = jnp.where(mask, -advantage, 0.0)
  np.testing.assert_allclose(gradient(log_prob), expected, atol=1e-6)


@pytest.mark.slow
def test_nothing_flows_into_behaviour_and_advantage():
  log_prob, behaviour, advantage, mask = _case()
  gradients = jax.grad(
    lambda b, a: _loss(log_prob, b, a, mask).sum(), argnums=(0, 1)
  )(behaviour, advantage)
  for gradient in gradients:
    np.testing.assert_array_equal(gradient, jnp.zeros_like(gradient))


@pytest.mark.slow
@pytest.mark.parametrize("bad", [jnp.nan, jnp.inf])
def test_a_masked_slot_may_hold_anything(bad):
  *values, mask = _case()
  spoiled = [jnp.where(mask, value, bad) for value in values]
  value_and_grad = jax.value_and_grad(lambda x, *rest: _loss(x, *rest).sum())
  expected = value_and_grad(*values, mask)
  for clean, dirty in zip(
    jax.tree.leaves(expected),
    jax.tree.leaves(value_and_grad(*spoiled, mask)),
    strict=True,
  ):
    np.testing.assert_array_equal(clean, dirty)


def test_no_clip_is_the_plain_surrogate():
  log_prob, behaviour, advantage, mask = _case()
  loss = _loss(
    log_prob, behaviour, advantage, mask, low=float("inf"), high=float("inf")
  )
  plain = -advantage * jnp.exp(log_prob - behaviour)
  np.testing.assert_allclose(loss, jnp.where(mask, plain, 0.0), rtol=1e-6)


def test_a_range_per_element_is_that_range():
  case = _case()
  low = jnp.broadcast_to(jnp.array([0.0, 0.1, 0.2, 0.3])[None], (3, 4))
  loss = _loss(*case, low=low, high=2 * low)
  for step in range(4):
    one = _loss(*case, low=0.1 * step, high=0.2 * step)
    np.testing.assert_allclose(loss[:, step], one[:, step], atol=1e-6)


def test_a_masked_range_may_hold_anything():
  case = _case()
  spoiled = jnp.where(case[3], 0.2, jnp.nan)
  np.testing.assert_array_equal(
    _loss(*case, low=spoiled, high=spoiled), _loss(*case, low=0.2, high=0.2)
  )


def test_terms_carry_the_ratio_and_who_left_the_range():
  log_prob, behaviour, advantage, mask = _case()
  terms = losses.clipped_policy_terms(
    log_prob, behaviour, advantage, mask, clip_low=0.2, clip_high=0.3
  )
  ratio = np.where(mask, np.exp(log_prob - behaviour), 1.0)
  np.testing.assert_allclose(terms.ratio, ratio, rtol=1e-6)
  left = np.asarray(mask) & ((ratio < 0.8) | (ratio > 1.3))
  np.testing.assert_array_equal(terms.clipped, left)
  assert left.any()
  assert not left[~np.asarray(mask)].any()
  np.testing.assert_array_equal(
    terms.loss, _loss(log_prob, behaviour, advantage, mask)
  )


@pytest.mark.parametrize("name", ["clip_low", "clip_high"])
@pytest.mark.parametrize("bad", [-0.1, float("nan")])
def test_a_negative_range_is_refused(name, bad):
  bounds = {"clip_low": 0.2, "clip_high": 0.2, name: bad}
  with pytest.raises(ValueError, match=name):
    losses.clipped_policy_loss(*_case(), **bounds)
