"""KL estimators by enumeration: which value each has, and which gradient."""

from __future__ import annotations

import inspect
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax import divergences

# The worked example of the reference sheet (section 7).
POLICY, REFERENCE = np.array([0.6, 0.3, 0.1]), np.array([0.3, 0.3, 0.4])
TRUE_KL = 0.277259
REVERSE_GRADIENT = [0.249533, -0.083178, -0.166355]
FORWARD_GRADIENT = POLICY - REFERENCE


def expectation(estimator: Callable, logits: jax.Array) -> jax.Array:
  """E_pi of an estimator: the sampling weights are not differentiated."""
  log_prob = jax.nn.log_softmax(logits)
  value = estimator(
    log_prob, jnp.log(jnp.asarray(REFERENCE)), jnp.ones(3, bool)
  )
  return jnp.sum(jax.lax.stop_gradient(jnp.exp(log_prob)) * value)


@pytest.mark.parametrize(
  ("estimator", "value", "gradient"),
  [
    (divergences.k1, TRUE_KL, [0.0, 0.0, 0.0]),
    (divergences.k2, 0.240227, REVERSE_GRADIENT),
    (divergences.k3, TRUE_KL, FORWARD_GRADIENT),
  ],
)
def test_value_and_gradient_by_enumeration(estimator, value, gradient) -> None:
  logits = jnp.log(jnp.asarray(POLICY, jnp.float32))
  found = jax.value_and_grad(lambda z: expectation(estimator, z))(logits)
  assert found[0].item() == pytest.approx(value, abs=1e-6)
  np.testing.assert_allclose(found[1], gradient, atol=1e-6)


def test_masked_means_of_the_reference_sheet() -> None:
  mask = jnp.array(
    [
      [True, True, True, False],
      [True, True, False, False],
      [True, True, True, True],
    ]
  )
  d = jnp.array(
    [
      [0.3, -0.1, 0.05, 0],
      [-0.4, 0.25, 0, 0],
      [0.1, -0.3, 0.2, -0.05],
    ]
  )
  reference = jnp.array(
    [
      [0.1, 0, -0.2, 0],
      [0.2, -0.1, 0, 0],
      [0, 0.3, -0.1, 0.1],
    ]
  )
  expected = {"k1": -0.027778, "k2": 0.059861, "k3": 0.067680}
  for name, value in expected.items():
    found = getattr(divergences, name)(d, reference, mask)
    assert (found.sum() / 9).item() == pytest.approx(value, abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["k2", "k3"])
def test_never_negative(name: str) -> None:
  x = (jnp.arange(401) - 200) / 10
  value = getattr(divergences, name)(x, jnp.zeros(401), jnp.ones(401, bool))
  assert (value >= 0).all()
  assert value[200] == 0


def test_nothing_is_clamped_silently() -> None:
  value = divergences.k3(
    jnp.array([-100.0]), jnp.array([0.0]), jnp.array([True])
  )
  assert jnp.isinf(value).all()


def test_reference_gets_no_gradient() -> None:
  for name in ("k1", "k2", "k3"):
    gradient = jax.grad(
      lambda r, name=name: jnp.sum(
        getattr(divergences, name)(-jnp.ones(2), r, jnp.ones(2, bool))
      )
    )(jnp.array([-2.0, -0.5]))
    assert gradient.tolist() == [0.0, 0.0]


@pytest.mark.slow
def test_categorical_kl_is_the_enumerated_one() -> None:
  logits = jnp.log(jnp.asarray(POLICY, jnp.float32)) + 5.0
  reference = jnp.log(jnp.asarray(REFERENCE, jnp.float32)) - 3.0

  def kl(z):
    return divergences.categorical_kl(
      z[None], reference[None], jnp.ones(1, bool)
    )[0]

  value, gradient = jax.value_and_grad(kl)(logits)
  assert value.item() == pytest.approx(TRUE_KL, abs=1e-6)
  np.testing.assert_allclose(gradient, REVERSE_GRADIENT, atol=1e-6)


@pytest.mark.slow
def test_categorical_kl_outside_the_support() -> None:
  narrow = jnp.array([[0.0, 0.0, -jnp.inf]])
  wide = jnp.zeros((1, 3))
  one = jnp.ones(1, bool)
  inside = divergences.categorical_kl(narrow, wide, one)
  np.testing.assert_allclose(inside, np.log([1.5]), rtol=1e-6)
  assert jnp.isinf(divergences.categorical_kl(wide, narrow, one)).all()
  same = divergences.categorical_kl(narrow, narrow, one)
  assert same.tolist() == [0.0]
  gradient = jax.grad(lambda z: divergences.categorical_kl(z, wide, one).sum())(
    narrow
  )
  assert jnp.isfinite(gradient).all()


@pytest.mark.slow
def test_categorical_kl_masks_whole_vocabularies() -> None:
  logits = jnp.array([[1.0, 2.0], [jnp.nan, jnp.inf]])
  mask = jnp.array([True, False])

  def total(z):
    return divergences.categorical_kl(z, jnp.zeros((2, 2)), mask).sum()

  assert jnp.isfinite(total(logits))
  assert jax.grad(total)(logits)[1].tolist() == [0.0, 0.0]


def test_gaussian_kl_against_quadrature() -> None:
  """Integral of p log(p / q) on a fine grid, in one dimension."""
  mean, other, std = 0.3, -0.4, 0.8
  x, dx = np.linspace(-8, 8, 20001, retstep=True)
  log_p = -((x - mean) ** 2) / (2 * std**2)
  log_q = -((x - other) ** 2) / (2 * std**2)
  density = np.exp(log_p) / (std * np.sqrt(2 * np.pi))
  expected = np.sum(density * (log_p - log_q)) * dx
  found = divergences.gaussian_kl_sum(
    jnp.full((1, 1), mean), jnp.full((1, 1), other), jnp.full((1, 1), std)
  )
  assert found.item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.slow
def test_gaussian_mean_is_the_sum_per_dimension() -> None:
  rng = np.random.default_rng(0)
  mean, other = (
    jnp.asarray(rng.normal(size=(2, 3, 4, 5)), jnp.float32) for _ in range(2)
  )
  std = jnp.asarray(rng.uniform(0.5, 2, (2, 3)), jnp.float32)
  total = divergences.gaussian_kl_sum(mean, other, std)
  average = divergences.gaussian_kl_mean(mean, other, std)
  np.testing.assert_allclose(average * 20, total, rtol=1e-5)
  loop = [
    [
      np.sum((np.float64(mean[i, j]) - np.float64(other[i, j])) ** 2)
      / (2 * float(std[i, j]) ** 2)
      for j in range(3)
    ]
    for i in range(2)
  ]
  np.testing.assert_allclose(total, loop, rtol=1e-5)


@pytest.mark.parametrize(
  ("normalisation", "expected"),
  # The worked step of the Flow-GRPO specification: t = .6, t_next = .5,
  # noise level .7, x = .8, velocity .3 against a reference's .2.
  [("reference", 1.0544e-4), ("exact", 1.0544e-3)],
)
def test_step_kl_of_the_worked_example(normalisation, expected) -> None:
  t, dt, level, x = 0.6, -0.1, 0.7, 0.8
  sigma = level * np.sqrt(t / (1 - t))
  drift = 1 + sigma**2 / (2 * t) * dt
  coefficient = (1 + sigma**2 * (1 - t) / (2 * t)) * dt
  mean, other = (x * drift + v * coefficient for v in (0.3, 0.2))
  found = divergences.gaussian_mean_kl(
    jnp.full((1, 1, 1), mean),
    jnp.full((1, 1, 1), other),
    jnp.full((1, 1), sigma),
    jnp.full((1, 1), dt),
    normalisation=normalisation,
  )
  assert found.item() == pytest.approx(expected, rel=1e-4)  # printed digits


def test_time_that_runs_the_wrong_way_is_loud() -> None:
  one = jnp.ones((1, 1))
  found = divergences.gaussian_mean_kl(
    one, jnp.zeros((1, 1)), one, one, normalisation="exact"
  )
  assert jnp.isnan(found).all()


def test_unknown_normalisation_is_refused() -> None:
  one = jnp.ones((1, 1))
  # Annotations already refuse it in tests; users have the check alone.
  unchecked = inspect.unwrap(divergences.gaussian_mean_kl)
  with pytest.raises(ValueError, match="'other'"):
    unchecked(one, one, one, one, normalisation="other")


def test_absolute_log_ratio_has_no_slope_where_both_agree() -> None:
  def total(p):
    mask = jnp.array([True, True, False])
    q = jnp.array([-1.0, -1.0, jnp.nan])
    return divergences.absolute_log_ratio(p, q, mask).sum()

  value, gradient = jax.value_and_grad(total)(jnp.array([-1.0, -3.0, 0.0]))
  assert value.item() == 2.0
  assert gradient.tolist() == [0.0, -1.0, 0.0]


def test_straight_through_returns_the_value_to_the_bit() -> None:
  value, surrogate = jnp.array([1e-3, 0.1]), jnp.array([1e7, -3e5])
  found = divergences.straight_through(value, surrogate)
  np.testing.assert_array_equal(found, value)


def test_forward_kl_outside_the_support() -> None:
  narrow, wide = jnp.array([[0.0, 0.0, -jnp.inf]]), jnp.zeros((1, 3))
  one = jnp.ones(1, bool)
  forward = divergences.categorical_forward_kl
  np.testing.assert_allclose(
    forward(wide, narrow, one), np.log([1.5]), rtol=1e-6
  )
  assert jnp.isinf(forward(narrow, wide, one)).all()
  gradient = jax.grad(lambda z: forward(z, narrow, one).sum())(wide)
  np.testing.assert_allclose(gradient, [[-1 / 6, -1 / 6, 1 / 3]], atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("mixture", [0.1, 0.5, 0.9])
def test_jensen_shannon_is_bounded_and_finite(mixture: float) -> None:
  apart = (
    jnp.array([[0.0, -jnp.inf, -jnp.inf]]),
    jnp.array([[-jnp.inf, 0.0, -jnp.inf]]),
  )
  one = jnp.ones(1, bool)

  def nats(z):
    return divergences.categorical_jensen_shannon(
      z, apart[1], one, mixture=mixture
    )[0]

  value, gradient = jax.value_and_grad(nats)(apart[0])
  bound = -mixture * np.log(mixture) - (1 - mixture) * np.log(1 - mixture)
  assert value.item() == pytest.approx(bound, abs=1e-6)
  assert jnp.isfinite(gradient).all()
  assert nats(apart[1]).item() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.slow
def test_jensen_shannon_is_symmetric_at_one_half_and_a_kl_at_its_ends() -> None:
  p = jnp.log(jnp.asarray(POLICY, jnp.float32))[None]
  q = jnp.log(jnp.asarray(REFERENCE, jnp.float32))[None]
  one = jnp.ones(1, bool)

  def nats(p, q, mixture):
    return divergences.categorical_jensen_shannon(p, q, one, mixture=mixture)

  half = nats(p, q, 0.5)
  np.testing.assert_allclose(half, nats(q, p, 0.5), atol=1e-6)
  with jax.enable_x64(True):
    p, q = (jnp.log(jnp.asarray(x))[None] for x in (POLICY, REFERENCE))
    small = 1e-6
    forward = divergences.categorical_forward_kl(p, q, one)
    reverse = divergences.categorical_kl(p, q, one)
    np.testing.assert_allclose(nats(p, q, small) / small, forward, rtol=1e-5)
    np.testing.assert_allclose(
      nats(p, q, 1 - small) / small, reverse, rtol=1e-5
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["forward_kl", "jensen_shannon"])
def test_whole_vocabularies_are_masked(name: str) -> None:
  options = {"mixture": 0.25} if name == "jensen_shannon" else {}
  logits = jnp.array([[1.0, 2.0], [jnp.nan, jnp.inf]])
  mask = jnp.array([True, False])

  def one(z):
    function = getattr(divergences, f"categorical_{name}")
    return function(z, jnp.zeros((2, 2)), mask, **options)

  assert one(logits)[1] == 0.0
  gradient = jax.grad(lambda z: one(z).sum())(logits)
  assert gradient[1].tolist() == [0.0, 0.0]
  assert gradient[0].any()


@pytest.mark.parametrize("mixture", [0.0, 1.0, -0.5, float("nan")])
def test_mixture_must_mix(mixture: float) -> None:
  with pytest.raises(ValueError, match=str(mixture)):
    divergences.categorical_jensen_shannon(
      jnp.zeros((1, 2)), jnp.zeros((1, 2)), jnp.ones(1, bool), mixture=mixture
    )
