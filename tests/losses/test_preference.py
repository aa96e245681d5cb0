"""The log-ratio core: links, normalisation, matching, what is reported."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax import losses, reduce

# Six rows everywhere: what is compiled for one test serves the next.
KEPT = jnp.array([True, True, False, True, True, False])
H = jnp.array([0.5, -1.5, jnp.nan, 2.0, 0.25, jnp.inf])
ALL = jnp.ones(6, bool)


def test_log_ratio_has_no_gradient_by_the_reference():
  slopes = jax.grad(
    lambda x, r: losses.log_ratio(x, r, KEPT).sum(), argnums=(0, 1)
  )(H, H)
  np.testing.assert_array_equal(slopes[0], KEPT.astype(float))
  np.testing.assert_array_equal(slopes[1], 0.0)


def test_reward_margin_and_who_is_right():
  rejected = jnp.array([0.5, -2.0, 0.0, 3.0, 0.0, 0.0])
  found = losses.implicit_reward(H, rejected, KEPT, beta=0.5)
  chosen = [0.25, -0.75, 0.0, 1.0, 0.125, 0.0]
  np.testing.assert_array_equal(found.chosen, chosen)
  np.testing.assert_array_equal(found.rejected, [0.25, -1.0, 0, 1.5, 0, 0])
  np.testing.assert_array_equal(found.margin, [0, 0.25, 0, -0.5, 0.125, 0])
  # A tie is not correct; nor is a pair that does not count.
  np.testing.assert_array_equal(found.correct, [0, 1, 0, 0, 1, 0])
  accuracy = reduce.over_tokens(found.correct.astype(jnp.float32), KEPT)
  np.testing.assert_allclose(accuracy.mean(), 2 / 4, rtol=1e-6)


def test_reward_carries_no_gradient():
  def total(h):
    return sum(losses.implicit_reward(h, h, KEPT, beta=0.5)[:3]).sum()

  np.testing.assert_array_equal(jax.grad(total)(H), 0.0)


def test_per_token_is_a_division_by_length():
  length = jnp.array([2, 4, 0, 1, 8, 3])
  found = losses.per_token(H, length, KEPT)
  np.testing.assert_array_equal(found, [0.25, -0.375, 0, 2.0, 0.03125, 0])


GENERATORS = {
  # f of the divergence E_ref[f(pi/ref)], and the link that is its derivative.
  "reverse_kl": (
    lambda u: u * math.log(u),
    lambda h: losses.power_link(h, jnp.ones_like(h, bool), power=0.0),
  ),
  "forward_kl": (
    lambda u: -math.log(u),
    lambda h: losses.power_link(h, jnp.ones_like(h, bool), power=-1.0),
  ),
  "jensen_shannon": (
    lambda u: u * math.log(u) - (u + 1) * math.log((u + 1) / 2),
    lambda h: losses.jensen_shannon_link(h, jnp.ones_like(h, bool)),
  ),
  "alpha": (  # 0.3-divergence
    lambda u: (u**0.7 - 0.7 * u - 0.3) / (0.3 * -0.7),
    lambda h: losses.power_link(h, jnp.ones_like(h, bool), power=-0.3),
  ),
}


@pytest.mark.parametrize("name", GENERATORS)
def test_link_is_the_derivative_of_its_divergence(name):
  f, link = GENERATORS[name]
  ratio, step = np.array([0.3, 0.8, 1.0, 2.5, 4.0, 0.1]), 1e-5
  slope = np.array([(f(u + step) - f(u - step)) / (2 * step) for u in ratio])
  found = np.asarray(link(jnp.log(ratio)), np.float64)
  # Equal up to a constant, which cancels in every margin.
  np.testing.assert_allclose(found - found[2], slope - slope[2], atol=1e-6)
  assert abs(found[2]) < 1e-7, "the reference has reward 0"


def softmax_pair_slope(link, loss):
  """Gradient by logits of a population's loss, at its optimal policy pi.

  Preferences are Bradley-Terry with rewards beta g(log pi - log ref), over
  all pairs of three responses; then pi itself must be a stationary point.
  """
  ref = np.log([0.5, 0.3, 0.2])
  logits = jnp.array([0.2, -0.4, 0.9])
  first, second = np.array(
    [(i, j) for i in range(3) for j in range(3) if i != j]
  ).T

  def rewards(z):
    h = jax.nn.log_softmax(z) - ref
    return h if link is None else link(h)

  g = np.asarray(rewards(logits), np.float64)
  probability = 1 / (1 + np.exp(-0.5 * (g[first] - g[second])))

  def population(z):
    g = rewards(z)
    return jnp.sum(loss(g[first], g[second], ALL, probability))

  return jax.grad(population)(logits)


@pytest.mark.slow
@pytest.mark.parametrize("name", GENERATORS)
def test_likelihood_is_stationary_at_the_optimal_policy(name):
  """By enumeration, for every divergence."""

  def loss(chosen, rejected, kept, probability):
    return probability * losses.logistic_preference_loss(
      chosen, rejected, kept, beta=0.5
    )

  slope = softmax_pair_slope(GENERATORS[name][1], loss)
  np.testing.assert_allclose(slope, 0.0, atol=2e-7)


@pytest.mark.slow
def test_robust_loss_is_stationary_under_flipped_labels():
  """By enumeration; the plain loss is not, with a fifth of labels wrong."""

  def flipped(function, **options):
    def loss(chosen, rejected, kept, probability):
      seen = 0.8 * probability + 0.2 * (1 - probability)
      return seen * function(chosen, rejected, kept, beta=0.5, **options)

    return softmax_pair_slope(None, loss)

  robust = flipped(losses.robust_preference_loss, noise=0.2)
  np.testing.assert_allclose(robust, 0.0, atol=3e-7)
  plain = flipped(losses.logistic_preference_loss)
  assert np.abs(plain).max() > 1e-2


def test_power_link_goes_to_the_identity():
  h = jnp.array([-2.0, -0.5, 0.0, 1.5, 1.0, 0.1])
  near = losses.power_link(h, ALL, power=1e-6)
  np.testing.assert_allclose(near, h, atol=1e-5)


def test_slope_of_the_links():
  h = jnp.array([-2.0, -0.5, 0.0, 1.5, 1.0, 0.1])
  power = jax.grad(lambda x: losses.power_link(x, ALL, power=-0.5).sum())(h)
  np.testing.assert_allclose(power, np.exp(-0.5 * h), rtol=1e-6)
  js = jax.grad(lambda x: losses.jensen_shannon_link(x, ALL).sum())(h)
  np.testing.assert_allclose(js, 1 / (1 + np.exp(h)), rtol=1e-6)


def test_log_odds_keep_their_digits():
  """Probabilities next to 0 and to 1, against float64."""
  a = jnp.array([-30.0, -1.0, -1e-3, -1e-6, -0.7, -5.0])
  exact = np.asarray(a, np.float64)
  exact = exact - np.log(-np.expm1(exact))
  # Near even odds it is the absolute error that is of the order of rounding.
  np.testing.assert_allclose(
    losses.log_odds(a, ALL), exact, rtol=1e-6, atol=1e-7
  )
  slope = jax.grad(lambda x: losses.log_odds(x, ALL).sum())(a)
  exact = 1 / -np.expm1(np.asarray(a, np.float64))  # 1 / (1 - p)
  np.testing.assert_allclose(slope, exact, rtol=1e-6)


def pair_loss(chosen, rejected):
  kept = jnp.ones(chosen.shape, bool)
  return losses.logistic_preference_loss(chosen, rejected, kept, beta=0.5).sum()


class TestMatchedByRank:
  u = jnp.array([3.0, -1.0, jnp.nan, 0.5, 2.0, jnp.nan])
  v = jnp.array([0.1, 0.4, jnp.nan, 0.3, 0.2, jnp.nan])
  kept = jnp.array([True, True, False, True, True, False])

  def test_against_sorting(self):
    found = losses.matched_by_rank(self.u, self.v, self.kept)
    kept = np.asarray(self.kept)
    order = np.argsort(np.asarray(self.u)[kept])
    np.testing.assert_array_equal(
      np.asarray(found)[kept][order], np.sort(np.asarray(self.v)[kept])
    )
    np.testing.assert_array_equal(np.asarray(found)[~kept], 0.0)

  def test_order_and_padding_change_nothing(self):
    found = losses.matched_by_rank(self.u, self.v, self.kept)
    order = jnp.array([4, 5, 0, 2, 1, 3])
    again = losses.matched_by_rank(
      *(x[order] for x in (self.u, self.v, self.kept))
    )
    np.testing.assert_array_equal(again, found[order])

  def test_gradient_goes_to_the_partner_only(self):
    weight = jnp.arange(6.0)
    slopes = jax.grad(
      lambda u, v: (weight * losses.matched_by_rank(u, v, self.kept)).sum(),
      argnums=(0, 1),
    )(self.u, self.v)
    np.testing.assert_array_equal(slopes[0], 0.0)
    # u ranks 1, 3, 4, 0; v ranks 0, 1, 3, 4 by value .1 .4 .3 .2.
    np.testing.assert_array_equal(slopes[1], [1.0, 0.0, 0.0, 4.0, 3.0, 0.0])

  def test_one_pair_is_dpo(self):
    policy, reference = jnp.array([3.0]), jnp.array([-0.5])
    one = jnp.ones(1, bool)
    matched = losses.matched_by_rank(policy, reference, one)
    np.testing.assert_array_equal(matched, reference)

  @pytest.mark.parametrize("smoothing", [0.0, 0.1])
  def test_alignment_by_optimal_transport(self, smoothing):
    """Both forms against sorted arrays, in float64."""
    rng = np.random.default_rng(2)
    u, v = rng.normal(size=(2, 6)).astype(np.float32)
    found = losses.logistic_preference_loss(
      jnp.asarray(u),
      losses.matched_by_rank(jnp.asarray(u), jnp.asarray(v), ALL),
      ALL,
      beta=0.1,
      smoothing=smoothing,
    )
    z = 0.1 * (np.sort(u).astype(float) - np.sort(v))
    expected = (1 - smoothing) * np.log1p(np.exp(-z))
    expected += smoothing * np.log1p(np.exp(z))
    np.testing.assert_allclose(np.asarray(found)[np.argsort(u)], expected, 2e-6)

  def test_paired_form_splits(self):
    """Matched on the full batch, any micro-batch has its rows' gradient."""
    rng = np.random.default_rng(3)
    u, v = rng.normal(size=(2, 6)).astype(np.float32)
    matched = np.asarray(losses.matched_by_rank(*map(jnp.asarray, (u, v)), ALL))

    def coupled(u):
      return pair_loss(u, losses.matched_by_rank(u, jnp.asarray(v), ALL))

    whole = np.asarray(jax.grad(coupled)(jnp.asarray(u)))
    for part in (slice(0, 3), slice(3, 6)):
      slope = jax.grad(pair_loss)(*map(jnp.asarray, (u[part], matched[part])))
      np.testing.assert_allclose(slope, whole[part], rtol=1e-6)

  def test_unpaired_form_splits_once_sorted(self):
    rng = np.random.default_rng(4)
    h = rng.normal(size=(2, 6)).astype(np.float32)

    def coupled(h_w, h_l):
      return pair_loss(h_w, losses.matched_by_rank(h_w, h_l, ALL))

    whole = jax.grad(coupled, argnums=(0, 1))(*map(jnp.asarray, h))
    orders = np.argsort(h, axis=-1)
    for part in (slice(0, 3), slice(3, 6)):
      rows = orders[:, part]
      sides = [jnp.asarray(h[side][rows[side]]) for side in (0, 1)]
      slopes = jax.grad(pair_loss, argnums=(0, 1))(*sides)
      for slope, full, row in zip(slopes, whole, rows, strict=True):
        np.testing.assert_allclose(slope, np.asarray(full)[row], rtol=1e-6)


@pytest.mark.parametrize("length", [0, -2])
def test_length_below_one_is_refused(length):
  with pytest.raises(ValueError, match=rf"length.*1 token.*\[{length}\]"):
    losses.per_token(H, jnp.array([2, length, 0, 1, 1, 0]), KEPT)


@pytest.mark.parametrize("a", [0.0, 0.25])
def test_probability_of_one_has_no_odds(a):
  with pytest.raises(ValueError, match=rf"mean_log_prob.*below 0.*\[{a}"):
    losses.log_odds(jnp.array([-1.0, a, jnp.nan, -2.0, -1.0, 1.0]), KEPT)


def test_what_is_not_counted_is_not_refused():
  losses.per_token(H, jnp.array([2, 3, 0, 1, 1, 0]), KEPT)
  losses.log_odds(jnp.array([-1.0, -1.0, 3.0, -2.0, -1.0, 1.0]), KEPT)


@pytest.mark.parametrize("bad", [jnp.inf, jnp.nan])
def test_power_must_be_finite(bad):
  with pytest.raises(ValueError, match="power"):
    losses.power_link(H, KEPT, power=float(bad))


@pytest.mark.usefixtures("unchecked")
def test_shapes_and_masks_that_would_broadcast_are_refused():
  one = jnp.ones(1)
  for call in (
    lambda: losses.log_ratio(H, one, KEPT),
    lambda: losses.implicit_reward(H, one, KEPT, beta=0.5),
    lambda: losses.per_token(H, jnp.ones(1, int), KEPT),
    lambda: losses.power_link(one, KEPT, power=0.5),
    lambda: losses.jensen_shannon_link(one, KEPT),
    lambda: losses.log_odds(-one, KEPT),
    lambda: losses.matched_by_rank(H, one, KEPT),
  ):
    with pytest.raises(ValueError, match=r"one shape.*\(1,\) and \(6,\)"):
      call()
  with pytest.raises(ValueError, match="boolean, got float32"):
    losses.log_ratio(H, H, KEPT.astype(jnp.float32))
