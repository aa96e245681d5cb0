from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.controllers import (
  AdaptiveEntropy,
  AdaptiveKl,
  Fixed,
  adapted_entropy_coefficient,
  adapted_kl_coefficient,
)

KL = AdaptiveKl(start=0.2, target=6.0, horizon=10_000.0)
ENTROPY = AdaptiveEntropy(start=0.5, target=0.2, step=0.005, high=1.0)


def number(value):
  return jnp.asarray(value, jnp.float32)


@pytest.mark.parametrize(
  ("kl", "expected"), [(12.0, 0.201024), (3.0, 0.198976), (6.3, 0.200256)]
)
def test_adaptive_kl_of_the_sheet(kl, expected):
  """Coefficient .2, target 6, 256 sequences, horizon 10000."""
  found = KL(KL.init(), number(kl), number(256))
  np.testing.assert_allclose(found.following, expected, atol=5e-7)
  np.testing.assert_allclose(found.applied, 0.2, rtol=1e-7)


def test_kl_is_driven_to_its_target():
  """A KL that falls as its weight rises settles where it should."""
  controller = AdaptiveKl(start=0.01, target=6.0, horizon=1_000.0)

  def step(coefficient, _):
    kl = 1.0 / coefficient
    found = controller(coefficient, kl, number(256))
    return found.following, kl

  _, kl = jax.lax.scan(step, controller.init(), length=400)
  assert kl[0] > 50
  np.testing.assert_allclose(kl[-1], 6.0, rtol=1e-3)


def test_coefficient_stays_at_the_target():
  found = KL(number(0.3), number(6.0), number(256))
  assert found.following == found.applied


def test_entropy_bonus_is_paid_while_entropy_is_low():
  low = ENTROPY(ENTROPY.init(), number(0.2), number(1))
  np.testing.assert_allclose([low.applied, low.following], [0.5, 0.505])
  high = ENTROPY(ENTROPY.init(), number(0.21), number(1))
  np.testing.assert_allclose([high.applied, high.following], [0.0, 0.495])


def test_entropy_coefficient_is_bounded():
  adapt = functools.partial(
    adapted_entropy_coefficient, target=0.2, step=0.005, high=1.0
  )
  assert adapt(number(0.999), number(0.0)).following == 1.0
  assert adapt(number(0.001), number(9.0)).following == 0.0


def test_fixed_has_the_shape_of_the_others():
  """One experiment, three controllers: same call, same kind of result."""
  for controller in (Fixed(value=0.25), KL, ENTROPY):
    state = controller.init()
    found = jax.jit(controller.__call__)(state, number(9.0), number(8))
    assert found.following.shape == found.applied.shape == ()
    assert found.following.dtype == jnp.float32
  fixed = Fixed(value=0.25)
  found = fixed(fixed.init(), number(1e9), number(8))
  assert (found.applied, found.following) == (0.25, 0.25)


def test_no_gradient_flows():
  slope = jax.grad(lambda kl: KL(number(0.2), kl, number(8)).following)(
    number(7.0)
  )
  assert slope == 0


@pytest.mark.parametrize(
  ("call", "message"),
  [
    (
      lambda: AdaptiveKl(start=0.2, target=0.0, horizon=1.0),
      r"must be positive, got 0\.0 and 1\.0",
    ),
    (
      lambda: AdaptiveKl(start=0.2, target=1.0, horizon=-1.0),
      r"must be positive, got 1\.0 and -1\.0",
    ),
    (
      lambda: AdaptiveKl(start=-0.2, target=1.0, horizon=1.0),
      r"start must not be negative, got -0\.2",
    ),
    (lambda: Fixed(value=-1.0), r"value must not be negative, got -1\.0"),
    (
      lambda: AdaptiveEntropy(start=0.0, target=0.2, step=0.0, high=1.0),
      r"got 0\.2, 0\.0 and 1\.0",
    ),
    (
      lambda: adapted_kl_coefficient(
        *[number(1.0)] * 3, target=-1.0, horizon=1.0
      ),
      r"target must be positive, got -1\.0",
    ),
    (
      lambda: adapted_kl_coefficient(
        *[number(1.0)] * 3, target=1.0, horizon=0.0
      ),
      r"horizon must be positive, got 0\.0",
    ),
    (
      lambda: adapted_kl_coefficient(
        *[number(1.0)] * 3, target=1.0, horizon=1.0, max_error=-1.0
      ),
      r"max_error must not be negative, got -1\.0",
    ),
    (
      lambda: adapted_entropy_coefficient(
        *[number(1.0)] * 2, target=-0.5, step=1.0, high=1.0
      ),
      r"target must not be negative, got -0\.5",
    ),
    (
      lambda: adapted_entropy_coefficient(
        *[number(1.0)] * 2, target=0.5, step=1.0, high=0.0
      ),
      r"step and high must be positive, got 1\.0 and 0\.0",
    ),
  ],
)
def test_bad_options_raise(call, message):
  with pytest.raises(ValueError, match=message):
    call()
