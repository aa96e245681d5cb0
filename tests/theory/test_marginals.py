"""SDE sampling keeps the flow's marginals, whatever the noise level."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax import sampling
from rl_jax.flow import shifted_schedule
from theory import gaussian

pytestmark = pytest.mark.slow


def _recursion(schedule, noise_level, kind):
  """Mean and std of x_0, exactly: every step is linear in x and Gaussian."""
  t, t_next = jnp.asarray(schedule[:-1]), jnp.asarray(schedule[1:])

  def mean_at(x):
    x = jnp.full((t.size, 1), x)
    return sampling.flow_sde_moments(
      x,
      gaussian.velocity_fn(x, t),
      t,
      t_next,
      t_first=float(schedule[1]),
      noise_level=noise_level,
      kind=kind,
    )

  at_zero, _, std = mean_at(0.0)
  gain = mean_at(1.0)[0] - at_zero
  mean, variance = 0.0, 1.0
  for a, b, s in zip(gain[:, 0], at_zero[:, 0], std, strict=True):
    mean = float(a) * mean + float(b)
    variance = float(a) ** 2 * variance + float(s) ** 2
  return mean, variance**0.5


@pytest.mark.parametrize(
  ("noise_level", "kind"),
  [
    (0.0, "flow_sde"),
    (0.3, "flow_sde"),
    (0.7, "flow_sde"),
    (0.7, "dance_sde"),
  ],
)
def test_the_marginals_are_those_of_the_ode(noise_level, kind):
  """The error of N steps falls like 1/N, to the data's mean and spread."""
  errors = []
  for steps in (100, 400):
    schedule = shifted_schedule(num_steps=steps, shift=1.0, t_min=None)
    mean, std = _recursion(schedule, noise_level, kind)
    errors.append((abs(mean - gaussian.M), abs(std - gaussian.S)))
  assert max(errors[0]) < 0.03
  assert max(errors[1]) < 0.01
  assert max(errors[1]) < 0.5 * max(errors[0])


def test_samples_have_the_computed_mean_and_spread():
  """Monte Carlo: 4096 samples, five standard errors."""
  rows = 4096
  sampler = sampling.FlowSde(steps=50, shift=1.0, noise_level=0.7)
  keys = sampling.row_keys(jax.random.key(0), jnp.arange(rows))
  noise = jax.random.normal(jax.random.key(1), (rows, 1))
  x0 = jax.jit(lambda x, k: sampler(gaussian.velocity_fn, x, k).x0)(noise, keys)
  mean, std = _recursion(sampler.schedule, 0.7, "flow_sde")
  np.testing.assert_allclose(x0.mean(), mean, atol=5 * std / rows**0.5)
  np.testing.assert_allclose(x0.std(), std, atol=5 * std / (2 * rows) ** 0.5)
