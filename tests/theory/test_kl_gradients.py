"""Every KL of `divergences` on a three-action softmax, by enumeration.

The table says, for actions of the trained policy and of another one, whose
gradient each has when it is put in a loss. The expectation is over the policy
that acted, whose probabilities are not differentiated.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax import divergences as kl
from rl_jax import ratios

pytestmark = pytest.mark.slow

# Policy and reference of the reference sheet's check (section 7).
P, Q = np.array([0.6, 0.3, 0.1]), np.array([0.3, 0.3, 0.4])
ANOTHER = np.array([0.2, 0.5, 0.3])
X = np.log(P / Q)
KEPT = jnp.ones(3, bool)

REVERSE, FORWARD = (P * X).sum(), -(Q * X).sum()
# By the logits; the sheet prints (.249533, -.083178, -.166355) and P - Q.
OF_REVERSE = P * (X - REVERSE)
OF_FORWARD = P - Q


def _score(weight):
  """sum_a weight_a grad log p_a, by the logits."""
  return weight - weight.sum() * P


def _under(acting, estimator):
  """Value and gradient of the expected estimator, acting policy held."""
  logits = jnp.log(jnp.asarray(P, jnp.float32))
  reference = jnp.log(jnp.asarray(Q, jnp.float32))
  behaviour = jnp.log(jnp.asarray(acting, jnp.float32))

  def expected(logits):
    log_prob = jax.nn.log_softmax(logits)
    value = estimator(log_prob, behaviour, reference, KEPT)
    return jnp.sum(jnp.asarray(acting, jnp.float32) * value)

  return jax.value_and_grad(expected)(logits)


def _sampled(estimator):
  return lambda p, _, q, mask: estimator(p, q, mask)


def _plus(estimator):
  """The "+" of verl: the value of an estimator with the gradient of k2."""
  return lambda p, _, q, mask: kl.straight_through(
    estimator(p, q, mask), kl.k2(p, q, mask)
  )


def _weighted(estimator):
  """With the importance ratio as a constant weight."""

  def weighted(p, b, q, mask):
    ratio = ratios.token_ratio(p, b, mask, clamp=None)
    return jax.lax.stop_gradient(ratio) * estimator(p, q, mask)

  return weighted


MAGNITUDE = (P * np.abs(X)).sum()
SQUARE = (P * X**2).sum() / 2

ON_POLICY = {
  "k1": (_sampled(kl.k1), REVERSE, 0 * P),
  "k2": (_sampled(kl.k2), SQUARE, OF_REVERSE),
  "k3": (_sampled(kl.k3), REVERSE, OF_FORWARD),
  "k1+": (_plus(kl.k1), REVERSE, OF_REVERSE),
  "k3+": (_plus(kl.k3), REVERSE, OF_REVERSE),
  "absolute+": (_plus(kl.absolute_log_ratio), MAGNITUDE, OF_REVERSE),
  "kl_value_and_gradient": (
    _sampled(kl.kl_value_and_gradient),
    REVERSE,
    OF_REVERSE,
  ),
  "importance_k1": (kl.importance_k1, REVERSE, OF_REVERSE),
  "importance_k3": (kl.importance_k3, REVERSE, OF_REVERSE),
}


@pytest.mark.parametrize("name", ON_POLICY)
def test_actions_of_the_policy(name):
  estimator, value, gradient = ON_POLICY[name]
  found = _under(P, estimator)
  assert found[0].item() == pytest.approx(value, abs=1e-6)
  np.testing.assert_allclose(found[1], gradient, atol=1e-6)


def test_the_size_of_the_log_ratio_has_the_gradient_of_no_kl():
  # No action at which the two agree: there the slope is whatever rounds.
  reference = jnp.log(jnp.array([0.3, 0.2, 0.5]))
  found = _under(
    P, lambda p, _, q, mask: kl.absolute_log_ratio(p, reference, mask)
  )
  sizes = np.abs(np.log(P / np.array([0.3, 0.2, 0.5])))
  assert found[0].item() == pytest.approx((P * sizes).sum(), abs=1e-6)
  expected = _score(P * np.array([1, 1, -1]))
  np.testing.assert_allclose(found[1], expected, atol=1e-6)


B = ANOTHER
OFF_POLICY = {
  # Uncorrected: averages over the wrong actions.
  "k1": (_sampled(kl.k1), (B * X).sum(), _score(B)),
  "k2": (_sampled(kl.k2), (B * X**2).sum() / 2, _score(B * X)),
  "k3": (
    _sampled(kl.k3),
    (B * (np.exp(-X) - 1 + X)).sum(),
    _score(B * (1 - np.exp(-X))),
  ),
  "kl_value_and_gradient": (
    _sampled(kl.kl_value_and_gradient),
    (B * (np.exp(-X) - 1 + X)).sum(),
    _score(B * X),
  ),
  # The ratio as a constant restores what they are on policy.
  "constant weight k1": (_weighted(kl.k1), REVERSE, 0 * P),
  "constant weight k2": (_weighted(kl.k2), SQUARE, OF_REVERSE),
  "constant weight k3": (_weighted(kl.k3), REVERSE, OF_FORWARD),
  "constant weight both": (
    _weighted(kl.kl_value_and_gradient),
    REVERSE,
    OF_REVERSE,
  ),
  # The ratio with its gradient makes any unbiased value's gradient right.
  "importance_k1": (kl.importance_k1, REVERSE, OF_REVERSE),
  "importance_k3": (kl.importance_k3, REVERSE, OF_REVERSE),
}


@pytest.mark.parametrize("name", OFF_POLICY)
def test_actions_of_another_policy(name):
  estimator, value, gradient = OFF_POLICY[name]
  found = _under(ANOTHER, estimator)
  assert found[0].item() == pytest.approx(value, abs=1e-6)
  np.testing.assert_allclose(found[1], gradient, atol=1e-6)


@pytest.mark.parametrize("name", ["k1", "k2", "k3", "kl_value_and_gradient"])
def test_without_correction_no_gradient_is_a_kls(name):
  """That the table's uncorrected rows are really wrong, by how much."""
  gradient = OFF_POLICY[name][2]
  assert np.abs(gradient - OF_REVERSE).max() > 0.05
  assert np.abs(gradient - OF_FORWARD).max() > 0.05


def _mixture_gradient(b):
  """By the logits, from d/dp of b KL(q || m) + (1 - b) KL(p || m)."""
  m = b * Q + (1 - b) * P
  by_p = (1 - b) * np.log(P / m)
  return P * (by_p - (P * by_p).sum())


def _mixture_value(b):
  m = b * Q + (1 - b) * P
  return b * (Q * np.log(Q / m)).sum() + (1 - b) * (P * np.log(P / m)).sum()


FULL = {
  "reverse": (kl.categorical_kl, REVERSE, OF_REVERSE),
  "forward": (kl.categorical_forward_kl, FORWARD, OF_FORWARD),
} | {
  f"jensen_shannon {b}": (
    functools.partial(kl.categorical_jensen_shannon, mixture=b),
    _mixture_value(b),
    _mixture_gradient(b),
  )
  for b in (0.1, 0.5, 0.75)
}


@pytest.mark.parametrize("name", FULL)
def test_the_whole_vocabulary(name):
  function, value, gradient = FULL[name]
  logits = jnp.log(jnp.asarray(P, jnp.float32))[None] + 3.0
  reference = jnp.log(jnp.asarray(Q, jnp.float32))[None] - 2.0
  found = jax.value_and_grad(
    lambda z: function(z, reference, jnp.ones(1, bool))[0]
  )(logits)
  assert found[0].item() == pytest.approx(value, abs=1e-6)
  np.testing.assert_allclose(found[1][0], gradient, atol=1e-6)


def test_every_sampled_estimator_is_in_the_table():
  named = {name for name in kl.__all__ if not name.startswith("gaussian_")}
  named -= {"Normalisation", "straight_through"}
  used = set(ON_POLICY) | {"absolute_log_ratio"}  # by itself, below
  used |= {f.__name__ for f, *_ in FULL.values() if hasattr(f, "__name__")}
  assert named - used == {"categorical_jensen_shannon"}


def test_k3_of_samples_from_the_reference_estimates_the_other_kl():
  """exp(x) - 1 - x is a KL(ref || pi) for actions of ref, and only then."""
  swapped = _sampled(lambda p, q, mask: kl.k3(-p, -q, mask))
  assert _under(Q, swapped)[0].item() == pytest.approx(FORWARD, abs=1e-6)
  assert abs(_under(P, swapped)[0].item() - FORWARD) > 0.02
  assert abs(_under(P, swapped)[0].item() - REVERSE) > 0.02


@pytest.mark.parametrize("far", [3.0, 5.0])
def test_a_clamped_value_has_no_gradient(far):
  """The fault of a clamp after k3, and that it is not there unasked."""
  log_prob, reference = jnp.array([-far]), jnp.array([0.0])
  one = jnp.ones(1, bool)

  def clamped(x):
    return jnp.clip(kl.k3(x, reference, one), -10.0, 10.0)[0]

  def free(x):
    return kl.k3(x, reference, one)[0]

  assert (jax.grad(clamped)(log_prob).item() == 0) == (np.expm1(far) - far > 10)
  slope = 1 - np.exp(far)
  assert jax.grad(free)(log_prob).item() == pytest.approx(slope, rel=1e-6)


def test_a_clamped_log_ratio_bounds_every_estimator():
  log_prob, reference = jnp.array([-50.0, -0.5]), jnp.zeros(2)
  mask = jnp.ones(2, bool)

  def total(log_prob):
    bounded = ratios.clamped_log_prob(log_prob, reference, mask, clamp=20.0)
    return kl.k3(bounded, reference, mask)

  found = total(log_prob)
  expected = [np.exp(20.0) - 21, np.exp(0.5) - 1.5]
  np.testing.assert_allclose(found, expected, rtol=1e-6)
  gradient = jax.grad(lambda x: total(x).sum())(log_prob)
  np.testing.assert_allclose(gradient, [0.0, 1 - np.exp(0.5)], rtol=1e-6)
