"""StableReinforce's loss: bounded before the exponential."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.losses import clipped_policy_terms
from rl_jax.losses.stable import preclip_ratio, stable_reinforce_loss
from rl_jax.ratios import clipped_fraction, token_ratio
from rl_jax.reduce import over_sequences

CLIP = {"clip_low": 0.2, "clip_high": 0.2}
BOUNDS = {"low": 1e-3, "high": 1e3}


def every(x):
  return jnp.ones(x.shape, bool)


def both(log_prob, behaviour, advantage):
  """Loss and gradient, of this and of PPO."""
  return [
    jax.value_and_grad(lambda x, f=f: f(x).loss.sum())(log_prob)
    for f in (
      lambda x: stable_reinforce_loss(
        x, behaviour, advantage, every(x), **CLIP, **BOUNDS
      ),
      lambda x: clipped_policy_terms(x, behaviour, advantage, every(x), **CLIP),
    )
  ]


def test_worked_ratios():
  """Sheet: exp of the pre-clip of (20, -20, .1)."""
  log_prob = jnp.array([20.0, -20.0, 0.1])
  found = preclip_ratio(log_prob, jnp.zeros(3), every(log_prob), **BOUNDS)
  np.testing.assert_allclose(found, [1000.0, 0.001, 1.105171], rtol=1e-6)
  clamp = token_ratio(
    log_prob, jnp.zeros(3), every(log_prob), clamp=math.log(1e3)
  )
  np.testing.assert_allclose(found, clamp, rtol=1e-6)


def test_bounds_need_not_mirror_each_other():
  log_prob = jnp.array([2.0, -2.0])
  found = preclip_ratio(
    log_prob, jnp.zeros(2), every(log_prob), low=0.5, high=4.0
  )
  np.testing.assert_allclose(found, [4.0, 0.5], rtol=1e-6)


@pytest.mark.slow
def test_finite_for_any_difference_and_equal_to_ppo_inside():
  inside = jnp.linspace(-6.9, 6.9, 23)
  outside = jnp.array([-1e4, -200.0, -7.0, 7.0, 90.0, 1e4])
  for sign in (1.0, -1.0):
    (found, slope), (expected, ppo_slope) = both(
      inside, jnp.zeros_like(inside), sign * jnp.ones_like(inside)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    np.testing.assert_allclose(slope, ppo_slope, rtol=1e-5)
    (found, slope), _ = both(
      outside, jnp.zeros_like(outside), sign * jnp.ones_like(outside)
    )
    assert math.isfinite(found)
    assert not np.asarray(slope).any(), "no gradient beyond the bounds"


@pytest.mark.slow
def test_ppo_alone_is_infinite_there():
  """The fault that it is for: a bad action, far likelier than recorded."""
  (found, _), (ppo, slope) = both(
    jnp.array([120.0]), jnp.zeros(1), -jnp.ones(1)
  )
  assert math.isfinite(found)
  assert ppo == math.inf
  assert not math.isfinite(slope[0])


@pytest.mark.slow
def test_against_a_loop():
  rng = np.random.default_rng(0)
  shape = (8, 6)
  log_prob, behaviour, advantage = rng.normal(size=(3, *shape)) * 4
  mask = np.arange(6) < rng.integers(1, 7, 8)[:, None]
  hide = [np.where(mask, x, np.nan).astype(np.float32) for x in (log_prob,)]
  total = 0.0
  for row in range(8):
    own = []
    for t in range(6):
      if mask[row, t]:
        delta = log_prob[row, t] - behaviour[row, t]
        delta = max(math.log(1e-3), min(math.log(1e3), delta))
        ratio, a = math.exp(delta), advantage[row, t]
        own.append(-min(ratio * a, max(0.8, min(1.2, ratio)) * a))
    total += sum(own) / len(own)
  terms = stable_reinforce_loss(
    jnp.asarray(hide[0]),
    jnp.asarray(behaviour, jnp.float32),
    jnp.asarray(advantage, jnp.float32),
    jnp.asarray(mask),
    **CLIP,
    **BOUNDS,
  )
  mean = over_sequences(terms.loss, jnp.asarray(mask)).mean()
  np.testing.assert_allclose(mean, total / 8, rtol=1e-5)


def test_what_was_bounded_can_be_counted():
  log_prob = jnp.array([20.0, -200.0, 0.1, 0.0])
  ratio = token_ratio(log_prob, jnp.zeros(4), every(log_prob), clamp=None)
  share = clipped_fraction(ratio, every(ratio), **BOUNDS).mean()
  assert share == 0.5


def test_bad_bounds():
  log_prob = jnp.zeros(2)
  for low, high in ((0.0, 2.0), (-7.0, 7.0), (0.5, 1.0), (0.5, math.inf)):
    with pytest.raises(ValueError, match=f"low={low}, high={high}"):
      preclip_ratio(log_prob, log_prob, every(log_prob), low=low, high=high)
