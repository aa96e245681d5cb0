"""EDM with a noisy target, against numpy and against its purpose."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax import losses

pytestmark = pytest.mark.slow


def test_every_formula_against_numpy():
  rng = np.random.default_rng(0)
  rows, time, event = 5, 4, 6
  sigma = np.exp(-1.2 + 1.2 * rng.normal(size=(rows, time)))
  root = np.linspace(80 ** (1 / 7), 0.002 ** (1 / 7), 40)
  grid = np.append(root**7, 0.0)
  sigma_s = np.array(
    [[grid[grid <= value][1] for value in row] for row in sigma]
  )
  x0, n1, n2, out = (rng.normal(size=(rows, time, event)) for _ in range(4))
  gap = np.sqrt(sigma**2 - sigma_s**2)
  y = x0 + sigma_s[..., None] * n1 + gap[..., None] * n2
  target = y - (sigma**2 / gap)[..., None] * n2
  weight = (sigma**2 + 0.25) / (0.5 * sigma) ** 2
  scale = 0.25 + sigma**2 * sigma_s**2 / (sigma**2 - sigma_s**2)
  loss = weight * ((out - target) ** 2).mean(-1) / scale

  as32 = lambda value: jnp.asarray(value, jnp.float32)  # noqa: E731
  found_s = losses.edm_lower_noise(
    as32(sigma),
    grid=losses.karras_grid(num_steps=40, rho=7.0, low=0.002, high=80.0),
  )
  np.testing.assert_allclose(found_s, sigma_s, rtol=1e-5)
  found = losses.edm_noisy_target(as32(y), as32(n2), as32(sigma), as32(sigma_s))
  np.testing.assert_allclose(found, target, rtol=1e-4, atol=1e-4)
  found_loss = losses.edm_loss(
    as32(out), as32(target), as32(sigma), as32(sigma_s)
  )
  np.testing.assert_allclose(found_loss, loss, rtol=1e-4)


def test_the_noisy_target_spreads_as_the_denominator_says():
  """Var(D* | x_0) = sigma^2 sigma_s^2 / (sigma^2 - sigma_s^2), mean x_0."""
  draws, sigma, sigma_s = 100_000, 1.0, 0.7
  n1, n2 = (
    jax.random.normal(key, (draws, 1, 1))
    for key in jax.random.split(jax.random.key(0))
  )
  x0, gap = 0.4, (sigma**2 - sigma_s**2) ** 0.5
  y = x0 + sigma_s * n1 + gap * n2
  target = losses.edm_noisy_target(
    y, n2, jnp.full((draws, 1), sigma), jnp.full((draws, 1), sigma_s)
  )
  variance = sigma**2 * sigma_s**2 / (sigma**2 - sigma_s**2)
  np.testing.assert_allclose(target.var(), variance, rtol=0.03)
  error = 5 * (variance / draws) ** 0.5
  np.testing.assert_allclose(target.mean(), x0, atol=error)


def test_a_clean_target_needs_no_equaliser():
  """At sigma_s = 0 the target is x_0 and only the data's 0.25 divides."""
  one = jnp.ones((1, 1))
  x0, noise = jnp.full((1, 1, 3), 0.4), jnp.full((1, 1, 3), -1.5)
  target = losses.edm_noisy_target(x0 + 2 * noise, noise, 2 * one, 0 * one)
  np.testing.assert_allclose(target, x0, atol=1e-6)
  loss = losses.edm_loss(x0 + 0.5, target, 2 * one, 0 * one)
  np.testing.assert_allclose(
    loss, losses.edm_weight(2 * one) * 0.25 / 0.25, rtol=1e-5
  )
