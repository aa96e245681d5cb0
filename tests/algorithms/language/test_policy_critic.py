"""A critic beside the policy: how it begins, and who learns when."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from algorithms.language import letters
from experiments import recipes
from rl_jax.algorithms import Critic

pytestmark = pytest.mark.slow

HEAD = letters.ScalarHead(body=letters.BIGRAM, start=0.25)
CRITIC = Critic(model=HEAD, optimiser=letters.OPTIMISER)


def begun(start=letters.Drawn(), **changes):  # noqa: B008 (frozen)
  algorithm = dataclasses.replace(
    letters.GRPO,
    recipe=recipes.vapo,
    critic=dataclasses.replace(CRITIC, **changes),
    minibatches=2,
  )
  return letters.Begun(letters.experiment(algorithm, start=start))


def test_it_begins_as_the_policy_and_says_one_number():
  made = begun()
  critic = made.state.memory["critic"]["params"]
  letters.equal(critic["body"], made.state.params)
  assert not np.any(critic["head"]["weight"])
  rollouts = made.collect()
  signals = made.with_signals(rollouts)[1]
  np.testing.assert_array_equal(
    signals["behaviour_value"], np.full(rollouts.mask.shape, 0.25)
  )


def test_or_at_random():
  critic = begun(from_policy=False).state.memory["critic"]["params"]
  again = begun(from_policy=False).state.memory["critic"]["params"]
  letters.equal(critic, again)
  policy = letters.Drawn().params(letters.BIGRAM)
  fresh = letters.BIGRAM.init(jax.random.key(3))  # what the policy draws
  for other in (policy, fresh):
    assert not np.array_equal(critic["body"]["output"], other["output"])


def test_or_as_a_reward_model():
  algorithm = dataclasses.replace(
    letters.GRPO,
    recipe=recipes.vapo,
    critic=dataclasses.replace(CRITIC, start=letters.Judge()),
  )
  experiment = letters.experiment(algorithm)
  program = algorithm.build(experiment, letters.load_for(letters.BIGRAM))
  state = program.init(jax.random.key(0), program.start(None))
  letters.equal(state.memory["critic"]["params"], letters.Judge().params(None))


def test_another_body_cannot_begin_as_the_policy():
  other = dataclasses.replace(letters.BIGRAM, width=4)
  model = dataclasses.replace(HEAD, body=other)
  with pytest.raises(ValueError, match="other parameters than what the policy"):
    begun(model=model)
  begun(model=model, from_policy=False)


def test_while_it_warms_up_the_policy_stays_bit_for_bit():
  made = begun(warm_up=2)
  state = made.state
  for step in range(3):
    before, (state, _) = state, made.step(state)
    policies = [(s.params, s.optimiser) for s in (before, state)]
    if step < 2:
      letters.equal(*policies)
    else:
      assert not np.array_equal(before.params["output"], state.params["output"])
    old, new = (s.memory["critic"]["params"]["head"] for s in (before, state))
    assert not np.array_equal(old["bias"], new["bias"])
  # The policy's optimiser has counted its own steps only: those of one step
  # of the loop, the critic's those of three.
  counts = [
    int(next(x for x in jax.tree.leaves(opt) if x.dtype == jnp.int32))
    for opt in (state.optimiser, state.memory["critic"]["optimiser"])
  ]
  assert counts == [2, 6]


def test_a_critic_learns_what_the_reward_is():
  """With lambda 1 its target is the reward that follows, whatever it says."""
  made = begun(warm_up=1000)
  rollouts = made.collect()
  rollouts = rollouts._replace(reward=jnp.full_like(rollouts.reward, 1.5))
  state = made.state
  for _ in range(60):
    signals = made.with_signals(rollouts, state)
    state, _ = made.update(signals, state, signals=False)
  value = signals[1]["behaviour_value"][rollouts.mask]
  np.testing.assert_allclose(value, 1.5, atol=0.05)
