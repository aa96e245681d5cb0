"""Held-out answers: drawn the same way each time, judged, kept as texts."""

from __future__ import annotations

import dataclasses
import json

import jax
import numpy as np
import pytest

from algorithms.language import letters, pairs
from rl_jax import evaluation
from rl_jax.algorithms.parts import evaluation_of
from rl_jax.experiment import from_dict, to_dict
from rl_jax.training.state import State

pytestmark = pytest.mark.slow

SAMPLES = evaluation.TextSamples(
  data=letters.prompts(rows=1, length=6),
  sampler=letters.RESPONSE,
  prompts=5,
  samples=2,
  every=3,
)


def halting(prompts, completions, reference, **columns):
  """No verdict on what is empty, and none at all on item 2."""
  return [
    None if not text or prompt == "dc" else float(text[0] == letter)
    for text, prompt, letter in zip(
      completions, prompts, reference, strict=True
    )
  ]


def made(samples=SAMPLES, **changes):
  experiment = letters.experiment(evaluation=samples, **changes)
  found = evaluation_of(experiment, None)
  return found, jax.jit(found.function)


def state(seed=0, params=None, step=0):
  drawn = letters.BIGRAM.init(jax.random.key(1)) if params is None else params
  key = jax.random.key_data(jax.random.key(seed))
  return State(np.int32(step), (), key, (drawn, None), (), {})


def measured(found, function, at):
  return found.inspect(*jax.device_get(function(at, found.frozen)))


@pytest.fixture(scope="module")
def judged():
  return made(reward=letters.judged_by(halting, letters.partly))


def test_numbers_are_those_of_the_texts(judged):
  metrics, pictures, texts = measured(*judged, state())
  assert pictures == {}
  assert len(texts) == 10
  source = letters.Letters(length=6).source()[np.arange(5)]
  prompts = np.repeat(source["prompt"], 2).tolist()
  assert [text["prompt"] for text in texts] == prompts
  letter = [text["reference"] for text in texts]
  assert letter == np.repeat(source["reference"], 2).tolist()
  said = [text["completion"] for text in texts]
  sure = halting(prompts, said, letter)
  also = letters.partly(prompts, said, letter)
  expected = [
    None if a is None else a + b for a, b in zip(sure, also, strict=True)
  ]
  rewards = [text["reward"] for text in texts]
  assert None in rewards
  for mine, theirs in zip(rewards, expected, strict=True):
    assert mine == (None if theirs is None else pytest.approx(theirs))
  json.dumps(texts)  # they are stored as lines of a file

  kept = [x for x in expected if x is not None]
  mean = {k: float(total.mean()) for k, total in metrics.items()}
  assert mean["evaluation/reward"] == pytest.approx(np.mean(kept), rel=1e-6)
  assert metrics["evaluation/reward"].weight == len(kept)
  # The interval is over prompts: their means, of what has a verdict.
  groups = [
    [x for x in expected[2 * n : 2 * n + 2] if x is not None] for n in range(5)
  ]
  means = [np.mean(own) for own in groups if own]
  half = 1.96 * np.std(means, ddof=1) / np.sqrt(len(means))
  assert len(means) < 5
  assert mean["evaluation/reward_interval"] == pytest.approx(half, rel=1e-5)
  assert mean["evaluation/no_verdict"] == pytest.approx(1 - len(kept) / 10)
  assert mean["evaluation/valid"] == pytest.approx(len(kept) / 10)
  assert {"evaluation/halting", "evaluation/partly"} <= set(mean)
  assert {"evaluation/length", "evaluation/entropy"} <= set(mean)
  assert 0 < mean["evaluation/entropy"] < np.log(letters.WORDS.size)


def test_keys_are_those_of_the_run_and_not_of_the_step(judged):
  first, again, other = (
    [text["completion"] for text in measured(*judged, at)[2]]
    for at in (state(), state(step=9), state(seed=1))
  )
  assert first == again != other


def test_all_without_a_verdict_is_a_count_of_nothing():
  def never(prompts, completions, **columns):
    return [None] * len(completions)

  found, function = made(reward=letters.judged_by(never))
  metrics, _, texts = measured(found, function, state())
  assert metrics["evaluation/reward"].weight == 0
  assert metrics["evaluation/valid"].mean() == 0
  assert metrics["evaluation/reward_interval"].mean() == 0
  assert {text["reward"] for text in texts} == {None}


@pytest.mark.parametrize(
  "changes",
  [
    {"sampler": dataclasses.replace(letters.RESPONSE, greedy=True)},
    {"prompts": 4},
    {"samples": 1},
    {"reward": letters.judged_by(letters.right)},
    {"data": letters.prompts(rows=1, length=12)},
  ],
  ids=["sampler", "prompts", "samples", "reward", "data"],
)
def test_fields_are_read(judged, changes):
  samples = dataclasses.replace(SAMPLES, **changes)
  before = measured(*judged, state())
  reward = letters.judged_by(halting, letters.partly)
  if "data" in changes:
    # The same first prompts; asking for more of them than there were.
    samples = dataclasses.replace(samples, prompts=7)
  after = measured(*made(samples, reward=reward), state())
  assert (
    before[0]["evaluation/reward"].mean(),
    before[0]["evaluation/reward"].weight,
    before[2],
  ) != (
    after[0]["evaluation/reward"].mean(),
    after[0]["evaluation/reward"].weight,
    after[2],
  )
  assert evaluation_of(letters.experiment(evaluation=samples), None).every == 3


def test_offline_training_has_its_answers_judged_too():
  """With a judge of its own; without any it is refused."""
  samples = dataclasses.replace(
    SAMPLES, reward=letters.judged_by(letters.right)
  )
  experiment = pairs.offline(
    pairs.TUNING, pairs.demonstrations(), evaluation=samples
  )
  begun = letters.Begun(experiment)
  assert begun.parts.evaluate_every == 3
  shown = jax.jit(begun.parts.evaluate)(begun.state, begun.parts.frozen)
  metrics, _, texts = begun.parts.inspect(*jax.device_get(shown))
  assert len(texts) == 10
  assert "evaluation/right" in metrics
  bare = dataclasses.replace(experiment, evaluation=SAMPLES)
  with pytest.raises(ValueError, match="letters: nothing judges the evaluat"):
    letters.Begun(bare)


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"prompts": 0}, "prompts = 0"),
    ({"samples": 0}, "samples = 0"),
    ({"every": 0}, "every = 0"),
  ],
)
def test_counts_that_cannot_be(changes, message):
  with pytest.raises(ValueError, match=message):
    dataclasses.replace(SAMPLES, **changes)


def test_what_does_not_fit_is_refused():
  with pytest.raises(ValueError, match="wants 7 prompts, its data has 6"):
    made(dataclasses.replace(SAMPLES, prompts=7))
  longer = dataclasses.replace(letters.RESPONSE, length=99)
  with pytest.raises(ValueError, match="need a context of 102"):
    made(dataclasses.replace(SAMPLES, sampler=longer))


def test_it_comes_back_from_a_file():
  stored = json.loads(json.dumps(to_dict(SAMPLES)))
  assert from_dict(stored) == SAMPLES
