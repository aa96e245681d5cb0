"""Policies by name: runs, with and without LoRA, folders, and refusals."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax import algorithms, data, environments, evaluation
from rl_jax.experiment import Checkpoint, Experiment, Trained, to_dict
from rl_jax.launch.files import FileError
from rl_jax.launch.policies import find_policy, load_policy
from rl_jax.models import Attention, Characters, Decoder, Lora
from rl_jax.sampling import Autoregressive
from rl_jax.training.checkpoints import CheckpointError, Store
from rl_jax.training.optimisers import AdamW
from rl_jax.training.state import State

pytestmark = pytest.mark.slow

pytest.importorskip("tokenizers", reason="needs the extra `language`")

FIXTURES = Path(__file__).parents[1] / "models" / "fixtures"
DIGITS = Characters(alphabet="0123456789+= ")
MODEL = Decoder(
  vocabulary=DIGITS.size,
  width=8,
  layers=2,
  mlp=8,
  attention=Attention(heads=2, features=4),
  context=32,
)
ADAPTED = dataclasses.replace(MODEL, lora=Lora(rank=2, alpha=4.0))
DATA = data.Prompts(
  task=environments.Sums(rows=2, digits=1, length=4),
  vocabulary=DIGITS,
  length=8,
  wording=data.Plain(prefill=" "),
)
SAMPLER = Autoregressive(length=3, end=(13,))


def experiment(model=MODEL, **changes) -> Experiment:
  own = {
    "name": "sums",
    "model": model,
    "data": DATA,
    "algorithm": algorithms.FineTuning(
      optimiser=AdamW(learning_rate=1e-3),
    ),
    "evaluation": evaluation.TextSamples(
      data=DATA, sampler=SAMPLER, prompts=2, reward=None
    ),
    "steps": 4,
  }
  return Experiment(**(own | changes))


def write_run(workdir: Path, run: Experiment, *checkpoints) -> Path:
  """What a run leaves of itself: (step, what is trained) each."""
  workdir.mkdir(parents=True)
  stored = {"experiment": to_dict(run), "hash": run.hash, "command": ["x"]}
  (workdir / "experiment.json").write_text(json.dumps(stored))
  store = Store(workdir / "checkpoints", keep=9)
  for step, params in checkpoints:
    zero = jnp.zeros((), jnp.int32)
    state = State(zero, zero, jnp.zeros(2, jnp.uint32), params, zero, {})
    store.save(step, state, {})
  store.wait()
  store.close()
  return workdir


def drawn(init, seed: int):
  """Parameters of which none is zero."""
  shapes = jax.eval_shape(init, jax.random.key(0))
  draw = np.random.RandomState(seed)
  return jax.tree.map(
    lambda x: jnp.asarray(draw.normal(size=x.shape), x.dtype), shapes
  )


def same(left, right) -> None:
  jax.tree.map(np.testing.assert_array_equal, left, right)


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
  """runs/ with a base, and changes of it from each kind of start."""
  root = tmp_path_factory.mktemp("root") / "runs"
  base = experiment()
  write_run(
    root / f"sums-{base.hash}",
    base,
    (2, drawn(MODEL.init, 2)),
    (4, drawn(MODEL.init, 4)),
  )
  adapter = drawn(ADAPTED.init_adapter, 5)
  starts = {
    "trained": Trained(by=base),
    "checkpoint": Checkpoint(path=f"{root / f'sums-{base.hash}'}", step=2),
    "lost": Trained(by=experiment(seed=7)),
  }
  for name, start in starts.items():
    run = experiment(ADAPTED, name=name, start=start)
    write_run(root / name, run, (1, adapter))
  return root


def test_a_run_brings_its_words_and_its_sampler(runs) -> None:
  name = f"{runs / f'sums-{experiment().hash}'}"
  policy = load_policy(name)
  same(policy.params, drawn(MODEL.init, 4))
  assert policy.model == MODEL
  assert policy.wording == DATA.wording
  assert policy.sampler == SAMPLER
  assert policy.tokenizer is DIGITS.load()
  same(load_policy(name, step=2).params, drawn(MODEL.init, 2))


@pytest.mark.parametrize(("name", "seed"), [("trained", 4), ("checkpoint", 2)])
def test_a_low_rank_change_is_added_to_what_it_is_of(runs, name, seed) -> None:
  policy = load_policy(f"{runs / name}")
  assert policy.model == MODEL
  adapter = drawn(ADAPTED.init_adapter, 5)
  expected = ADAPTED.merged(drawn(MODEL.init, seed), adapter)
  same(policy.params, expected)


def test_a_change_of_what_is_not_there_is_refused(runs) -> None:
  with pytest.raises(FileError, match=r"low-rank change of the result of sums"):
    load_policy(f"{runs / 'lost'}")


def test_precision_is_that_which_is_asked_for(runs) -> None:
  name = f"{runs / f'sums-{experiment().hash}'}"
  policy = load_policy(name, dtype="bfloat16")
  assert policy.model.dtype == "bfloat16"
  assert {x.dtype.name for x in jax.tree.leaves(policy.params)} == {"bfloat16"}


def test_a_missing_step_names_those_there_are(runs) -> None:
  with pytest.raises(CheckpointError, match=r"step 3 .* there are \[2, 4\]"):
    load_policy(f"{runs / f'sums-{experiment().hash}'}", step=3)


def test_what_trains_no_text_is_refused(tmp_path) -> None:
  run = experiment(model=SAMPLER, data=1)
  write_run(tmp_path / "run", run)
  with pytest.raises(
    FileError, match=r"its model is rl_jax\..*:Autoregressive and its"
  ):
    load_policy(f"{tmp_path / 'run'}")


def test_a_run_that_saved_nothing_says_so(tmp_path) -> None:
  write_run(tmp_path / "run", experiment())
  with pytest.raises(FileError, match="has no checkpoint yet"):
    load_policy(f"{tmp_path / 'run'}")


@pytest.mark.parametrize(
  ("content", "message"),
  [
    ("{", "is not what a run wrote"),
    ("[]", "is not what a run wrote"),
    ('{"experiment": 3, "command": []}', "is not what a run wrote"),
    (
      '{"experiment": {"fields": {"model": {"type": "gone:X", "fields": {}}}},'
      ' "command": []}',
      "model: cannot import 'gone:X'",
    ),
  ],
)
def test_a_damaged_experiment_is_named(tmp_path, content, message) -> None:
  (tmp_path / "experiment.json").write_text(content)
  with pytest.raises(FileError, match=message) as caught:
    load_policy(f"{tmp_path}")
  assert "experiment.json" in str(caught.value)


def test_components_are_found_where_the_command_was_given(
  tmp_path, monkeypatch
) -> None:
  """An experiment file of one's own, in a package, used from elsewhere."""
  monkeypatch.setattr("sys.path", [*__import__("sys").path])
  package = tmp_path / "mine_policies"
  package.mkdir()
  (package / "__init__.py").write_text("")
  (package / "file.py").write_text(
    "import dataclasses\n"
    "@dataclasses.dataclass(frozen=True)\n"
    "class Mine:\n  pass\n"
  )
  run = experiment()
  write_run(tmp_path / "run", run, (1, drawn(MODEL.init, 1)))
  path = tmp_path / "run" / "experiment.json"
  stored = json.loads(path.read_text())
  mine = {"type": "mine_policies.file:Mine", "fields": {}}
  stored["experiment"]["fields"]["data"]["fields"]["wording"] = mine
  stored["command"] = ["rl-jax", "train", f"{package / 'file.py'}"]
  path.write_text(json.dumps(stored))
  wording = load_policy(f"{tmp_path / 'run'}").wording
  assert type(wording).__name__ == "Mine"


def test_what_only_training_needs_may_be_gone(tmp_path) -> None:
  """A judge in the script that called `train` is in no module afterwards."""
  run = experiment()
  write_run(tmp_path / "run", run, (1, drawn(MODEL.init, 1)))
  path = tmp_path / "run" / "experiment.json"
  stored = json.loads(path.read_text())
  for name in ("reward", "algorithm"):
    stored["experiment"]["fields"][name] = {"name": "__main__:gone"}
  path.write_text(json.dumps(stored))
  same(load_policy(f"{tmp_path / 'run'}").params, drawn(MODEL.init, 1))


@pytest.mark.parametrize(
  ("make", "message"),
  [
    (lambda path: None, "does not exist: name the work directory of a run"),
    (lambda path: path.mkdir(), "is neither the work directory of a run"),
    (lambda path: path.write_text(""), "is no GGUF file"),
  ],
)
def test_what_is_nothing_is_refused(tmp_path, make, message) -> None:
  make(tmp_path / "x")
  with pytest.raises(FileError, match=message):
    find_policy(f"{tmp_path / 'x'}")


def test_a_checkpoint_itself_gets_advice(runs) -> None:
  run = runs / "trained"
  with pytest.raises(FileError, match=f"is a checkpoint: {run} --step 1"):
    find_policy(f"{run / 'checkpoints' / '1'}")


def test_public_weights_have_no_steps_and_may_be_broken(tmp_path) -> None:
  pytest.importorskip("safetensors", reason="needs the extra `language`")
  folder = f"{FIXTURES / 'llama'}"
  with pytest.raises(FileError, match="--step 3 is for work directories"):
    load_policy(folder, step=3)
  with pytest.raises(FileError, match=r"llama cannot be used: .*tokenizer"):
    load_policy(folder)
  (tmp_path / "config.json").write_text("{")
  with pytest.raises(FileError, match="cannot be used: "):
    load_policy(f"{tmp_path}")


def test_a_broken_file_is_one_message(tmp_path) -> None:
  pytest.importorskip("gguf", reason="needs the extra `language`")
  (tmp_path / "x.gguf").write_bytes(b"nothing of the kind")
  with pytest.raises(FileError, match=r"x\.gguf cannot be used: "):
    load_policy(f"{tmp_path / 'x.gguf'}")
