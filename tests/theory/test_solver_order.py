"""SA-Solver on Gaussian data, where the flow has a closed form."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax import sampling
from theory import gaussian

pytestmark = pytest.mark.slow


def _times(evaluations, first=0.95, last=0.05):
  """Even in lambda, the variable that the solver is a polynomial in."""
  level = np.linspace(
    np.log((1 - first) / first), np.log((1 - last) / last), evaluations
  )
  return 1 / (1 + np.exp(level))


def _sample(evaluations, order, noise_level=0.0, rows=5):
  noise = jnp.linspace(-2.0, 2.0, rows)[:, None]
  keys = sampling.row_keys(jax.random.key(0), jnp.arange(rows))
  times = _times(evaluations)
  solve = jax.jit(
    lambda x, k: (
      sampling.sa_solver(
        gaussian.velocity_fn,
        x,
        k,
        times,
        order=order,
        noise_level=noise_level,
        window=(0.0, 1.0),
      ).x0
    )
  )
  end = gaussian.ode_solution(np.asarray(noise), times[0], times[-1])
  return solve(noise, keys), gaussian.clean(end, times[-1])


@pytest.mark.parametrize(("order", "low", "high"), [(1, 1.6, 2.6), (2, 3.2, 9)])
def test_halving_the_steps_shows_the_order(order, low, high):
  """Twice the steps: half the error at order 1, a quarter or less at 2."""
  errors = []
  for transitions in (10, 20, 40):
    found, exact = _sample(transitions + 1, order)
    errors.append(np.abs(found - exact).max())
  for coarse, fine in itertools.pairwise(errors):
    assert low < coarse / fine < high, errors


def test_the_second_order_is_closer():
  first, exact = _sample(41, 1)
  second, _ = _sample(41, 2)
  assert np.abs(second - exact).max() < 0.2 * np.abs(first - exact).max()


@pytest.mark.parametrize("order", [1, 2])
def test_without_noise_it_solves_the_same_ode_as_euler(order):
  noise = jnp.linspace(-2.0, 2.0, 5)[:, None]
  keys = sampling.row_keys(jax.random.key(0), jnp.arange(5))
  solver = sampling.SaSolver(steps=200, shift=1.0, order=order, noise_level=0.0)
  euler = sampling.EulerOde(steps=800, shift=1.0)
  found, reference = (
    jax.jit(lambda x, k, s=s: s(gaussian.velocity_fn, x, k).x0)(noise, keys)
    for s in (solver, euler)
  )
  np.testing.assert_allclose(found, reference, atol=5e-3)


@pytest.mark.parametrize("order", [1, 2])
def test_noise_leaves_the_marginal_alone(order):
  """Data prediction at the last time: its spread is known too."""
  rows = 4096
  noise = jax.random.normal(jax.random.key(1), (rows, 1))
  keys = sampling.row_keys(jax.random.key(0), jnp.arange(rows))
  times = _times(60)
  first, last = times[0], times[-1]
  start = (1 - first) * gaussian.M + gaussian.variance(first) ** 0.5 * noise
  x0 = jax.jit(
    lambda x, k: (
      sampling.sa_solver(
        gaussian.velocity_fn,
        x,
        k,
        times,
        order=order,
        noise_level=0.7,
        window=(0.0, 1.0),
      ).x0
    )
  )(start, keys)
  gain = 1 - last * gaussian.slope(last)
  std = gain * gaussian.variance(last) ** 0.5
  np.testing.assert_allclose(x0.mean(), gaussian.M, atol=5 * std / rows**0.5)
  np.testing.assert_allclose(x0.std(), std, rtol=0.06)
