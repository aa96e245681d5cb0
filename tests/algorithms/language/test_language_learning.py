"""Known optimum: the answer is the letter that the prompt ends with."""

from __future__ import annotations

import dataclasses

import jax
import pytest

from algorithms.language import letters, pairs
from experiments import recipes
from rl_jax import evaluation
from rl_jax.experiment import Checkpoints, Trained
from rl_jax.launch.run import train
from rl_jax.training.optimisers import AdamW
from training import tiny

pytestmark = pytest.mark.slow

OPTIMISER = AdamW(learning_rate=0.03)
# One letter: a model that sees one token cannot count to two.
RESPONSE = dataclasses.replace(letters.RESPONSE, temperature=1.0, length=1)
EVALUATION = evaluation.TextSamples(
  data=letters.prompts(rows=1, length=12),
  sampler=RESPONSE,
  prompts=12,
  samples=8,
  reward=letters.judged_by(letters.right),
  every=50,
)
GRPO = dataclasses.replace(
  letters.GRPO,
  sampler=RESPONSE,
  optimiser=OPTIMISER,
  group_size=8,
  behaviour="same",
)
CRITIC = dataclasses.replace(
  letters.CRITIC,
  model=letters.ScalarHead(body=letters.BIGRAM),
  optimiser=OPTIMISER,
)
PPO = dataclasses.replace(
  GRPO,
  recipe=recipes.ppo,
  critic=CRITIC,
  reference=True,
  behaviour="recomputed",
  epochs=2,
  minibatches=2,
)
FIELDS = {
  "data": letters.prompts(rows=12),
  "reward": letters.judged_by(letters.right),
  "evaluation": EVALUATION,
  "steps": 100,
  "checkpoints": Checkpoints(every=1000),
}


@pytest.fixture(autouse=True)
def _one_device(monkeypatch):
  first = jax.devices()[:1]
  monkeypatch.setattr(jax, "devices", lambda *_: first)


def ran(tmp_path, experiment):
  recorder, observers = tiny.watched()
  outcome = train(experiment, root=tmp_path, observers=observers)
  return recorder.rows, outcome.evaluation["evaluation/reward"]


@pytest.mark.parametrize("algorithm", [GRPO, PPO], ids=["grpo", "ppo"])
def test_it_answers_with_the_letter(tmp_path, algorithm):
  """From one in five at random to nearly always."""
  rows, last = ran(tmp_path, letters.experiment(algorithm, **FIELDS))
  first = next(row for row in rows if row.kind == "evaluation")
  assert first.metrics["evaluation/reward"] < 0.4
  assert last >= 0.95
  assert {text["completion"] for text in first.texts} == {"", *"abcd"}
  final = [row for row in rows if row.kind == "evaluation"][-1]
  assert {text["reward"] for text in final.texts} <= {0.0, 1.0}


def test_a_warm_start_is_trained_first(tmp_path):
  """Imitation learns letter and end as equals; RL starts and refers there."""
  imitated = letters.experiment(
    dataclasses.replace(pairs.TUNING, optimiser=OPTIMISER),
    **FIELDS | {"data": pairs.demonstrations(), "reward": None, "steps": 60},
  )
  experiment = letters.experiment(
    PPO, **FIELDS | {"start": Trained(by=imitated), "steps": 40}
  )
  rows, last = ran(tmp_path, experiment)
  shown = [row for row in rows if row.kind == "evaluation"]
  reward = [(row.step, row.metrics["evaluation/reward"]) for row in shown]
  (zero, first), _, (sixty, warm), again, *_ = reward
  assert (zero, sixty) == (0, 60)
  assert first < 0.4 < warm < 0.7
  assert again == (0, warm)
  assert last > warm + 0.2
  begun = next(row for row in rows if "first_kl" in row.metrics)
  assert begun.metrics["first_kl"] == 0.0


def test_dpo_raises_the_margin(tmp_path):
  experiment = pairs.offline(
    dataclasses.replace(pairs.DPO, optimiser=OPTIMISER),
    pairs.preferences(),
    steps=60,
    checkpoints=Checkpoints(every=1000),
  )
  recorder, observers = tiny.watched()
  train(experiment, root=tmp_path, observers=observers)
  first, last = recorder.rows[0].metrics, recorder.rows[-1].metrics
  assert first["margin"] == 0.0
  assert last["margin"] > 2.0
  assert last["correct"] == 1.0
  assert last["loss"] < 0.3 * first["loss"]
