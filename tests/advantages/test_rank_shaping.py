from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.advantages.rank_shaping import (
  rank_signal,
  shaped_by_signal,
  success_scaled,
)

SETTINGS = {"gain": 2.0, "clip": 5.0, "bound": 1.0, "gate": "era"}
RNG = np.random.default_rng(0)
METRICS = RNG.normal(size=(40, 3)) * [3.0, 1.0, 0.2] + [8.0, 0.5, 0.05]
PAST = np.array([8.0, 0.5, -0.05])
ADVANTAGE = RNG.normal(size=(6, 5)) * (RNG.uniform(size=(6, 5)) < 0.8)
SIGNAL = np.array([0.5, -0.5, 0.05, 2.0, 0.0, 1.0])
MASK = np.arange(5) < np.array([5, 3, 4, 1, 2, 0])[:, None]


def _signal(metrics, past, **changed):
  metrics = jnp.asarray(metrics, jnp.float32)
  return rank_signal(
    *(metrics[:, i] for i in range(3)),
    jnp.asarray(past, jnp.float32),
    **(SETTINGS | changed),
  )


def _oracle_signal(row, past, gain, clip, bound, gate):
  r = [
    min(max((x - b) / (abs(b) + 1e-8), -clip), clip)
    for x, b in zip(row, past, strict=True)
  ]
  beta = 1 / (1 + np.exp(-gain * r[2]))
  explore, exploit = {
    "era": (beta, 1 - beta),
    "half": (0.5, 0.5),
    "both": (1.0, 1.0),
  }[gate]
  return bound * (explore * np.tanh(r[0]) + exploit * np.tanh(r[1]))


@pytest.mark.slow
@pytest.mark.parametrize("gate", ["era", "half", "both"])
def test_signal_equals_a_slow_oracle(gate):
  settings = SETTINGS | {"gate": gate, "clip": 1.5, "bound": 0.75}
  found = _signal(METRICS, PAST, **settings)
  expected = [_oracle_signal(row, PAST, **settings) for row in METRICS]
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
  assert np.abs(found).max() <= (1.5 if gate == "both" else 0.75)


@pytest.mark.slow
def test_worked_signal_and_advantages():
  """From the spec: beta = .268941, Phi = .197375; then kappa = 2."""
  phi = _signal([[12.0, 1.2, 0.05]], [10.0, 1.0, 0.1])
  np.testing.assert_allclose(phi, [0.197375], atol=1e-6)
  shaped = shaped_by_signal(
    jnp.array([[0.5, -0.5, 0.1, 0.0]]),
    phi,
    jnp.ones((1, 4), bool),
    kappa=2.0,
    placement="response",
  )
  np.testing.assert_allclose(
    shaped, [[0.697375, -0.302625, 0.15, 0.0]], atol=1e-6
  )


def test_signal_against_no_past_saturates():
  """Averages that start at zero: every deviation is cut at the bound."""
  phi = _signal([[12.0, 1.2, 0.05]], [0.0, 0.0, 0.0])
  np.testing.assert_allclose(phi, [np.tanh(5.0)], rtol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("placement", ["response", "last_token"])
@pytest.mark.parametrize("kappa", [2.0, 3.0, np.inf])
def test_bonus_keeps_signs_and_its_bound(placement, kappa):
  dirty = np.where(MASK, ADVANTAGE, np.nan).astype(np.float32)
  signal = np.where(MASK.any(axis=1), SIGNAL, np.nan).astype(np.float32)
  found = np.asarray(
    shaped_by_signal(
      jnp.asarray(dirty),
      jnp.asarray(signal),
      jnp.asarray(MASK),
      kappa=kappa,
      placement=placement,
    )
  )
  expected = np.where(MASK, ADVANTAGE, 0.0)
  for row, own in enumerate(MASK):
    columns = np.flatnonzero(own)
    for t in columns if placement == "response" else columns[-1:]:
      bonus = min(max(SIGNAL[row], 0.0), abs(ADVANTAGE[row, t]) / kappa)
      expected[row, t] += bonus
  np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-7)
  own = np.where(MASK, ADVANTAGE, 0.0)
  assert np.all(found >= own - 1e-7)
  assert np.all(found - own <= np.abs(own) / kappa + 1e-6)
  np.testing.assert_array_equal(np.sign(found), np.sign(own.astype(np.float32)))
  # Where the signal is not positive, and with no bonus at all: unchanged.
  still = slice(None) if np.isinf(kappa) else SIGNAL <= 0
  np.testing.assert_allclose(found[still], own[still], rtol=1e-6)


def test_bound_shrinks_with_success():
  score = jnp.array([-1.0, 0.0, 0.5, 1.0])
  np.testing.assert_allclose(success_scaled(score, bound=2.0), [2, 1, 0.5, 0])


@pytest.mark.slow
def test_no_gradient_flows():
  def total(metrics, past, advantage, score):
    bound = success_scaled(score, bound=1.0)
    phi = rank_signal(
      metrics[:, 0],
      metrics[:, 1],
      metrics[:, 2],
      past,
      **(SETTINGS | {"bound": bound}),
    )
    return shaped_by_signal(
      advantage, phi, jnp.ones((2, 3), bool), kappa=2.0, placement="response"
    ).sum()

  inputs = jnp.ones((2, 3)), jnp.ones(3) * 0.5, jnp.ones((2, 3)), jnp.zeros(())
  for slope in jax.grad(total, argnums=(0, 1, 2, 3))(*inputs):
    np.testing.assert_array_equal(slope, 0.0)


@pytest.mark.parametrize("name", ["gain", "clip", "bound"])
def test_negative_settings_are_refused(name):
  with pytest.raises(ValueError, match=f"{name} must not be negative"):
    _signal([[1.0, 1.0, 1.0]], [1.0, 1.0, 1.0], **{name: -1.0})


def test_nonsense_is_refused():
  row = jnp.ones((1, 2)), jnp.ones(1), jnp.ones((1, 2), bool)
  with pytest.raises(ValueError, match="turn a sign"):
    shaped_by_signal(*row, kappa=0.5, placement="response")
  with pytest.raises(ValueError, match="not negative"):
    success_scaled(jnp.zeros(()), bound=-1.0)
