"""Cross-entropy of a log-ratio with an outcome label."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.losses import bco_loss
from rl_jax.losses.outcome_reward import implicit_ce_loss

RATIO = jnp.array([0.4, -0.2, 0.6, -0.5, 0.1, 0.3])
ONE = jnp.ones(1, bool)


def of_tokens(ratio, label, beta=0.05):
  return implicit_ce_loss(
    jnp.sum(ratio)[None], jnp.array([label]), ONE, beta=beta
  )[0]


@pytest.mark.slow
def test_worked_example():
  """Sheet: h = .7, beta = .05; the same slope at every token."""
  value, slope = jax.vmap(jax.value_and_grad(of_tokens), in_axes=(None, 0))(
    RATIO, jnp.array([1.0, 0.0])
  )
  np.testing.assert_allclose(value, [0.675800, 0.710800], atol=1e-6)
  for row, expected in zip(slope, (-0.024563, 0.025437), strict=True):
    np.testing.assert_allclose(row, expected, atol=1e-6)


@pytest.mark.slow
def test_against_probabilities_in_float64():
  rng = np.random.default_rng(0)
  h, label = rng.normal(size=64) * 3, rng.uniform(size=64)
  beta = 0.5
  found, slope = jax.value_and_grad(
    lambda h: implicit_ce_loss(
      h, jnp.asarray(label, jnp.float32), jnp.ones(64, bool), beta=beta
    ).sum()
  )(jnp.asarray(h, jnp.float32))
  p = 1 / (1 + np.exp(-beta * h))
  expected = -(label * np.log(p) + (1 - label) * np.log(1 - p))
  np.testing.assert_allclose(found, expected.sum(), rtol=1e-6)
  np.testing.assert_allclose(slope, beta * (p - label), atol=1e-6)


@pytest.mark.slow
def test_with_hard_labels_it_is_bco_without_a_shift():
  h = jnp.linspace(-4.0, 4.0, 8)
  label = jnp.arange(8) % 3 == 0
  valid = jnp.arange(8) != 5
  np.testing.assert_array_equal(
    implicit_ce_loss(h, label.astype(jnp.float32), valid, beta=0.5),
    bco_loss(h, label, jnp.zeros(()), valid, beta=0.5),
  )


def test_confident_mistakes_stay_finite_in_half_precision():
  """A probability of 1 would have no logarithm of what is left."""
  h = jnp.array([400.0, -400.0], jnp.bfloat16)
  loss = implicit_ce_loss(h, jnp.array([0.0, 1.0]), jnp.ones(2, bool), beta=1.0)
  assert loss.tolist() == [400.0, 400.0]


def test_bad_input():
  h, valid = jnp.zeros(3), jnp.array([True, True, False])
  with pytest.raises(ValueError, match=r"label must be in \[0, 1\].*1\.5"):
    implicit_ce_loss(h, jnp.array([0.0, 1.5, 0.0]), valid, beta=0.5)
  hidden = implicit_ce_loss(h, jnp.array([0.0, 1.0, 7.0]), valid, beta=0.5)
  np.testing.assert_allclose(hidden[:2], math.log(2), rtol=1e-6)
  assert hidden[2] == 0
  with pytest.raises(ValueError, match="beta"):
    implicit_ce_loss(h, h, valid, beta=0.0)
