"""Imitation, preferences and reward models against losses written by hand."""

from __future__ import annotations

import dataclasses
import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from algorithms.language import letters, pairs
from algorithms.steps import adam, close, moved
from rl_jax import losses
from rl_jax.algorithms import Scoring

pytestmark = pytest.mark.slow

SCORING = Scoring(chunk_tokens=5, chunk_vocabulary=2)


def answer_log_prob(model, params, token, segment, mask, adapter=None):
  """Of each counted token, from all logits; 0 elsewhere; and the mask."""
  h = model.hidden(params, token, segment, adapter=adapter)
  z = jax.nn.log_softmax(model.logits(params, h))[:, :-1]
  own = jnp.take_along_axis(z, token[:, 1:, None], axis=2)[..., 0]
  return jnp.where(mask[:, 1:], own, 0.0), mask[:, 1:]


def begun(algorithm, source, model=letters.BIGRAM, away=0.0):
  """A program, its policy as far from the start as is asked for."""
  experiment = pairs.offline(algorithm, source, model=model)
  made = letters.Begun(experiment)
  if away:
    params = moved(made.state.params, away)
    made.state = made.state._replace(params=params)
  return made


def tuned(pack, **changes):
  algorithm = dataclasses.replace(pairs.TUNING, scoring=SCORING, **changes)
  source = pairs.demonstrations(pack)
  rows = len(source.source())
  made = begun(
    algorithm, pairs.demonstrations(pack, rows=rows), model=letters.MODEL
  )
  state, metrics = made.update(made.collect())
  return made, rows, state.params, letters.means(metrics)


def test_packed_is_unpacked_is_written_by_hand():
  made, rows, params, metrics = tuned(pack=False)
  _, fewer, packed, others = tuned(pack=True)
  assert fewer < rows == 8
  close(packed, params, rtol=1e-4, atol=1e-6)
  close(others, metrics, rtol=1e-5)

  @jax.jit
  def loss(params):
    items = {name: jnp.asarray(x) for name, x in made.items().items()}
    nats, mask = answer_log_prob(
      letters.MODEL, params, items["token"], items["segment"], items["mask"]
    )
    return -jnp.sum(nats) / jnp.sum(mask)

  expected = adam(
    made.state.params, [jax.jit(jax.grad(loss))], pairs.TUNING.optimiser
  )
  close(params, expected, rtol=1e-4, atol=1e-6)
  assert metrics["loss"] == pytest.approx(
    float(loss(made.state.params)), rel=1e-5
  )


def by_hand(params, reference, items, *, averaged=False, imitation=0.0):
  """DPO's loss of pairs, from the paper, with what may stand beside it."""
  log_ratio, nats, count = [], 0.0, 0
  for side in ("chosen", "rejected"):
    given = items[side], items[f"{side}_segment"], items[f"{side}_mask"]
    total = []
    for weights in (params, reference):
      own, mask = answer_log_prob(letters.BIGRAM, weights, *given)
      total.append(jnp.sum(own, axis=1))
      if averaged:
        total[-1] /= jnp.sum(mask, axis=1)
      if side == "chosen" and weights is params:
        nats, count = -jnp.sum(own), jnp.sum(mask)
    log_ratio.append(total[0] - total[1])
  z = 0.5 * (log_ratio[0] - log_ratio[1])
  return jnp.mean(-jax.nn.log_sigmoid(z)) + imitation * nats / count


@pytest.mark.parametrize(
  "changes",
  [
    {},
    {"micro_batches": 4, "averaged": True, "imitation": 0.25},
    {"updates": 2, "micro_batches": 2},
  ],
  ids=["plain", "averaged", "updates"],
)
def test_dpo_is_that_of_the_paper(changes):
  algorithm = dataclasses.replace(pairs.DPO, scoring=SCORING, **changes)
  made = begun(algorithm, pairs.preferences(), away=0.3)
  state, metrics = made.update(made.collect())
  items = {name: jnp.asarray(x) for name, x in made.items().items()}
  reference = letters.Drawn().params(letters.BIGRAM)
  shared = {k: v for k, v in changes.items() if k in ("averaged", "imitation")}
  slopes = []
  for part in range(algorithm.updates):
    rows = {k: v[part :: algorithm.updates] for k, v in items.items()}
    slopes.append(
      jax.jit(
        jax.grad(lambda p, rows=rows: by_hand(p, reference, rows, **shared))
      )
    )
  expected = adam(made.state.params, slopes, algorithm.optimiser)
  close(state.params, expected, rtol=1e-4, atol=1e-6)
  if algorithm.updates == 1:
    value = by_hand(made.state.params, reference, items, **shared)
    np.testing.assert_allclose(letters.means(metrics)["loss"], value, rtol=1e-5)


def test_without_a_reference_it_is_the_log_prob_itself():
  """SimPO: means over tokens, and the first margin is not zero."""
  algorithm = dataclasses.replace(pairs.DPO, reference=False, averaged=True)
  made = begun(algorithm, pairs.preferences())
  assert made.parts.signals is None
  assert not made.parts.first_step
  _, metrics = made.update(made.collect())
  items = {name: jnp.asarray(x) for name, x in made.items().items()}
  nothing = jax.tree.map(jnp.zeros_like, made.state.params)  # all alike
  value = by_hand(made.state.params, nothing, items, averaged=True)
  np.testing.assert_allclose(letters.means(metrics)["loss"], value, rtol=1e-5)


@pytest.mark.parametrize(
  "model", [letters.BIGRAM, letters.LORA], ids=["whole", "lora"]
)
def test_the_first_margin_is_zero(model):
  made = begun(pairs.DPO, pairs.preferences(), model=model)
  state, metrics = made.update(made.collect())
  found = letters.means(metrics)
  assert found["margin"] == found["chosen_reward"] == 0.0
  assert found["loss"] == pytest.approx(np.log(2), rel=1e-6)
  later = letters.means(made.update(made.collect(state), state)[1])
  assert later["margin"] > 0


# What the losses ask for besides the two answers.
GIVEN = {
  "beta": 0.5,
  "target": 1.0,
  "degree": 1,
  "smoothing": 0.1,
  "noise": 0.1,
  "temperature": 1.0,
  "margin": 0.25,
  "centring": 0.1,
}
PAIRWISE = sorted(
  name
  for name in losses.__all__
  if name.endswith("_loss")
  and list(inspect.signature(getattr(losses, name)).parameters)[:3]
  == ["chosen", "rejected", "valid"]
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finished:
  """Starts from all of a reward model, its head included."""

  def params(self, model):
    return jax.tree.map(lambda x: x + 0.5, model.init(jax.random.key(4)))


@pytest.fixture(scope="module")
def scored():
  made = begun(pairs.DPO, pairs.preferences(), away=0.3)
  return made.with_signals(made.collect())


@pytest.mark.parametrize("name", PAIRWISE)
def test_every_pairwise_loss_fits(name, scored):
  function = getattr(losses, name)
  asked = list(inspect.signature(function).parameters)[3:]
  given = {key: GIVEN[key] for key in asked if key not in ("offset",)}
  loss = functools.partial(function, **given)
  made = begun(
    dataclasses.replace(pairs.DPO, loss=loss), pairs.preferences(), away=0.3
  )
  state, metrics = made.update(scored, signals=False)
  found = letters.means(metrics)
  assert np.isfinite(found["loss"])
  assert found["gradient_norm"] > 1e-4
  chosen, rejected = found["chosen_reward"], found["rejected_reward"]
  assert found["margin"] == pytest.approx(chosen - rejected, abs=1e-6)
  assert not np.array_equal(state.params["output"], made.state.params["output"])


def test_there_are_pairwise_losses():
  assert "logistic_preference_loss" in PAIRWISE
  assert len(PAIRWISE) >= 12


def test_a_reward_model_separates_what_can_be_separated():
  """Written by hand for one step; then all pairs are told apart."""
  model = letters.VALUES
  optimiser = dataclasses.replace(letters.OPTIMISER, weight_decay=1e-4)
  algorithm = dataclasses.replace(
    pairs.RANKING, optimiser=optimiser, margin=True, centring=0.1
  )
  source = pairs.preferences(pairs=pairs.SCORED, margin=True)
  made = letters.Begun(
    pairs.offline(algorithm, source, model=model, start=letters.Scratch())
  )
  made.state = made.state._replace(params=moved(made.state.params, 0.1))
  items = {name: jnp.asarray(x) for name, x in made.items().items()}

  @jax.jit
  @jax.grad
  def slope(params):
    score = []
    for side in ("chosen", "rejected"):
      segment = items[f"{side}_segment"]
      h = model.body.hidden(params["body"], items[side], segment)
      last = jnp.sum(segment, axis=1) - 1
      h = h[jnp.arange(8), last]
      score.append(h @ params["head"]["weight"] + params["head"]["bias"])
    ranked = jax.nn.log_sigmoid(score[0] - score[1] - items["margin"])
    return jnp.mean(-ranked + 0.1 * (score[0] + score[1]) ** 2)

  state, _ = made.update(made.collect())
  expected = adam(made.state.params, [slope], optimiser)
  close(state.params, expected, rtol=1e-4, atol=2e-6)
  for _ in range(80):
    state, metrics = made.update(made.collect(), state)
  assert letters.means(metrics)["correct"] == 1.0
  assert letters.means(metrics)["margin"] > 1.0


def test_a_reward_model_may_begin_as_a_policy():
  model = dataclasses.replace(letters.VALUES, body=letters.BIGRAM)
  algorithm = dataclasses.replace(pairs.RANKING, body=letters.Drawn())
  source = pairs.preferences()
  for start in (letters.Scratch(), Finished()):
    made = letters.Begun(
      pairs.offline(algorithm, source, model=model, start=start)
    )
    body = letters.Drawn().params(letters.BIGRAM)
    whole = model.init(jax.random.key(9), body=body)
    if start == Finished():
      whole = start.params(model)
    letters.equal(made.state.params, whole)


def test_margins_that_the_data_lacks_are_missed():
  algorithm = dataclasses.replace(pairs.RANKING, margin=True)
  made = letters.Begun(
    pairs.offline(
      algorithm,
      pairs.preferences(),
      model=dataclasses.replace(letters.VALUES, body=letters.BIGRAM),
      start=letters.Scratch(),
    )
  )
  with pytest.raises(ValueError, match="margin=True asks for the data's"):
    made.collect()


@pytest.mark.parametrize(
  ("algorithm", "changes", "message"),
  [
    (pairs.DPO, {"start": letters.Scratch()}, "a random one says"),
    (
      dataclasses.replace(pairs.TUNING, updates=3),
      {"data": pairs.demonstrations()},
      "cannot be split into 3 updates of 1 micro-batches",
    ),
    (
      dataclasses.replace(pairs.DPO, micro_batches=0),
      {},
      "cannot be split into 1 updates of 0 micro-batches",
    ),
    (
      pairs.TUNING,
      {"model": letters.LORA, "start": letters.Scratch()},
      "a model with lora trains a change",
    ),
  ],
)
def test_parts_that_do_not_fit(algorithm, changes, message):
  experiment = pairs.offline(algorithm, pairs.preferences(), **changes)
  load = letters.load_for(experiment.model)
  with pytest.raises(ValueError, match=message):
    algorithm.build(experiment, load)


@pytest.mark.parametrize("changes", [{"imitation": -0.1}, {"beta": 0.0}])
def test_numbers_that_cannot_be(changes):
  with pytest.raises(ValueError, match="must not be negative and beta"):
    dataclasses.replace(pairs.DPO, **changes)
