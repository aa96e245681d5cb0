"""Guidance as a model."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.models import Guided, VelocityMLP

MODEL = VelocityMLP(
  event=3, classes=4, width=8, time_features=4, class_features=4
)


@pytest.fixture(scope="module")
def inputs():
  x = jax.random.normal(jax.random.key(1), (2, 3))
  return MODEL.init(jax.random.key(0)), x, jnp.array([0.25, 0.75])


@pytest.mark.slow
def test_is_the_line_through_both_velocities(inputs):
  params, x, t = inputs
  label, null = jnp.array([0, 1]), jnp.array([3, 3])
  with_label = MODEL.apply(params, x, t, label)
  without = MODEL.apply(params, x, t, null)
  model = Guided(model=MODEL, weight=2.5, unconditional=3)
  np.testing.assert_allclose(
    model.apply(params, x, t, label),
    np.asarray(without) + 2.5 * (np.asarray(with_label) - without),
    rtol=1e-6,
    atol=1e-6,
  )


@pytest.mark.slow
def test_weight_one_is_the_model_itself(inputs):
  params, x, t = inputs
  label = jnp.array([0, 1])
  model = Guided(model=MODEL, weight=1.0, unconditional=3)
  np.testing.assert_allclose(
    model.apply(params, x, t, label),
    MODEL.apply(params, x, t, label),
    rtol=1e-5,
    atol=1e-6,
  )


@pytest.mark.slow
def test_no_gradient_through_the_unconditional_branch(inputs):
  params, x, t = inputs
  label = jnp.array([0, 1])

  def gradient(model, scale):
    def loss(params):
      return scale * jnp.sum(model.apply(params, x, t, label))

    return jax.grad(loss)(params)

  guided = gradient(Guided(model=MODEL, weight=2.0, unconditional=3), 1.0)
  plain = gradient(MODEL, 2.0)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
    guided,
    plain,
  )


@pytest.mark.slow
def test_passes_the_model_through():
  model = Guided(model=MODEL, weight=2.0)
  params = model.init(jax.random.key(0))
  assert model.event_shape == (3,)
  assert model.classes == 4
  assert model.logical_axes(params) == MODEL.logical_axes(params)


def test_refuses_a_weight_of_nothing():
  with pytest.raises(ValueError, match="weight must be positive, got 0"):
    Guided(model=MODEL, weight=0.0)
