"""The entropy bonus: value, gradient and mask."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax import losses, reduce

LOGITS = jnp.array([[[1.0, 0.0, -1.0], [2.0, 2.0, 0.0]]])
MASK = jnp.array([[True, True]])


def _entropy(logits):
  log_p = jax.nn.log_softmax(logits)
  return -jnp.sum(jnp.exp(log_p) * log_p, axis=-1)


def _mean(logits, weight):
  bonus = losses.entropy_bonus(_entropy(logits), MASK, weight=weight)
  return reduce.over_tokens(bonus, MASK).mean()


@pytest.mark.slow
def test_value_and_gradient_are_minus_the_weighted_entropys():
  value, gradient = jax.value_and_grad(_mean)(LOGITS, 0.25)
  p = np.asarray(jax.nn.softmax(LOGITS), np.float64)
  entropy = -(p * np.log(p)).sum(-1)
  assert value.item() == pytest.approx(-0.25 * entropy.mean(), abs=1e-6)
  # dH/dz_k = -p_k (log p_k + H), averaged over the two tokens.
  expected = 0.25 / 2 * p * (np.log(p) + entropy[..., None])
  np.testing.assert_allclose(gradient, expected, atol=1e-6)


@pytest.mark.slow
def test_a_step_along_it_raises_entropy():
  stepped = LOGITS - 0.1 * jax.grad(_mean)(LOGITS, 1.0)
  assert (_entropy(stepped) > _entropy(LOGITS)).all()


@pytest.mark.slow
def test_minus_the_sampled_log_prob_is_no_bonus_by_enumeration():
  """Why the entropy must be exact: this has its value and no gradient."""

  def expected_bonus(logits):
    log_p = jax.nn.log_softmax(logits)
    bonus = losses.entropy_bonus(-log_p, jnp.ones(3, bool), weight=1.0)
    return jnp.sum(jax.lax.stop_gradient(jnp.exp(log_p)) * bonus)

  value, gradient = jax.value_and_grad(expected_bonus)(LOGITS[0, 0])
  assert value.item() == pytest.approx(-_entropy(LOGITS)[0, 0].item(), abs=1e-6)
  np.testing.assert_allclose(gradient, 0.0, atol=1e-6)


def test_an_adapted_weight_does_not_recompile_and_gets_no_gradient():
  compiled = jax.jit(lambda e, w: losses.entropy_bonus(e, MASK, weight=w))
  entropy = jnp.array([[1.0, 2.0]])
  for weight in (0.0, 0.5):
    found = compiled(entropy, jnp.float32(weight))
    np.testing.assert_allclose(found, -weight * entropy)
  assert compiled._cache_size() == 1
  assert jax.grad(lambda w: compiled(entropy, w).sum())(1.0) == 0.0


def test_what_is_masked_may_be_anything():
  found = losses.entropy_bonus(
    jnp.array([1.0, jnp.nan, jnp.inf]),
    jnp.array([True, False, False]),
    weight=-2.0,
  )
  assert found.tolist() == [2.0, 0.0, 0.0]
