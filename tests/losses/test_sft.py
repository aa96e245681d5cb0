from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.log_probs import token_log_prob
from rl_jax.losses import negative_log_likelihood, noisy_embedding
from rl_jax.reduce import over_tokens


def _keys(rows, seed=0):
  return jax.random.split(jax.random.key(seed), rows)


def test_gradient_of_the_mean_is_the_cross_entropys():
  """(p - indicator) / number of counted tokens, by the logits."""
  rng = np.random.default_rng(0)
  logits = jnp.asarray(rng.normal(size=(2, 3, 5)), jnp.float32)
  token = jnp.asarray(rng.integers(0, 5, (2, 3)), jnp.int32)
  mask = jnp.array([[True, True, False], [True, False, False]])

  def loss(z):
    log_prob = token_log_prob(z, token, mask, temperature=1.0, soft_cap=None)
    return over_tokens(negative_log_likelihood(log_prob, mask), mask).mean()

  value, slope = jax.value_and_grad(loss)(logits)
  p = np.exp(np.asarray(logits, np.float64))
  p /= p.sum(axis=-1, keepdims=True)
  own = np.take_along_axis(p, np.asarray(token)[..., None], -1)[..., 0]
  counted = np.asarray(mask)
  np.testing.assert_allclose(value, -np.log(own)[counted].mean(), rtol=1e-6)
  expected = (p - np.eye(5)[np.asarray(token)]) * counted[..., None] / 3
  np.testing.assert_allclose(slope, expected, atol=1e-6)


def test_a_token_that_cannot_be_costs_everything():
  log_prob = jnp.array([-jnp.inf, -1.0])
  loss = negative_log_likelihood(log_prob, jnp.ones(2, bool))
  assert loss.tolist() == [math.inf, 1.0]


class TestNoise:
  width, alpha = 64, 5.0

  def noise(self, mask, key=None, width=None):
    shape = (*mask.shape, width or self.width)
    keys = _keys(len(mask)) if key is None else key
    return noisy_embedding(jnp.zeros(shape), mask, keys, alpha=self.alpha)

  def test_bound_and_spread(self):
    """Uniform within alpha / sqrt(L d): variance a third of its square."""
    mask = jnp.ones((4, 50), bool)
    noise = np.asarray(self.noise(mask), np.float64)
    bound = self.alpha / math.sqrt(50 * self.width)
    assert abs(noise).max() <= bound * (1 + 1e-6)
    count = noise.size
    # Standard errors of a uniform's mean and second moment.
    assert abs(noise.mean()) < 5 * bound / math.sqrt(3 * count)
    second = (noise**2).mean() / bound**2
    assert abs(second - 1 / 3) < 5 * math.sqrt(4 / 45 / count)

  def test_norm_does_not_grow_with_length(self):
    for length in (5, 20, 80):
      noise = self.noise(jnp.ones((8, length), bool))
      norm = jnp.sqrt((noise**2).sum(axis=(1, 2))).mean()
      np.testing.assert_allclose(norm, self.alpha / math.sqrt(3), rtol=0.05)

  def test_length_is_that_of_the_row_not_of_the_batch(self):
    """Where transformers counts the padded width."""
    mask = jnp.arange(40)[None] < jnp.array([[40], [10]])
    noise = self.noise(mask)
    alone = self.noise(mask[1:, :10], key=_keys(2)[1:])
    np.testing.assert_allclose(noise[1:, :10], alone, rtol=1e-6)
    np.testing.assert_array_equal(noise[1, 10:], 0.0)

  def test_rows_and_keys_are_independent(self):
    mask = jnp.ones((2, 30), bool)
    one, other = self.noise(mask), self.noise(mask, key=_keys(2, seed=1))
    bound = self.alpha**2 / (30 * self.width) / 3

    def correlation(x, y):
      return float(jnp.mean(x * y)) / bound

    error = 5 / math.sqrt(30 * self.width)
    assert abs(correlation(one[0], one[1])) < error
    assert abs(correlation(one, other)) < error
    assert abs(correlation(one[0, :-1], one[0, 1:])) < error

  def test_gradient_passes_through(self):
    mask = jnp.array([[True, True, False]])
    slope = jax.grad(
      lambda e: noisy_embedding(e, mask, _keys(1), alpha=5.0).sum()
    )(jnp.ones((1, 3, 2)))
    np.testing.assert_array_equal(slope, [[[1, 1], [1, 1], [0, 0]]])

  @pytest.mark.parametrize("alpha", [-1.0, math.inf, math.nan])
  def test_sizes_that_cannot_be_meant_are_refused(self, alpha):
    with pytest.raises(ValueError, match=f"got {alpha}"):
      noisy_embedding(
        jnp.zeros((1, 1, 1)), jnp.ones((1, 1), bool), _keys(1), alpha=alpha
      )
