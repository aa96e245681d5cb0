"""Updates of a language policy against ones written from the papers."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from algorithms.language import letters
from algorithms.language.papers import (
  CASES,
  Case,
  begun,
  expected_update,
  mean_of_tokens,
  relative,
)
from algorithms.steps import adam, close
from experiments import recipes
from rl_jax import rewards
from rl_jax.algorithms.recipe import PolicyBatch
from rl_jax.training.state import step_key

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", sorted(CASES))
def test_two_passes_are_those_of_the_paper(name):
  """The second one has ratios that are not one, and some beyond the clip."""
  made, rollouts = begun(name, epochs=2)
  state, metrics = made.update(rollouts)
  every = np.arange(len(rollouts.reward))
  policy, critic = expected_update(name, made, rollouts, [every, every])
  close(state.params, policy, rtol=1e-4, atol=2e-6)
  if critic is not None:
    close(state.memory["critic"]["params"], critic, rtol=1e-4, atol=2e-6)
  assert letters.means(metrics)["first_ratio"] == 1.0
  assert letters.means(metrics)["ratio"] != 1.0


def test_a_transformer_and_one_pass_whatever_the_padding():
  made, rollouts = begun("trl_grpo", model=letters.MODEL)
  state, metrics = made.update(rollouts)
  every = np.arange(len(rollouts.reward))
  policy, _ = expected_update("trl_grpo", made, rollouts, [every])
  close(state.params, policy, rtol=1e-4, atol=2e-6)

  experiment = made.experiment
  data = dataclasses.replace(experiment.data, length=8)
  wider = letters.Begun(dataclasses.replace(experiment, data=data))
  padded = wider.collect()
  assert padded.prompt.shape[1] == 8
  np.testing.assert_array_equal(padded.token, rollouts.token)
  np.testing.assert_array_equal(padded.mask, rollouts.mask)
  other, others = wider.update(padded._replace(reward=rollouts.reward))
  close(other.params, state.params, rtol=1e-5, atol=1e-6)
  found = letters.means(others)
  close(found, letters.means(metrics), rtol=1e-5, atol=1e-6)


def test_minibatches_come_in_an_order_of_the_key_and_the_step():
  """Each pass deals all rows out anew; advantages are of the whole batch."""
  made, rollouts = begun("dapo", epochs=2, minibatches=2, micro_batches=2)
  state, _ = made.update(rollouts)
  rows = len(rollouts.reward)
  batches = []
  for epoch in range(2):
    order = jax.random.permutation(step_key(made.state, 1 + epoch), rows)
    batches += [np.asarray(order[part::2]) for part in range(2)]
  policy, _ = expected_update("dapo", made, rollouts, batches)
  close(state.params, policy, rtol=1e-4, atol=2e-6)
  again, _ = made.update(rollouts)
  letters.equal(again, state)
  later = made.state._replace(step=made.state.step + 1)
  other, _ = made.update(rollouts, later)
  assert not np.array_equal(other.params["output"], state.params["output"])


def halves(made):
  order = jax.random.permutation(step_key(made.state, 1), 16)
  return [np.asarray(order[part::2]) for part in range(2)]


def test_statistics_may_be_those_of_each_minibatch():
  made, rollouts = begun("trl_grpo", minibatches=2, estimated_over="minibatch")
  state, _ = made.update(rollouts)
  old = letters.full_log_prob(letters.BIGRAM, made.state.params, rollouts)
  slopes = []
  for rows in halves(made):
    own = jax.tree.map(lambda x, rows=rows: x[rows], rollouts)
    loss = Case(own, old[rows], None, None).trl_grpo()

    def value(params, own=own, loss=loss):
      log_prob = letters.full_log_prob(letters.BIGRAM, params, own)
      return loss(log_prob, np.arange(8))

    slopes.append(jax.jit(jax.grad(value)))
  expected = adam(made.state.params, slopes, letters.OPTIMISER)
  close(state.params, expected, rtol=1e-4, atol=2e-6)
  whole, _ = begun("trl_grpo", minibatches=2)
  other, _ = whole.update(rollouts)
  assert not np.allclose(other.params["output"], state.params["output"])


def test_interleaved_minibatches_have_no_ratio():
  made, rollouts = begun("trl_grpo", minibatches=2, behaviour="interleaved")
  state, metrics = made.update(rollouts)
  assert letters.means(metrics)["ratio"] == 1.0
  a = relative(np.asarray(rollouts.reward), np.asarray(rollouts.group), 1e-4)
  a = jnp.asarray(np.broadcast_to(a[:, None], rollouts.mask.shape), "float32")

  def slope(rows):
    def value(params):
      log_prob = letters.full_log_prob(letters.BIGRAM, params, rollouts)
      return mean_of_tokens(-a[rows] * log_prob[rows], rollouts.mask[rows])

    return jax.jit(jax.grad(value))

  expected = adam(
    made.state.params, map(slope, halves(made)), letters.OPTIMISER
  )
  close(state.params, expected, rtol=1e-4, atol=2e-6)


def test_log_probs_may_have_another_temperature_than_the_sampler():
  """They are those of the policy that is trained; the ratio is to them."""
  made, rollouts = begun("trl_grpo", temperature=1.5)
  assert "sampler_gap" not in made.parts.first_step
  (_, signals), (_, metrics) = (
    made.with_signals(rollouts),
    made.update(rollouts),
  )
  expected = letters.full_log_prob(
    letters.BIGRAM, made.state.params, rollouts, temperature=1.5
  )
  np.testing.assert_allclose(signals["behaviour_log_prob"], expected, atol=1e-6)
  assert letters.means(metrics)["first_ratio"] == 1.0
  corrected, _ = begun("trl_grpo", temperature=1.5, behaviour="sampler")
  assert not corrected.parts.first_step


def test_a_learned_reward_is_the_score_at_the_last_token():
  """On the devices; a verifier beside it is measured, and moves nothing."""
  reward = rewards.LearnedReward(
    judge=letters.Judge(),
    gain=2.0,
    bias=0.5,
    unfinished=-3.0,
    gold=letters.judged_by(letters.right),
  )
  made = letters.Begun(letters.experiment(reward=reward))
  rollouts = made.collect()
  model, params = letters.Judge().model, letters.Judge().params(None)
  last = jnp.take_along_axis(
    rollouts.token, jnp.sum(rollouts.mask, axis=1, keepdims=True) - 1, axis=1
  )
  score = model.value(params, params["body"]["embedding"][last[:, 0]])
  settled = jnp.where(rollouts.ended, 2 * score + 0.5, -3.0)
  state, metrics = made.update(rollouts)
  found = letters.means(metrics)
  assert found["reward"] == pytest.approx(float(settled.mean()), rel=1e-5)
  assert found["score"] == pytest.approx(float(score.mean()), rel=1e-5)
  gold = letters.Begun(
    letters.experiment(reward=letters.judged_by(letters.right))
  ).collect()
  assert found["gold"] == pytest.approx(float(gold.reward.mean()), rel=1e-6)
  plain = letters.Begun(letters.experiment())
  expected, _ = plain.update(rollouts._replace(reward=settled, metric={}))
  close(state.params, expected.params, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
  ("name", "splits"), [("dapo", (1, 2, 4)), ("grpo", (1, 4))]
)
def test_micro_batches_change_nothing(name, splits):
  found = []
  for parts in splits:
    made, rollouts = begun(name, micro_batches=parts)
    state, metrics = made.update(rollouts)
    found.append((state.params, letters.means(metrics)))
  for other in found[1:]:
    close(other, found[0], rtol=1e-5, atol=1e-6)


def served(recipe):
  """What a recipe asks for, found by leaving it out; None: the unservable."""
  time, row = jnp.zeros((4, 3)), jnp.zeros(4)
  ids, kept = jnp.zeros(4, int), jnp.ones(4, bool)
  known = {"log_prob": time, "behaviour_log_prob": time, "value": time}
  known |= {"sampler_log_prob": time, "reference_log_prob": time}
  batch = PolicyBatch(
    mask=time == 0,
    reward=row,
    group=ids,
    valid=kept,
    behaviour_value=time,
    **known,
  )
  settings = {"recipe": recipe}
  if recipe.value is not None:
    settings["critic"] = CASES["ppo"]["critic"]
  # The program always has the sampler's; a reference only if it is told to.
  try:
    jax.eval_shape(lambda: recipe.totals(batch, num_groups=3))
  except ValueError as error:
    assert "`greedy_reward`" in f"{error}", error  # noqa: PT017
    return None
  bare = batch._replace(reference_log_prob=None)
  try:
    jax.eval_shape(lambda: recipe.totals(bare, num_groups=3))
  except ValueError as error:
    assert "`reference_log_prob`" in f"{error}", error  # noqa: PT017
    settings["reference"] = True
  algorithm = dataclasses.replace(letters.GRPO, **settings)
  return letters.Begun(letters.experiment(algorithm))


@pytest.fixture(scope="module")
def rollouts():
  return letters.Begun(letters.experiment()).collect()


# Those above are the module's own, except where a case changes the recipe.
STEPPED = {name for name, changes in CASES.items() if "recipe" not in changes}


@pytest.mark.parametrize("name", sorted(set(recipes.__all__) - STEPPED))
def test_every_recipe_makes_a_step(name, rollouts):
  """Finite, and the policy moves; ReMax asks for greedy rewards."""
  made = served(getattr(recipes, name))
  if made is None:
    assert name == "remax"
    return
  state, metrics = made.update(rollouts)
  found = letters.means(metrics)
  assert all(np.isfinite(value) for value in found.values()), found
  assert found["first_ratio"] == pytest.approx(1.0, abs=1e-6)
  assert found["gradient_norm"] > 0
  assert not np.array_equal(state.params["output"], made.state.params["output"])
