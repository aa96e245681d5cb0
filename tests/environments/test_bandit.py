"""The numbers of the two-stage sheet, which were measured, and exact steps."""

from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.environments import bandit

PI = (0.7, 0.25, 0.05)


@pytest.mark.parametrize(
  ("action", "advantage", "expected"),
  [
    (0, 1.0, (0.75118, 0.20378, 0.04504)),
    (2, 1.0, (0.62102, 0.27776, 0.10122)),
    # The rare token falls, though it was not drawn and another was bad.
    (1, -1.0, (0.81661, 0.14125, 0.04214)),
  ],
)
def test_worked_steps_of_the_sheet(action, advantage, expected):
  logit = bandit.softmax_policy_step(
    jnp.log(jnp.array(PI)), jnp.array(action), jnp.array(advantage), rate=0.5
  )
  np.testing.assert_allclose(jax.nn.softmax(logit), expected, atol=1e-5)


def test_worked_expected_update_of_the_sheet():
  """The optimal token loses mass in stage one, the best advantage or not."""
  pi = jnp.array(PI)
  dz = bandit.expected_logit_update(pi, jnp.array([0.5, -1.2, 0.9]), rate=1.0)
  np.testing.assert_allclose(dz, [0.28350, -0.32375, 0.04025], atol=1e-5)
  d_log = dz - jnp.sum(pi * dz)
  np.testing.assert_allclose(d_log, [0.16397, -0.44327, -0.07927], atol=1e-5)


@pytest.mark.slow
def test_a_step_is_that_of_autodiff_and_keeps_the_sum_of_logits():
  rng = np.random.default_rng(0)
  logit = jnp.asarray(rng.normal(size=(5, 4)), jnp.float32)
  action = jnp.asarray(rng.integers(0, 4, 5))
  advantage = jnp.asarray(rng.normal(size=5), jnp.float32)

  def loss(logit):
    log_prob = jax.nn.log_softmax(logit, axis=-1)
    own = jnp.take_along_axis(log_prob, action[:, None], axis=-1)[:, 0]
    return -jnp.sum(advantage * own)

  after = bandit.softmax_policy_step(logit, action, advantage, rate=0.3)
  expected = logit - 0.3 * jax.grad(loss)(logit)
  np.testing.assert_allclose(after, expected, atol=1e-6)
  np.testing.assert_allclose(after.sum(-1), logit.sum(-1), atol=1e-5)


@pytest.mark.slow
def test_the_expected_update_is_the_mean_over_draws():
  """Enumerated: every action with its probability and expected advantage."""
  rng = np.random.default_rng(1)
  logit = jnp.asarray(rng.normal(size=5), jnp.float32)
  value = jnp.asarray(rng.normal(size=5), jnp.float32)
  pi = jax.nn.softmax(logit)
  steps = bandit.softmax_policy_step(
    jnp.broadcast_to(logit[None], (5, 5)), jnp.arange(5), value, rate=0.5
  )
  mean = jnp.sum(pi[:, None] * (steps - logit[None]), axis=0)
  found = bandit.expected_logit_update(pi, value, rate=0.5)
  np.testing.assert_allclose(found, mean, atol=1e-6)
  np.testing.assert_allclose(jnp.sum(found), 0.0, atol=1e-6)


def test_two_tokens_with_a_negative_advantage():
  logit = bandit.softmax_policy_step(
    jnp.zeros(2), jnp.array(0), jnp.array(-1.0), rate=0.5
  )
  assert jax.nn.softmax(logit)[0] < 0.5


@pytest.mark.slow
def test_two_stages_as_measured():
  """The sheet's table and checks, on fewer states."""
  train = partial(
    bandit.TwoStageBandit(states=96).train,
    jax.random.key(0),
    steps=1600,
    group_size=8,
    rate=0.05,
  )
  full, negative = train(pos_weight=1.0), train(pos_weight=0.0)
  at = np.array([0, 200, 400, 800, 1600])
  for course, name, expected in (
    (full, "high", [0.381, 0.753, 0.827, 0.438, 0.020]),
    (full, "optimal", [0.052, 0.054, 0.070, 0.513, 0.974]),
    (negative, "high", [0.381, None, 0.678, 0.814, 0.518]),
    (negative, "optimal", [0.052, None, 0.054, 0.057, 0.425]),
  ):
    for step, number in zip(at, expected, strict=True):
      if number is not None:
        own = float(getattr(course, name)[step])
        # Another stream of draws: and fewer states.
        assert own == pytest.approx(number, abs=0.04), (name, step)
  assert full.high[200] - full.high[0] >= 0.25
  assert abs(full.optimal[200] - full.optimal[0]) <= 0.02
  assert full.optimal[1600] > 0.9 > 0.1 > full.high[1600]
  gap = negative.entropy[at] - full.entropy[at]
  assert (gap[1:4] >= 0.15).all()
  assert full.solved[1600] > 0.9 > full.solved[0] == 0
  # Matched at equal reward, the entropies are about the same.
  reached = int(np.argmax(negative.reward >= full.reward[200]))
  assert abs(negative.entropy[reached] - full.entropy[200]) < 0.1


@pytest.mark.slow
def test_steps_that_are_too_large_trap_the_policy():
  task = bandit.TwoStageBandit(
    states=32, low_actions=8, high_logit=1.5, optimal_logit=-1.5
  )
  course = task.train(
    jax.random.key(0), steps=1600, group_size=16, rate=0.1, pos_weight=1.0
  )
  assert float(course.optimal[0]) == pytest.approx(0.017, abs=0.003)
  assert course.optimal[1600] < 0.0015
  assert course.high[1600] > 0.98


def test_nonsense_is_refused():
  task = bandit.TwoStageBandit(states=1)
  given = {"steps": 1, "group_size": 2, "rate": 0.1, "pos_weight": 1.0}
  for change, words in (
    ({"steps": 0}, "steps = 0"),
    ({"group_size": 1}, "group_size = 1"),
    ({"pos_weight": -1.0}, "must not be negative, got -1"),
  ):
    with pytest.raises(ValueError, match=words):
      task.train(jax.random.key(0), **(given | change))
  for change, words in (
    ({"states": 0}, "states = 0"),
    ({"low_actions": 0}, "low_actions = 0"),
    ({"low_reward": 1.5}, "chances must be in"),
  ):
    with pytest.raises(ValueError, match=words):
      bandit.TwoStageBandit(**change)
