from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.log_probs import token_entropy, token_log_prob

STATIC = ("temperature", "soft_cap")
PLAIN = {"temperature": 1.0, "soft_cap": None}


# Compiled once per shape: faster than one operation at a time. Only what is
# not traced can be refused, so tests of that call the functions themselves.
_log_prob = jax.jit(token_log_prob, static_argnames=STATIC)
_entropy = jax.jit(token_entropy, static_argnames=STATIC)


def _case(rows=3, time=4, vocabulary=7, scale=3.0):
  rng = np.random.default_rng(0)
  logits = rng.normal(size=(rows, time, vocabulary)) * scale
  token = rng.integers(0, vocabulary, (rows, time))
  mask = rng.uniform(size=(rows, time)) < 0.7
  return (
    jnp.asarray(logits, jnp.float32),
    jnp.asarray(token, jnp.int32),
    jnp.asarray(mask),
  )


def _distribution(logits, temperature, soft_cap):
  """Probabilities of one column, one exponential at a time, in float64."""
  scaled = []
  for x in np.asarray(logits, np.float64):
    if soft_cap is not None and x != -math.inf:
      x = soft_cap * math.tanh(x / soft_cap)
    scaled.append(x / temperature)
  top = max(scaled)
  weight = [math.exp(x - top) for x in scaled]
  return [w / math.fsum(weight) for w in weight]


@pytest.mark.slow
@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
@pytest.mark.parametrize("soft_cap", [None, 4.0])
def test_against_probabilities_counted_one_by_one(temperature, soft_cap):
  logits, token, mask = _case()
  scale = {"temperature": temperature, "soft_cap": soft_cap}
  log_prob, entropy = np.zeros(token.shape), np.zeros(token.shape)
  for row, time in zip(*np.nonzero(mask), strict=True):
    p = _distribution(logits[row, time], temperature, soft_cap)
    log_prob[row, time] = math.log(p[int(token[row, time])])
    entropy[row, time] = -math.fsum(x * math.log(x) for x in p)
  np.testing.assert_allclose(
    _log_prob(logits, token, mask, **scale), log_prob, atol=1e-5
  )
  np.testing.assert_allclose(
    _entropy(logits, mask, **scale), entropy, atol=1e-5
  )


@pytest.mark.slow
def test_gradient_is_indicator_less_probability():
  logits, token, mask = _case()
  slope = jax.jit(
    jax.grad(
      lambda z: _log_prob(z, token, mask, temperature=0.5, soft_cap=None).sum()
    )
  )(logits)
  p = jax.nn.softmax(logits / 0.5)
  expected = (jax.nn.one_hot(token, 7) - p) / 0.5 * mask[..., None]
  np.testing.assert_allclose(slope, expected, atol=1e-6)


@pytest.mark.slow
def test_ratio_is_one_only_at_the_samplers_temperature():
  """What frameworks that leave the temperature out of log-probs get wrong."""
  logits, token, _ = _case()
  mask = jnp.ones(token.shape, bool)
  hot = {"temperature": 2.0, "soft_cap": None}
  drawn = _log_prob(logits, token, mask, **hot)
  same = _log_prob(logits, token, mask, **hot)
  forgotten = _log_prob(logits, token, mask, **PLAIN)
  np.testing.assert_array_equal(jnp.exp(same - drawn), 1.0)
  assert (abs(jnp.exp(forgotten - drawn) - 1.0) > 0.05).mean() > 0.9


def test_cap_comes_before_the_temperature():
  """Two logits of 100 and 0, cap 2: at temperature 1/2 they are 4 apart."""
  logits, one = jnp.array([[100.0, 0.0]]), jnp.ones(1, bool)
  log_prob = _log_prob(
    logits, jnp.array([1]), one, temperature=0.5, soft_cap=2.0
  )
  np.testing.assert_allclose(log_prob, -math.log1p(math.exp(4.0)), rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("soft_cap", [None, 2.0])
def test_removed_entries_stay_removed(soft_cap):
  scale = {"temperature": 1.0, "soft_cap": soft_cap}
  logits = jnp.array([[1.0, -jnp.inf, 1.0], [1.0, -jnp.inf, 1.0]])
  token, mask = jnp.array([0, 1]), jnp.ones(2, bool)
  log_prob = _log_prob(logits, token, mask, **scale)
  np.testing.assert_allclose(log_prob, [-math.log(2.0), -jnp.inf], rtol=1e-6)
  entropy = _entropy(logits, mask, **scale)
  np.testing.assert_allclose(entropy, math.log(2.0), rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("soft_cap", [None, 2.0])
def test_gradients_beside_removed_entries_are_finite(soft_cap):
  scale = {"temperature": 1.0, "soft_cap": soft_cap}
  token, mask = jnp.array([0, 1]), jnp.ones(2, bool)
  logits = jnp.array([[1.0, -jnp.inf, 0.5], [1.0, -jnp.inf, 0.5]])
  slope = jax.jit(jax.grad(lambda z: _entropy(z, mask, **scale).sum()))(logits)
  assert np.isfinite(slope).all()
  by_ratio = jax.jit(
    jax.grad(lambda z: jnp.exp(_log_prob(z, token, mask, **scale) + 0.5).sum())
  )(logits)
  assert np.isfinite(by_ratio).all()
  np.testing.assert_array_equal(by_ratio[1], 0.0)
  assert (by_ratio[0, [0, 2]] != 0).all()


def test_a_column_with_nothing_left_has_no_token():
  logits = jnp.full((1, 3), -jnp.inf)
  log_prob = _log_prob(logits, jnp.array([0]), jnp.ones(1, bool), **PLAIN)
  assert log_prob.tolist() == [-math.inf]


def test_huge_logits_neither_overflow_nor_vanish():
  logits = jnp.array([[1e30, 0.0], [-1e30, -1e30]])
  token, mask = jnp.array([0, 1]), jnp.ones(2, bool)
  log_prob = _log_prob(logits, token, mask, **PLAIN)
  np.testing.assert_allclose(log_prob, [0.0, -math.log(2.0)], rtol=1e-6)
  entropy = _entropy(logits, mask, **PLAIN)
  np.testing.assert_allclose(entropy, [0.0, math.log(2.0)], rtol=1e-6)


@pytest.mark.parametrize("wrong", [-1, 7, 1000])
def test_unknown_token_is_refused_or_not_a_number(wrong):
  logits, token, mask = _case()
  mask = mask.at[1, 2].set(True)
  token = token.at[1, 2].set(wrong)
  with pytest.raises(ValueError, match=rf"\[0, 7\).*\[{wrong}\]"):
    token_log_prob(logits, token, mask, **PLAIN)
  found = np.asarray(_log_prob(logits, token, mask, **PLAIN))
  assert np.isnan(found[1, 2])
  assert np.isfinite(found).sum() == found.size - 1


def test_padding_may_carry_any_token():
  logits, token, mask = _case()
  marked = jnp.where(mask, token, -100)
  np.testing.assert_array_equal(
    _log_prob(logits, marked, mask, **PLAIN),
    _log_prob(logits, token, mask, **PLAIN),
  )


@pytest.mark.parametrize(
  ("scale", "message"),
  [
    ({"temperature": 0.0, "soft_cap": None}, "temperature .* got 0.0"),
    ({"temperature": -1.0, "soft_cap": None}, "temperature .* got -1.0"),
    ({"temperature": math.nan, "soft_cap": None}, "temperature .* got nan"),
    ({"temperature": 1.0, "soft_cap": 0.0}, "soft_cap .* got 0.0"),
    ({"temperature": 1.0, "soft_cap": -30.0}, "soft_cap .* got -30.0"),
  ],
)
def test_scales_that_turn_logits_around_are_refused(scale, message):
  logits, token, mask = _case()
  with pytest.raises(ValueError, match=message):
    token_log_prob(logits, token, mask, **scale)
  with pytest.raises(ValueError, match=message):
    token_entropy(logits, mask, **scale)
