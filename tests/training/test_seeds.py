"""Seeds side by side are the runs that each would have been alone."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

from rl_jax.data.source import start, take
from rl_jax.training.seeds import run_seeds
from training import tiny

pytestmark = pytest.mark.slow


def build(**changes):
  experiment = tiny.experiment(**changes)
  return experiment, experiment.algorithm.build(experiment, None)


def evaluated(every):
  return dataclasses.replace(tiny.SAMPLES, every=every)


def alone(experiment, program, seed):
  """One seed, step by step, without vmap."""
  state = program.init(jax.random.key(seed), None)
  collect, update = jax.jit(program.collect), jax.jit(program.update)
  source, cursor = experiment.data.source(), start()
  for _ in range(experiment.steps):
    indices, cursor = take(
      len(source),
      cursor,
      rows=experiment.data.rows,
      seed=seed,
      shuffle=experiment.data.shuffle,
    )
    batch = collect(state, program.frozen, source[indices])
    state, _ = update(state, program.frozen, batch)
  return state


def test_each_seed_is_its_own_run():
  experiment, program = build(evaluation=evaluated(2))
  curves = run_seeds(program, None, experiment.data, seeds=(3, 5), steps=4)
  for place, seed in enumerate((3, 5)):
    expected = alone(experiment, program, seed)
    jax.tree.map(
      lambda mine, its, place=place: np.testing.assert_allclose(
        mine[place], its, rtol=1e-4, atol=1e-5
      ),
      curves.state.params,
      expected.params,
    )


def test_curves_start_before_training_and_count_steps():
  experiment, program = build(evaluation=evaluated(2))
  curves = run_seeds(program, None, experiment.data, seeds=(0, 1), steps=4)
  assert curves.step.tolist() == [0, 2, 4]
  assert curves.seconds[0] == 0
  assert (np.diff(curves.seconds) > 0).all()
  reward = curves.metrics["evaluation/reward"]
  assert reward.shape == (2, 3)
  assert not np.allclose(reward[0], reward[1])


def test_steps_must_divide():
  experiment, program = build(evaluation=evaluated(3))
  with pytest.raises(ValueError, match=r"steps = 4 is not a multiple .* 3"):
    run_seeds(program, None, experiment.data, seeds=(0,), steps=4)


@pytest.mark.parametrize(
  "change", [{"score": lambda batch: batch}, {"evaluate": None}]
)
def test_what_cannot_be_vectorised_is_refused(change):
  experiment, program = build(evaluation=evaluated(2))
  with pytest.raises(ValueError, match="computed on the device"):
    run_seeds(
      program._replace(**change), None, experiment.data, seeds=(0,), steps=4
    )
