from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.training.averages import (
  ema_update,
  linear_ema_decay,
  warmup_ema_decay,
)


def test_the_slow_copy_worked_by_hand():
  """From 0 with parameters 1 at step 1 and 2 at step 2: .999, 1.997998."""
  average = jnp.zeros(())
  for step, params, expected in ((1, 1.0, 0.999), (2, 2.0, 1.997998)):
    decay = linear_ema_decay(step, slope=0.001, maximum=0.3)
    average = ema_update(average, jnp.array(params), decay)
    np.testing.assert_allclose(average, expected, rtol=1e-6)


@pytest.mark.parametrize(
  ("step", "expected"), [(0, 0.0), (1, 0.001), (299, 0.299), (9999, 0.3)]
)
def test_linear_decay(step, expected):
  decay = linear_ema_decay(step, slope=0.001, maximum=0.3)
  np.testing.assert_allclose(decay, expected, rtol=1e-6)


@pytest.mark.parametrize(
  ("step", "expected"), [(0, 0.1), (1, 2 / 11), (8, 0.5), (10_000, 0.99)]
)
def test_warmup_decay(step, expected):
  decay = warmup_ema_decay(step, maximum=0.99)
  np.testing.assert_allclose(decay, expected, rtol=1e-6)


def test_both_forms_of_the_update_are_one():
  """The evaluation average is written avg + (1 - d)(params - avg)."""
  average, params = jnp.array([0.3, -2.0]), jnp.array([1.0, 4.0])
  np.testing.assert_allclose(
    ema_update(average, params, 0.9),
    average + (1 - 0.9) * (params - average),
    rtol=1e-6,
  )


def test_trees_keep_their_structure_and_dtypes():
  average = {"a": jnp.zeros(2, jnp.bfloat16), "b": [jnp.zeros(3)]}
  params = {"a": jnp.ones(2), "b": [jnp.ones(3)]}
  new = ema_update(average, params, 0.25)
  assert jax.tree.structure(new) == jax.tree.structure(average)
  assert (new["a"].dtype, new["b"][0].dtype) == (jnp.bfloat16, jnp.float32)
  np.testing.assert_array_equal(new["b"][0], jnp.full(3, 0.75))


def test_traced_steps_give_the_same():
  decay = jax.jit(lambda n: linear_ema_decay(n, slope=0.001, maximum=0.3))
  assert decay(jnp.array(7)) == linear_ema_decay(7, slope=0.001, maximum=0.3)


@pytest.mark.parametrize("bad", [-0.1, 1.1, float("nan")])
def test_a_maximum_out_of_range_is_refused(bad):
  with pytest.raises(ValueError, match="maximum"):
    linear_ema_decay(1, slope=0.001, maximum=bad)
  with pytest.raises(ValueError, match="maximum"):
    warmup_ema_decay(1, maximum=bad)


def test_a_negative_slope_is_refused():
  with pytest.raises(ValueError, match="slope"):
    linear_ema_decay(1, slope=-0.001, maximum=0.3)
