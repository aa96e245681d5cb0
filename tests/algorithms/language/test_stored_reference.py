"""A reference scored once is the reference scored in every step."""

from __future__ import annotations

import dataclasses
import gc

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from algorithms.language import letters, pairs
from algorithms.steps import close, moved
from rl_jax.algorithms.stored_reference import policy_digest
from rl_jax.data import start, take
from rl_jax.data.reference_scores import read_reference
from rl_jax.launch.reference import store_reference
from rl_jax.launch.run import compile_experiment
from rl_jax.training.sharding import make_mesh
from training import tiny

pytestmark = pytest.mark.slow


def experiment(stored=None, rows=4, model=letters.MODEL, **changes):
  """DPO on pairs in another order in each epoch; 3 steps are 1.5 of them."""
  algorithm = dataclasses.replace(pairs.DPO, **changes)
  data = dataclasses.replace(pairs.preferences(rows=rows), shuffle=True)
  data = dataclasses.replace(data, reference=stored)
  return pairs.offline(algorithm, data, model=model)


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
  """All pairs, in three batches of which the last is not full."""
  path = tmp_path_factory.mktemp("stored") / "reference.npz"
  with pytest.MonkeyPatch.context() as patch:
    first = jax.devices()[:1]
    patch.setattr(jax, "devices", lambda *_: first)
    watch = tiny.Recorder()
    done = store_reference(experiment(rows=3), path, observer=watch)
  assert done is None
  assert [event[:2] for event in watch.events] == [
    ("started", 0),
    ("train", 1),
    ("train", 2),
    ("train", 3),
    ("ended", 3),
  ]
  return path


def test_the_file_has_the_sums_of_each_pair(stored):
  found = read_reference(stored)
  data = pairs.preferences()
  items = {k: jnp.asarray(x) for k, x in data.source()[np.arange(8)].items()}
  params = letters.Drawn().params(letters.MODEL)
  for side in ("chosen", "rejected"):
    token, mask = items[side], items[f"{side}_mask"]
    h = letters.MODEL.hidden(params, token, items[f"{side}_segment"])
    z = jax.nn.log_softmax(letters.MODEL.logits(params, h))[:, :-1]
    own = jnp.take_along_axis(z, token[:, 1:, None], axis=2)[..., 0]
    expected = np.where(mask[:, 1:], own, 0.0).sum(axis=1)
    np.testing.assert_allclose(getattr(found, side), expected, rtol=1e-5)
    np.testing.assert_array_equal(
      getattr(found, f"{side}_tokens"), mask.sum(axis=1)
    )
  assert found.data == data.source().digest
  assert found.policy == policy_digest(letters.MODEL, params)


def trained(run):
  """Parameters and metrics after each of 3 steps, away from the reference.

  At the reference all margins are zero, and rounding says which is positive.
  """
  made = letters.Begun(run)
  params = moved(made.state.params, 0.1)
  state, cursor, found = made.state._replace(params=params), start(), []
  source = run.data.source()
  for _ in range(3):
    index, cursor = take(8, cursor, rows=4, seed=1, shuffle=True)
    state, metrics = made.step(state, source[index])
    found.append((state.params, metrics))
  return made.parts, found


@pytest.mark.parametrize(
  ("model", "changes"),
  [
    (letters.MODEL, {}),
    (letters.MODEL, {"averaged": True, "imitation": 0.25, "micro_batches": 2}),
    (letters.LORA, {"updates": 2}),
    (letters.LORA, {"averaged": True}),
  ],
  ids=["sums", "means", "lora-sums", "lora-means"],
)
def test_training_is_the_same(stored, model, changes):
  asked, expected = trained(experiment(model=model, **changes))
  parts, found = trained(experiment(f"{stored}", model=model, **changes))
  for (params, metrics), (others, numbers) in zip(found, expected, strict=True):
    close(params, others, rtol=1e-5, atol=1e-6)
    assert metrics.keys() == numbers.keys()
    for name, value in numbers.items():
      assert metrics[name] == pytest.approx(value, rel=1e-5, abs=1e-6), name
  assert expected[-1][1]["margin"] > 0
  # Nothing is asked, and nothing that could be is held.
  assert asked.signals is not None
  assert parts.signals is None
  assert asked.frozen.keys() - parts.frozen.keys() == (
    {"reference"} if model is letters.MODEL else set()
  )
  assert parts.first_step == asked.first_step


def tables(run):
  """How many arrays as large as the embedding a run holds after its start."""

  def places():
    gc.collect()
    shape = (letters.WORDS.size, letters.BIGRAM.width)
    live = [x for x in jax.live_arrays() if x.shape == shape]
    return {x.addressable_data(0).unsafe_buffer_pointer() for x in live}

  before, first = places(), jax.devices()[:1]
  compiled = compile_experiment(run, make_mesh(devices=first), root="runs")
  state = compiled.init()
  found = places() - before
  assert state.params["embedding"].is_deleted() is False
  return len(found)


def test_no_second_tree_is_held(tmp_path):
  """Parameters and two moments, each with an embedding and an output."""
  plain = experiment(model=letters.BIGRAM, rows=8)
  path = tmp_path / "bigram.npz"
  store_reference(plain, path, observer=tiny.Recorder())
  run = experiment(f"{path}", model=letters.BIGRAM, rows=8)
  assert tables(run) == 6
  assert tables(plain) == 8


def build(run, load=None):
  load = load or letters.load_for(run.model)
  return run.algorithm.build(run, load)


@pytest.mark.parametrize(
  "changes",
  [
    {"start": letters.Drawn(seed=8)},
    {"model": dataclasses.replace(letters.MODEL, norm_epsilon=1e-5)},
    {"model": dataclasses.replace(letters.MODEL, dtype="bfloat16")},
    {"model": dataclasses.replace(letters.LORA, soft_cap=30.0)},
  ],
)
def test_another_start_is_refused(stored, changes):
  run = dataclasses.replace(experiment(f"{stored}"), **changes)
  with pytest.raises(ValueError, match=r"is of another policy \(digest \w{12}"):
    build(run)


def test_how_the_policy_is_computed_and_changed_is_free(stored):
  for changes in ({"scan": False}, {"remat": "all"}, {"context": 64}):
    model = dataclasses.replace(letters.LORA, **changes)
    build(experiment(f"{stored}", model=model))


def test_every_bit_of_the_parameters_counts():
  params = letters.Drawn().params(letters.BIGRAM)
  own = policy_digest(letters.BIGRAM, params)
  for name, x in params.items():
    bits = np.array(x).view(np.uint32)
    bits[1, 2] ^= 1
    other = policy_digest(
      letters.BIGRAM, params | {name: bits.view(np.float32)}
    )
    assert other != own
  half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), params)
  assert policy_digest(letters.BIGRAM, half) != own


def test_compiling_from_shapes_reads_no_file():
  run = experiment("nowhere.npz")
  shapes = jax.eval_shape(letters.MODEL.init, jax.random.key(0))
  parts = build(run, lambda start: shapes)
  assert parts.frozen == {}
  with pytest.raises(
    ValueError, match=r"there is no nowhere\.npz: `rl-jax ref"
  ):
    build(run)


def test_a_file_that_nothing_would_read_is_refused(stored):
  with pytest.raises(ValueError, match="is of no use where reference = False"):
    build(experiment(f"{stored}", reference=False))


def test_a_reward_model_has_no_reference(stored):
  run = dataclasses.replace(
    experiment(f"{stored}", model=letters.VALUES), algorithm=pairs.RANKING
  )
  with pytest.raises(ValueError, match="is of no use to a reward model"):
    build(run)


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"algorithm": pairs.TUNING}, "letters trains by FineTuning: only"),
    (
      {"algorithm": dataclasses.replace(pairs.DPO, reference=False)},
      "letters has no reference",
    ),
    ({"data": pairs.demonstrations()}, "reads Demonstrations, not Preferences"),
    ({"start": letters.Scratch()}, "a random one says nothing"),
    (
      {"data": pairs.preferences(rows=3)},
      "a batch of 3 rows does not split over 8 devices",
    ),
  ],
)
def test_what_cannot_be_scored_is_refused(tmp_path, changes, message):
  run = dataclasses.replace(experiment(rows=8), **changes)
  with pytest.raises(ValueError, match=message):
    store_reference(run, tmp_path / "x.npz", observer=tiny.Recorder())
  assert list(tmp_path.iterdir()) == []


@dataclasses.dataclass(frozen=True, kw_only=True)
class Damaged:
  """Parameters that make what follows a "d" not a number."""

  def params(self, model):
    found = letters.Drawn().params(model)
    row = letters.WORDS.load().id("d")
    return found | {"embedding": found["embedding"].at[row].set(jnp.nan)}


def test_what_is_not_finite_is_not_written(tmp_path):
  run = experiment(rows=8, model=letters.BIGRAM)
  run = dataclasses.replace(run, start=Damaged())
  watch = tiny.Recorder()
  message = r"says nan of the chosen answer of pair 3: its parameters"
  with pytest.raises(ValueError, match=message):
    store_reference(run, tmp_path / "x.npz", observer=watch)
  assert watch.outcome.status == "failed"
  assert list(tmp_path.iterdir()) == []


def test_nothing_is_overwritten(stored):
  whole = stored.read_bytes()
  with pytest.raises(ValueError, match=r"is there already: remove it, or name"):
    store_reference(experiment(), stored, observer=tiny.Recorder())
  assert stored.read_bytes() == whole
