import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from rl_jax.rewards import class_match, log_likelihood_reward, weighted_sum


@pytest.fixture
def logits():
  return jnp.asarray(np.random.RandomState(0).normal(size=(6, 4)), jnp.float32)


def test_class_match_by_hand():
  logits = jnp.array([[0.0, 1.0], [3.0, 1.0], [2.0, 2.0], [-5.0, -4.0]])
  reward = class_match(logits, jnp.array([1, 1, 0, 1]))
  assert reward.tolist() == [1.0, 0.0, 1.0, 1.0]


def test_class_match_does_not_change_with_a_shift_of_the_logits(logits):
  label = jnp.array([0, 1, 2, 3, 0, 1])
  shift = jnp.arange(6.0)[:, None] + jnp.zeros((6, 4))
  np.testing.assert_array_equal(
    class_match(logits, label), class_match(logits + shift, label)
  )


@pytest.mark.parametrize("transform", [class_match, log_likelihood_reward])
@pytest.mark.parametrize("label", [-1, 4, 100])
def test_unknown_label_is_no_verdict(transform, logits, label):
  reward = transform(logits, jnp.array([0, label, 0, 0, 0, 0]))
  assert np.isnan(reward).tolist() == [False, True] + [False] * 4


@pytest.mark.parametrize("transform", [class_match, log_likelihood_reward])
def test_nan_logit_is_no_verdict_and_touches_no_other_row(transform, logits):
  label = jnp.array([0, 1, 2, 3, 0, 1])
  broken = transform(logits.at[2, 0].set(jnp.nan), label)
  assert np.isnan(broken[2])
  # argmax alone would have called NaN the winner, and paid for class 0.
  kept = jnp.array([0, 1, 3, 4, 5])
  np.testing.assert_array_equal(broken[kept], transform(logits, label)[kept])


def test_infinite_logits_are_a_verdict():
  logits = jnp.array([[jnp.inf, 0.0], [-jnp.inf, 0.0]])
  assert class_match(logits, jnp.array([0, 1])).tolist() == [1.0, 1.0]


def test_log_likelihood_against_numpy(logits):
  label = np.array([0, 1, 2, 3, 0, 1])
  wide = np.asarray(logits, np.float64)
  expected = [
    row[k] - np.log(np.sum(np.exp(row)))
    for row, k in zip(wide, label, strict=True)
  ]
  np.testing.assert_allclose(
    log_likelihood_reward(logits, jnp.asarray(label)), expected, atol=1e-6
  )


def test_likelihoods_of_all_classes_sum_to_one(logits):
  total = sum(
    jnp.exp(log_likelihood_reward(logits, jnp.full(6, k))) for k in range(4)
  )
  np.testing.assert_allclose(total, np.ones(6), atol=1e-6)


def test_log_likelihood_survives_huge_logits():
  logits = jnp.array([[1e30, 0.0], [0.0, -1e30]])
  reward = log_likelihood_reward(logits, jnp.array([0, 0]))
  np.testing.assert_allclose(reward, [0.0, 0.0])


@pytest.mark.slow
def test_log_likelihood_gradient(logits):
  label = jnp.array([0, 1, 2, 3, 0, 1])
  check_grads(
    lambda x: log_likelihood_reward(jnp.asarray(x), label),
    (logits,),
    order=1,
    modes=["rev"],
    eps=1e-2,
  )
  gradient = jax.grad(lambda x: jnp.sum(log_likelihood_reward(x, label)))(
    logits
  )
  expected = jax.nn.one_hot(label, 4) - jax.nn.softmax(logits)
  np.testing.assert_allclose(gradient, expected, atol=1e-6)


@pytest.mark.slow
def test_rows_without_verdict_have_zero_gradient(logits):
  label = jnp.array([0, 9, 2, 3, 0, 1])
  broken = logits.at[2, 0].set(jnp.nan)

  def loss(x):
    reward = log_likelihood_reward(x, label)
    return jnp.sum(jnp.where(jnp.isnan(reward), 0.0, reward))

  gradient = jax.grad(loss)(broken)
  assert np.all(np.isfinite(gradient))
  assert not np.any(gradient[jnp.array([1, 2])])


@pytest.mark.parametrize("transform", [class_match, log_likelihood_reward])
def test_half_precision_is_widened(transform, logits):
  label = jnp.array([0, 1, 2, 3, 0, 1])
  half = logits.astype(jnp.bfloat16)
  reward = transform(half, label)
  assert reward.dtype == jnp.float32
  np.testing.assert_array_equal(
    reward, transform(half.astype(jnp.float32), label)
  )


def test_weighted_sum_by_hand():
  reward = jnp.array([[1.0, 2.0], [0.0, -1.0], [4.0, 0.5]])
  total, valid = weighted_sum(
    reward, jnp.ones((3, 2), bool), jnp.array([0.5, -2.0])
  )
  assert total.tolist() == [-3.5, 2.0, 1.0]
  assert valid.tolist() == [True, True, True]


@pytest.mark.slow
@pytest.mark.parametrize("junk", [jnp.nan, jnp.inf, -jnp.inf, 1e30])
def test_a_term_without_verdict_takes_the_row_out(junk):
  reward = jnp.array([[1.0, 2.0], [3.0, junk]])
  valid = jnp.array([[True, True], [True, False]])
  weight = jnp.array([1.0, 1.0])

  def value(reward):
    return jnp.sum(weighted_sum(reward, valid, weight)[0])

  total, kept = weighted_sum(reward, valid, weight)
  assert total.tolist() == [3.0, 0.0]
  assert kept.tolist() == [True, False]
  assert jax.grad(value)(reward).tolist() == [[1.0, 1.0], [0.0, 0.0]]


def test_weighted_sum_is_linear_in_its_weights(logits):
  valid = jnp.ones((6, 4), bool)
  one, two = jnp.array([1.0, 2.0, 3.0, 4.0]), jnp.array([0.5, 0.0, -1.0, 2.0])
  apart = (
    weighted_sum(logits, valid, one)[0] + weighted_sum(logits, valid, two)[0]
  )
  together = weighted_sum(logits, valid, one + two)[0]
  np.testing.assert_allclose(apart, together, atol=1e-5)
