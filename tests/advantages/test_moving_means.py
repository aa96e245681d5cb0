from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.advantages.baselines import (
  init_moving_baseline,
  update_moving_baseline,
)
from rl_jax.advantages.moving_means import (
  init_moving_means,
  update_moving_means,
)

DECAY = 0.7
STARTS = ("zero", "first", "unbiased")
BATCHES = np.random.default_rng(0).normal(1.0, 2.0, (6, 5, 3))
VALID = np.random.default_rng(1).uniform(size=(6, 5)) < 0.7
VALID[2] = False


@pytest.fixture(scope="module")
def run():
  """All states of the averages over the batches, by start."""

  def one(start, batches):
    def step(state, batch):
      state = update_moving_means(state, *batch, decay=DECAY, start=start)
      return state, state

    first = init_moving_means(num_means=batches[0].shape[-1])
    return jax.lax.scan(step, first, batches)[1]

  return jax.jit(lambda batches: {s: one(s, batches) for s in STARTS})


@pytest.fixture(scope="module")
def found(run):
  dirty = np.where(VALID[..., None], BATCHES, np.nan).astype(np.float32)
  return run((jnp.asarray(dirty), jnp.asarray(VALID)))


def _oracle(start):
  """Sums of past means with explicit weights; a batch of no rows is none."""
  means = [
    batch[valid].mean(axis=0)
    for batch, valid in zip(BATCHES, VALID, strict=True)
    if valid.any()
  ]
  states = []
  for seen in range(1, len(means) + 1):
    share = np.array(
      [(1 - DECAY) * DECAY ** (seen - 1 - k) for k in range(seen)]
    )
    if start == "first":
      share[0] = DECAY ** (seen - 1)
    elif start == "unbiased":
      share /= share.sum()
    states.append(share @ np.array(means[:seen]))
  return [*states[:2], states[1], *states[2:]]


@pytest.mark.parametrize("start", STARTS)
def test_equals_weighted_sum_of_the_means_of_batches(found, start):
  np.testing.assert_allclose(found[start].mean, _oracle(start), rtol=1e-5)
  seen = np.array([1, 2, 2, 3, 4, 5])
  np.testing.assert_allclose(found[start].weight, 1 - DECAY**seen, rtol=1e-5)


def test_unbiased_is_the_moving_baseline(found):
  """One shape serves both: `MovingBaseline` is one mean of this start."""
  state = init_moving_baseline()
  for batch, (value, valid) in enumerate(zip(BATCHES, VALID, strict=True)):
    state = update_moving_baseline(
      state,
      jnp.asarray(value[:, 0], jnp.float32),
      jnp.asarray(valid),
      decay=DECAY,
    )
    np.testing.assert_allclose(
      found["unbiased"].mean[batch, 0], state.mean, rtol=1e-5
    )


@pytest.mark.slow
def test_no_gradient_flows():
  def total(value):
    return update_moving_means(
      init_moving_means(num_means=2),
      value,
      jnp.ones(2, bool),
      decay=0.5,
      start="first",
    ).mean.sum()

  np.testing.assert_array_equal(jax.grad(total)(jnp.ones((2, 2))), 0.0)


def test_nonsense_is_refused():
  state, row = init_moving_means(num_means=1), jnp.ones((1, 1))
  for decay in (-0.1, 1.0):
    with pytest.raises(ValueError, match="decay must be in"):
      update_moving_means(
        state, row, jnp.ones(1, bool), decay=decay, start="zero"
      )
  with pytest.raises(ValueError, match=r"num_means .* got 0"):
    init_moving_means(num_means=0)


@pytest.mark.parametrize("start", ["last", ""])
def test_unknown_start_is_refused(start):
  with pytest.raises(Exception, match="start"):
    update_moving_means(
      init_moving_means(num_means=1),
      jnp.ones((1, 1)),
      jnp.ones(1, bool),
      decay=0.5,
      start=start,
    )
