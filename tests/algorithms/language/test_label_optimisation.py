"""Labelled responses against a cross-entropy written by hand."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from algorithms.language import letters, pairs
from algorithms.steps import adam, close, moved
from rl_jax import algorithms
from rl_jax.algorithms.implicit_reward import LabelOptimisation
from rl_jax.data.labelled import LabelledResponses
from rl_jax.losses.outcome_reward import implicit_ce_loss

pytestmark = pytest.mark.slow

BETA = 0.5
CE = LabelOptimisation(
  loss=functools.partial(implicit_ce_loss, beta=BETA),
  beta=BETA,
  optimiser=letters.OPTIMISER,
  scoring=algorithms.Scoring(chunk_tokens=5, chunk_vocabulary=2),
)
RECORDS = tuple(
  (prompt, answer, number / 2 if whole is None else float(whole))
  for number, pair in enumerate(pairs.PAIRS[:2])
  for prompt, answer, whole in ((pair[0], pair[1], 1), (pair[0], pair[2], None))
)


SOURCE = LabelledResponses(
  rows=len(RECORDS),
  responses=RECORDS,
  vocabulary=letters.WORDS,
  length=6,
  shuffle=False,
)


def begun(algorithm, model=letters.BIGRAM, away=0.0):
  made = letters.Begun(pairs.offline(algorithm, SOURCE, model=model))
  if away:
    params = moved(made.state.params, away)
    made.state = made.state._replace(params=params)
  return made


def by_hand(params, reference, items):
  """Binary cross-entropy of sigmoid(beta h) with the label."""
  h = 0.0
  for sign, weights in ((1, params), (-1, reference)):
    hidden = letters.BIGRAM.hidden(weights, items["token"], items["segment"])
    z = jax.nn.log_softmax(letters.BIGRAM.logits(weights, hidden))[:, :-1]
    own = jnp.take_along_axis(z, items["token"][:, 1:, None], axis=2)[..., 0]
    h += sign * jnp.sum(jnp.where(items["mask"][:, 1:], own, 0.0), axis=1)
  p, y = jax.nn.sigmoid(BETA * h), items["label"]
  return -jnp.mean(y * jnp.log(p) + (1 - y) * jnp.log(1 - p))


@pytest.mark.parametrize("changes", [{}, {"updates": 2, "micro_batches": 2}])
def test_it_is_the_cross_entropy(changes):
  algorithm = dataclasses.replace(CE, **changes)
  made = begun(algorithm, away=0.3)
  state, metrics = made.update(made.collect())
  items = {name: jnp.asarray(x) for name, x in made.items().items()}
  reference = letters.Drawn().params(letters.BIGRAM)
  slopes = [
    jax.jit(
      jax.grad(
        lambda p, part=part: by_hand(
          p,
          reference,
          {k: v[part :: algorithm.updates] for k, v in items.items()},
        )
      )
    )
    for part in range(algorithm.updates)
  ]
  expected = adam(made.state.params, slopes, algorithm.optimiser)
  close(state.params, expected, rtol=1e-4, atol=1e-6)
  if algorithm.updates == 1:
    value = by_hand(made.state.params, reference, items)
    np.testing.assert_allclose(letters.means(metrics)["loss"], value, rtol=1e-5)


@pytest.mark.parametrize(
  "model", [letters.BIGRAM, letters.LORA], ids=["whole", "lora"]
)
def test_it_begins_at_log_two_and_tells_apart(model):
  made = begun(CE, model=model)
  assert made.parts.first_step == {"absolute_reward": (0.0, 1e-3)}
  state, metrics = made.update(made.collect())
  found = letters.means(metrics)
  assert found["absolute_reward"] == 0.0
  assert found["loss"] == pytest.approx(np.log(2), rel=1e-6)
  for _ in range(25):
    state, metrics = made.update(made.collect(state), state)
  found = letters.means(metrics)
  assert found["right_reward"] > found["wrong_reward"]
  assert found["loss"] < np.log(2)


def test_without_a_reference_it_is_the_log_prob_itself():
  made = begun(dataclasses.replace(CE, reference=False))
  assert made.parts.signals is None
  assert not made.parts.first_step
  _, metrics = made.update(made.collect())
  assert letters.means(metrics)["wrong_reward"] < 0


def test_what_cannot_be():
  with pytest.raises(ValueError, match="beta"):
    dataclasses.replace(CE, beta=0.0)
  source = begun(CE).experiment.data
  with pytest.raises(ValueError, match="random one says nothing"):
    letters.Begun(pairs.offline(CE, source, start=letters.Scratch()))
