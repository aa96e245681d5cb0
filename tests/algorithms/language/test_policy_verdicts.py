"""Rows without a verdict, judges that fail, and answers that say nothing."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from algorithms.language import letters
from algorithms.language.papers import CASES
from experiments import recipes
from rl_jax.launch.run import train
from rl_jax.rewards import Term, TextReward
from rl_jax.rewards.verifiers import Exact, RewardFunction
from training import tiny

pytestmark = pytest.mark.slow


def unsure(prompts, completions, reference, **columns):
  """No verdict on what is one letter long; NaN, which is none, on two."""
  found = letters.partly(prompts, completions, reference)
  return [
    {1: None, 2: float("nan")}.get(len(text), value)
    for text, value in zip(completions, found, strict=True)
  ]


def broken(prompts, completions, **columns):
  if columns["reference"][0] == "a" and prompts[1] == "ba":
    raise KeyError("no such judge")
  return [1.0] * len(completions)


def short(prompts, completions, **columns):
  return [1.0] * (len(completions) - 1)


def test_rows_without_verdict_are_counted_and_weigh_nothing():
  reward = letters.judged_by(unsure)
  made = letters.Begun(letters.experiment(reward=reward))
  rollouts = made.collect()
  words = letters.WORDS.load()
  sizes = [
    len(words.decode(row[own].tolist()))
    for row, own in zip(
      np.asarray(rollouts.token), np.asarray(rollouts.mask), strict=True
    )
  ]
  lost = np.isin(sizes, [1, 2])
  assert 0 < lost.sum() < len(lost)
  np.testing.assert_array_equal(rollouts.valid, ~lost)
  _, metrics = made.update(rollouts)
  found = letters.means(metrics)
  assert found["no_verdict"] == found["no_verdict_other"] == lost.mean()
  assert found["valid"] == 1 - lost.mean()
  np.testing.assert_allclose(
    found["reward"], np.asarray(rollouts.reward)[~lost].mean(), rtol=1e-6
  )
  np.testing.assert_allclose(found["unsure"], found["reward"], rtol=1e-6)
  assert metrics["loss/policy"].weight == np.asarray(rollouts.mask)[~lost].sum()


@pytest.mark.parametrize("name", ["trl_grpo", "ppo"])
def test_nothing_of_a_row_without_verdict_enters(name):
  """Another reward, NaN, other tokens: the same update, bit for bit."""
  algorithm = dataclasses.replace(
    letters.GRPO, recipe=getattr(recipes, name), **CASES[name]
  )
  made = letters.Begun(letters.experiment(algorithm))
  clean = made.collect()
  lost = np.arange(len(clean.reward)) % 5 == 1
  clean = clean._replace(valid=jnp.asarray(~lost))
  dirty = clean._replace(
    reward=jnp.where(lost, jnp.nan, clean.reward),
    token=jnp.where(lost[:, None], (clean.token + 1) % 5, clean.token),
    log_prob=jnp.where(lost[:, None], -3.0, clean.log_prob),
    metric={k: jnp.where(lost, jnp.nan, v) for k, v in clean.metric.items()},
  )
  expected, metrics = made.update(clean)
  found, others = made.update(dirty)
  letters.equal(found, expected)
  for name in ("loss", "reward", "reward_std", "dead_groups", "partly"):
    assert metrics[name].mean() == others[name].mean(), name
  free, _ = made.update(clean._replace(valid=jnp.ones(len(lost), bool)))
  assert not np.array_equal(free.params["output"], expected.params["output"])


@pytest.mark.parametrize(
  ("judge", "error", "message"),
  [
    (broken, RuntimeError, "reward 'strict' raised KeyError on 16 rows"),
    (short, ValueError, "reward 'strict' must return one reward per row, 16"),
    (
      RewardFunction(function=short, name="other"),
      ValueError,
      "reward 'strict' must return one reward per row, 16, and returned 15",
    ),
  ],
)
def test_a_judge_that_fails_stops_the_run(
  tmp_path, monkeypatch, judge, error, message
):
  first = jax.devices()[:1]
  monkeypatch.setattr(jax, "devices", lambda *_: first)
  recorder, observers = tiny.watched()
  reward = TextReward(terms=(Term(name="strict", judge=judge),))
  with pytest.raises(error, match=message):
    train(
      letters.experiment(reward=reward, steps=4),
      workdir=tmp_path / "run",
      root=tmp_path,
      observers=observers,
    )
  assert recorder.outcome.status == "failed"
  assert "strict" in recorder.outcome.error
  # It may have judged some steps before; each of those is there, and no more.
  taken = max((row.step for row in recorder.rows), default=0)
  names = {path.name for path in (tmp_path / "run" / "checkpoints").iterdir()}
  saved = {int(name) for name in names if name.isdecimal()}
  assert saved == set(range(taken + 1))
  assert not (tmp_path / "run" / "result.json").exists()


def test_answers_that_end_at_once_are_answers():
  """All say nothing: one token each, equal rewards, nothing to learn."""
  made = letters.Begun(letters.experiment())
  mute = made.state.params | {
    "embedding": jnp.ones_like(made.state.params["embedding"]),
    "output": jnp.zeros_like(made.state.params["output"])
    .at[letters.END]
    .set(20.0),
  }
  state = made.state._replace(params=mute)
  rollouts = made.collect(state)
  assert np.asarray(rollouts.mask).sum(1).tolist() == [1] * 16
  assert np.asarray(rollouts.reward).tolist() == [1.0] * 16
  _, metrics = made.update(rollouts, state)
  found = letters.means(metrics)
  assert all(np.isfinite(value) for value in found.values())
  assert (found["length"], found["ended"]) == (1.0, 1.0)
  assert (found["dead_groups"], found["loss/policy"]) == (1.0, 0.0)


def test_a_verifier_in_worker_processes_is_the_one_in_this_process():
  """And functions and verifiers are added up, each under its own name."""
  reward = TextReward(
    terms=(
      Term(name="exact", judge=Exact(), weight=2.0),
      Term(name="begins", judge=letters.begins, weight=0.5),
    ),
    workers=1,
    seconds=30.0,
  )
  made = letters.Begun(letters.experiment(reward=reward))
  judged = made.collect()
  made.parts.score.close()
  alone = letters.Begun(
    letters.experiment(reward=letters.judged_by(letters.right, letters.begins))
  ).collect()
  np.testing.assert_array_equal(judged.token, alone.token)
  np.testing.assert_array_equal(judged.metric["exact"], alone.metric["right"])
  np.testing.assert_array_equal(
    judged.reward, 2 * alone.metric["right"] + 0.5 * alone.metric["begins"]
  )
  assert np.asarray(judged.metric["workers_replaced"]).tolist() == [0.0] * 16
