"""Tokens at which entropy is lost: who they are, and what is done to them."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax import losses, reduce


def _case(seed=0, rows=4, time=5):
  rng = np.random.default_rng(seed)
  log_prob = -rng.exponential(1.0, (rows, time))
  behaviour = log_prob - rng.normal(0.0, 0.3, (rows, time))
  advantage = rng.normal(size=(rows, time))
  mask = rng.uniform(size=(rows, time)) < 0.7
  floats = (log_prob, behaviour, advantage)
  return *(jnp.asarray(x, jnp.float32) for x in floats), jnp.asarray(mask)


def _covariance(log_prob, advantage, mask):
  means = (reduce.over_tokens(x, mask).mean() for x in (log_prob, advantage))
  return losses.token_covariance(log_prob, advantage, *means, mask)


def test_covariance_averages_to_the_covariance():
  log_prob, _, advantage, mask = _case()
  found = reduce.over_tokens(_covariance(log_prob, advantage, mask), mask)
  kept = np.asarray(mask)
  expected = np.cov(
    np.asarray(log_prob, np.float64)[kept],
    np.asarray(advantage, np.float64)[kept],
    ddof=0,
  )[0, 1]
  assert found.mean().item() == pytest.approx(expected, abs=1e-6)


def test_covariance_predicts_the_change_of_entropy():
  """A small step of natural policy gradient takes step * covariance off it.

  It moves the logits by step * A; the covariance is over actions of p.
  """
  p = np.array([0.5, 0.3, 0.2])
  advantage, step = np.array([1.0, -2.0, 0.5]), 1e-5

  def entropy(logits):
    q = np.exp(logits) / np.exp(logits).sum()
    return -(q * np.log(q)).sum()

  change = entropy(np.log(p) + step * advantage) - entropy(np.log(p))
  covariance = losses.token_covariance(
    jnp.log(jnp.asarray(p, jnp.float32)),
    jnp.asarray(advantage, jnp.float32),
    jnp.float32((p * np.log(p)).sum()),
    jnp.float32((p * advantage).sum()),
    jnp.ones(3, bool),
  )
  expected = -step * (p * np.asarray(covariance)).sum()
  assert change == pytest.approx(expected, rel=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("fraction", [0.01, 0.2, 0.5, 1.0])
def test_choice_against_a_sorted_list(fraction):
  score, _, noise, mask = _case(1)
  eligible = noise > -0.5
  found = losses.largest_fraction(score, eligible, mask, fraction=fraction)
  count = int(np.asarray(mask).sum())
  may = np.argwhere(np.asarray(mask & eligible)).tolist()
  ranked = sorted(may, key=lambda at: -float(score[tuple(at)]))
  expected = sorted(ranked[: max(1, int(fraction * count))])
  assert np.argwhere(np.asarray(found)).tolist() == expected


def test_no_more_are_chosen_than_may_be():
  score, _, _, mask = _case(2)
  nobody = jnp.zeros_like(mask)
  assert not losses.largest_fraction(score, nobody, mask, fraction=1.0).any()
  everybody = losses.largest_fraction(score, mask, mask, fraction=1.0)
  np.testing.assert_array_equal(everybody, mask)


def test_choice_does_not_see_masked_scores():
  score, _, _, mask = _case(3)
  spoiled = jnp.where(mask, score, jnp.nan)
  chosen = [
    losses.largest_fraction(x, mask, mask, fraction=0.3)
    for x in (score, spoiled)
  ]
  np.testing.assert_array_equal(*chosen)


def test_penalty_is_added_to_the_spared_only():
  log_prob, behaviour, advantage, mask = _case(4)
  spared = losses.largest_fraction(
    _covariance(log_prob, advantage, mask), mask, mask, fraction=0.25
  )
  found = losses.covariance_penalty_loss(
    log_prob, behaviour, advantage, spared, mask, weight=0.5
  ).loss
  for at in np.ndindex(mask.shape):
    d = float(log_prob[at]) - float(behaviour[at])
    expected = -float(advantage[at]) * np.exp(d)
    expected += 0.5 * abs(d) * bool(spared[at])
    expected *= bool(mask[at])
    assert found[at].item() == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_penalty_has_no_slope_on_policy():
  log_prob, _, advantage, mask = _case(4)
  gradient = jax.grad(
    lambda x: losses.covariance_penalty_loss(
      x, log_prob, advantage, mask, mask, weight=0.5
    ).loss.sum()
  )(log_prob)
  np.testing.assert_allclose(
    gradient, jnp.where(mask, -advantage, 0.0), rtol=1e-6
  )


@pytest.mark.slow
def test_clip_cov_drops_the_chosen_and_keeps_the_denominator():
  """The form of the authors' code: a random few of the middling ones."""
  log_prob, behaviour, advantage, mask = _case(5)
  clips = {"clip_low": 0.2, "clip_high": 0.2}
  terms = losses.clipped_policy_terms(
    log_prob, behaviour, advantage, mask, **clips
  )
  stopped = terms.clipped & ((terms.ratio > 1) == (advantage > 0))
  covariance = _covariance(log_prob, advantage, mask)
  middling = (covariance > 0.1) & (covariance < 5.0) & ~stopped
  noise = jax.random.uniform(jax.random.key(0), mask.shape)
  spared = losses.largest_fraction(noise, middling, mask, fraction=0.2)
  assert spared.any()
  assert not (spared & ~middling).any()

  def mean(log_prob):
    found = losses.covariance_clip_loss(
      log_prob, behaviour, advantage, spared, mask, **clips
    )
    return reduce.over_tokens(found.loss, mask).mean(), found

  gradient, found = jax.grad(mean, has_aux=True)(log_prob)
  expected = jnp.where(spared, 0.0, terms.loss)
  np.testing.assert_array_equal(found.loss, expected)
  np.testing.assert_array_equal(found.clipped, terms.clipped | spared)
  assert (jnp.where(spared, gradient, 0.0) == 0).all()
  alive = mask & ~spared & ~stopped
  expected = -advantage * terms.ratio / mask.sum()
  np.testing.assert_allclose(gradient[alive], expected[alive], rtol=1e-5)


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.5, float("nan")])
def test_a_fraction_is_a_fraction(fraction):
  score, _, _, mask = _case()
  with pytest.raises(ValueError, match=str(fraction)):
    losses.largest_fraction(score, mask, mask, fraction=fraction)


def test_a_negative_penalty_is_refused():
  log_prob, behaviour, advantage, mask = _case()
  with pytest.raises(ValueError, match=r"-1\.0"):
    losses.covariance_penalty_loss(
      log_prob, behaviour, advantage, mask, mask, weight=-1.0
    )
