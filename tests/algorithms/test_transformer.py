"""The same step serves a transformer, and a large one as shapes alone."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from algorithms.steps import first, program
from rl_jax.launch.run import compile_experiment
from rl_jax.models import FlowTransformer
from rl_jax.training.sharding import make_mesh, state_sharding
from training import tiny

pytestmark = pytest.mark.slow

SMALL = FlowTransformer(
  height=4,
  width_pixels=4,
  channels=1,
  width=8,
  layers=2,
  heads=2,
  mlp_ratio=2,
  classes=2,
)
LARGE = dataclasses.replace(
  SMALL,
  height=64,
  width_pixels=64,
  channels=16,
  width=1024,
  layers=24,
  heads=16,
  mlp_ratio=4,
  remat=True,
)
AWM = dataclasses.replace(tiny.AWM, base_weight=0.1, micro_batches=2)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bright:
  """The mean of a sample."""

  judge: None = None

  def bind(self, model):
    def reward(params, sample, condition):
      return jnp.mean(sample.reshape(sample.shape[0], -1), axis=-1)

    return reward


def on(model):
  return tiny.experiment(algorithm=AWM, model=model, reward=Bright())


def test_a_step_changes_every_part_of_a_transformer():
  """Two steps: gates start at zero and let the first reach only the head."""
  parts, state, batch = first(on(SMALL))
  assert batch.sample.shape == (16, 4, 4, 1)
  update = jax.jit(parts.update)
  before, norms = state.params, []
  for _ in range(3):
    state, metrics = update(state, parts.frozen, batch)
    norms.append(float(metrics["gradient_norm"].mean()))
  assert all(np.isfinite(norms))
  assert min(norms) > 0
  same = jax.tree.map(lambda a, b: bool((a == b).all()), before, state.params)
  kept = [path for path, v in jax.tree.leaves_with_path(same) if v]
  assert not kept, f"untouched: {kept}"


def test_a_large_one_is_lowered_without_an_array():
  parts = program(on(LARGE))
  shapes = jax.eval_shape(parts.init, jax.random.key(0), None)
  count = sum(math.prod(x.shape) for x in jax.tree.leaves(shapes.params))
  assert count > 3e8
  mesh = make_mesh(data=2, fsdp=2, tensor=2)
  placed = jax.tree.map(
    lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
    shapes,
    state_sharding(shapes, parts.params_axes, mesh),
  )
  items = {"condition": jax.ShapeDtypeStruct((4,), jnp.int32)}
  batch = jax.eval_shape(parts.collect, shapes, parts.frozen, items)
  with jax.set_mesh(mesh):
    lowered = jax.jit(parts.update, donate_argnums=0).lower(
      placed, parts.frozen, batch
    )
  assert "sharding" in lowered.as_text()
  largest = max((x.nbytes for x in jax.live_arrays()), default=0)
  assert largest < 64 * 2**20


def test_the_compiled_program_takes_a_step_on_a_mesh(tmp_path):
  """With a mesh in scope, as in a run: names of axes are no mesh axes."""
  experiment = on(SMALL)
  mesh = make_mesh(data=2, fsdp=2, tensor=2)
  compiled = compile_experiment(experiment, mesh, root=tmp_path)
  items = compiled.put(experiment.data.source()[np.arange(4)])
  state = compiled.init()
  state, metrics = compiled.update(state, compiled.collect(state, items))
  assert np.isfinite(metrics["gradient_norm"].mean())
  assert int(state.step) == 1
