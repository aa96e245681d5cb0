from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax import losses


def test_flow_matching_loss_is_zero_at_the_target_alone():
  target = jax.random.normal(jax.random.key(0), (2, 3, 4))
  np.testing.assert_array_equal(
    losses.flow_matching_loss(target, target), jnp.zeros((2, 3))
  )
  np.testing.assert_allclose(
    losses.flow_matching_loss(target + 2.0, target),
    jnp.full((2, 3), 4.0),
    rtol=1e-6,
  )


class TestKarrasGrid:
  def test_the_published_grid(self):
    grid = losses.karras_grid(num_steps=40, rho=7.0, low=0.002, high=80.0)
    assert grid.shape == (41,)
    step = np.arange(40) / 39
    root = 80 ** (1 / 7) + step * (0.002 ** (1 / 7) - 80 ** (1 / 7))
    np.testing.assert_allclose(grid[:-1], root**7, rtol=1e-6)
    np.testing.assert_allclose(grid[[0, -2]], [80.0, 0.002], rtol=1e-6)
    assert grid[-1] == 0.0
    assert (np.diff(grid) < 0).all()

  @pytest.mark.parametrize(
    ("bad", "name"),
    [
      ({"num_steps": 1}, "num_steps"),
      ({"rho": 0.0}, "rho"),
      ({"low": 0.0}, "low"),
      ({"high": 0.001}, "high"),
    ],
  )
  def test_nonsense_is_refused(self, bad, name):
    good = {"num_steps": 4, "rho": 7.0, "low": 0.002, "high": 80.0}
    with pytest.raises(ValueError, match=name):
      losses.karras_grid(**(good | bad))


class TestLowerNoise:
  @pytest.mark.slow
  def test_the_second_at_or_below_by_a_loop(self):
    grid = losses.karras_grid(num_steps=6, rho=3.0, low=0.1, high=9.0)
    rng = np.random.default_rng(0)
    sigma = rng.uniform(0.01, 12.0, 64).astype(np.float32)
    sigma = np.concatenate([sigma, grid[:-1]])
    expected = []
    for value in sigma:
      below = [level for level in grid if level <= value]
      expected.append(below[1] if len(below) > 1 else 0.0)
    lower = losses.edm_lower_noise(jnp.asarray(sigma)[None], grid=grid)[0]
    np.testing.assert_array_equal(lower, np.asarray(expected, np.float32))
    assert (np.asarray(lower) < sigma).all()

  def test_a_grid_that_does_not_end_at_zero_is_refused(self):
    for grid in ([2.0, 1.0], [1.0, 2.0, 0.0]):
      with pytest.raises(ValueError, match="grid"):
        losses.edm_lower_noise(
          jnp.ones((1, 1)), grid=np.asarray(grid, np.float32)
        )


def test_weight_against_the_formula():
  sigma = jnp.array([[0.1, 0.5, 3.0]])
  expected = [(s * s + 0.25) / (0.5 * s) ** 2 for s in (0.1, 0.5, 3.0)]
  np.testing.assert_allclose(losses.edm_weight(sigma), [expected], rtol=1e-6)


@pytest.mark.slow
def test_a_clean_lower_level_gives_the_clean_sample():
  keys = jax.random.split(jax.random.key(0), 3)
  x0, noise = (jax.random.normal(k, (2, 3, 4)) for k in keys[:2])
  sigma = jax.random.uniform(keys[2], (2, 3), minval=0.1, maxval=2.0)
  target = losses.edm_noisy_target(
    x0 + sigma[..., None] * noise, noise, sigma, jnp.zeros((2, 3))
  )
  np.testing.assert_allclose(target, x0, atol=2e-6)
