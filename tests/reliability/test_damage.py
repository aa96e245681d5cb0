"""A damaged checkpoint, a full disk, a directory that is somebody else's."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import time

import jax
import numpy as np
import pytest

from reliability.runs import arrays, digest, saved
from rl_jax.experiment import Checkpoints, Trained
from rl_jax.launch.run import compile_experiment, train
from rl_jax.launch.workdir import WorkdirError
from rl_jax.training.checkpoints import CheckpointError, Store
from rl_jax.training.sharding import make_mesh
from training import tiny

pytestmark = [
  pytest.mark.slow,
  # What Orbax leaves half read complains when it is collected.
  pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]
EXPERIMENT = tiny.experiment(
  steps=4, evaluation=tiny.SAMPLES, checkpoints=Checkpoints(every=2, keep=3)
)


@pytest.fixture(scope="module")
def intact(tmp_path_factory):
  """Work directory of a finished run, with checkpoints of steps 0, 2, 4."""
  workdir = tmp_path_factory.mktemp("intact") / "run"
  train(EXPERIMENT, workdir=workdir, observers=tiny.watched()[1])
  return workdir


@pytest.fixture(scope="module")
def like(tmp_path_factory):
  """Shapes and places of the state."""
  mesh = make_mesh(devices=jax.devices()[:1])
  root = tmp_path_factory.mktemp("like")
  return compile_experiment(EXPERIMENT, mesh, root=root).abstract_state


def restored(workdir, like, step=None):
  store = Store(workdir / "checkpoints", keep=3, read_only=True)
  try:
    return store.restore(like, step=step)[0]
  finally:
    store.close()


def attempt(workdir, like):
  """The newest state, or None and what was said about it."""
  try:
    return restored(workdir, like), ""
  except CheckpointError as error:
    return None, str(error)


def files(workdir, step):
  path = workdir / "checkpoints" / str(step)
  return sorted(p.relative_to(path) for p in path.rglob("*") if p.is_file())


def flipped(content, rng):
  changed = bytearray(content)
  changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
  return bytes(changed)


def truncated(content, rng):
  return content[: rng.randrange(len(content))]


@pytest.mark.parametrize("harm", [flipped, truncated])
def test_damage_is_refused_by_name_or_harmless(intact, like, tmp_path, harm):
  """Each file of the newest checkpoint in turn, at random places."""
  rng = random.Random(0)
  whole = jax.tree.leaves(restored(intact, like))
  workdir = tmp_path / "run"
  shutil.copytree(intact, workdir)
  refused = 0
  for name in files(intact, 4):
    path = workdir / "checkpoints" / "4" / name
    content = path.read_bytes()
    if not content:
      continue
    path.write_bytes(harm(content, rng))
    found, said = attempt(workdir, like)
    if found is None:
      refused += 1
      assert "checkpoints/4 " in said
      assert "--resume-from 2" in said
    else:
      for mine, theirs in zip(jax.tree.leaves(found), whole, strict=True):
        np.testing.assert_array_equal(mine, theirs, strict=True)
    path.write_bytes(content)
  assert refused >= 4


def test_an_array_that_decodes_but_differs_is_named(intact, like, tmp_path):
  """As if the disk had returned another file's valid content."""
  workdir = tmp_path / "run"
  shutil.copytree(intact, workdir)
  other = intact / "checkpoints" / "2" / "params"
  target = workdir / "checkpoints" / "4" / "params"
  shutil.rmtree(target)
  shutil.copytree(other, target)
  with pytest.raises(CheckpointError, match="damaged: params/first"):
    restored(workdir, like)


def test_resuming_never_falls_back_unless_told(intact, tmp_path):
  workdir = tmp_path / "run"
  shutil.copytree(intact, workdir)
  (workdir / "result.json").unlink()
  # The index of the arrays; without it nothing can be read.
  victim = workdir / "checkpoints" / "4" / "params" / "manifest.ocdbt"
  victim.write_bytes(victim.read_bytes()[:-9])
  recorder, observers = tiny.watched()
  with pytest.raises(CheckpointError, match="--resume-from 2"):
    train(EXPERIMENT, workdir=workdir, observers=observers)
  assert recorder.events == []
  assert saved(workdir) == [0, 2, 4]

  outcome = train(
    EXPERIMENT, workdir=workdir, observers=observers, resume_from=2
  )
  assert outcome.status == "finished"
  assert recorder.events[0] == ("started", 2, 4)
  assert (workdir / "set_aside" / "4").is_dir()
  assert digest(workdir, 4) == digest(intact, 4)


def test_resuming_from_an_older_step_makes_the_result_again(intact, tmp_path):
  """While it runs, no other experiment may take the old result for it."""
  workdir = tmp_path / "run"
  shutil.copytree(intact, workdir)
  there = []

  class Looks(tiny.Recorder):
    def started(self, *, step, steps):
      there.append((workdir / "result.json").exists())

  train(
    EXPERIMENT,
    workdir=workdir,
    observers=lambda experiment, workdir: (Looks(),),
    resume_from=2,
  )
  assert there == [False]
  assert (workdir / "result.json").exists()
  assert digest(workdir, 4) == digest(intact, 4)


def test_resume_from_a_step_that_is_not_there_moves_nothing(intact, tmp_path):
  workdir = tmp_path / "run"
  shutil.copytree(intact, workdir)
  with pytest.raises(
    CheckpointError, match=r"no checkpoint of step 3.*0, 2, 4"
  ):
    train(
      EXPERIMENT,
      workdir=workdir,
      observers=tiny.watched()[1],
      resume_from=3,
    )
  assert saved(workdir) == [0, 2, 4]


def test_running_a_finished_experiment_again_changes_nothing(intact):
  before = (intact / "result.json").read_text()
  outcome = train(EXPERIMENT, workdir=intact, observers=tiny.watched()[1])
  assert outcome.status == "finished"
  assert outcome.evaluation == json.loads(before)["evaluation"]
  assert (intact / "result.json").read_text() == before
  assert saved(intact) == [0, 2, 4]


def test_a_run_that_does_not_fit_is_refused(intact, tmp_path):
  """A checkpoint of another width, in a directory that claims ours."""
  workdir = tmp_path / "run"
  wider = tiny.experiment(
    steps=4, evaluation=tiny.SAMPLES, model=tiny.Field(width=4)
  )
  with pytest.raises(WorkdirError, match=r"model\.width: 8 there, 4 here"):
    train(wider, workdir=intact, observers=tiny.watched()[1])
  shutil.copytree(intact / "checkpoints", workdir / "checkpoints")
  with pytest.raises(CheckpointError, match=r"checkpoints/4 cannot be read"):
    train(wider, workdir=workdir, observers=tiny.watched()[1])


def test_the_message_names_every_field_that_differs(intact):
  other = tiny.experiment(
    steps=5, evaluation=tiny.SAMPLES, seed=3, model=tiny.Field(width=4)
  )
  with pytest.raises(WorkdirError, match="steps: 4 there, 5 here") as caught:
    train(other, workdir=intact, observers=tiny.watched()[1])
  assert "seed: 0 there, 3 here" in str(caught.value)
  assert EXPERIMENT.hash in str(caught.value)
  assert other.hash in str(caught.value)
  assert "--workdir" in str(caught.value)


def test_an_unreadable_experiment_file_is_named(intact, tmp_path):
  workdir = tmp_path / "run"
  shutil.copytree(intact, workdir)
  (workdir / "experiment.json").write_text('{"hash": ')
  with pytest.raises(WorkdirError, match=r"experiment\.json cannot be read"):
    train(EXPERIMENT, workdir=workdir, observers=tiny.watched()[1])


def test_two_processes_cannot_share_a_directory(runs):
  workdir = runs.directory / "shared"
  slow = tiny.experiment(steps=3, data=tiny.Prompts(delay=600.0))
  pid = runs.start(slow, workdir)
  while not (workdir / "experiment.json").exists():
    time.sleep(0.01)
  with pytest.raises(WorkdirError, match="in use by another process"):
    train(slow, workdir=workdir, observers=tiny.watched()[1])
  os.kill(pid, signal.SIGKILL)
  assert runs.code() == -signal.SIGKILL
  # The lock dies with its owner.
  quick = tiny.experiment(steps=3)
  assert quick.hash == slow.hash
  outcome = train(quick, workdir=workdir, observers=tiny.watched()[1])
  assert outcome.status == "finished"


def test_a_missing_stage_is_run_and_a_damaged_one_is_named(tmp_path):
  base = tiny.pretraining(steps=2)
  experiment = tiny.experiment(steps=2, start=Trained(by=base))
  train(experiment, root=tmp_path, observers=tiny.watched()[1])
  names = sorted(p.name for p in tmp_path.iterdir())
  assert names == sorted([f"base-{base.hash}", f"tiny-{experiment.hash}"])
  start = arrays(tmp_path / f"tiny-{experiment.hash}", 0)
  trained = arrays(tmp_path / f"base-{base.hash}", 2)
  for name in ("first", "second"):
    np.testing.assert_array_equal(
      start["params", name], trained["params", name], strict=True
    )

  again, observers = tiny.watched()
  changed = tiny.experiment(steps=3, start=Trained(by=base))
  train(changed, root=tmp_path, observers=observers)
  assert again.events[0] == ("started", 0, 3), "the stage is not run again"

  shutil.rmtree(tmp_path / f"base-{base.hash}" / "checkpoints" / "2" / "params")
  other = tiny.experiment(steps=4, start=Trained(by=base))
  with pytest.raises(CheckpointError, match=f"base-{base.hash}/checkpoints/2"):
    train(other, root=tmp_path, observers=tiny.watched()[1])
