import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.models import Classifier
from rl_jax.rewards import ClassifierReward, Sum, class_match


def test_sum_by_hand():
  total = Sum(terms=("match", "long"), weights=(1.0, -0.5))
  verdict = total(
    {"long": jnp.array([2.0, 4.0]), "match": jnp.array([1.0, 0.0])}
  )
  assert verdict.reward.tolist() == [0.0, -2.0]
  assert verdict.valid.tolist() == [True, True]


def test_no_verdict_is_not_zero():
  """With zero for NaN the second row would tie with the first."""
  total = Sum(terms=("match", "long"), weights=(1.0, 1.0))
  verdict = total(
    {"match": jnp.array([1.0, 1.0]), "long": jnp.array([0.0, jnp.nan])}
  )
  assert verdict.valid.tolist() == [True, False]


def test_infinite_reward_is_not_hidden():
  """Not a missing verdict but an error, which the doctor must see."""
  verdict = Sum(terms=("a",), weights=(1.0,))({"a": jnp.array([jnp.inf])})
  assert verdict.valid.tolist() == [True]
  assert np.isinf(verdict.reward)


def test_order_of_terms_is_free():
  reward = {"a": jnp.array([0.25, 0.5]), "b": jnp.array([4.0, 2.0])}
  one = Sum(terms=("a", "b"), weights=(2.0, 0.5))(reward)
  two = Sum(terms=("b", "a"), weights=(0.5, 2.0))(reward)
  np.testing.assert_array_equal(one.reward, two.reward)


@pytest.mark.parametrize(
  ("terms", "weights", "words"),
  [
    ((), (), "one or more names"),
    (("a", "a"), (1.0, 1.0), "one or more names"),
    (("a", "b"), (1.0,), "2 terms .* but 1 weights"),
    (("a",), (float("nan"),), "finite"),
  ],
)
def test_bad_sums_are_refused(terms, weights, words):
  with pytest.raises(ValueError, match=words):
    Sum(terms=terms, weights=weights)


@pytest.mark.parametrize("names", [("a",), ("a", "b", "c"), ("a", "c")])
def test_rewards_must_be_those_of_the_sum(names):
  total = Sum(terms=("a", "b"), weights=(1.0, 1.0))
  with pytest.raises(ValueError, match=r"\['a', 'b'\] but got"):
    total({name: jnp.zeros(2) for name in names})


@pytest.fixture
def judge():
  model = Classifier(inputs=8, width=5, classes=3)
  return SimpleNamespace(by=SimpleNamespace(model=model))


@pytest.mark.slow
def test_classifier_reward_is_the_match_of_its_judge(judge):
  reward = ClassifierReward(judge=judge)
  model = reward.judge.by.model
  params = jax.jit(model.init)(jax.random.key(0))
  sample = jax.random.normal(jax.random.key(1), (7, 8))
  condition = jnp.arange(7) % 3
  expected = class_match(model.apply(params, sample), condition)
  found = jax.jit(reward.bind(model))(params, sample, condition)
  np.testing.assert_array_equal(found, expected)
  assert 0 < found.sum() < 7


@pytest.mark.slow
def test_axes_of_a_sample_are_flattened(judge):
  model = judge.by.model
  params = jax.jit(model.init)(jax.random.key(0))
  reward = ClassifierReward(judge=judge).bind(model)
  sample = jax.random.normal(jax.random.key(1), (7, 8))
  condition = jnp.arange(7) % 3
  np.testing.assert_array_equal(
    reward(params, sample.reshape(7, 2, 2, 2), condition),
    reward(params, sample, condition),
  )


@pytest.mark.slow
def test_a_diverged_sample_earns_nothing(judge):
  model = judge.by.model
  params = jax.jit(model.init)(jax.random.key(0))
  sample = jnp.full((1, 8), jnp.nan)
  reward = ClassifierReward(judge=judge).bind(model)
  assert np.isnan(reward(params, sample, jnp.array([0])))


def test_components_are_frozen_values(judge):
  assert ClassifierReward(judge=judge) == ClassifierReward(judge=judge)
  with pytest.raises(dataclasses.FrozenInstanceError):
    Sum(terms=("a",), weights=(1.0,)).terms = ("b",)
