from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax import losses
from rl_jax.flow import interpolate

WEIGHTINGS = ("uniform", "t", "t**2", "huber", "ghuber")


def _weighted(error, t, weighting, power=0.25):
  error, t = jnp.asarray(error)[None], jnp.asarray(t)[None]
  return losses.weighted_error(error, t, weighting=weighting, power=power)[0]


def _latents(rows=4, time=3, event=(5,), scale=1.0):
  keys = jax.random.split(jax.random.key(0), 4)
  velocity = scale * jax.random.normal(keys[0], (rows, time, *event))
  target = jax.random.normal(keys[1], (rows, time, *event))
  t = jax.random.uniform(keys[2], (rows, time), minval=0.1, maxval=1.0)
  return velocity, target, t


def _awm(log_prob, behaviour, advantage, mask=None, *, clip, level="element"):
  mask = jnp.ones(log_prob.shape, bool) if mask is None else mask
  return losses.awm_loss(
    log_prob,
    behaviour,
    advantage,
    mask,
    clip_low=clip,
    clip_high=clip,
    ratio_level=level,
  )


class TestWeightedError:
  @pytest.mark.slow
  def test_worked_by_hand(self):
    """T = .5, l = .04, 1, 4, from the notes on the paper."""
    error, t = jnp.array([0.04, 1.0, 4.0]), jnp.full(3, 0.5)
    ghuber = _weighted(error, t, "ghuber")
    np.testing.assert_allclose(ghuber, [0.88810, 1.99368, 2.82210], atol=5e-6)
    huber = _weighted(error, t, "huber")
    np.testing.assert_allclose(huber, [0.099995, 0.499995, 0.999995], atol=1e-6)
    slope = jax.grad(lambda x: _weighted(x, t, "ghuber").sum())(error)
    np.testing.assert_allclose(slope, [5.5902, 0.5, 0.17678], atol=5e-5)

  @pytest.mark.slow
  @pytest.mark.parametrize("weighting", WEIGHTINGS)
  def test_against_float64(self, weighting):
    rng = np.random.default_rng(0)
    error, t = rng.uniform(0, 5, 32), rng.uniform(0.01, 1, 32)
    g, p = 1e-10, 0.25
    expected = {
      "uniform": error,
      "t": t * error,
      "t**2": t * t * error,
      "huber": t * (np.sqrt(error + g) - np.sqrt(g)),
      "ghuber": t / p * ((error + g) ** p - g**p),
    }[weighting]
    got = _weighted(error.astype(np.float32), t.astype(np.float32), weighting)
    np.testing.assert_allclose(got, expected, rtol=2e-6, atol=1e-6)

  @pytest.mark.slow
  def test_powers_that_have_names(self):
    error, t = jnp.linspace(0.0, 9.0, 19), jnp.linspace(0.1, 1.0, 19)
    np.testing.assert_allclose(
      _weighted(error, t, "ghuber", power=1.0),
      _weighted(error, t, "t"),
      rtol=1e-6,
      atol=1e-9,
    )
    np.testing.assert_allclose(
      _weighted(error, t, "ghuber", power=0.5),
      2.0 * _weighted(error, t, "huber"),
      rtol=1e-6,
      atol=1e-9,
    )

  @pytest.mark.slow
  @pytest.mark.parametrize("jit", [False, True])
  @pytest.mark.parametrize("weighting", WEIGHTINGS)
  def test_zero_error_is_zero_with_a_finite_slope(self, weighting, jit):
    def total(error):
      return _weighted(error, jnp.ones(1), weighting).sum()

    value_and_grad = jax.value_and_grad(total)
    if jit:
      value_and_grad = jax.jit(value_and_grad)
    value, slope = value_and_grad(jnp.zeros(1))
    np.testing.assert_allclose(value, 0.0, atol=1e-9)
    assert np.isfinite(slope).all()

  @pytest.mark.usefixtures("unchecked")
  def test_nonsense_is_refused(self):
    with pytest.raises(ValueError, match="weighting"):
      _weighted(jnp.ones(1), jnp.ones(1), "elbo")
    with pytest.raises(ValueError, match="power"):
      _weighted(jnp.ones(1), jnp.ones(1), "uniform", power=0.0)


class TestMatchingLogProb:
  @pytest.mark.slow
  def test_worked_by_hand(self):
    """X0 = [.5, -.5], noise = [1, .5], t = .4 of the notes on the paper."""
    t = jnp.array([[0.4]])
    x0, noise = jnp.array([[0.5, -0.5]]), jnp.array([[[1.0, 0.5]]])
    _, target = interpolate(x0, noise, t)
    v, v_old = jnp.array([[[0.2, 1.2]]]), jnp.array([[[0.3, 1.0]]])
    np.testing.assert_allclose(
      losses.matching_error(v, target), [[0.065]], atol=1e-6
    )

    def log_prob(velocity, weighting):
      return losses.matching_log_prob(
        velocity, target, t, weighting=weighting, power=0.25
      )

    new, old = log_prob(v, "ghuber"), log_prob(v_old, "ghuber")
    np.testing.assert_allclose(new, [[-0.802823]], atol=2e-6)
    np.testing.assert_allclose(old, [[-0.596637]], atol=2e-6)
    for advantage, clip, expected in (
      (0.5, 1.0, -0.406841),
      (-0.5, 1.0, 0.406841),
      (-0.5, 0.05, 0.475),  # the pessimistic maximum
    ):
      terms = _awm(new, old, jnp.array([advantage]), clip=clip)
      np.testing.assert_allclose(terms.ratio, [[0.813682]], atol=2e-6)
      np.testing.assert_allclose(terms.loss, [[expected]], atol=2e-6)
      np.testing.assert_array_equal(terms.clipped, [[clip < 1]])
    plain = jnp.exp(log_prob(v, "uniform") - log_prob(v_old, "uniform"))
    np.testing.assert_allclose(plain, [[0.955997]], atol=2e-6)

  @pytest.mark.slow
  @pytest.mark.parametrize("event", [(), (5,), (2, 2, 3)])
  def test_error_averages_the_event_alone(self, event):
    velocity, target, _ = _latents(event=event)
    error = losses.matching_error(velocity, target)
    assert error.shape == (4, 3)
    square = (np.asarray(velocity) - np.asarray(target)) ** 2
    expected = square.reshape(4, 3, -1).mean(-1)
    np.testing.assert_allclose(error, expected, rtol=1e-5)

  @pytest.mark.slow
  def test_bfloat16_inputs_are_compared_in_float32(self):
    velocity, target, t = (x.astype(jnp.bfloat16) for x in _latents())
    log_prob = losses.matching_log_prob(
      velocity, target, t, weighting="ghuber", power=0.25
    )
    wide = losses.matching_log_prob(
      *(x.astype(jnp.float32) for x in (velocity, target, t)),
      weighting="ghuber",
      power=0.25,
    )
    assert log_prob.dtype == jnp.float32
    np.testing.assert_array_equal(log_prob, wide)

  @pytest.mark.slow
  @pytest.mark.parametrize("weighting", WEIGHTINGS)
  def test_gradient_at_the_target_is_finite(self, weighting):
    _, target, t = _latents()
    gradient = jax.grad(
      lambda v: losses.matching_log_prob(
        v, target, t, weighting=weighting, power=0.25
      ).sum()
    )(target)
    np.testing.assert_array_equal(gradient, jnp.zeros_like(gradient))


class TestAwmLoss:
  @pytest.mark.slow
  def test_levels_differ_off_policy(self):
    """Ratios 2 and 1/2 of one row: 2, 1/2 at the element, 1 at the sample."""
    log_prob = jnp.log(jnp.array([[2.0, 0.5]]))
    zero, one = jnp.zeros((1, 2)), jnp.ones(1)
    element = _awm(log_prob, zero, one, clip=4.0).loss
    sample = _awm(log_prob, zero, one, clip=4.0, level="sample").loss
    np.testing.assert_allclose(element, [[-2.0, -0.5]], rtol=1e-6)
    np.testing.assert_allclose(sample, [[-1.0, -1.0]], rtol=1e-6)

  @pytest.mark.slow
  def test_levels_have_one_gradient_on_policy(self):
    log_prob = jax.random.normal(jax.random.key(0), (4, 3))
    advantage = jnp.array([1.0, -2.0, 0.0, 0.5])
    gradients = [
      jax.grad(
        lambda x, level=level: _awm(
          x, log_prob, advantage, clip=1.0, level=level
        ).loss.mean()
      )(log_prob)
      for level in ("element", "sample")
    ]
    expected = np.broadcast_to(-advantage[:, None] / 12, (4, 3))
    for gradient in gradients:
      np.testing.assert_allclose(gradient, expected, atol=1e-6)

  @pytest.mark.slow
  @pytest.mark.parametrize("level", ["element", "sample"])
  def test_value_on_policy_is_minus_the_mean_advantage(self, level):
    log_prob = jax.random.normal(jax.random.key(0), (4, 3))
    advantage = jnp.array([1.0, -2.0, 0.0, 0.5])
    terms = _awm(log_prob, log_prob, advantage, clip=1e-4, level=level)
    np.testing.assert_allclose(terms.loss.mean(), -advantage.mean(), atol=1e-6)
    np.testing.assert_array_equal(terms.ratio, jnp.ones((4, 3)))
    assert not terms.clipped.any()

  @pytest.mark.slow
  @pytest.mark.parametrize("level", ["element", "sample"])
  def test_masked_times_may_hold_anything(self, level):
    keys = jax.random.split(jax.random.key(1), 3)
    log_prob, behaviour = (jax.random.normal(k, (4, 3)) for k in keys[:2])
    mask = jax.random.bernoulli(keys[2], 0.6, (4, 3)).at[0].set(False)
    advantage = jnp.array([jnp.nan, -2.0, 3.0, 0.5])

    def total(x, old, advantage):
      return _awm(x, old, advantage, mask, clip=1.0, level=level).loss.sum()

    clean = jax.value_and_grad(total)(log_prob, behaviour, advantage)
    dirty = jax.value_and_grad(total)(
      jnp.where(mask, log_prob, jnp.nan),
      jnp.where(mask, behaviour, jnp.nan),
      advantage,
    )
    assert np.isfinite(clean[0])
    np.testing.assert_array_equal(clean[0], dirty[0])
    np.testing.assert_array_equal(clean[1], dirty[1])
    np.testing.assert_array_equal(dirty[1][~np.asarray(mask)], 0.0)

  @pytest.mark.slow
  def test_sample_level_averages_the_counted_times_alone(self):
    log_prob = jnp.log(jnp.array([[2.0, 8.0, 1e6]]))
    mask = jnp.array([[True, True, False]])
    terms = _awm(
      log_prob,
      jnp.zeros((1, 3)),
      jnp.ones(1),
      mask,
      clip=9.0,
      level="sample",
    )
    np.testing.assert_allclose(terms.ratio, [[4.0, 4.0, 1.0]], rtol=1e-5)
    np.testing.assert_allclose(terms.loss, [[-4.0, -4.0, 0.0]], rtol=1e-5)

  @pytest.mark.usefixtures("unchecked")
  def test_unknown_level_is_refused(self):
    one = jnp.ones((1, 1))
    with pytest.raises(ValueError, match="ratio_level"):
      _awm(one, one, jnp.ones(1), clip=1.0, level="exp_first")


class TestVelocityKl:
  def test_uniform_is_the_mean_square(self):
    velocity, reference, t = _latents()
    kl = losses.velocity_kl(velocity, reference, t, weighting="uniform")
    np.testing.assert_allclose(
      kl, losses.matching_error(velocity, reference), rtol=1e-6
    )

  @pytest.mark.parametrize("t", [0.05, 0.5, 0.99, 0.995, 1.0])
  def test_elbo_against_the_formula(self, t):
    velocity, reference, _ = _latents()
    times = jnp.full((4, 3), t)
    kl = losses.velocity_kl(velocity, reference, times, weighting="elbo")
    plain = losses.velocity_kl(velocity, reference, times, weighting="uniform")
    scale = 0.7 * np.sqrt(t / (1 - min(t, 0.99)))
    np.testing.assert_allclose(kl, plain / (2 * scale**2), rtol=1e-5)

  @pytest.mark.slow
  @pytest.mark.parametrize("weighting", ["uniform", "elbo"])
  def test_zero_value_and_gradient_at_the_reference(self, weighting):
    velocity, _, t = _latents()

    def total(v, reference):
      return losses.velocity_kl(v, reference, t, weighting=weighting).sum()

    value, gradient = jax.value_and_grad(total)(velocity, velocity)
    assert value == 0.0
    np.testing.assert_array_equal(gradient, jnp.zeros_like(gradient))
    stopped = jax.grad(total, argnums=1)(velocity, 2 * velocity)
    np.testing.assert_array_equal(stopped, jnp.zeros_like(stopped))

  @pytest.mark.usefixtures("unchecked")
  def test_unknown_weighting_is_refused(self):
    velocity, reference, t = _latents()
    with pytest.raises(ValueError, match="weighting"):
      losses.velocity_kl(velocity, reference, t, weighting="t")
