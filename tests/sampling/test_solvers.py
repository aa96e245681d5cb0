from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax import sampling
from rl_jax.flow import shifted_schedule

ROWS = 3


def velocity_fn(x, t):
  return jnp.tanh(x) - x * t[:, None]


def _velocity64(x, t):
  return np.tanh(x) - x * t


def _inputs():
  keys = sampling.row_keys(jax.random.key(0), jnp.arange(ROWS))
  return jax.random.normal(jax.random.key(1), (ROWS, 2)), keys


def _noise(keys, index):
  folded = jax.vmap(lambda key: jax.random.fold_in(key, index))(keys)
  return np.asarray(sampling.row_normal(folded, (2,)), np.float64)


def _integrals(rate, start, end):
  """Both exponential integrals, by quadrature instead of closed forms."""
  nodes, weights = np.polynomial.legendre.leggauss(40)
  level = 0.5 * (end - start) * nodes + 0.5 * (end + start)
  weights = 0.5 * (end - start) * weights * np.exp(rate * level)
  return weights.sum(), (weights * level).sum()


def _solve(x, keys, times, order, noise_level, window=(0.3, 0.9)):
  """The paper's notes step by step, in float64."""

  def data(x, t):
    return x - t * _velocity64(x, t)

  level = np.log((1 - times) / times)
  stored = [data(x, times[0])]
  for index in range(1, len(times)):
    s, t = times[index - 1], times[index]
    tau = noise_level if window[0] <= t <= window[1] else 0.0
    k, h = 1 + tau**2, level[index] - level[index - 1]
    z = _noise(keys, index - 1)
    moved = np.exp(-(tau**2) * h) * (t / s) * x
    moved = moved + t * np.sqrt(1 - np.exp(-2 * tau**2 * h)) * z
    first = (1 - t) * (1 - np.exp(-k * h)) * stored[-1]
    if order == 1 or index == 1:
      x = moved + first
      stored.append(data(x, t))
      continue
    i0, i1 = _integrals(k, level[index - 1], level[index])
    outer = k * t * np.exp(-(tau**2) * level[index])
    curve = (k * h - 1 + np.exp(-k * h)) / k**2

    def line(a, b, q, i0=i0, i1=i1):
      return (i1 - b * i0) / (a - b) + q, (i1 - a * i0) / (b - a) - q

    here, before = level[index - 1], level[index - 2]
    q = np.exp(k * level[index]) * (h**2 / 2 - curve) / (here - before)
    c_here, c_before = line(here, before, q)
    predicted = moved + outer * (c_here * stored[-1] + c_before * stored[-2])
    stored.append(data(predicted, t))
    q = np.exp(k * level[index]) * (h / 2 - curve / h)
    c_there, c_here = line(level[index], here, q)
    x = moved + outer * (c_there * stored[-1] + c_here * stored[-2])
  return stored[-1]


class TestTimes:
  def test_the_two_edits(self):
    schedule = shifted_schedule(num_steps=14, shift=3.0, t_min=0.001)
    before = schedule.copy()
    times = sampling.sa_times(schedule)
    np.testing.assert_array_equal(schedule, before)
    assert times.size == 14
    assert times[0] == 0.999
    np.testing.assert_allclose(times[1:-1], schedule[1:-2], rtol=1e-7)
    np.testing.assert_allclose(times[-1], schedule[-3] / 2, rtol=1e-7)

  def test_one_and_two_steps(self):
    one = sampling.sa_times(np.array([1.0, 0.0], np.float32))
    np.testing.assert_array_equal(one, [0.999])
    two = sampling.sa_times(np.array([1.0, 0.5, 0.0], np.float32))
    np.testing.assert_allclose(two, [0.999, 0.4995])

  @pytest.mark.parametrize(
    "schedule", [[0.9, 0.5, 0.0], [1.0, 0.5, 0.1], [1.0, 0.9995, 0.5, 0.0]]
  )
  def test_other_schedules_are_refused(self, schedule):
    with pytest.raises(ValueError, match=r"schedule|0\.999"):
      sampling.sa_times(np.asarray(schedule, np.float32))


@pytest.mark.slow
@pytest.mark.parametrize("noise_level", [0.0, 0.7])
@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("steps", [1, 3, 8])
def test_against_the_formulas_by_quadrature(steps, order, noise_level):
  sampler = sampling.SaSolver(
    steps=steps, shift=3.0, order=order, noise_level=noise_level, t_min=0.001
  )
  noise, keys = _inputs()
  times = sampling.sa_times(sampler.schedule)
  expected = _solve(
    np.asarray(noise, np.float64), keys, times, order, noise_level
  )
  x0 = sampler(velocity_fn, noise, keys).x0
  np.testing.assert_allclose(x0, expected, rtol=2e-5, atol=2e-5)


@pytest.mark.slow
def test_noise_is_put_back_inside_the_window_alone():
  noise, keys = _inputs()
  _, others = (
    _inputs()[0],
    sampling.row_keys(jax.random.key(9), jnp.arange(ROWS)),
  )

  def sample(keys, window):
    return sampling.SaSolver(
      steps=6, shift=1.0, order=2, noise_level=0.4, window=window
    )(velocity_fn, noise, keys).x0

  # Times stepped to: .833 .667 .5 .333 .167; a window that misses them all.
  np.testing.assert_array_equal(
    sample(keys, (0.55, 0.6)), sample(others, (0.55, 0.6))
  )
  assert (sample(keys, (0.3, 0.9)) != sample(others, (0.3, 0.9))).all()


@pytest.mark.slow
def test_data_at_one_point_is_found_exactly():
  """A constant data prediction is the one that every order integrates."""
  noise, keys = _inputs()
  for order in (1, 2):
    sampler = sampling.SaSolver(
      steps=7, shift=3.0, order=order, noise_level=0.4
    )
    x0 = sampler(lambda x, t: (x - 2.0) / t[:, None], noise, keys).x0
    np.testing.assert_allclose(x0, np.full((ROWS, 2), 2.0), atol=1e-5)


@pytest.mark.slow
def test_one_evaluation_per_step():
  calls = []

  def counting(x, t):
    jax.debug.callback(lambda t: calls.append(float(t)), t[0])
    return velocity_fn(x, t)

  noise, keys = _inputs()
  sampler = sampling.SaSolver(steps=6, shift=1.0, order=2, noise_level=0.4)
  jax.block_until_ready(sampler(counting, noise, keys).x0)
  jax.effects_barrier()
  times = sampling.sa_times(sampler.schedule)
  np.testing.assert_allclose(sorted(calls, reverse=True), times, rtol=1e-6)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
  ("bad", "name"),
  [
    ({"order": 3}, "order"),
    ({"noise_level": -0.1}, "noise_level"),
    ({"window": (0.9, 0.3)}, "window"),
    ({"steps": 0}, "num_steps"),
    ({"steps": 5000}, r"0\.999"),
  ],
)
def test_nonsense_is_refused(bad, name):
  good = {"steps": 4, "shift": 1.0, "order": 2, "noise_level": 0.4}
  with pytest.raises(ValueError, match=name):
    sampling.SaSolver(**(good | bad))


@pytest.mark.parametrize("times", [[1.0, 0.5], [0.5, 0.0], [0.4, 0.5], []])
def test_times_outside_the_open_interval_are_refused(times):
  noise, keys = _inputs()
  with pytest.raises(ValueError, match="times"):
    sampling.sa_solver(
      velocity_fn,
      noise,
      keys,
      np.asarray(times, np.float64),
      order=1,
      noise_level=0.0,
      window=(0.3, 0.9),
    )
