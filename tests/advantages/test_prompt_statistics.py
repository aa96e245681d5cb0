from __future__ import annotations

from collections import deque

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.advantages import init_prompt_statistics, update_prompt_statistics

PROMPTS, SLOTS, MIN_COUNT = 4, 5, 3


class Deques:
  """The published tracker: a deque per prompt, numpy, one row at a time."""

  def __init__(self):
    self.history = {p: deque(maxlen=SLOTS) for p in range(PROMPTS)}

  def update(self, reward, prompt, valid):
    reward = reward.astype(np.float64)
    for r, p, v in zip(reward, prompt, valid, strict=True):
      if v:
        self.history[int(p)].append(r)
    advantage = np.zeros_like(reward)
    batch = reward[valid]
    for row in np.flatnonzero(valid):
      own = np.asarray(self.history[int(prompt[row])])
      used = own if len(own) >= MIN_COUNT else batch
      advantage[row] = (reward[row] - used.mean()) / (used.std() + 1e-6)
    return advantage


@pytest.fixture(scope="module")
def update():
  return jax.jit(
    lambda *inputs: update_prompt_statistics(
      *inputs, min_count=MIN_COUNT, epsilon=1e-6
    )
  )


def _start():
  return init_prompt_statistics(num_prompts=PROMPTS, buffer_size=SLOTS)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_against_deques_over_many_batches(update, seed):
  """Several rows of a prompt in a batch, more than slots, none, invalid."""
  rng = np.random.default_rng(seed)
  oracle, state = Deques(), _start()
  for batch in range(12):
    reward = rng.normal(size=12).astype(np.float32)
    # Prompt 3 never comes before batch 6; prompt 0 often fills its deque.
    prompt = rng.integers(0, 3 if batch < 6 else 4, 12).astype(np.int32)
    prompt = np.where(rng.uniform(size=12) < 0.4, 0, prompt)
    valid = rng.uniform(size=12) < 0.8
    expected = oracle.update(reward, prompt, valid)
    dirty = np.where(valid, reward, np.nan)
    state, advantage = update(
      state, jnp.asarray(dirty), jnp.asarray(prompt), jnp.asarray(valid)
    )
    np.testing.assert_allclose(advantage, expected, rtol=1e-5, atol=1e-5)
    for p, own in oracle.history.items():
      held = np.sort(np.asarray(state.reward[p])[: len(own)])
      np.testing.assert_allclose(held, np.sort(own), rtol=1e-6)


@pytest.mark.slow
def test_history_takes_over_at_min_count_on_a_two_prompt_bandit(update):
  """Worked by hand: rewards 1, 3 of prompt 0; then 5; prompt 1 has 10, 20."""
  pad = jnp.zeros(8)
  prompt = jnp.array([0, 0, 1, 1] + [0] * 8)
  valid = jnp.arange(12) < 4
  state, advantage = update(
    _start(), jnp.concatenate([jnp.array([1.0, 3, 10, 20]), pad]), prompt, valid
  )
  # Two rewards each are no history yet: mean 8.5, std of the batch.
  std = np.std([1.0, 3, 10, 20])
  np.testing.assert_allclose(
    advantage[:4], (np.array([1, 3, 10, 20]) - 8.5) / std, rtol=1e-5
  )
  _, advantage = update(
    state,
    jnp.concatenate([jnp.array([5.0, 0, 0, 0]), pad]),
    prompt,
    valid[::-1] & False | (jnp.arange(12) < 1),
  )
  # 1, 3, 5 are three: their own mean 3, this batch's reward included.
  np.testing.assert_allclose(
    advantage[0], (5 - 3) / np.std([1.0, 3, 5]), rtol=1e-5
  )


@pytest.mark.slow
def test_a_masked_batch_changes_nothing(update):
  state, _ = update(
    _start(), jnp.arange(12.0), jnp.arange(12) % PROMPTS, jnp.ones(12, bool)
  )
  after, advantage = update(
    state,
    jnp.full(12, jnp.nan),
    jnp.zeros(12, jnp.int32),
    jnp.zeros(12, bool),
  )
  np.testing.assert_array_equal(advantage, jnp.zeros(12))
  np.testing.assert_array_equal(after.reward, state.reward)
  np.testing.assert_array_equal(after.count, state.count)


@pytest.mark.slow
def test_equal_rewards_are_zero_without_an_epsilon():
  _, advantage = update_prompt_statistics(
    init_prompt_statistics(num_prompts=1, buffer_size=4),
    jnp.full(4, 0.5),
    jnp.zeros(4, jnp.int32),
    jnp.ones(4, bool),
    min_count=4,
    epsilon=0.0,
  )
  np.testing.assert_array_equal(advantage, jnp.zeros(4))


@pytest.mark.slow
def test_no_gradient_flows_through_the_reward(update):
  gradient = jax.grad(
    lambda reward: (
      update(_start(), reward, jnp.arange(12) % PROMPTS, jnp.ones(12, bool))[1]
      ** 2
    ).sum()
  )(jnp.arange(12.0))
  np.testing.assert_array_equal(gradient, jnp.zeros(12))


def test_nonsense_is_refused():
  rows = (jnp.zeros(2), jnp.zeros(2, jnp.int32), jnp.ones(2, bool))
  for min_count in (0, SLOTS + 1):
    with pytest.raises(ValueError, match=f"\\[1, {SLOTS}\\]"):
      update_prompt_statistics(
        _start(), *rows, min_count=min_count, epsilon=1e-6
      )
  with pytest.raises(ValueError, match="epsilon"):
    update_prompt_statistics(_start(), *rows, min_count=1, epsilon=-1.0)
  for bad in ({"num_prompts": 0}, {"buffer_size": 0}):
    with pytest.raises(ValueError, match="at least 1"):
      init_prompt_statistics(**({"num_prompts": 1, "buffer_size": 1} | bad))
