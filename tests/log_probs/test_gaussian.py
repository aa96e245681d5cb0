from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.log_probs import gaussian_log_prob_mean, gaussian_log_prob_sum


def _case(*event):
  keys = jax.random.split(jax.random.key(0), 3)
  value = jax.random.normal(keys[0], (3, 2, *event))
  mean = jax.random.normal(keys[1], (3, 2, *event))
  std = jax.random.uniform(keys[2], (3, 2), minval=0.2, maxval=2.0)
  return value, mean, std


def _density(x, mu, std):
  """The textbook density, one number at a time in float64."""
  peak = 1.0 / (std * math.sqrt(2.0 * math.pi))
  return peak * math.exp(-((x - mu) ** 2) / (2.0 * std**2))


@pytest.mark.slow
@pytest.mark.parametrize("event", [(), (4,), (2, 3)])
def test_against_the_logarithm_of_the_density(event):
  value, mean, std = _case(*event)
  expected = np.zeros((3, 2))
  for row in range(3):
    for time in range(2):
      xs = np.asarray(value[row, time], np.float64).ravel()
      mus = np.asarray(mean[row, time], np.float64).ravel()
      s = float(std[row, time])
      expected[row, time] = sum(
        math.log(_density(x, mu, s)) for x, mu in zip(xs, mus, strict=True)
      )
  total = gaussian_log_prob_sum(value, mean, std)
  np.testing.assert_allclose(total, expected, rtol=1e-5, atol=1e-5)
  size = math.prod(event)
  average = gaussian_log_prob_mean(value, mean, std)
  np.testing.assert_allclose(average, expected / size, rtol=1e-5, atol=1e-5)


def test_half_a_deviation_away_worked_by_hand():
  """Flow-GRPO's worked step: std .271109, log-prob .261296."""
  std = jnp.array([[0.271109]])
  mean = jnp.array([[[0.713650]]])
  log_prob = gaussian_log_prob_mean(mean + 0.5 * std[..., None], mean, std)
  np.testing.assert_allclose(log_prob, [[0.261296]], atol=3e-6)


@pytest.mark.slow
def test_the_score_is_the_gradient():
  value, mean, std = _case(4)
  score = jax.grad(lambda m: gaussian_log_prob_sum(value, m, std).sum())(mean)
  np.testing.assert_allclose(
    score, (value - mean) / std[..., None] ** 2, rtol=1e-5
  )


@pytest.mark.slow
def test_half_precision_is_accumulated_in_float32():
  value, mean, std = (x.astype(jnp.bfloat16) for x in _case(64))
  wide = [x.astype(jnp.float32) for x in (value, mean, std)]
  total = gaussian_log_prob_sum(value, mean, std)
  assert total.dtype == jnp.float32
  np.testing.assert_array_equal(total, gaussian_log_prob_sum(*wide))
