"""A denoising step's likelihood is regression onto a noisy velocity.

Notation: the step goes from t to s = t - D; sigma^2 is that of Flow-GRPO.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax import flow, losses, sampling
from theory import gaussian

pytestmark = pytest.mark.slow


def _constants(t, length, level=0.7):
  """C and sigma^2 of the identity."""
  sigma2 = level**2 * t / (1 - t)
  return length * (1 + sigma2 * (1 - t) / (2 * t)), sigma2


def _implied_target(x_t, x_s, t, length, level=0.7):
  """V*: the velocity at which the step's mean is the draw."""
  c, sigma2 = _constants(t, length, level)
  return (x_t * (1 - sigma2 * length / (2 * t)) - x_s) / c


def _step(x_t, velocity, x_s, t, length):
  rows = x_t.shape[0]
  return sampling.flow_sde_replay(
    x_t,
    velocity,
    jnp.full(rows, t),
    jnp.full(rows, t - length),
    x_s,
    t_first=0.9,
    noise_level=0.7,
    kind="flow_sde",
  )


def test_worked_by_hand():
  """T = .6, s = .5, a = .7: c = .1245, v* = -.788790, Var(v*) = 4.7419."""
  c, sigma2 = _constants(0.6, 0.1)
  np.testing.assert_allclose(c, 0.1245, atol=1e-6)
  x_s = 0.713650 + 0.5 * 0.271109
  target = _implied_target(0.8, x_s, 0.6, 0.1)
  np.testing.assert_allclose(target, -0.788790, atol=1e-5)
  np.testing.assert_allclose(sigma2 * 0.1 / c**2, 4.7419, atol=1e-4)


@pytest.mark.parametrize("t", [0.3, 0.6, 0.9])
def test_the_likelihood_is_a_regression(t):
  """Log N + c^2 (v - v*)^2 / (2 sigma^2 D) does not depend on v."""
  length = 0.1
  keys = jax.random.split(jax.random.key(0), 3)
  x_t, velocity, x_s = (jax.random.normal(k, (64, 1)) for k in keys)
  step = _step(x_t, velocity, x_s, t, length)
  c, sigma2 = _constants(t, length)
  error = (velocity - _implied_target(x_t, x_s, t, length))[:, 0] ** 2
  constant = -0.5 * np.log(2 * np.pi * sigma2 * length)
  np.testing.assert_allclose(
    step.log_prob,
    constant - c**2 * error / (2 * sigma2 * length),
    rtol=1e-5,
    atol=1e-5,
  )


def test_the_implied_target_spreads_like_one_over_the_step():
  """On policy Var(v*) = sigma^2 D / c^2, and the pretraining target's not."""
  t, spreads = 0.6, []
  x_t = jnp.full((20_000, 1), 0.8)
  velocity = gaussian.velocity(x_t, t)
  keys = sampling.row_keys(jax.random.key(0), jnp.arange(20_000))
  for length in (0.2, 0.1, 0.05, 0.025):
    step = sampling.flow_sde_step(
      x_t,
      velocity,
      jnp.full(20_000, t),
      jnp.full(20_000, t - length),
      keys,
      t_first=0.9,
      noise_level=0.7,
      kind="flow_sde",
    )
    target = _implied_target(x_t, step.x_next, t, length)
    c, sigma2 = _constants(t, length)
    # Five standard errors of a variance from 20 000 draws are 5 %.
    np.testing.assert_allclose(target.var(), sigma2 * length / c**2, rtol=0.05)
    np.testing.assert_allclose(target.mean(), velocity[0, 0], atol=0.2)
    spreads.append(float(target.var()))
  ratios = np.divide(spreads[1:], spreads[:-1])
  np.testing.assert_allclose(ratios, 2.0, rtol=0.02)
  assert spreads[0] > gaussian.irreducible(t)


def test_the_implied_target_approaches_the_noisy_one():
  """At sigma^2 = 2t/(1-t), a = sqrt 2, they agree up to O(sqrt D)."""
  t, z, gaps = 0.6, 1.3, []
  x_t = np.float64(0.8)
  for length in (0.005, 0.00125, 0.0003125):
    s = t - length
    c, sigma2 = _constants(t, length, level=2**0.5)
    mean = x_t * (1 - sigma2 * length / (2 * t)) - c * gaussian.velocity(x_t, t)
    x_s = mean + np.sqrt(sigma2 * length) * z
    implied = _implied_target(x_t, x_s, t, length, level=2**0.5)
    noisy = flow.noisy_velocity_target(
      *(jnp.full((1, 1, 1), x, jnp.float32) for x in (x_t, x_s)),
      *(jnp.full((1, 1), time) for time in (t, s)),
    )
    gaps.append(abs(float(noisy[0, 0, 0]) - implied))
  # A quarter of the length: half the gap.
  ratios = np.divide(gaps[:-1], gaps[1:])
  assert ((ratios > 1.7) & (ratios < 2.2)).all(), gaps


def test_the_noisy_target_has_one_mean_for_every_s():
  """Var of the target grows with s; its regression on x_t does not move."""
  rows, t = 100_000, 0.6
  keys = jax.random.split(jax.random.key(0), 3)
  x0 = gaussian.M + gaussian.S * jax.random.normal(keys[0], (rows, 1))
  noises = [jax.random.normal(k, (rows, 1, 1)) for k in keys[1:]]
  late = jnp.full((rows, 1), t)
  spreads = []
  for s in (0.05, 0.3, 0.5):
    early = jnp.full((rows, 1), s)
    x_s, _ = flow.interpolate(x0, noises[0], early)
    x_t = flow.renoise(x_s, noises[1], late, early)
    target = flow.noisy_velocity_target(x_t, x_s, late, early)
    x, y = (np.asarray(v, np.float64).ravel() for v in (x_t, target))
    fitted = np.polyfit(x, y, 1)
    exact = gaussian.slope(t)
    # Five standard errors of the fit.
    error = 5 * np.std(y - np.polyval(fitted, x)) / (rows**0.5 * x.std())
    np.testing.assert_allclose(fitted[0], exact, atol=error)
    np.testing.assert_allclose(
      np.polyval(fitted, (1 - t) * gaussian.M), -gaussian.M, atol=error
    )
    spreads.append(np.var(y - np.polyval(fitted, x)))
  assert spreads[0] < spreads[1] < spreads[2]
  assert gaussian.irreducible(t) < spreads[0] * 1.02


def test_clean_targets_give_the_quieter_gradient():
  """Same network, same cost: trace of the gradient covariance over draws.

  A linear velocity network on Gaussian data stands in for the digits, whose
  numbers were .073 clean and .208, .553, 1.291 at D = .2, .1, .05.
  """
  t, draws, rows, event = 0.5, 200, 32, 4
  rng = np.random.default_rng(0)
  weight = jnp.eye(event) * gaussian.slope(t)
  late = jnp.full((draws * rows, 1), t)

  def normal(*shape):
    return jnp.asarray(rng.normal(size=(draws * rows, *shape)), jnp.float32)

  x0, noise, more = (
    gaussian.S * normal(event),
    normal(1, event),
    normal(1, event),
  )
  advantage = jnp.sign(normal(1))

  def spread(length):
    if length is None:
      x_t, target = flow.interpolate(x0, noise, late)
    else:
      early = late - length
      x_s, _ = flow.interpolate(x0, noise, early)
      x_t = flow.renoise(x_s, more, late, early)
      target = flow.noisy_velocity_target(x_t, x_s, late, early)

    def loss(weight, *batch):
      x_t, target, advantage = batch
      return (advantage * losses.matching_error(x_t @ weight, target)).mean()

    batches = (
      value.reshape(draws, rows, *value.shape[1:])
      for value in (x_t, target, advantage)
    )
    gradient = jax.vmap(jax.grad(loss), (None, 0, 0, 0))
    return float(jax.jit(gradient)(weight, *batches).var(axis=0).sum())

  clean, *noisy = (spread(length) for length in (None, 0.2, 0.1, 0.05))
  assert clean < noisy[0] < noisy[1] < noisy[2]
  assert noisy[1] / clean >= 3.0
