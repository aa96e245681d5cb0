"""Starting from runs that trained a low-rank change: it is added in."""

from __future__ import annotations

import dataclasses
import shutil
from functools import partial
from pathlib import Path

import jax
import numpy as np
import pytest

pytest.importorskip("tokenizers", reason="needs the extra `language`")

from launch.test_policies import (
  ADAPTED,
  DIGITS,
  MODEL,
  drawn,
  experiment,
  same,
  write_run,
)
from rl_jax import algorithms, data, losses
from rl_jax.experiment import Checkpoint, Scratch, Trained
from rl_jax.launch.files import FileError
from rl_jax.launch.policies import load_policy
from rl_jax.launch.run import build_program, train
from rl_jax.launch.workdir import find
from rl_jax.models import Lora
from rl_jax.training.optimisers import AdamW
from training import tiny

pytestmark = pytest.mark.slow

BASE = experiment()
OPTIMISER = AdamW(learning_rate=0.05)
CHANGE = drawn(ADAPTED.init_adapter, 5)
WHOLE = ADAPTED.merged(drawn(MODEL.init, 4), CHANGE)
WIDER = dataclasses.replace(MODEL, mlp=16)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Given:
  """Starts from drawn parameters, as if they had been read."""

  def params(self, model):
    return drawn(model.init, 4)


def adapted(start, **changes):
  """A run that trained a change of something."""
  return experiment(ADAPTED, name="adapted", start=start, **changes)


FIRST = adapted(Trained(by=BASE))


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
  """runs/ with a base, a change of it, and a change of that."""
  path = tmp_path_factory.mktemp("adapted") / "runs"
  second = adapted(Trained(by=FIRST), seed=1)
  for run, *saved in (
    (BASE, (4, drawn(MODEL.init, 4))),
    (FIRST, (2, drawn(ADAPTED.init_adapter, 6)), (4, CHANGE)),
    (second, (4, drawn(ADAPTED.init_adapter, 7))),
  ):
    write_run(path / f"{run.name}-{run.hash}", run, *saved)
  return path


def begun(run, root):
  """The program and what it starts from."""
  return build_program(dataclasses.replace(run, evaluation=None), root=root)


def test_the_result_of_an_adapted_run_is_merged(root) -> None:
  run = experiment(start=Trained(by=FIRST), name="whole")
  program, start = begun(run, root)
  same(start, WHOLE)
  same(start, load_policy(f"{find(FIRST, root)}").params)
  same(program.init(jax.random.key(0), start).params, WHOLE)


@pytest.mark.parametrize("step", [None, 4, 2])
def test_so_is_any_of_its_checkpoints(root, step) -> None:
  workdir = f"{find(FIRST, root)}"
  run = experiment(start=Checkpoint(path=workdir, step=step), name="whole")
  _, start = begun(run, Path("elsewhere"))
  same(start, load_policy(workdir, step=step).params)


def test_a_change_of_the_merged_is_of_what_was_merged(root) -> None:
  second = adapted(Trained(by=FIRST), seed=1)
  program, _ = begun(second, root)
  same(program.frozen["base"], WHOLE)
  _, start = begun(experiment(start=Trained(by=second), name="whole"), root)
  own = drawn(ADAPTED.init_adapter, 7)
  same(start, ADAPTED.merged(WHOLE, own))
  same(start, load_policy(f"{find(second, root)}").params)


@pytest.mark.parametrize("kind", ["trained", "checkpoint"])
def test_another_model_is_refused(root, kind) -> None:
  starts = {
    "trained": Trained(by=FIRST),
    "checkpoint": Checkpoint(path=f"{find(FIRST, root)}"),
  }
  message = (
    r"is of another model: its blocks/down has shape \(2, 8, 8\), and the"
    r" model that it is for has \(2, 16, 8\) \(3 of 11 arrays differ\)"
  )
  for model in (
    WIDER,
    dataclasses.replace(WIDER, lora=Lora(rank=1, alpha=1.0)),
  ):
    run = experiment(model, start=starts[kind], name="whole")
    with pytest.raises(ValueError, match=message):
      begun(run, root)


def test_a_change_of_other_weights_is_refused(tmp_path) -> None:
  """Of a run whose file says another model than what it began with."""
  wide = experiment(WIDER)
  root = tmp_path / "runs"
  write_run(root / f"w-{wide.hash}", wide, (4, drawn(WIDER.init, 1)))
  run = adapted(Trained(by=wide))
  write_run(root / f"a-{run.hash}", run, (4, CHANGE))
  message = r"what .*a-\w{12} started from is of another model: its blocks/down"
  with pytest.raises(ValueError, match=message):
    begun(experiment(start=Trained(by=run), name="whole"), root)


def test_a_base_that_is_gone_is_named(root, tmp_path) -> None:
  workdir = find(FIRST, root)
  shutil.copytree(workdir, tmp_path / workdir.name)
  for start in (
    Trained(by=FIRST),
    Checkpoint(path=f"{tmp_path / workdir.name}"),
  ):
    with pytest.raises(FileError, match=r"change of the result of sums .* in"):
      begun(experiment(start=start, name="whole"), tmp_path)
  # It is looked for beside the run, too.
  start = Checkpoint(path=f"{workdir}")
  begun(experiment(start=start, name="whole"), tmp_path)


def test_a_change_of_nothing_is_named(tmp_path) -> None:
  write_run(tmp_path / "run", adapted(Scratch()), (4, CHANGE))
  start = Checkpoint(path=f"{tmp_path / 'run'}")
  with pytest.raises(FileError, match="trained a low-rank change of nothing"):
    begun(experiment(start=start), tmp_path)


def pairs():
  return data.Preferences(
    rows=2,
    pairs=(("1+1=", "2", "3"), ("2+2=", "4", "22")),
    vocabulary=DIGITS,
    length=8,
    identical="refuse",
  )


def test_a_run_goes_on_from_an_adapted_one(tmp_path, monkeypatch) -> None:
  """Adapters for two steps, then all weights, and adapters on top of them."""
  first = jax.devices()[:1]
  monkeypatch.setattr(jax, "devices", lambda *_: first)
  root = tmp_path / "runs"
  preference = algorithms.PreferenceOptimisation(
    loss=partial(losses.logistic_preference_loss, beta=0.5),
    beta=0.5,
    optimiser=OPTIMISER,
  )
  settings = {
    "data": pairs(),
    "algorithm": preference,
    "evaluation": None,
  }
  lora = adapted(Given(), steps=2, **settings)
  train(lora, root=root, observers=tiny.watched()[1])
  exported = load_policy(f"{find(lora, root)}").params
  base = drawn(MODEL.init, 4)
  assert not np.array_equal(
    exported["blocks"]["query"], base["blocks"]["query"]
  )
  for name in ("embedding", "final_norm"):
    same(exported[name], base[name])
  for model in (MODEL, ADAPTED):
    run = experiment(model, start=Trained(by=lora), **settings | {"steps": 1})
    program, start = build_program(run, root=root)
    same(start, exported)
    kept = "base" if model is ADAPTED else "reference"
    same(program.frozen[kept], exported)
    recorder, observers = tiny.watched()
    train(run, root=root, observers=observers)
    (row,) = [row for row in recorder.rows if row.kind == "train"]
    # exp of the log-ratio to what it started from is one.
    assert row.metrics["chosen_reward"] == 0.0
    assert row.metrics["rejected_reward"] == 0.0
