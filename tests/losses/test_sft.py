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


@pytest.mark.slow
def test_gradient_of_the_mean_is_the_cross_entropys():
  """(p - indicator) / number of counted tokens, by the logits."""
  rng = np.random.default_rng(0)
  logits = jnp.asarray(rng.normal(size=(2, 3, 5)), jnp.float32)
  token = jnp.asarray(rng.integers(0, 5, (2, 3)), jnp.int32)
  mask = jnp.array([[True, True, False], [True, False, False]])

  def loss(z):
    log_prob = token_log_prob(z, token, mask, temperature=1.0, soft_cap=None)
    return over_tokens(negative_log_likelihood(log_prob, mask), mask).mean()

  value, slope = jax.jit(jax.value_and_grad(loss))(logits)
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
  rows, time, width, alpha = 8, 80, 32, 5.0
  apply = staticmethod(jax.jit(noisy_embedding, static_argnames="alpha"))

  def noise(self, lengths, seed=0, keys=None):
    """Of rows of these lengths, all padded to the same width."""
    zero = jnp.zeros((self.rows, self.time, self.width))
    mask = jnp.arange(self.time)[None] < jnp.asarray(lengths)[:, None]
    keys = _keys(self.rows, seed) if keys is None else keys
    return np.asarray(
      self.apply(zero, mask, keys, alpha=self.alpha), np.float64
    )

  @pytest.mark.slow
  def test_bound_and_spread(self):
    """Uniform within alpha / sqrt(L d): variance a third of its square."""
    noise = self.noise([self.time] * self.rows)
    bound = self.alpha / math.sqrt(self.time * self.width)
    assert abs(noise).max() <= bound * (1 + 1e-6)
    # Standard errors of a uniform's mean and second moment.
    error = 5 / math.sqrt(noise.size)
    assert abs(noise.mean() / bound) < error * math.sqrt(1 / 3)
    second = (noise**2).mean() / bound**2
    assert abs(second - 1 / 3) < error * math.sqrt(4 / 45)

  def test_norm_depends_on_no_length_not_even_the_batchs(self):
    """Transformers counts the padded width: shorter rows get less noise."""
    noise = self.noise([80, 80, 40, 40, 20, 20, 10, 10])
    norm = np.sqrt((noise**2).sum(axis=(1, 2)))
    np.testing.assert_allclose(norm, self.alpha / math.sqrt(3), rtol=0.1)
    np.testing.assert_array_equal(noise[-1, 10:], 0.0)

  def test_padding_changes_no_rows_noise(self):
    """The same draws, whatever stands behind them and beside them."""
    long = self.noise([80] * 8) * math.sqrt(80)
    short = self.noise([10] * 8, keys=_keys(8)[::-1]) * math.sqrt(10)
    np.testing.assert_allclose(short[::-1, :10], long[:, :10], rtol=1e-5)

  def test_rows_columns_and_keys_are_independent(self):
    one = self.noise([self.time] * self.rows)
    other = self.noise([self.time] * self.rows, seed=1)
    square = (one**2).mean()
    for x, y in ((one[:-1], one[1:]), (one[:, :-1], one[:, 1:]), (one, other)):
      assert abs((x * y).mean()) < 5 * square / math.sqrt(x.size)

  def test_gradient_passes_through(self):
    mask = jnp.arange(self.time)[None] < jnp.full((self.rows, 1), 3)
    keys = _keys(self.rows)
    slope = jax.jit(
      jax.grad(lambda e: self.apply(e, mask, keys, alpha=5.0).sum())
    )(jnp.ones((self.rows, self.time, self.width)))
    expected = np.broadcast_to(mask[..., None], slope.shape)
    np.testing.assert_array_equal(slope, expected)

  @pytest.mark.parametrize("alpha", [-1.0, math.inf, math.nan])
  def test_sizes_that_cannot_be_meant_are_refused(self, alpha):
    with pytest.raises(ValueError, match=f"got {alpha}"):
      noisy_embedding(
        jnp.zeros((1, 1, 1)), jnp.ones((1, 1), bool), _keys(1), alpha=alpha
      )
