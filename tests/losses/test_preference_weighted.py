"""Weights, sums and sequential KL from arrays per token."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax import losses

ROWS, TIME, VOCABULARY = 3, 4, 3
MASK = jnp.array([[1, 1, 1, 0], [0, 1, 0, 1], [0, 0, 0, 0]], bool)


def drawn(seed=0):
  """Log-probs of tiny softmax policies and what their vocabularies say."""
  rng = np.random.default_rng(seed)
  shape = (ROWS, TIME, VOCABULARY)
  logits, reference = jnp.asarray(rng.normal(size=(2, *shape)), jnp.float32)
  token = jnp.asarray(rng.integers(0, VOCABULARY, shape[:2]))
  return logits, reference, token


def of_token(log_p, token):
  return jnp.take_along_axis(log_p, token[..., None], axis=-1)[..., 0]


def junk(value):
  return jnp.where(MASK, value, jnp.nan)


class TestOnPolicyWeight:
  @pytest.mark.slow
  def test_against_a_loop(self):
    logits, _, token = drawn()
    log_p = jax.nn.log_softmax(logits)
    collision = jax.nn.logsumexp(2 * log_p, axis=-1)
    found = losses.on_policy_weight(
      junk(of_token(log_p, token)), junk(collision), MASK
    )
    found, logits, token, mask = map(np.asarray, (found, logits, token, MASK))
    for row in range(ROWS):
      terms = []
      for t in np.flatnonzero(mask[row]):
        p = np.exp(logits[row, t].astype(float))
        p /= p.sum()
        terms.append(math.log(p[token[row, t]] / sum(p**2)))
      expected = math.exp(np.mean(terms)) if terms else 1.0
      np.testing.assert_allclose(found[row], expected, rtol=2e-6)

  def test_a_typical_token_weighs_one(self):
    """By enumeration: E_pi[pi(y) / sum p^2] = 1 for a single token."""
    p = jnp.array([0.6, 0.3, 0.1])
    log_p = jnp.log(p)[:, None]
    collision = jnp.full((3, 1), jnp.log(jnp.sum(p**2)))
    weight = losses.on_policy_weight(log_p, collision, jnp.ones((3, 1), bool))
    np.testing.assert_allclose(jnp.sum(p * weight), 1.0, rtol=1e-6)

  def test_it_is_a_constant(self):
    logits, reference, _ = drawn()
    slopes = jax.grad(
      lambda x, c: losses.on_policy_weight(x, c, MASK).sum(), argnums=(0, 1)
    )(logits[..., 0], reference[..., 0])
    for slope in slopes:
      np.testing.assert_array_equal(slope, 0.0)


class TestLengthDesensitised:
  log_prob = jnp.array([[-1.0, -2.0, -4.0, -8.0]] * ROWS)

  def test_counts_tokens_and_not_columns(self):
    """Row 1 has tokens in columns 1 and 3: the second of them is the tail."""
    length = jnp.array([2, 1, 1])
    found = losses.length_desensitised_log_prob(
      junk(self.log_prob), length, MASK, tail=0.25
    )
    np.testing.assert_array_equal(found, [-3.0 - 1.0, -2.0 - 2.0, 0.0])

  @pytest.mark.parametrize(
    ("length", "tail"), [(0, 1.0), (3, 0.5), (9, 0.0), (1, 1.0)]
  )
  def test_the_plain_sum_is_a_special_case(self, length, tail):
    found = losses.length_desensitised_log_prob(
      self.log_prob, jnp.full(ROWS, length), MASK, tail=tail
    )
    np.testing.assert_array_equal(found, [-7.0, -10.0, 0.0])

  def test_worked_pair(self):
    """LD-DPO with lengths 3 and 2: the third chosen token counts a half."""
    policy = jnp.array(
      [[-1.0, -0.5, -2.0, 0.0], [-0.5, -1.5, 0.0, 0.0], [0.0] * TIME]
    )
    reference = jnp.array(
      [[-1.5, -1.0, -4.0, 0.0], [-0.25, -1.0, 0.0, 0.0], [0.0] * TIME]
    )
    mask = jnp.array([[1, 1, 1, 0], [1, 1, 0, 0], [0] * TIME], bool)
    shorter = jnp.full(ROWS, 2)
    policy, reference = (
      losses.length_desensitised_log_prob(x, shorter, mask, tail=0.5)
      for x in (policy, reference)
    )
    h = losses.log_ratio(policy, reference, jnp.ones(ROWS, bool))
    np.testing.assert_array_equal(h, [0.5 + 0.5 + 0.5 * 2.0, -0.25 - 0.5, 0])

  def test_slope_is_the_weight(self):
    slope = jax.grad(
      lambda x: losses.length_desensitised_log_prob(
        x, jnp.array([2, 1, 1]), MASK, tail=0.25
      ).sum()
    )(junk(self.log_prob))
    np.testing.assert_array_equal(
      slope, [[1, 1, 0.25, 0], [0, 1, 0, 0.25], [0, 0, 0, 0]]
    )

  @pytest.mark.parametrize("tail", [-0.1, 1.5, math.nan])
  def test_bad_tail_is_refused(self, tail):
    with pytest.raises(ValueError, match=rf"tail.*\[0, 1\].*{tail}"):
      losses.length_desensitised_log_prob(
        self.log_prob, jnp.ones(ROWS, int), MASK, tail=tail
      )


def sequential(logits, reference, token, *, weight, through=True):
  log_p, log_q = map(jax.nn.log_softmax, (logits, reference))
  kl = jnp.sum(jnp.exp(log_q) * (log_q - log_p), axis=-1)
  return losses.sequential_kl_log_ratio(
    of_token(log_p, token),
    of_token(log_q, token),
    kl,
    MASK,
    kl_weight=weight,
    through_kl=through,
  )


class TestSequentialKl:
  def test_against_a_loop(self):
    logits, reference, token = drawn()
    found = sequential(logits, reference, token, weight=0.5)
    found, logits, reference, token, mask = map(
      np.asarray, (found, logits, reference, token, MASK)
    )
    for row in range(ROWS):
      total = 0.0
      for t in np.flatnonzero(mask[row]):
        p, q = (np.exp(x[row, t].astype(float)) for x in (logits, reference))
        p, q = p / p.sum(), q / q.sum()
        y = token[row, t]
        total += math.log(p[y] / q[y]) + 0.5 * sum(q * np.log(q / p))
      np.testing.assert_allclose(found[row], total, rtol=1e-5, atol=1e-6)

  def test_weight_zero_is_the_log_ratio(self):
    logits, reference, token = drawn()
    found = sequential(logits, reference, token, weight=0.0)
    log_p, log_q = (
      jnp.sum(jnp.where(MASK, of_token(jax.nn.log_softmax(x), token), 0), -1)
      for x in (logits, reference)
    )
    np.testing.assert_allclose(found, log_p - log_q, atol=1e-6)

  @pytest.mark.slow
  @pytest.mark.parametrize("through", [True, False])
  def test_slope_by_logits(self, through):
    """One-hot minus pi, plus w (pi - ref) if the KL is differentiated."""
    logits, reference, token = drawn()
    slope = jax.grad(
      lambda z: sequential(
        z, reference, token, weight=0.5, through=through
      ).sum()
    )(logits)
    p, q = jax.nn.softmax(logits), jax.nn.softmax(reference)
    expected = jax.nn.one_hot(token, VOCABULARY) - p
    expected += 0.5 * (p - q) if through else 0.0
    expected = jnp.where(MASK[..., None], expected, 0.0)
    np.testing.assert_allclose(slope, expected, atol=1e-6)

  @pytest.mark.slow
  @pytest.mark.parametrize(
    ("weight", "through_chosen"), [(1.0, True), (0.5, False)]
  )
  def test_both_forms_of_token_level_dpo(self, weight, through_chosen):
    """TDPO and TDPO2 as their papers write them, value and gradient."""
    chosen, rejected = drawn(1), drawn(2)
    kept, beta = MASK.any(axis=-1), 0.3

    def ours(w, l):  # noqa: E741
      return losses.logistic_preference_loss(
        sequential(w, *chosen[1:], weight=weight, through=through_chosen),
        sequential(l, *rejected[1:], weight=weight),
        kept,
        beta=beta,
      ).sum()

    def paper(w, l):  # noqa: E741
      u, d = [], []
      for z, (_, ref, y) in ((w, chosen), (l, rejected)):
        log_p, log_q = map(jax.nn.log_softmax, (z, ref))
        ratio = of_token(log_p - log_q, y)
        kl = jnp.sum(jnp.exp(log_q) * (log_q - log_p), axis=-1)
        u.append(jnp.sum(jnp.where(MASK, ratio, 0), axis=-1))
        d.append(jnp.sum(jnp.where(MASK, kl, 0), axis=-1))
      if not through_chosen:
        d[0] = jax.lax.stop_gradient(d[0])
      z = beta * (u[0] - u[1]) - weight * beta * (d[1] - d[0])
      return jnp.sum(jnp.where(kept, -jnp.log(jax.nn.sigmoid(z)), 0))

    pairs = zip(
      jax.tree.leaves(
        jax.value_and_grad(ours, argnums=(0, 1))(chosen[0], rejected[0])
      ),
      jax.tree.leaves(
        jax.value_and_grad(paper, argnums=(0, 1))(chosen[0], rejected[0])
      ),
      strict=True,
    )
    for found, expected in pairs:
      np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)

  @pytest.mark.parametrize("weight", [-0.5, math.nan])
  def test_bad_weight_is_refused(self, weight):
    with pytest.raises(ValueError, match=f"kl_weight.*{weight}"):
      sequential(*drawn(), weight=weight)
