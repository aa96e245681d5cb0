from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.advantages.step_probes import (
  probe_confidence,
  probe_correctness,
  released_probe,
)
from rl_jax.log_probs import token_entropy


@pytest.mark.slow
def test_confidence_of_uniform_and_certain_distributions():
  """From the spec: 1 / V and 1; a mean over continuations, not of entropies."""
  uniform, certain = np.zeros((2, 3, 5)), np.full((2, 3, 5), -1e9)
  certain[..., 0] = 0.0
  logits = np.stack([uniform, certain, np.stack([uniform[0], certain[0]])])
  mask = np.ones((3, 2, 3), bool)
  mask[0, 1, 2] = mask[2, 0, 1] = False
  entropy = token_entropy(
    jnp.asarray(logits, jnp.float32),
    jnp.asarray(mask),
    temperature=1.0,
    soft_cap=None,
  )
  found = probe_confidence(entropy, jnp.asarray(mask))
  np.testing.assert_allclose(found, [0.2, 1.0, 0.6], rtol=1e-6)


@pytest.mark.slow
def test_continuations_without_a_token_do_not_count():
  entropy = jnp.where(jnp.arange(2)[None, :, None] == 0, 0.5, jnp.nan)
  mask = jnp.array([[[True, True], [False, False]], [[False] * 2] * 2])
  found = probe_confidence(jnp.broadcast_to(entropy, (2, 2, 2)), mask)
  np.testing.assert_allclose(found, [np.exp(-0.5), 0.0], rtol=1e-6)


def test_correctness_is_a_mean_of_probabilities():
  log_prob = np.log([[0.5, 0.25, 1.0], [0.1, 1.0, 1.0]])
  mask = np.array([[True, True, False], [True, False, False]])
  found = probe_correctness(
    jnp.asarray(np.where(mask, log_prob, np.nan), jnp.float32),
    jnp.asarray(mask),
  )
  np.testing.assert_allclose(found, [0.375, 0.1], rtol=1e-6)


def _oracle_released(logits, mask, answer, answer_mask, top):
  acc, conf = [], []
  for z, own in zip(logits, mask, strict=True):
    if not own.any():
      continue
    table = z - np.log(np.exp(z).sum(axis=-1, keepdims=True))
    wanted = answer[answer_mask]
    total, nats = 0.0, 0.0
    for place, one in enumerate(wanted):
      known = place < len(table) and own[place]
      best = np.argsort(-table[place])[:top] if known else []
      total += table[place, one] if one in best else -10.0
    for place in np.flatnonzero(own):
      likely = np.sort(table[place])[::-1][:top]
      nats -= np.sum(np.exp(likely) * likely)
    acc.append(np.exp(total) / len(wanted))
    conf.append(np.exp(-nats) / own.sum())
  return np.mean(acc), np.mean(conf)


@pytest.mark.slow
@pytest.mark.parametrize("answers", [2, 6])
def test_released_numbers_equal_a_slow_oracle(answers):
  """Answers shorter and longer than the continuations, ids that are missing."""
  rng = np.random.default_rng(answers)
  logits = rng.normal(size=(4, 3, 4, 7)) * 0.4
  mask = np.arange(4) < rng.integers(2, 5, (4, 3))[..., None]
  mask[0, 1] = False
  answer = rng.integers(0, 7, (4, answers))
  answer_mask = np.arange(answers) < rng.integers(1, answers + 1, 4)[:, None]
  dirty = np.where(mask[..., None], logits, np.nan).astype(np.float32)
  found = jax.jit(partial(released_probe, top=5))(
    dirty, mask, answer, answer_mask
  )
  for row in range(4):
    expected = _oracle_released(
      logits[row], mask[row], answer[row], answer_mask[row], 5
    )
    np.testing.assert_allclose(
      [x[row] for x in found], expected, rtol=1e-5, atol=1e-12
    )


@pytest.mark.slow
def test_released_numbers_differ_from_the_equations():
  """Sums instead of means: a long certain continuation seems unsure."""
  logits = jnp.zeros((1, 1, 4, 3)).at[..., 0].set(50.0)
  mask = jnp.ones((1, 1, 4), bool)
  acc, conf = jax.jit(released_probe)(
    logits, mask, jnp.zeros((1, 2), int), jnp.ones((1, 2), bool)
  )
  np.testing.assert_allclose([acc[0], conf[0]], [0.5, 0.25], rtol=1e-6)
  nats = token_entropy(logits, mask, temperature=1.0, soft_cap=None)
  np.testing.assert_allclose(probe_confidence(nats, mask), [1.0], rtol=1e-6)


@pytest.mark.slow
def test_probes_are_differentiable_by_nobody_but_their_caller():
  """They are plain functions; what uses them stops gradients."""
  slope = jax.grad(
    lambda x: probe_correctness(x, jnp.ones((1, 2), bool)).sum()
  )(jnp.zeros((1, 2)))
  np.testing.assert_allclose(slope, 0.5)


def test_nonsense_is_refused():
  answer, some = jnp.zeros((1, 2), int), jnp.ones((1, 2), bool)
  with pytest.raises(ValueError, match="top must be at least 1"):
    released_probe(jnp.zeros((1, 1, 2, 3)), some[None], answer, some, top=0)
