"""Evaluation looks, and changes nothing."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

from rl_jax import evaluation
from rl_jax.data.source import Arrays
from rl_jax.evaluation.judges import bound
from rl_jax.sampling import EulerOde
from rl_jax.training.state import State
from training import tiny

pytestmark = pytest.mark.slow


def state(memory=None, step=0):
  model = tiny.Field()
  return State(
    step=np.int32(step),
    cursor=(),
    key=jax.random.key_data(jax.random.key(0)),
    params=model.init(jax.random.key(1)),
    optimiser=(),
    memory=memory or {},
  )


def measured(samples, at=None, experiment=None):
  experiment = experiment or tiny.experiment()
  evaluate, frozen = samples.build(experiment, None)
  return jax.device_get(jax.jit(evaluate)(at or state(), frozen))


def test_reward_and_spread_are_those_of_samples_for_every_class():
  metrics, pictures = measured(tiny.SAMPLES)
  assert set(metrics) == {"evaluation/reward", "evaluation/sample_std"}
  assert metrics["evaluation/reward"].weight == 16
  assert 0 < metrics["evaluation/reward"].mean() < 1
  assert pictures == {}


def test_a_held_out_judge_is_asked_too():
  samples = dataclasses.replace(
    tiny.SAMPLES, held_out=tiny.Near(broken_from=15), reward=tiny.Near()
  )
  metrics, _ = measured(samples, experiment=tiny.pretraining())
  assert np.isfinite(metrics["evaluation/reward"].mean())
  assert np.isnan(metrics["evaluation/held_out"].mean())


def test_without_any_judge_only_the_spread_is_measured():
  metrics, _ = measured(tiny.SAMPLES, experiment=tiny.pretraining())
  assert set(metrics) == {"evaluation/sample_std"}


def test_pictures_show_the_first_samples_of_each_class():
  samples = dataclasses.replace(tiny.SAMPLES, picture=(1, 2), shown=3)
  _, pictures = measured(samples)
  assert pictures["samples"].shape == (2, 3, 1, 2)
  assert pictures["samples_correct"].shape == (2, 3)
  assert pictures["samples_correct"].dtype == bool
  gap = pictures["samples"][:, :, 0] - tiny.CENTRES[:, None]
  right = np.exp(-np.sum(gap**2, axis=-1) / 2) > 0.5
  np.testing.assert_array_equal(pictures["samples_correct"], right)


def test_an_average_is_evaluated_when_named():
  other = tiny.Field().init(jax.random.key(9))
  samples = dataclasses.replace(tiny.SAMPLES, average="average")
  mine, _ = measured(samples, state({"average": other}))
  plain, _ = measured(tiny.SAMPLES, state()._replace(params=other))
  assert mine["evaluation/reward"] == plain["evaluation/reward"]


@pytest.mark.parametrize(
  "changes",
  [
    {"sampler": EulerOde(steps=5, shift=1.0)},
    {"rows_per_class": 4},
    {"reward": tiny.Near(broken_from=3)},
  ],
)
def test_fields_are_read(changes):
  before, _ = measured(tiny.SAMPLES)
  after, _ = measured(dataclasses.replace(tiny.SAMPLES, **changes))
  assert before["evaluation/reward"] != after["evaluation/reward"]


def test_samples_differ_from_step_to_step_and_not_within_one():
  first, again, later = (
    measured(tiny.SAMPLES, state(step=step))[0]["evaluation/sample_std"]
    for step in (3, 3, 4)
  )
  assert first == again != later


def test_a_reward_is_bound_to_its_network():
  class Judged:
    judge = type("Trained", (), {"by": tiny.experiment()})()

    def bind(self, model):
      return model

  assert bound(Judged(), lambda trained: ("of", trained)) == (
    tiny.Field(),
    ("of", Judged.judge),
  )
  score, params = bound(tiny.Near(), None)
  assert params == ()
  assert callable(score)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Held:
  """Four rows, one of which the model below gets wrong."""

  def source(self):
    sample = np.array([[2.0, 0.0], [0.0, 1.0], [3.0, 1.0], [1.0, 0.0]])
    return Arrays(
      {"sample": sample, "condition": np.array([0, 1, 0, 1], np.int32)}
    )


class Identity:
  """Logits are the sample."""

  def apply(self, params, x):
    return x


def test_accuracy_counts_every_held_out_row():
  experiment = dataclasses.make_dataclass("E", ["model"])(Identity())
  evaluate, frozen = evaluation.Accuracy(data=Held()).build(experiment, None)
  metrics, pictures = jax.jit(evaluate)(state(), frozen)
  total = metrics["evaluation/accuracy"]
  assert (total.value.item(), total.weight.item()) == (3.0, 4.0)
  assert pictures == {}
