"""A program on a mesh: the same numbers on every one, donated, whole."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

from rl_jax.data.source import start, take
from rl_jax.launch.run import compile_experiment, train
from rl_jax.reduce import Total
from rl_jax.training.compiled import Compiled
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


def with_parts(**changes):
  """The program of the experiment, with some of its functions replaced."""
  program = EXPERIMENT.algorithm.build(EXPERIMENT, None)
  return program._replace(**changes)


def compiled_of(program, mesh=None, start=None):
  mesh = mesh or make_mesh(devices=jax.devices()[:1])
  one = EXPERIMENT.data.source()[np.zeros(4, np.int64)]
  items = {
    name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in one.items()
  }
  return Compiled(program, mesh, start=start, items=items, seed=0)


def test_signals_see_the_batch_before_it_is_scored_and_go_with_it():
  """They are begun first: the devices work on them while the host scores."""
  plain, order = with_parts(), []

  def signals(state, frozen, batch):
    jax.debug.callback(lambda: order.append("signals"))
    return {"double": 2 * batch.reward, "step": batch.reward * 0 + state.step}

  def score(batch):
    jax.effects_barrier()
    order.append("score")
    return batch._replace(reward=batch.reward + 1)

  def update(state, frozen, batch):
    rollouts, more = batch
    state, metrics = plain.update(state, frozen, rollouts)
    gap = Total.of(more["double"] - 2 * (rollouts.reward - 1))
    return state, {**metrics, "gap": gap, "at": Total.of(more["step"])}

  program = plain._replace(signals=signals, score=score, update=update)
  compiled = compiled_of(program)
  state = compiled.init()
  batch = compiled.collect(state, compiled.put(items_of(4)))
  assert order == ["signals", "score"]
  rollouts, more = batch
  assert rollouts.reward.sharding == more["double"].sharding
  state, metrics = compiled.update(state, batch)
  assert abs(metrics["gap"].mean()) < 1e-6
  _, metrics = compiled.update(
    state, compiled.collect(state, compiled.put(items_of(4)))
  )
  assert metrics["at"].mean() == 1.0


def items_of(rows):
  return EXPERIMENT.data.source()[np.arange(rows)]


def test_frozen_arrays_are_split_as_their_names_say():
  """And are whole on all devices where there are no names."""
  program = with_parts()
  extra = {"kernel": np.ones((4, 8), np.float32), "bias": np.ones(3)}
  plain = program.evaluate

  def evaluate(state, frozen):
    metrics, pictures = plain(state, frozen["own"])
    used = Total.of(frozen["extra"]["kernel"])
    return {**metrics, "used": used}, pictures

  given = program._replace(
    frozen={"own": program.frozen, "extra": extra},
    collect=lambda state, frozen, items: program.collect(
      state, frozen["own"], items
    ),
    evaluate=evaluate,
  )
  mesh = make_mesh(data=1, fsdp=2, tensor=4)
  whole = jax.tree.map(lambda x: (None,) * x.ndim, program.frozen)
  names = {"kernel": ("embed", "mlp"), "bias": ("mlp",)}
  split = given._replace(frozen_axes={"own": whole, "extra": names})
  for made, shape in ((given, (4, 8)), (split, (2, 2))):
    compiled = compiled_of(made, mesh)
    kernel = compiled.frozen["extra"]["kernel"]
    assert kernel.addressable_shards[0].data.shape == shape
    # 3 does not divide over 4 devices.
    bias = compiled.frozen["extra"]["bias"]
    assert bias.addressable_shards[0].data.shape == (3,)
  metrics, _ = compiled.evaluate(compiled.init())
  assert metrics["used"].mean() == 1.0


def test_frozen_arrays_outlive_the_state_that_began_as_they_are():
  """The start is both: what is trained is donated, what is frozen stays."""
  start = tiny.Field().init(jax.random.key(1))
  program = with_parts()
  mine = program._replace(
    frozen={"own": program.frozen, "reference": start},
    collect=lambda state, frozen, items: program.collect(
      state, frozen["own"], items
    ),
    evaluate=None,
  )
  compiled = compiled_of(mine, start=start)
  state = compiled.init()
  before = jax.device_get(start)
  for _ in range(2):
    batch = compiled.collect(state, compiled.put(items_of(4)))
    state, _ = compiled.update(state, batch)
  for arrays in (start, compiled.frozen["reference"]):
    for mine, theirs in zip(
      jax.tree.leaves(arrays), jax.tree.leaves(before), strict=True
    ):
      np.testing.assert_array_equal(mine, theirs)


def test_inspection_is_left_to_the_loop():
  def inspect(metrics, pictures):
    raise AssertionError("nobody asked")

  compiled = compiled_of(with_parts(inspect=inspect))
  assert compiled.inspect is inspect
  metrics, _ = compiled.evaluate(compiled.init())
  assert "evaluation/reward" in metrics


def test_what_inspection_says_is_what_is_measured(tmp_path, monkeypatch):
  """On the host: metrics, pictures and texts are those that it returns."""

  def inspect(metrics, pictures):
    assert all(isinstance(x, np.ndarray) for x in jax.tree.leaves(metrics))
    one = np.ones((), np.float32)
    told = {"evaluation/told": Total(5 * one, 2 * one)}
    return told, {}, ({"prompt": "p", "completion": "c"},)

  genuine = type(tiny.AWM).build
  monkeypatch.setattr(
    type(tiny.AWM),
    "build",
    lambda self, *a: genuine(self, *a)._replace(inspect=inspect),
  )
  first = jax.devices()[:1]
  monkeypatch.setattr(jax, "devices", lambda *_: first)
  recorder, observers = tiny.watched()
  experiment = dataclasses.replace(EXPERIMENT, steps=1)
  outcome = train(experiment, root=tmp_path, observers=observers)
  assert outcome.evaluation == {"evaluation/told": 2.5}
  shown = [row for row in recorder.rows if row.kind == "evaluation"]
  assert [row.texts[0]["completion"] for row in shown] == ["c", "c"]
  assert not any(row.texts for row in recorder.rows if row.kind == "train")
