"""One copy of a prompt for all responses to it changes nothing but the work."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from algorithms.language import letters
from algorithms.steps import close
from rl_jax import models
from rl_jax.algorithms.responses import Responses, Scoring, shares
from rl_jax.algorithms.rollouts import shared_prompts

pytestmark = pytest.mark.slow

ROWS, SHARED, PROMPT, TIME = 6, 3, 5, 4
WINDOW = models.Attention(
  heads=2, features=8, window=models.Window(size=3, pattern=(True, False))
)


def responses(seed=0):
  """Prompts of different lengths, an empty response and observations."""
  rng = np.random.default_rng(seed)
  count = np.repeat([5, 2], SHARED)
  prompt = np.repeat(rng.integers(0, 4, (2, PROMPT)), SHARED, axis=0)
  written = np.array([4, 0, 2, 3, 4, 1])
  present = np.arange(TIME) < written[:, None]
  mask = present & (rng.uniform(size=present.shape) < 0.8)
  return Responses(
    prompt=jnp.asarray(prompt),
    prompt_mask=jnp.asarray(np.arange(PROMPT) >= PROMPT - count[:, None]),
    token=jnp.asarray(rng.integers(0, 4, (ROWS, TIME))),
    mask=jnp.asarray(mask),
    present=jnp.asarray(present),
  )


@pytest.mark.parametrize(
  "model",
  [
    letters.MODEL,
    dataclasses.replace(letters.MODEL, attention=WINDOW, layers=2),
  ],
  ids=["full", "window"],
)
def test_scores_and_gradient_are_those_of_rows_apart(model):
  params, rows = model.init(jax.random.key(0)), responses()

  @jax.jit
  def found(params):
    def value(params, shared):
      scores = Scoring()(model, params, rows, temperature=0.7, shared=shared)
      weight = jnp.cos(jnp.arange(ROWS * TIME)).reshape(ROWS, TIME)
      return jnp.sum(weight * scores.log_prob), scores

    gradient = jax.value_and_grad(value, has_aux=True)
    return gradient(params, 1), gradient(params, SHARED)

  apart, together = found(params)
  close(together[0][1], apart[0][1], rtol=1e-5, atol=1e-6)
  close(together[1], apart[1], rtol=1e-4, atol=1e-6)


def test_an_update_is_the_same_and_its_first_ratio_exactly_one():
  # Prompts of three columns and answers of as many: together is less work.
  made = letters.Begun(letters.experiment(model=letters.MODEL))
  assert shared_prompts(letters.GRPO, letters.MODEL, prompt=3) == 4
  rollouts = made.collect()
  state, metrics = made.update(rollouts)
  assert letters.means(metrics)["first_ratio"] == 1.0
  split = dataclasses.replace(letters.GRPO, micro_batches=2)
  halves = letters.Begun(letters.experiment(split, model=letters.MODEL))
  assert shared_prompts(split, letters.MODEL, prompt=3) == 2
  other, _ = halves.update(rollouts)
  close(other.params, state.params, rtol=1e-4, atol=2e-6)
  # Each row is a part of its own: nothing to share.
  alone = dataclasses.replace(letters.GRPO, micro_batches=16)
  assert shared_prompts(alone, letters.MODEL, prompt=3) == 1
  apart, _ = letters.Begun(
    letters.experiment(alone, model=letters.MODEL)
  ).update(rollouts)
  close(apart.params, state.params, rtol=1e-4, atol=2e-6)


def test_rows_that_are_mixed_do_not_share():
  for changes in ({"epochs": 2}, {"minibatches": 2}, {"micro_batches": 8}):
    algorithm = dataclasses.replace(letters.GRPO, **changes)
    assert shared_prompts(algorithm, letters.MODEL, prompt=3) == 1


def test_long_responses_are_cheaper_apart():
  """Scores between all columns of a row grow with its square."""
  large = dataclasses.replace(
    letters.MODEL,
    width=512,
    mlp=2048,
    attention=models.Attention(heads=8, features=64),
  )
  assert shares(large, prompt=256, time=128, responses=8)
  assert not shares(large, prompt=64, time=4096, responses=16)
