"""Slopes, minima, bounds and symmetries of the losses of a pair."""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax import losses

BETA = 0.5
# Six rows everywhere: what is compiled for one test serves the next.
W = jnp.array([1.0, -0.5, 0.25, 3.0, -1.5, 0.5])
L = jnp.array([-0.5, 0.5, 0.25, -1.0, -2.0, 2.5])
KEPT = jnp.ones(6, bool)

# Functions of the margin alone, with what they need besides beta.
OF_THE_MARGIN = {
  "logistic": functools.partial(losses.logistic_preference_loss),
  "smoothed": functools.partial(losses.logistic_preference_loss, smoothing=0.2),
  "robust": functools.partial(losses.robust_preference_loss, noise=0.2),
  "reverse_kl": functools.partial(
    losses.reverse_kl_preference_loss, smoothing=0.2
  ),
  "hinge": functools.partial(
    losses.hinge_preference_loss, target=1.0, degree=1
  ),
  "truncated": functools.partial(
    losses.hinge_preference_loss, target=1.0, degree=2
  ),
  "squared": functools.partial(losses.squared_preference_loss),
  "sigmoid": functools.partial(losses.sigmoid_preference_loss, degree=1),
  "savage": functools.partial(losses.sigmoid_preference_loss, degree=2),
  "exponential": functools.partial(losses.exponential_preference_loss),
  "modulated": functools.partial(
    losses.modulated_preference_loss, temperature=0.05
  ),
}
OF_BOTH = {
  "nca": losses.nca_loss,
  "sppo": losses.sppo_loss,
  "apo_zero": losses.apo_zero_loss,
  "apo_down": losses.apo_down_loss,
}
ALL = OF_THE_MARGIN | OF_BOTH


def sig(x):
  return 1 / (1 + np.exp(-np.asarray(x, np.float64)))


def slopes(loss, chosen=W, rejected=L, **options):
  options = {"beta": BETA} | options
  return jax.grad(
    lambda w, l: loss(w, l, KEPT, **options).sum(),  # noqa: E741
    argnums=(0, 1),
  )(chosen, rejected)


def at(loss, *h):
  """The loss at a few margins h, in nats."""
  rows = jnp.asarray(np.resize(np.float32(h), 6))
  return np.asarray(loss(rows, jnp.zeros(6), KEPT, beta=BETA))[: len(h)]


def modulated_slope(z, m):
  """Of (1 - m)(-log sigmoid(z)) + m exp(-z), m moving with z / 0.05."""
  moving = m * (1 - m) / 0.05 * (np.exp(-z) - np.log1p(np.exp(-z)))
  return moving - (1 - m) * sig(-z) - m * np.exp(-z)


# By h_w over beta, in z = beta (h_w - h_l).
SLOPES = {
  "logistic": lambda z: -sig(-z),
  "smoothed": lambda z: sig(z) - 0.8,
  "robust": lambda z: -(0.2 * sig(z) + 0.8 * sig(-z)) / 0.6,
  # s' (log s/(1-s) - log (1-e)/e) with s' = s (1 - s).
  "reverse_kl": lambda z: sig(z) * sig(-z) * (z - math.log(4.0)),
  "hinge": lambda z: -1.0 * (z < 1),
  "truncated": lambda z: -2 * np.maximum(0, 1 - z),
  "squared": lambda z: 2 * (z - 0.5) / BETA**2,
  "sigmoid": lambda z: -sig(z) * sig(-z),
  "savage": lambda z: -2 * sig(z) * sig(-z) ** 2,
  "exponential": lambda z: -np.exp(-z),
  "modulated": lambda z: modulated_slope(z, sig(z / 0.05)),
}


class TestSlopes:
  """Gradients by h_w in closed form, z = beta (h_w - h_l)."""

  @pytest.mark.slow
  @pytest.mark.parametrize("name", SLOPES)
  def test_by_both_responses(self, name):
    by_w, by_l = slopes(OF_THE_MARGIN[name])
    z = BETA * (np.asarray(W, float) - np.asarray(L, float))
    np.testing.assert_allclose(
      by_w, BETA * SLOPES[name](z), rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(by_l, -by_w, rtol=1e-6)

  def test_of_losses_of_both(self):
    r_w, r_l = BETA * np.asarray(W, float), BETA * np.asarray(L, float)
    d = lambda r: sig(r) * sig(-r)  # noqa: E731
    for name, expected in {
      "nca": (1.5 * sig(r_w) - 1, 0.5 * sig(r_l)),
      "sppo": (2 * (r_w - 0.5) / BETA**2, 2 * (r_l + 0.5) / BETA**2),
      "apo_zero": (-d(r_w), d(r_l)),
      "apo_down": (d(r_w) - d(r_w - r_l), d(r_w - r_l)),
    }.items():
      for found, slope in zip(slopes(OF_BOTH[name]), expected, strict=True):
        np.testing.assert_allclose(
          found, BETA * slope, rtol=1e-5, atol=1e-6, err_msg=name
        )

  def test_logistic_starts_at_log_two(self):
    np.testing.assert_allclose(
      at(losses.logistic_preference_loss, 0.0), math.log(2.0), rtol=1e-6
    )

  def test_nothing_flows_into_offset_and_smoothing(self):
    def total(offset, smoothing):
      return losses.logistic_preference_loss(
        W, L, KEPT, beta=BETA, offset=offset, smoothing=smoothing
      ).sum()

    for slope in jax.grad(total, argnums=(0, 1))(0.1 * W, jnp.full(6, 0.1)):
      np.testing.assert_array_equal(slope, 0.0)


class TestMinima:
  @pytest.mark.parametrize(
    ("name", "margin"),
    [
      ("squared", 0.5),  # h = 1 / (2 beta)
      ("smoothed", math.log(4.0)),  # sigmoid(z) = 1 - e
      ("reverse_kl", math.log(4.0)),
    ],
  )
  def test_finite_margin(self, name, margin):
    loss, h = OF_THE_MARGIN[name], margin / BETA
    slope, _ = slopes(loss, chosen=jnp.full(6, h), rejected=jnp.zeros(6))
    np.testing.assert_allclose(slope, 0.0, atol=1e-6)
    around = at(loss, h - 0.5, h, h + 0.5)
    assert around[1] < around[0]
    assert around[1] < around[2]

  def test_reverse_kl_is_zero_at_its_minimum(self):
    found = at(OF_THE_MARGIN["reverse_kl"], math.log(4.0) / BETA)
    np.testing.assert_allclose(found, 0.0, atol=1e-6)

  def test_squared_finds_the_margin_of_its_population(self):
    """With preference probability p the minimum is (2 p - 1) / (2 beta)."""
    p, h = 0.8, (2 * 0.8 - 1) / (2 * BETA)

    chosen, zero = jnp.full(6, h), jnp.zeros(6)
    as_labelled, _ = slopes(losses.squared_preference_loss, chosen, zero)
    _, swapped = slopes(losses.squared_preference_loss, zero, chosen)
    np.testing.assert_allclose(
      p * as_labelled + (1 - p) * swapped, 0.0, atol=1e-6
    )

  def test_nca_raises_the_chosen_one_to_log_two(self):
    w = jnp.full(6, math.log(2.0) / BETA)
    by_w, _ = slopes(losses.nca_loss, chosen=w)
    np.testing.assert_allclose(by_w, 0.0, atol=1e-6)

  @pytest.mark.slow
  def test_modulated_loss_has_a_trap_below_zero(self):
    h = np.linspace(-1.0, 1.0, 401)
    values = np.asarray(
      OF_THE_MARGIN["modulated"](
        jnp.asarray(h, jnp.float32),
        jnp.zeros(401),
        jnp.ones(401, bool),
        beta=BETA,
      )
    )
    inner = (values[1:-1] < values[:-2]) & (values[1:-1] < values[2:])
    (place,) = h[1:-1][inner]
    assert -0.5 < place < 0


class TestShape:
  @pytest.mark.parametrize("name", OF_THE_MARGIN)
  def test_a_constant_added_to_both_changes_nothing(self, name):
    loss = OF_THE_MARGIN[name]
    np.testing.assert_allclose(
      loss(W + 0.75, L + 0.75, KEPT, beta=BETA),
      loss(W, L, KEPT, beta=BETA),
      rtol=1e-6,
    )

  @pytest.mark.parametrize("name", OF_BOTH)
  def test_it_does_where_responses_are_anchored(self, name):
    loss = OF_BOTH[name]
    moved = loss(W + 0.75, L + 0.75, KEPT, beta=BETA)
    assert np.abs(moved - loss(W, L, KEPT, beta=BETA)).max() > 1e-3

  @pytest.mark.parametrize(
    "loss", [losses.logistic_preference_loss, losses.reverse_kl_preference_loss]
  )
  def test_swapped_labels_are_the_other_smoothing(self, loss):
    np.testing.assert_allclose(
      loss(W, L, KEPT, beta=BETA, smoothing=0.3),
      loss(L, W, KEPT, beta=BETA, smoothing=0.7),
      rtol=1e-5,
    )

  def test_robust_is_unbiased_over_flips(self):
    """The mean over flips of rate e is the loss of the clean label."""
    loss = OF_THE_MARGIN["robust"]
    mean = 0.8 * loss(W, L, KEPT, beta=BETA) + 0.2 * loss(L, W, KEPT, beta=BETA)
    clean = losses.logistic_preference_loss(W, L, KEPT, beta=BETA)
    np.testing.assert_allclose(mean, clean, rtol=1e-6)

  @pytest.mark.parametrize(
    ("name", "most"),
    [("sigmoid", 1), ("savage", 1), ("apo_zero", 2), ("apo_down", 2)],
  )
  def test_bounds(self, name, most):
    w = jnp.array([-1e4, -1e4, -3.0, 3.0, 1e4, 1e4])
    for l in (w, -w, jnp.roll(w, 1)):  # noqa: E741
      found = np.asarray(ALL[name](w, l, KEPT, beta=BETA))
      assert found.min() >= 0
      assert found.max() <= most

  @pytest.mark.slow
  @pytest.mark.parametrize(
    "name", sorted(set(ALL) - {"exponential", "modulated"})
  )
  @pytest.mark.parametrize("h", [-1e4, 1e4])
  def test_far_margins_are_finite(self, name, h):
    w = jnp.full(6, h)
    values = ALL[name](w, -w, KEPT, beta=BETA)
    assert np.isfinite(values).all()
    for slope in slopes(ALL[name], chosen=w, rejected=-w):
      assert np.isfinite(slope).all()

  def test_modulated_is_finite_where_its_factors_are_not(self):
    """sigmoid(z / tau) exp(-z) at z = -200 is 0 times infinity, apart."""
    h = jnp.array([-400.0, -40.0, 40.0, 400.0, 40.0, -40.0])
    loss = OF_THE_MARGIN["modulated"]
    found = loss(h, 0 * h, KEPT, beta=BETA)
    np.testing.assert_allclose(found, [200.0, 20.0, 0, 0, 0, 20.0], atol=1e-5)
    slope, _ = slopes(loss, chosen=h, rejected=0 * h)
    np.testing.assert_allclose(slope, [-0.5, -0.5, 0, 0, 0, -0.5], atol=1e-5)

  def test_array_options_are_those_of_each_pair(self):
    offset = np.float32([0.0, 1.0, -2.0, 0.5, 0.0, -1.0])
    smoothing = np.float32(np.arange(6) / 6)
    found = losses.logistic_preference_loss(
      W,
      L,
      KEPT,
      beta=BETA,
      offset=jnp.asarray(offset),
      smoothing=jnp.asarray(smoothing),
    )
    for place in range(6):
      one = losses.logistic_preference_loss(
        W,
        L,
        KEPT,
        beta=BETA,
        offset=float(offset[place]),
        smoothing=float(smoothing[place]),
      )
      np.testing.assert_allclose(
        np.asarray(found)[place], np.asarray(one)[place], rtol=1e-6
      )

  @pytest.mark.parametrize("name", ALL)
  def test_pairs_that_do_not_count(self, name):
    """NaN there, and zero out: value and gradient."""
    kept = jnp.array([True, False, True, False, False, True])
    w, l = (jnp.where(kept, x, jnp.nan) for x in (W, L))  # noqa: E741
    value, slope = jax.value_and_grad(
      lambda w: ALL[name](w, l, kept, beta=BETA).sum()
    )(w)
    full = np.asarray(ALL[name](W, L, KEPT, beta=BETA))
    np.testing.assert_allclose(value, full[[0, 2, 5]].sum(), rtol=1e-6)
    np.testing.assert_array_equal(np.asarray(slope)[[1, 3, 4]], 0.0)


class TestRefused:
  @pytest.mark.parametrize("name", ALL)
  @pytest.mark.parametrize("beta", [0.0, -0.1, math.nan, math.inf])
  def test_beta(self, name, beta):
    with pytest.raises(ValueError, match=f"beta.*{beta}"):
      ALL[name](W, L, KEPT, beta=beta)

  @pytest.mark.parametrize(
    ("loss", "options", "message"),
    [
      ("logistic", {"smoothing": 1.5}, r"smoothing.*\[0, 1\].*1.5"),
      ("logistic", {"smoothing": -0.1}, "smoothing.*-0.1"),
      ("robust", {"noise": 0.5}, r"noise.*\[0, 0.5\).*0.5"),
      ("robust", {"noise": -0.1}, "noise.*-0.1"),
      ("reverse_kl", {"smoothing": 0.0}, "smoothing.*strictly.*0.0"),
      ("reverse_kl", {"smoothing": 1.0}, "smoothing.*strictly.*1.0"),
      ("hinge", {"target": 0.0}, "target.*positive.*0.0"),
      ("hinge", {"degree": 3}, "degree.*3"),
      ("sigmoid", {"degree": 0}, "degree.*0"),
      ("modulated", {"temperature": 0.0}, "temperature.*positive.*0.0"),
    ],
  )
  def test_options(self, loss, options, message):
    with pytest.raises(ValueError, match=message):
      OF_THE_MARGIN[loss](W, L, KEPT, **({"beta": BETA} | options))

  def test_smoothing_of_one_pair(self):
    smoothing = jnp.array([0.0, 1.25, jnp.nan, 0.5, 1.0, 9.0])
    kept = jnp.array([True, True, False, True, True, False])
    loss = functools.partial(losses.logistic_preference_loss, beta=BETA)
    with pytest.raises(ValueError, match=r"smoothing.*\[1.25\].*1 of 4"):
      loss(W, L, kept, smoothing=smoothing)
    loss(W, L, kept, smoothing=smoothing.at[1].set(1.0))

  @pytest.mark.usefixtures("unchecked")
  @pytest.mark.parametrize("name", ALL)
  def test_shapes(self, name):
    for bad in ((W[:1], L, KEPT), (W, L[:1], KEPT), (W, L, KEPT[:1])):
      with pytest.raises(ValueError, match="one shape"):
        ALL[name](*bad, beta=BETA)
    with pytest.raises(ValueError, match="boolean, got int32"):
      ALL[name](W, L, KEPT.astype(jnp.int32), beta=BETA)

  @pytest.mark.usefixtures("unchecked")
  def test_shapes_of_array_options(self):
    for option in ("offset", "smoothing"):
      with pytest.raises(ValueError, match=f"{option}.*one shape"):
        losses.logistic_preference_loss(
          W, L, KEPT, beta=BETA, **{option: jnp.zeros(1)}
        )
