"""What advantage weighted matching is on policy: pretraining, weighted."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax import flow, losses, reduce

pytestmark = pytest.mark.slow

ROWS, TIME, EVENT = 6, 3, 4


def _batch():
  keys = jax.random.split(jax.random.key(0), 5)
  x0 = jax.random.normal(keys[0], (ROWS, EVENT))
  noise = jax.random.normal(keys[1], (ROWS, TIME, EVENT))
  t = jax.random.uniform(keys[2], (ROWS, TIME), minval=0.1, maxval=0.9)
  params = jax.random.normal(keys[3], (EVENT, EVENT))
  advantage = jax.random.normal(keys[4], (ROWS,))
  return *flow.interpolate(x0, noise, t), t, params, advantage


def _gradient(weighting, level, advantage=None, clip=1.0):
  x_t, target, t, params, drawn = _batch()
  advantage = drawn if advantage is None else advantage
  mask = jnp.ones((ROWS, TIME), bool)

  def loss(params):
    log_prob = losses.matching_log_prob(
      x_t @ params, target, t, weighting=weighting, power=0.25
    )
    terms = losses.awm_loss(
      log_prob,
      log_prob,
      advantage,
      mask,
      clip_low=clip,
      clip_high=clip,
      ratio_level=level,
    )
    return reduce.over_tokens(terms.loss, mask).mean()

  return jax.value_and_grad(loss)(params)


@pytest.mark.parametrize("weighting", ["uniform", "t**2", "ghuber"])
@pytest.mark.parametrize("level", ["element", "sample"])
def test_the_gradient_is_the_weighted_pretraining_gradient(weighting, level):
  x_t, target, t, params, advantage = _batch()

  def weighted(params):
    error = losses.flow_matching_loss(x_t @ params, target)
    error = losses.weighted_error(error, t, weighting=weighting, power=0.25)
    return (advantage[:, None] * error).mean()

  value, gradient = _gradient(weighting, level)
  np.testing.assert_allclose(value, -advantage.mean(), atol=1e-6)
  np.testing.assert_allclose(
    gradient, jax.grad(weighted)(params), rtol=1e-5, atol=1e-6
  )


def test_unit_advantage_without_clip_is_pretraining():
  x_t, target, _, params, _ = _batch()

  def pretraining(params):
    return losses.flow_matching_loss(x_t @ params, target).mean()

  _, gradient = _gradient(
    "uniform", "element", advantage=jnp.ones(ROWS), clip=float("inf")
  )
  np.testing.assert_allclose(
    gradient, jax.grad(pretraining)(params), rtol=1e-5, atol=1e-6
  )


def test_levels_agree_on_policy_and_differ_off_policy():
  _, element = _gradient("ghuber", "element")
  _, sample = _gradient("ghuber", "sample")
  np.testing.assert_allclose(element, sample, rtol=1e-5, atol=1e-6)

  keys = jax.random.split(jax.random.key(1))
  log_prob, behaviour = (jax.random.normal(k, (ROWS, TIME)) for k in keys)
  off_policy = [
    losses.awm_loss(
      log_prob,
      behaviour,
      jnp.ones(ROWS),
      jnp.ones((ROWS, TIME), bool),
      clip_low=1.0,
      clip_high=1.0,
      ratio_level=level,
    ).loss.mean()
    for level in ("element", "sample")
  ]
  assert abs(off_policy[0] - off_policy[1]) > 0.01
