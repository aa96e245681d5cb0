"""The first step: what must be one is one, what must be zero is zero."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

from algorithms.language import letters
from experiments import recipes
from rl_jax.algorithms import Scoring
from rl_jax.launch.run import train
from rl_jax.training.doctor import Unhealthy
from training import tiny

pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def _one_device(monkeypatch):
  first = jax.devices()[:1]
  monkeypatch.setattr(jax, "devices", lambda *_: first)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hotter(Scoring):
  """A trainer that has another temperature in mind than the sampler."""

  def of_features(self, *given, temperature):
    return super().of_features(*given, temperature=1.25 * temperature)


def first_row(tmp_path, algorithm, **changes):
  recorder, observers = tiny.watched()
  fields = {"steps": 1} | changes
  train(
    letters.experiment(algorithm, **fields), root=tmp_path, observers=observers
  )
  return recorder.rows[0].metrics


@pytest.mark.parametrize(
  ("behaviour", "model"),
  [
    ("same", letters.BIGRAM),
    ("recomputed", letters.MODEL),
    ("sampler", letters.BIGRAM),
  ],
  ids=["same", "recomputed", "sampler"],
)
def test_ratio_is_one_and_kl_is_zero(tmp_path, behaviour, model):
  algorithm = dataclasses.replace(
    letters.GRPO, recipe=recipes.grpo, behaviour=behaviour, reference=True
  )
  found = first_row(tmp_path, algorithm, model=model)
  assert found["first_kl"] == 0.0
  if behaviour == "sampler":
    # Engine against trainer: as near as two orders of one sum.
    assert found["first_ratio"] == pytest.approx(1.0, abs=1e-6)
    return
  assert found["first_ratio"] == 1.0
  assert found["kl_reference"] == 0.0
  assert found["loss/penalty"] == 0.0


def test_ratio_and_kl_are_exact_with_frozen_weights_and_micro_batches(tmp_path):
  algorithm = dataclasses.replace(
    letters.GRPO, recipe=recipes.grpo, reference=True, micro_batches=4
  )
  found = first_row(tmp_path, algorithm, start=letters.Drawn())
  assert found["first_kl"] == 0.0
  assert found["kl_reference"] == pytest.approx(0.0, abs=1e-12)
  assert found["first_ratio"] == pytest.approx(1.0, abs=1e-6)


def test_a_sampler_of_another_temperature_is_refused(tmp_path):
  algorithm = dataclasses.replace(letters.GRPO, scoring=Hotter())
  recorder, observers = tiny.watched()
  with pytest.raises(Unhealthy, match=r"sampler_gap is 0.*must be 0 within"):
    train(
      letters.experiment(algorithm, steps=3),
      workdir=tmp_path / "run",
      root=tmp_path,
      observers=observers,
    )
  saved = {path.name for path in (tmp_path / "run" / "checkpoints").iterdir()}
  assert {name for name in saved if name.isdecimal()} == {"0"}
  assert recorder.outcome.status == "failed"


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"group_size": 0}, "at least 1"),
    ({"epochs": 0}, "at least 1"),
    ({"behaviour": "same", "epochs": 2}, "2 epochs of 1 minibatches"),
    ({"behaviour": "same", "refresh": 2}, "refresh = 2"),
    ({"behaviour": "same", "refill": True}, "refill = True"),
    (
      {"sampler": dataclasses.replace(letters.RESPONSE, top_k=2)},
      "drawn from the whole vocabulary",
    ),
    (
      {"sampler": dataclasses.replace(letters.RESPONSE, greedy=True)},
      "greedy",
    ),
    ({"critic": letters.CRITIC}, "recipe has no loss for a critic"),
    ({"recipe": recipes.ppo}, "critic=Critic"),
    ({"group_size": 1}, "group of one"),
    ({"group_size": 1, "recipe": recipes.opo}, "group of one"),
    (
      {"group_size": 1, "recipe": recipes.reinforce_plus_plus, "refill": True},
      "group of one",
    ),
  ],
)
def test_settings_that_cannot_be(changes, message):
  with pytest.raises(ValueError, match=message):
    dataclasses.replace(letters.GRPO, **changes)


@pytest.mark.parametrize(
  ("algorithm", "changes", "message"),
  [
    ({}, {"reward": None}, "letters: online training needs a reward"),
    ({"micro_batches": 3}, {}, "4 prompts x 4 responses = 16 rows"),
    (
      {"sampler": dataclasses.replace(letters.RESPONSE, length=30)},
      {},
      "need a context of 33, the model has 32",
    ),
  ],
)
def test_parts_that_do_not_fit(algorithm, changes, message):
  """Refused when the program is built, before anything is compiled."""
  settings = dataclasses.replace(letters.GRPO, **algorithm)
  experiment = letters.experiment(settings, **changes)
  with pytest.raises(ValueError, match=message):
    settings.build(experiment, letters.load_for(experiment.model))


def test_rows_depend_on_their_key_and_prompt_alone():
  """Two batches with one prompt in common, in one place: one response."""
  made = letters.Begun(letters.experiment())
  items = made.items()
  others = made.items(first=4)
  mixed = {
    k: np.where(
      np.arange(4).reshape(-1, *(1,) * (v.ndim - 1)) == 2, v, others[k]
    )
    for k, v in items.items()
  }
  one, two = made.collect(items=items), made.collect(items=mixed)
  np.testing.assert_array_equal(one.token[8:12], two.token[8:12])
  assert one.group.tolist() == sorted(4 * [0, 1, 2, 3])
