from __future__ import annotations

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.log_probs import (
  Support,
  support_log_prob,
  support_mask,
  supported_logits,
  token_log_prob,
)

ONE = jnp.ones(1, bool)


def _kept(logits, support):
  """The set, entry by entry in float64, each step by its definition."""
  z = [float(x) / support.temperature for x in np.asarray(logits, np.float64)]
  left = set(range(len(z)))

  def top_k():
    return {v for v in left if sum(z[u] > z[v] for u in left) < support.top_k}

  def top_p():
    weight = {v: math.exp(z[v]) for v in left}
    whole = math.fsum(weight.values())
    return {
      v
      for v in left
      if math.fsum(weight[u] for u in left if z[u] > z[v]) / whole
      < support.top_p
    }

  def min_p():
    most = max(z[u] for u in left)
    return {v for v in left if math.exp(z[v] - most) >= support.min_p}

  steps = [("top_k", top_k), ("top_p", top_p)]
  place = 0 if support.min_p_first else 2
  steps.insert(place, ("min_p", min_p))
  for name, step in steps:
    if getattr(support, name) is not None:
      left = step()
  return left


SUPPORTS = [
  Support(
    temperature=temperature,
    top_k=top_k,
    top_p=top_p,
    min_p=min_p,
    min_p_first=first,
  )
  for temperature, top_k, top_p, min_p, first in itertools.product(
    (1.5,), (None, 3), (None, 0.7), (None, 0.15), (False, True)
  )
  if first is False or (top_p and min_p)
]


@pytest.mark.slow
@pytest.mark.parametrize("support", SUPPORTS)
def test_set_and_probabilities_against_the_definition(support):
  logits = np.random.default_rng(3).normal(size=(6, 8)) * 2.0
  logits = jnp.asarray(logits, jnp.float32)
  case = jnp.repeat(logits, 8, axis=0), jnp.ones(48, bool)
  found = np.asarray(support_mask(*case, support=support))[::8]
  token = jnp.tile(jnp.arange(8), 6)
  log_prob = support_log_prob(case[0], token, case[1], support=support)
  log_prob = np.asarray(log_prob).reshape(6, 8)
  logits = np.asarray(logits)
  for row in range(6):
    kept = _kept(logits[row], support)
    assert set(np.nonzero(found[row])[0].tolist()) == kept
    z = logits[row].astype(np.float64) / support.temperature
    whole = math.fsum(math.exp(z[v]) for v in kept)
    p = [math.exp(z[v]) / whole if v in kept else 0.0 for v in range(8)]
    np.testing.assert_allclose(np.exp(log_prob[row]), p, atol=1e-6)
    outside = [v for v in range(8) if v not in kept]
    assert all(log_prob[row, v] == -math.inf for v in outside)


@pytest.mark.slow
def test_order_of_min_p_matters():
  """P = (.4, .3, .2, .1): min-p .3 first leaves .9, of which .7 is .78."""
  logits = jnp.log(jnp.array([[0.4, 0.3, 0.2, 0.1]]))
  both = {"temperature": 1.0, "top_p": 0.75, "min_p": 0.3}
  before = Support(**both, min_p_first=True)
  after = Support(**both, min_p_first=False)
  kept = [
    support_mask(logits, ONE, support=s)[0].tolist() for s in (before, after)
  ]
  assert kept == [[True, True, False, False], [True, True, True, False]]
  with pytest.raises(ValueError, match=r"0\.75 and min_p = 0\.3.*min_p_first"):
    Support(**both)


@pytest.mark.slow
def test_ties_with_the_last_entry_are_kept_whatever_their_order():
  logits = jnp.array([[0.0, 1.0, 0.0, 2.0, 0.0]])
  for given in ({"top_k": 3}, {"top_p": 0.85}):
    kept = support_mask(logits, ONE, support=Support(temperature=1.0, **given))
    assert kept.tolist() == [[True] * 5]


@pytest.mark.slow
@pytest.mark.parametrize(
  "given",
  [{}, {"top_p": 1.0}, {"top_k": 5}, {"min_p": 1e-30}],
)
def test_support_of_everything_is_the_softmax(given):
  logits = jnp.asarray(
    np.random.default_rng(1).normal(size=(4, 5)), jnp.float32
  )
  token, mask = jnp.array([0, 1, 2, 3]), jnp.ones(4, bool)
  scale = {"temperature": 0.7, "soft_cap": 3.0}
  np.testing.assert_allclose(
    support_log_prob(logits, token, mask, support=Support(**scale, **given)),
    token_log_prob(logits, token, mask, **scale),
    rtol=1e-6,
  )


def test_only_what_may_leave_something_out_truncates():
  assert not Support(temperature=1.0).truncates
  assert not Support(temperature=1.0, top_p=1.0, soft_cap=30.0).truncates
  for given in ({"top_k": 9}, {"top_p": 0.9}, {"min_p": 0.1}):
    assert Support(temperature=1.0, **given).truncates


@pytest.mark.slow
def test_entries_that_the_caller_removed_do_not_come_back():
  logits = jnp.array([[1.0, -jnp.inf, 0.5, -jnp.inf]])
  for given in ({"top_k": 3}, {"top_p": 0.99}, {"min_p": 0.01}):
    support = Support(temperature=1.0, soft_cap=2.0, **given)
    kept = support_mask(logits, ONE, support=support)
    assert kept.tolist() == [[True, False, True, False]]


@pytest.mark.slow
def test_outside_the_support_no_gradient_and_no_nan():
  logits = jnp.array([[2.0, 1.0, 0.0, -1.0]] * 2)
  support = Support(temperature=1.0, top_k=2)
  token, mask = jnp.array([0, 3]), jnp.ones(2, bool)

  def ratio(z):
    value = jnp.exp(support_log_prob(z, token, mask, support=support) + 1.0)
    return value.sum(), value

  slope, value = jax.jit(jax.grad(ratio, has_aux=True))(logits)
  assert value[1] == 0.0
  assert np.isfinite(slope).all()
  np.testing.assert_array_equal(slope[1], 0.0)
  np.testing.assert_array_equal(slope[0, 2:], 0.0)
  assert slope[0, 0] > 0 > slope[0, 1]


@pytest.mark.slow
def test_draws_come_from_the_distribution_that_is_scored():
  """100 000 draws: frequencies within five standard errors."""
  logits = jnp.array([1.0, 0.5, 0.0, -0.5, -3.0])
  support = Support(temperature=0.8, top_p=0.9)
  count = 100_000

  @jax.jit
  def both(logits):
    tiled, mask = jnp.tile(logits, (5, 1)), jnp.ones(5, bool)
    z = supported_logits(tiled, mask, support=support)[0]
    drawn = jax.random.categorical(jax.random.key(0), z, shape=(count,))
    every = jnp.arange(5)
    return drawn, support_log_prob(tiled, every, mask, support=support)

  token, log_prob = both(logits)
  p = np.exp(np.asarray(log_prob, np.float64))
  frequency = np.bincount(np.asarray(token), minlength=5) / count
  assert (abs(frequency - p) <= 5 * np.sqrt(p * (1 - p) / count)).all()


class TestRatiosByEnumeration:
  """A policy of five entries against a behaviour that samples with top-p."""

  behaviour = jnp.array([2.0, 1.0, 0.5, -0.5, -1.0])
  policy = jnp.array([1.0, 1.2, 0.0, 0.4, -1.5])
  reward = np.array([1.0, -2.0, 3.0, 0.5, 4.0])
  support = Support(temperature=0.9, top_p=0.8)

  def every(self, function, logits, **options):
    tiled = jnp.tile(logits, (5, 1))
    return function(tiled, jnp.arange(5), jnp.ones(5, bool), **options)

  def drawn(self):
    log_prob = self.every(
      support_log_prob, self.behaviour, support=self.support
    )
    return jnp.exp(log_prob), log_prob

  def kept(self):
    mask = support_mask(self.behaviour[None], ONE, support=self.support)[0]
    assert 1 < mask.sum() < 5
    return mask

  @pytest.mark.slow
  def test_within_the_behaviours_set_is_unbiased(self):
    """Value and gradient of E_pi[R], pi renormalised on the kept entries."""
    b, log_b = self.drawn()
    kept = self.kept()
    weight = jnp.where(kept, b * self.reward, 0.0)

    def estimate(policy):
      inside = jnp.where(kept, policy, -jnp.inf)
      log_prob = self.every(
        token_log_prob, inside, temperature=0.9, soft_cap=None
      )
      ratio = jnp.exp(jnp.where(kept, log_prob - log_b, -jnp.inf))
      return jnp.sum(weight * ratio)

    def exact(policy):
      p = jax.nn.softmax(policy / 0.9)
      p = jnp.where(kept, p, 0.0)
      return jnp.sum(p / p.sum() * self.reward)

    found = jax.jit(jax.value_and_grad(estimate))(self.policy)
    expected = jax.jit(jax.value_and_grad(exact))(self.policy)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-6)
    np.testing.assert_allclose(found[1], expected[1], atol=1e-6)

  @pytest.mark.slow
  def test_unaware_ratios_are_biased(self):
    """Full softmax on both sides: they do not even average to one."""
    b, _ = self.drawn()
    full = [jax.nn.softmax(x / 0.9) for x in (self.policy, self.behaviour)]
    ratio = full[0] / full[1]
    kept = self.kept()
    restricted = jnp.where(kept, full[0], 0.0) / full[0][kept].sum()
    estimate = float(jnp.sum(b * ratio * self.reward))
    assert abs(float(jnp.sum(b * ratio)) - 1.0) > 0.1
    for target in (full[0], restricted):
      assert abs(estimate - float(jnp.sum(target * self.reward))) > 0.05

  @pytest.mark.slow
  def test_own_supports_are_unbiased_only_inside_the_behaviours(self):
    b, log_b = self.drawn()
    narrow = Support(temperature=0.9, top_k=1)
    for support, unbiased in ((narrow, True), (self.support, False)):
      log_p = self.every(support_log_prob, self.policy, support=support)
      inside = bool((self.kept() | jnp.isneginf(log_p)).all())
      assert inside == unbiased
      ratio = jnp.exp(jnp.where(b > 0, log_p - log_b, -jnp.inf))
      estimate = float(jnp.sum(b * ratio * self.reward))
      exact = float(jnp.sum(jnp.exp(log_p) * self.reward))
      assert (abs(estimate - exact) < 1e-5) == unbiased


@pytest.mark.parametrize(
  ("given", "message"),
  [
    ({"temperature": 0.0}, "temperature .* got 0.0"),
    ({"soft_cap": -1.0}, "soft_cap .* got -1.0"),
    ({"top_k": 0}, "top_k .* got 0"),
    ({"top_p": 0.0}, "top_p .* got 0.0"),
    ({"top_p": 1.5}, "top_p .* got 1.5"),
    ({"min_p": -0.1}, "min_p .* got -0.1"),
    ({"min_p": math.nan}, "min_p .* got nan"),
  ],
)
def test_settings_that_cannot_be_meant_are_refused(given, message):
  with pytest.raises(ValueError, match=message):
    Support(**{"temperature": 1.0, **given})


def test_more_entries_than_there_are_is_refused():
  support = Support(temperature=1.0, top_k=50)
  with pytest.raises(ValueError, match="50 of a vocabulary of 4"):
    supported_logits(jnp.zeros((1, 4)), ONE, support=support)


def test_unknown_token_is_refused():
  support = Support(temperature=1.0, top_k=2)
  with pytest.raises(ValueError, match=r"\[0, 4\)"):
    support_log_prob(jnp.zeros((1, 4)), jnp.array([4]), ONE, support=support)
