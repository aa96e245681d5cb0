"""Eight simulated devices are one: the same tokens, the same update."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

from algorithms.language import letters
from algorithms.steps import close
from experiments import recipes
from rl_jax.algorithms import Critic
from rl_jax.data.source import start, take
from rl_jax.launch.run import compile_experiment
from rl_jax.training.sharding import make_mesh

pytestmark = pytest.mark.slow

# Vocabulary and heads that do not divide stay whole; the rest is split.
FULL = letters.experiment(
  dataclasses.replace(
    letters.GRPO,
    recipe=recipes.ppo,
    critic=Critic(model=letters.VALUES, optimiser=letters.OPTIMISER),
    reference=True,
    minibatches=2,
    micro_batches=1,
    refill=True,
  ),
  model=letters.MODEL,
  start=letters.Drawn(),
)


def after(mesh, tmp_path, steps=2):
  compiled = compile_experiment(FULL, mesh, root=tmp_path)
  state, cursor, source = compiled.init(), start(), FULL.data.source()
  tokens = []
  for _ in range(steps):
    indices, cursor = take(
      len(source), cursor, rows=FULL.data.rows, seed=0, shuffle=False
    )
    batch = compiled.collect(state, compiled.put(source[indices]))
    tokens.append(jax.device_get(batch[0].token))
    state, metrics = compiled.update(state, batch)
  assert float(metrics["updated"].mean()) == 1.0
  return compiled, tokens, jax.device_get(state), letters.means(metrics)


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
  mesh = make_mesh(devices=jax.devices()[:1])
  return after(mesh, tmp_path_factory.mktemp("alone"))[1:]


@pytest.mark.parametrize("sizes", [(8, 1, 1), (2, 2, 2)])
def test_a_mesh_changes_nothing(alone, tmp_path, sizes):
  mesh = make_mesh(**dict(zip(("data", "fsdp", "tensor"), sizes, strict=True)))
  compiled, tokens, state, metrics = after(mesh, tmp_path)
  np.testing.assert_array_equal(tokens, alone[0])
  close(state, alone[1], rtol=1e-4, atol=1e-5)
  close(metrics, alone[2], rtol=1e-4, atol=1e-5)
  frozen = compiled.frozen["reference"]["blocks"]["up"]
  if sizes == (2, 2, 2):
    # The frozen weights, the critic's body and the moments are split too.
    assert frozen.addressable_shards[0].data.shape == (1, 8, 8)
    body = compiled.state_sharding.memory["critic"]["params"]["body"]
    assert body["blocks"]["up"] == frozen.sharding
