"""Rollouts of another policy: importance weights against enumeration.

Responses are of one token, so that the expected update is a sum over the
vocabulary: a batch that has every token once, with rewards weighted by how
often each would be drawn, gives the expectation in one step.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from algorithms.language import letters
from algorithms.steps import moved
from rl_jax.algorithms import PolicyRecipe
from rl_jax.algorithms.component_functions import fresh_policy_gradient
from rl_jax.algorithms.components import EveryToken, Raw, TrainerOverSampler
from rl_jax.losses import clipped_policy_terms
from rl_jax.ratios import token_ratio, truncated_weight
from rl_jax.reduce import over_tokens

pytestmark = pytest.mark.slow

TOKENS = letters.WORDS.size
FREE = functools.partial(
  clipped_policy_terms, clip_low=1.0, clip_high=float("inf")
)
PLAIN = PolicyRecipe(
  reference="REINFORCE",
  baseline=Raw(),
  credit=EveryToken(),
  loss=FREE,
  reduction=over_tokens,
)
REWARD = np.array([1.0, -0.5, 2.0, 0.25, -1.0], np.float32)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Descent:
  """A step whose size shows the gradient."""

  def __call__(self):
    return optax.sgd(1.0)


def begun(recipe=PLAIN, **changes):
  algorithm = dataclasses.replace(
    letters.GRPO,
    recipe=recipe,
    group_size=TOKENS,
    sampler=dataclasses.replace(letters.RESPONSE, length=1),
    optimiser=Descent(),
    **changes,
  )
  data = letters.prompts(rows=1)
  made = letters.Begun(letters.experiment(algorithm, data=data))
  if "behaviour" in made.state.memory:
    other = moved(made.state.params, 0.5)
    made.state = made.state._replace(memory={"behaviour": other})
  return made


def log_probs(made, params, temperature=0.8):
  """Of all tokens after the only prompt, which ends with the letter a."""
  z = params["output"] @ params["embedding"][0]
  return jax.nn.log_softmax(z / temperature)


def expected_step(made, log_prob):
  """The mean update when tokens are drawn with these log-probabilities."""
  rollouts = made.collect()
  assert rollouts.prompt[0, -1] == 0
  rows = rollouts._replace(
    token=jnp.arange(TOKENS, dtype=jnp.int32)[:, None],
    mask=jnp.ones((TOKENS, 1), bool),
    log_prob=log_prob[:, None],
    reward=TOKENS * jnp.exp(log_prob) * REWARD,
  )
  state, metrics = made.update(rows)
  change = jax.tree.map(
    lambda old, new: np.asarray(old - new), made.state.params, state.params
  )
  return change, letters.means(metrics)


def on_policy(made):
  """The gradient of minus the expected reward."""

  def value(params):
    return -jnp.sum(jnp.exp(log_probs(made, params)) * REWARD)

  return jax.grad(value)(made.state.params)


def distance(mine, theirs):
  gaps = jax.tree.map(lambda x, y: float(abs(x - y).max()), mine, theirs)
  return max(jax.tree.leaves(gaps))


@pytest.mark.parametrize(
  "behaviour", ["recomputed", "sampler"], ids=["recomputed", "sampler"]
)
def test_stale_rollouts_are_unbiased_with_the_ratio(behaviour):
  made = begun(refresh=3, behaviour=behaviour)
  acting = log_probs(made, made.state.memory["behaviour"])
  change, metrics = expected_step(made, acting)
  assert distance(change, on_policy(made)) < 1e-6
  assert metrics["ratio"] != pytest.approx(1.0, abs=0.01)


def test_and_are_biased_without_it():
  fresh = dataclasses.replace(PLAIN, loss=fresh_policy_gradient)
  made = begun(fresh, refresh=3)
  acting = log_probs(made, made.state.memory["behaviour"])
  change, _ = expected_step(made, acting)
  assert distance(change, on_policy(made)) > 0.05


def test_a_sampler_of_other_probabilities_is_corrected():
  """Trainer over sampler: the draws are colder than what is trained."""
  weight = TrainerOverSampler(
    ratio=functools.partial(token_ratio, clamp=20.0),
    weight=functools.partial(truncated_weight, maximum=1e6),
  )
  made = begun(dataclasses.replace(PLAIN, weight=weight))
  colder = log_probs(made, made.state.params, temperature=0.4)
  change, metrics = expected_step(made, colder)
  assert distance(change, on_policy(made)) < 1e-6
  assert metrics["sampler_gap"] > 0.1  # what the doctor refuses
  plain, _ = expected_step(begun(), colder)
  assert distance(plain, on_policy(made)) > 0.05


def test_the_acting_policy_is_replaced_every_few_steps():
  algorithm = dataclasses.replace(letters.GRPO, refresh=3)
  made = letters.Begun(letters.experiment(algorithm))
  first = state = made.state
  for step in range(1, 4):
    acted = made.collect(state)
    state, metrics = made.update(acted, state)
    acting = state.memory["behaviour"]
    letters.equal(acting, state.params if step == 3 else first.params)
    gap = letters.means(metrics)["ratio"] - 1
    assert (abs(gap) < 1e-6) == (step == 1)
  # What is drawn is drawn from the copy, whatever is being trained.
  other = made.state._replace(params=moved(made.state.params))
  letters.equal(made.collect(other).token, made.collect(made.state).token)
