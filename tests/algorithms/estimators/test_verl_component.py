"""VERL in a recipe: what it asks, what it remembers, what it wraps."""

from __future__ import annotations

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from algorithms.language import letters
from algorithms.steps import close
from experiments import recipes
from rl_jax.advantages import group_relative
from rl_jax.advantages.effective_rank import (
  effective_rank,
  prefix_effective_ranks,
  rank_acceleration,
  rank_velocity,
)
from rl_jax.algorithms.components import Generalized, WithinGroup
from rl_jax.algorithms.estimators.verl import RankSignal, Verl, VerlReward
from rl_jax.algorithms.language_batches import responses_of
from rl_jax.algorithms.recipe import PolicyBatch, Remembered
from rl_jax.algorithms.responses import response_hidden

pytestmark = pytest.mark.slow

SIGNAL = RankSignal(stride=1, decay=0.7)
ROWS, TIME, STEPS = 8, 3, 5
RNG = np.random.default_rng(0)
VALUES = RNG.normal(size=(STEPS, ROWS, 3)) * [3, 1, 0.2] + [8, 0.5, 0.05]
REWARDS = (RNG.uniform(size=(STEPS, ROWS)) < 0.5).astype(np.float32)
REWARDS[:, :2] = [1, 0]
VALID = np.ones((STEPS, ROWS), bool)
VALID[:, -1] = False
MASK = np.arange(TIME) < RNG.integers(1, TIME + 1, ROWS)[:, None]


def batch_of(step, **changes):
  value = np.where(VALID[step][:, None], VALUES[step], np.nan)
  value = value.astype(np.float32)
  fields = {
    "log_prob": jnp.zeros((ROWS, TIME)),
    "behaviour_log_prob": jnp.zeros((ROWS, TIME)),
    "mask": jnp.asarray(MASK),
    "reward": jnp.asarray(REWARDS[step]),
    "group": jnp.asarray(np.arange(ROWS) // 4),
    "valid": jnp.asarray(VALID[step]),
    "extra": {
      name: jnp.asarray(value[:, i])
      for i, name in enumerate(("rank", "rank_velocity", "rank_acceleration"))
    },
  }
  return PolicyBatch(**(fields | changes))


def _phi(value, past, bound):
  r = np.clip((value - past) / (np.abs(past) + 1e-8), -5, 5)
  beta = 1 / (1 + np.exp(-2 * r[2]))
  return bound * (beta * np.tanh(r[0]) + (1 - beta) * np.tanh(r[1]))


def _oracle(history, dynamic):
  """Phi of every step, from a list of the means of all batches so far."""
  found, means, score = [], [], 0.0
  for step in range(STEPS):
    past = np.zeros(3)
    usable = means[: len(means) - (history == "release")]
    for number, mean in enumerate(usable):
      if number == 0 and history == "first":
        past = mean
      else:
        past = 0.7 * past + 0.3 * mean
    bound = 1 - (score + 1) / 2 if dynamic else 1.0
    phi = np.array([_phi(x, past, bound) for x in VALUES[step]])
    found.append(np.where(VALID[step] & (step > 0), phi, 0.0))
    if step > 0:
      score = 0.7 * score + 0.3 * REWARDS[step][VALID[step]].mean()
    means.append(VALUES[step][VALID[step]].mean(axis=0))
  return found


@pytest.mark.parametrize("history", ["first", "zero", "release"])
@pytest.mark.parametrize("dynamic", [False, True])
def test_signal_of_every_step_equals_a_slow_oracle(history, dynamic):
  """What is compared with which past: never with the batch itself."""
  signal = dataclasses.replace(SIGNAL, history=history, dynamic=dynamic)
  follow = jax.jit(signal.follow)
  memory = signal.init(2)
  for step, expected in enumerate(_oracle(history, dynamic)):
    phi, memory = follow(batch_of(step), memory)
    close(phi, expected, rtol=1e-4, atol=1e-6)
  if history == "release":
    # The second batch is compared with zero, which saturates everything.
    assert np.all(np.abs(_oracle(history, dynamic=False)[1][:-1]) > 0.3)


def jitted(recipe):
  return jax.jit(partial(recipe.estimate, num_groups=2))


def test_memory_before_the_first_batch_says_nothing():
  """No shaping at first; afterwards bonuses that keep signs."""
  recipe = dataclasses.replace(recipes.grpo, credit=Verl(signal=SIGNAL))
  estimate, plain = jitted(recipe), jitted(recipes.grpo)
  memory, shaped = recipe.init(2), 0
  for step in range(3):
    base = np.asarray(plain(batch_of(step)).signals.advantage)
    found = estimate(batch_of(step), memory=memory)
    memory = found.memory
    bonus = np.asarray(found.signals.advantage) - base
    assert np.all(bonus >= -1e-6)
    assert np.all(bonus <= np.abs(base) / 2 + 1e-6)
    np.testing.assert_array_equal(
      np.sign(found.signals.advantage), np.sign(base)
    )
    shaped += step > 0 and np.any(bonus > 0)
    if step == 0:
      np.testing.assert_array_equal(bonus, 0.0)
  assert shaped
  assert int(memory["credit"]["signal"].seen) == 3
  off = dataclasses.replace(recipe, credit=Verl(kappa=np.inf, signal=SIGNAL))
  found = jitted(off)(batch_of(3), memory=memory)
  close(
    found.signals.advantage,
    plain(batch_of(3)).signals.advantage,
    rtol=1e-6,
    atol=1e-7,
  )


def test_bonus_may_land_on_the_last_token_only():
  recipe = dataclasses.replace(
    recipes.grpo, credit=Verl(signal=SIGNAL, placement="last_token")
  )
  estimate = jitted(recipe)
  memory = estimate(batch_of(0), memory=recipe.init(2)).memory
  found = estimate(batch_of(1), memory=memory)
  base = jitted(recipes.grpo)(batch_of(1)).signals.advantage
  changed = np.asarray(found.signals.advantage != base)
  last = np.arange(TIME) == MASK.sum(axis=1)[:, None] - 1
  assert changed.any()
  assert not changed[~last].any()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Counting:
  """A credit with a memory of its own."""

  def init(self, num_groups):
    return jnp.full((), num_groups)

  def __call__(self, batch, compared, *, memory):
    spread = jnp.broadcast_to(compared[:, None], batch.mask.shape)
    return Remembered((spread, None), memory + 1)


def test_what_it_wraps_keeps_its_memory_and_its_target():
  recipe = dataclasses.replace(
    recipes.grpo, credit=Verl(signal=SIGNAL, base=Counting())
  )
  estimate = jitted(recipe)
  memory = estimate(batch_of(0), memory=recipe.init(2)).memory
  after = estimate(batch_of(1), memory=memory).memory
  assert int(after["credit"]["base"]) == 4
  values = Generalized(
    discount=1.0, trace=0.9, target_trace=0.95, kl_weight=0.0
  )
  batch = batch_of(1, behaviour_value=jnp.full((ROWS, TIME), 0.25))
  compared = jnp.asarray(REWARDS[1])
  own = Verl(signal=SIGNAL, base=values)
  (advantage, target), _ = own(batch, compared, memory=own.init(2))
  expected = values(batch, compared)
  close((advantage[:-1], target[:-1]), jax.tree.map(lambda x: x[:-1], expected))


def test_added_to_the_reward_it_may_wake_dead_groups():
  centred = WithinGroup(
    estimator=partial(group_relative, scale="none", ddof=0, epsilon=0.0)
  )
  own = VerlReward(base=centred, signal=SIGNAL)
  _, memory = own(batch_of(0), jnp.ones(ROWS), num_groups=2, memory=own.init(2))
  value, _ = own(batch_of(1), jnp.ones(ROWS), num_groups=2, memory=memory)
  phi = _oracle("first", dynamic=False)[1]
  first = phi[:4] - phi[:4].mean()
  close(value[:4], first, rtol=1e-4, atol=1e-6)
  assert np.abs(first).max() > 0.05


@pytest.mark.slow
def test_it_asks_for_ranks_and_remembers_once_per_rollout():
  recipe = dataclasses.replace(
    recipes.trl_grpo, credit=Verl(signal=dataclasses.replace(SIGNAL, stride=1))
  )
  algorithm = dataclasses.replace(letters.GRPO, recipe=recipe, micro_batches=2)
  own = letters.Begun(letters.experiment(algorithm))
  rollouts = own.collect()
  _, signals = own.with_signals(rollouts)
  asked = signals["asked"]
  assert {x.shape for x in asked.values()} == {(16,)}
  hidden = response_hidden(
    letters.BIGRAM, own.state.params, responses_of(rollouts)
  )
  prefix, valid = prefix_effective_ranks(
    hidden, rollouts.mask, stride=1, max_length=512
  )
  close(asked["rank"], effective_rank(hidden, rollouts.mask), rtol=1e-4)
  close(asked["rank_velocity"], rank_velocity(prefix, valid), atol=1e-4)
  close(asked["rank_acceleration"], rank_acceleration(prefix, valid), atol=1e-4)
  state, metrics = own.update(rollouts)
  kept = state.memory["recipe"]["credit"]["signal"]
  close(kept.past.mean[0], asked["rank"].mean(), rtol=1e-5)
  assert letters.means(metrics)["rank"] == pytest.approx(
    float(asked["rank"].mean()), rel=1e-5
  )
  state, _ = own.update(own.collect(state), state)
  assert int(state.memory["recipe"]["credit"]["signal"].seen) == 2


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"stride": 0}, "got 0 and 512"),
    ({"max_length": 1}, "got 1 and 1"),
    ({"decay": 1.0}, r"decay must be in \[0, 1\)"),
    ({"scale": -1.0}, "must not be negative"),
  ],
)
def test_nonsense_is_refused(changes, message):
  with pytest.raises(ValueError, match=message):
    dataclasses.replace(SIGNAL, **changes)


def test_a_bonus_that_could_turn_signs_is_refused():
  with pytest.raises(ValueError, match="kappa must be at least 1"):
    Verl(kappa=0.5)
