"""A program on a mesh: the same numbers on every one, donated, whole."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

from rl_jax.data.source import start, take
from rl_jax.launch.run import compile_experiment
from rl_jax.training.sharding import make_mesh
from training import tiny

pytestmark = pytest.mark.slow

FULL = dataclasses.replace(
  tiny.AWM,
  base_weight=0.1,
  micro_batches=2,
  updates=2,
  optimiser=dataclasses.replace(tiny.OPTIMISER, epsilon=1e-3),
)
EXPERIMENT = tiny.experiment(algorithm=FULL, evaluation=tiny.SAMPLES)


def after(mesh, tmp_path, experiment=EXPERIMENT, steps=2):
  """State and metrics after some steps."""
  compiled = compile_experiment(experiment, mesh, root=tmp_path)
  state, cursor = compiled.init(), start()
  source, data = experiment.data.source(), experiment.data
  metrics = {}
  for _ in range(steps):
    indices, cursor = take(
      len(source), cursor, rows=data.rows, seed=0, shuffle=data.shuffle
    )
    batch = compiled.collect(state, compiled.put(source[indices]))
    state, metrics = compiled.update(state, batch)
  return compiled, state, metrics


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
  mesh = make_mesh(devices=jax.devices()[:1])
  _, state, metrics = after(mesh, tmp_path_factory.mktemp("alone"))
  return jax.device_get((state, metrics))


@pytest.mark.parametrize("sizes", [(8, 1, 1), (2, 2, 2), (1, 8, 1), (1, 4, 2)])
def test_eight_devices_are_one(alone, tmp_path, sizes):
  mesh = make_mesh(**dict(zip(("data", "fsdp", "tensor"), sizes, strict=True)))
  compiled, state, metrics = after(mesh, tmp_path)
  for mine, theirs in zip(
    jax.tree.leaves((state, metrics)), jax.tree.leaves(alone), strict=True
  ):
    np.testing.assert_allclose(
      np.asarray(mine, np.float64),
      np.asarray(theirs, np.float64),
      rtol=1e-4,
      atol=1e-5,
    )
  for array, sharding in zip(
    jax.tree.leaves(state),
    jax.tree.leaves(compiled.state_sharding),
    strict=True,
  ):
    assert array.sharding.is_equivalent_to(sharding, array.ndim)


def test_the_state_is_donated_and_the_parameters_are_split(tmp_path):
  mesh = make_mesh(data=1, fsdp=2, tensor=4)
  compiled = compile_experiment(EXPERIMENT, mesh, root=tmp_path)
  state = compiled.init()
  second = state.params["second"]
  assert second.addressable_shards[0].data.shape == (2, 1)
  moment = jax.tree.leaves(state.optimiser)
  assert any(m.sharding == second.sharding for m in moment)
  items = compiled.put(EXPERIMENT.data.source()[np.arange(4)])
  new, _ = compiled.update(state, compiled.collect(state, items))
  assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.params))
  assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.memory))
  assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(new))


def test_collecting_and_evaluating_leave_the_state_alone(tmp_path):
  mesh = make_mesh(devices=jax.devices()[:1])
  compiled = compile_experiment(EXPERIMENT, mesh, root=tmp_path)
  state = compiled.init()
  before = jax.device_get(state)
  items = compiled.put(EXPERIMENT.data.source()[np.arange(4)])
  first = jax.device_get(compiled.collect(state, items).sample)
  compiled.evaluate(state)
  again = jax.device_get(compiled.collect(state, items).sample)
  np.testing.assert_array_equal(first, again)
  for mine, theirs in zip(
    jax.tree.leaves(jax.device_get(state)),
    jax.tree.leaves(before),
    strict=True,
  ):
    np.testing.assert_array_equal(mine, theirs)


def test_other_shapes_are_an_error_and_not_a_recompilation(tmp_path):
  mesh = make_mesh(devices=jax.devices()[:1])
  compiled = compile_experiment(EXPERIMENT, mesh, root=tmp_path)
  items = compiled.put(EXPERIMENT.data.source()[np.arange(2)])
  with pytest.raises(TypeError, match="types differ"):
    compiled.collect(compiled.init(), items)


def test_rows_that_the_mesh_cannot_split_are_refused(tmp_path):
  """3 prompts x 4 rows; the prompts alone need not divide."""
  experiment = tiny.experiment(data=tiny.Prompts(rows=3))
  with pytest.raises(ValueError, match="12 rows does not split over 8"):
    compile_experiment(experiment, make_mesh(), root=tmp_path)


def test_a_score_on_the_host_stands_between(tmp_path, monkeypatch):
  """Rewards of processes and services: numpy in, numpy out."""
  seen = []

  def score(batch):
    seen.append(type(batch.reward))
    return batch._replace(reward=np.arange(16, dtype=np.float32))

  genuine = type(tiny.AWM).build
  monkeypatch.setattr(
    type(tiny.AWM),
    "build",
    lambda self, *a: genuine(self, *a)._replace(score=score),
  )
  mesh = make_mesh(devices=jax.devices()[:1])
  compiled = compile_experiment(EXPERIMENT, mesh, root=tmp_path)
  state = compiled.init()
  items = compiled.put(EXPERIMENT.data.source()[np.arange(4)])
  batch = compiled.collect(state, items)
  assert seen == [np.ndarray]
  assert batch.reward.tolist() == list(range(16))
  _, metrics = compiled.update(state, batch)
  assert metrics["reward"].mean().item() == 7.5
