from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax import flow


def _normal(seed, *shape):
  return jax.random.normal(jax.random.key(seed), shape)


def _times(seed, *shape):
  return jax.random.uniform(
    jax.random.key(seed), shape, minval=0.05, maxval=0.95
  )


def test_interpolation_worked_by_hand():
  x_t, velocity = flow.interpolate(
    jnp.array([[0.5, -0.5]]), jnp.array([[[1.0, 0.5]]]), jnp.array([[0.4]])
  )
  np.testing.assert_allclose(x_t, [[[0.7, -0.1]]], atol=1e-6)
  np.testing.assert_allclose(velocity, [[[0.5, 1.0]]], atol=1e-6)


@pytest.mark.slow
def test_the_line_ends_at_the_noise_and_moves_with_the_velocity():
  x0, noise = _normal(0, 3, 2, 2), _normal(1, 3, 4, 2, 2)
  t = _times(2, 3, 4)
  at_one, velocity = flow.interpolate(x0, noise, jnp.ones((3, 4)))
  np.testing.assert_allclose(at_one, noise, atol=1e-6)
  here, _ = flow.interpolate(x0, noise, t)
  there, _ = flow.interpolate(x0, noise, t + 0.01)
  np.testing.assert_allclose((there - here) / 0.01, velocity, atol=1e-3)


@pytest.mark.parametrize("bad", [0.0, -0.1, 1.0001, float("nan")])
def test_a_time_outside_the_half_open_interval_is_refused(bad):
  with pytest.raises(ValueError, match=r"\(0, 1\]"):
    flow.interpolate(
      jnp.zeros((1, 2)), jnp.zeros((1, 1, 2)), jnp.array([[bad]])
    )


def test_traced_times_cannot_be_seen_and_are_let_through():
  value, _ = jax.jit(flow.interpolate)(
    jnp.ones((1, 2)), jnp.zeros((1, 1, 2)), jnp.array([[2.0]])
  )
  np.testing.assert_array_equal(value, -jnp.ones((1, 1, 2)))


def test_conversions_agree_with_the_line():
  x0, noise, t = _normal(0, 4, 3), _normal(1, 4, 3), _times(2, 4)
  x_t, velocity = flow.interpolate(x0, noise[:, None], t[:, None])
  x_t, velocity = x_t[:, 0], velocity[:, 0]
  close = {"atol": 2e-6, "rtol": 1e-5}
  clean = flow.clean_from_velocity(x_t, velocity, t)
  np.testing.assert_allclose(clean, x0, **close)
  other_end = flow.noise_from_velocity(x_t, velocity, t)
  np.testing.assert_allclose(other_end, noise, **close)
  from_clean = flow.velocity_from_clean(x_t, x0, t)
  np.testing.assert_allclose(from_clean, velocity, atol=1e-5, rtol=1e-5)
  from_noise = flow.velocity_from_noise(x_t, noise, t)
  np.testing.assert_allclose(from_noise, velocity, atol=1e-5, rtol=1e-5)


def test_half_precision_is_widened():
  half = jnp.bfloat16
  x_t, velocity = flow.interpolate(
    jnp.ones((1, 2), half), jnp.zeros((1, 1, 2), half), jnp.ones((1, 1), half)
  )
  assert x_t.dtype == velocity.dtype == jnp.float32


class TestNoisyTarget:
  def test_worked_by_hand(self):
    """T = .5, s = .3: a = .714286, b^2 = .204082, v~ = -1.29."""
    x_t, x_s = jnp.array([[[0.4]]]), jnp.array([[[0.7]]])
    t, s = jnp.array([[0.5]]), jnp.array([[0.3]])
    target = flow.noisy_velocity_target(x_t, x_s, t, s)
    np.testing.assert_allclose(target, [[[-1.29]]], atol=1e-6)
    moved = flow.renoise(jnp.ones((1, 1, 1)), jnp.zeros((1, 1, 1)), t, s)
    np.testing.assert_allclose(moved, [[[0.714286]]], atol=1e-6)
    spread = flow.renoise(jnp.zeros((1, 1, 1)), jnp.ones((1, 1, 1)), t, s)
    np.testing.assert_allclose(spread**2, [[[0.204082]]], atol=1e-6)

  @pytest.mark.slow
  def test_a_clean_sample_gives_the_clean_target(self):
    x0, noise, t = _normal(0, 4, 3), _normal(1, 4, 2, 3), _times(2, 4, 2)
    x_t, velocity = flow.interpolate(x0, noise, t)
    x_s = jnp.broadcast_to(x0[:, None], x_t.shape)
    target = flow.noisy_velocity_target(x_t, x_s, t, jnp.zeros_like(t))
    np.testing.assert_allclose(target, velocity, atol=2e-5, rtol=1e-5)

  def test_renoising_in_two_moves_has_the_law_of_one(self):
    """Coefficients of x_0 and total variance are those of the line itself."""
    t, s = jnp.array([[0.8]]), jnp.array([[0.35]])
    one, zero = jnp.ones((1, 1, 1)), jnp.zeros((1, 1, 1))
    keep = flow.renoise(one, zero, t, s).item()
    std = flow.renoise(zero, one, t, s).item()
    np.testing.assert_allclose(keep * (1 - 0.35), 1 - 0.8, rtol=1e-5)
    np.testing.assert_allclose((keep * 0.35) ** 2 + std**2, 0.64, rtol=1e-5)

  @pytest.mark.parametrize(("t", "s"), [(0.3, 0.3), (0.3, 0.4), (0.5, -0.1)])
  def test_times_out_of_order_are_refused(self, t, s):
    x = jnp.zeros((1, 1, 1))
    t, s = jnp.array([[t]]), jnp.array([[s]])
    with pytest.raises(ValueError, match="0 <= s < t"):
      flow.noisy_velocity_target(x, x, t, s)
    with pytest.raises(ValueError, match="0 <= s < t"):
      flow.renoise(x, x, t, s)

  def test_pure_noise_has_no_noisy_target(self):
    x, one = jnp.zeros((1, 1, 1)), jnp.ones((1, 1))
    with pytest.raises(ValueError, match="0 <= s < t"):
      flow.noisy_velocity_target(x, x, one, 0.5 * one)
    flow.renoise(x, x, one, 0.5 * one)


class TestSchedule:
  def test_stable_diffusion_worked_by_hand(self):
    """N = 14, shift 3: the numbers of the paper's notes, four decimals."""
    expected = [1, 0.9731, 0.9430, 0.9094, 0.8715, 0.8283, 0.7787, 0.7213]
    expected += [0.6539, 0.5738, 0.4769, 0.3574, 0.2062, 0.0089, 0]
    t = flow.shifted_schedule(num_steps=14, shift=3.0, t_min=1 / 1000)
    assert t.shape == (15,)
    assert t.dtype == np.float32
    np.testing.assert_allclose(t, expected, atol=5.1e-5)

  def test_unshifted_is_even(self):
    t = flow.shifted_schedule(num_steps=10, shift=1.0, t_min=None)
    np.testing.assert_allclose(t, np.linspace(1, 0, 11), atol=1e-7)

  @pytest.mark.parametrize("t_min", [None, 0.001])
  @pytest.mark.parametrize("shift", [0.5, 1.0, 3.0])
  @pytest.mark.parametrize("num_steps", [1, 2, 7])
  def test_it_falls_from_one_to_zero(self, num_steps, shift, t_min):
    t = flow.shifted_schedule(num_steps=num_steps, shift=shift, t_min=t_min)
    assert t.size == num_steps + 1
    assert (t[0], t[-1]) == (1.0, 0.0)
    assert (np.diff(t) < 0).all()

  @pytest.mark.parametrize(
    ("bad", "message"),
    [
      ({"num_steps": 0}, "num_steps"),
      ({"shift": 0.0}, "shift"),
      ({"shift": float("nan")}, "shift"),
      ({"t_min": 0.0}, "t_min"),
      ({"t_min": 1.0}, "t_min"),
    ],
  )
  def test_nonsense_is_refused(self, bad, message):
    good = {"num_steps": 4, "shift": 1.0, "t_min": None}
    with pytest.raises(ValueError, match=message):
      flow.shifted_schedule(**(good | bad))
