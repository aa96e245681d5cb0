"""What a component of a recipe may ask for, remember and report."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from algorithms.language import letters
from algorithms.steps import close
from experiments import recipes
from rl_jax.algorithms.components import WithinGroup
from rl_jax.algorithms.recipe import PolicyBatch, Remembered, found
from rl_jax.experiment import Checkpoints
from rl_jax.launch.run import train
from rl_jax.reduce import Total, over_tokens
from training import tiny

pytestmark = pytest.mark.slow


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sure:
  """A fourteenth estimator: more for tokens that were hard to choose."""

  wants = ("answer", "spaces")

  def ask(self, view):
    features = jnp.sum(view.hidden**2, axis=-1)
    return {
      "entropy": view.scores.entropy,
      "features": features,
      "first": view.extra["answer"][:, 0],
      "draw": jax.vmap(jax.random.uniform)(view.key),
    }

  def watch(self, batch, signals, *, num_groups):
    count = Total.of(batch.step.astype(jnp.float32))
    entropy = over_tokens(found(batch, "entropy"), signals.mask)
    return {"drawn_at": count, "asked_entropy": entropy}

  def init(self, num_groups):
    return {"rollouts": jnp.zeros(()), "groups": jnp.full((), num_groups)}

  def __call__(self, batch, compared, *, memory):
    entropy = found(batch, "entropy")
    after = {**memory, "rollouts": memory["rollouts"] + 1}
    return Remembered((compared[:, None] * (1.0 + entropy), None), after)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Inside:
  """A wrapper: what stands in it is asked too."""

  base: Any

  def __call__(self, batch, compared, *, memory):
    return self.base(batch, compared, memory=memory)

  def init(self, num_groups):
    return self.base.init(num_groups)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spaces:
  """A note: numbers of the text that only the host sees."""

  name: str = "spaces"

  def shapes(self, time):
    return {self.name: ((time, 2), np.int32)}

  def bind(self, data):
    del data

    def note(rollouts):
      seen = np.where(rollouts.mask, rollouts.token, -1)
      return {self.name: np.repeat(seen[..., None], 2, axis=2)}

    return note


def stepping(prompts, completions, step, **columns):
  """A reward that knows when its row was drawn."""
  return [
    float(number) + 0.25 * len(c)
    for number, c in zip(step, completions, strict=True)
  ]


RECIPE = dataclasses.replace(recipes.trl_grpo, credit=Inside(base=Sure()))
ALGORITHM = dataclasses.replace(letters.GRPO, recipe=RECIPE)
DATA = dataclasses.replace(letters.prompts(), answer=2)
JUDGE = letters.judged_by(letters.partly, notes=(Spaces(),))


def made(**changes):
  algorithm = dataclasses.replace(ALGORITHM, **changes)
  return letters.Begun(letters.experiment(algorithm, data=DATA, reward=JUDGE))


def test_components_are_asked_remember_and_report():
  own = made()
  rollouts = own.collect()
  np.testing.assert_array_equal(
    rollouts.extra["spaces"][..., 1],
    jnp.where(rollouts.mask, rollouts.token, -1),
  )
  assert rollouts.extra["answer_mask"].sum(axis=1).tolist() == [1] * 16
  _, signals = own.with_signals(rollouts)
  asked = signals["asked"]
  assert set(asked) == {"entropy", "features", "first", "draw"}
  # The judge works at the same time, so what it finds is not there yet.
  assert "spaces" not in asked
  assert asked["first"].tolist() == rollouts.extra["answer"][:, 0].tolist()
  assert len(set(asked["draw"].tolist())) == len(rollouts.reward)

  model, params = own.experiment.model, own.state.params
  previous = jnp.concatenate([rollouts.prompt, rollouts.token], axis=1)
  previous = previous[:, rollouts.prompt.shape[1] - 1 : -1]
  hidden = params["embedding"][previous]
  close(
    jnp.where(rollouts.mask, asked["features"], 0.0),
    jnp.where(rollouts.mask, jnp.sum(hidden**2, axis=-1), 0.0),
    rtol=1e-5,
    atol=1e-6,
  )
  z = jax.nn.log_softmax(model.logits(params, hidden) / 0.8)
  entropy = -jnp.sum(jnp.exp(z) * z, axis=-1)
  entropy = jnp.where(rollouts.mask, entropy, 0.0)
  close(asked["entropy"], entropy, rtol=1e-5, atol=1e-6)

  state, metrics = own.update(rollouts)
  assert state.memory["recipe"]["credit"] == {"rollouts": 1, "groups": 4}
  state, _ = own.update(own.collect(state), state)
  assert state.memory["recipe"]["credit"]["rollouts"] == 2
  said = letters.means(metrics)
  assert said["drawn_at"] == 0.0
  mean = float(jnp.sum(entropy) / jnp.sum(rollouts.mask))
  assert said["asked_entropy"] == pytest.approx(mean, rel=1e-5)


def test_parts_of_a_batch_ask_as_the_whole_does():
  whole, parts = made(), made(micro_batches=4)
  rollouts = whole.collect()
  one, _ = whole.update(rollouts)
  four, _ = parts.update(rollouts)
  close(one.params, four.params, rtol=1e-4, atol=1e-6)


def test_groups_that_wait_keep_what_was_found():
  own = made(refill=True)
  rollouts = own.collect()
  reward = jnp.where(rollouts.group == 1, rollouts.reward, 1.0)
  state, metrics = own.update(rollouts._replace(reward=reward))
  waiting, signals = state.memory["waiting"].rows
  np.testing.assert_array_equal(
    waiting.extra["spaces"][:4], rollouts.extra["spaces"][4:8]
  )
  assert set(signals["asked"]) == {"entropy", "features", "first", "draw"}
  assert letters.means(metrics)["updated"] == 0.0
  # Nothing was learned, so nothing was remembered.
  assert state.memory["recipe"]["credit"]["rollouts"] == 0


def test_a_fourteenth_estimator_trains(tmp_path):
  """One dataclass in this module, and no edit elsewhere."""
  recorder, observers = tiny.watched()
  experiment = letters.experiment(
    ALGORITHM,
    data=DATA,
    reward=letters.judged_by(letters.begins, notes=(Spaces(),)),
    steps=60,
    checkpoints=Checkpoints(every=60),
  )
  outcome = train(experiment, root=tmp_path, observers=observers)
  assert outcome.status == "finished"
  reward = [row.metrics["reward"] for row in recorder.rows]
  assert np.mean(reward[-5:]) > np.mean(reward[:5]) + 0.3
  assert recorder.rows[-1].metrics["drawn_at"] == 59.0


def test_a_judge_sees_the_step():
  own = letters.Begun(
    letters.experiment(letters.GRPO, reward=letters.judged_by(stepping))
  )
  later = own.state._replace(step=own.state.step + 7)
  first, second = own.collect(), own.collect(later)
  assert first.step.tolist() == [0] * 16
  assert second.step.tolist() == [7] * 16
  assert float(second.reward.min()) >= 7.0 > float(first.reward.max())


def test_what_nobody_gives_is_refused_before_anything_runs():
  bare = letters.judged_by(letters.partly)
  with pytest.raises(
    ValueError, match=r"Sure wants \['spaces'\] from the data"
  ):
    letters.Begun(letters.experiment(ALGORITHM, data=DATA, reward=bare))
  with pytest.raises(ValueError, match=r"wants \['answer'\]"):
    letters.Begun(letters.experiment(ALGORITHM, reward=JUDGE))
  twice = letters.judged_by(letters.partly, notes=(Spaces(), Spaces()))
  with pytest.raises(ValueError, match="found twice"):
    letters.Begun(letters.experiment(ALGORITHM, data=DATA, reward=twice))


def test_a_memory_is_kept_once_per_rollout():
  with pytest.raises(ValueError, match="once per minibatch"):
    dataclasses.replace(ALGORITHM, estimated_over="minibatch", minibatches=2)


def test_components_inside_partials_are_found():
  estimator = partial(Sure(), num_groups=2)
  recipe = dataclasses.replace(
    recipes.trl_grpo, baseline=WithinGroup(estimator=estimator)
  )
  assert recipe.asks
  blank = jnp.zeros((1, 1))
  batch = PolicyBatch(
    log_prob=blank,
    behaviour_log_prob=blank,
    mask=blank > 0,
    reward=blank[0],
    group=jnp.zeros(1, int),
    valid=jnp.zeros(1, bool),
  )
  with pytest.raises(ValueError, match="this recipe needs `entropy`"):
    found(batch, "entropy")
