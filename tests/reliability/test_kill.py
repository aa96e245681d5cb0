"""Killed at any moment, a run ends where the uninterrupted one does."""

from __future__ import annotations

import os
import random
import signal
import time

import numpy as np
import pytest

from reliability.runs import arrays, digest, numbers, saved
from rl_jax.experiment import Checkpoints, Mesh
from training import tiny

pytestmark = pytest.mark.slow

STEPS = 12
KILLS = 20


def on(mesh):
  """The experiment of this file on a mesh; its hash is the same on all."""
  return tiny.experiment(
    steps=STEPS,
    data=tiny.Prompts(delay=0.01),
    evaluation=tiny.SAMPLES,
    checkpoints=Checkpoints(every=1, keep=2),
    mesh=mesh,
  )


EXPERIMENT = on(Mesh())


def half_written(workdir):
  return list((workdir / "checkpoints").glob("*tmp*"))


def kill_during_save(runs, pid, workdir, rng):
  """Kills once a save that was not there before is half-way."""
  before = set(half_written(workdir))
  if runs.until(pid, lambda: set(half_written(workdir)) - before):
    time.sleep(rng.uniform(0, 0.1))
  os.kill(pid, signal.SIGKILL)


@pytest.fixture(scope="module")
def uninterrupted(runs):
  """Work directories of runs that nobody disturbed, by devices."""

  def undisturbed(devices):
    workdir = runs.directory / f"undisturbed_{devices}"
    if not workdir.exists():
      code, said = runs.run(EXPERIMENT, workdir, devices=devices)
      assert code == 0, said
    return workdir

  return undisturbed


@pytest.mark.parametrize("devices", [1, 8])
def test_killed_run_ends_bit_identical(runs, uninterrupted, devices):
  whole = uninterrupted(devices)
  rng = random.Random(devices)
  killed, inside, starts, workdir = 0, 0, 0, None
  while killed < KILLS or workdir is not None:
    if workdir is None:
      starts += 1
      workdir = runs.directory / f"killed_{devices}_{starts}"
    pid = runs.start(EXPERIMENT, workdir, devices=devices)
    if killed < KILLS and killed % 2:
      kill_during_save(runs, pid, workdir, rng)
    elif killed < KILLS:
      time.sleep(rng.uniform(0.0, 2.5))
      os.kill(pid, signal.SIGKILL)
    code = runs.code()
    assert code in (0, -signal.SIGKILL), runs.log.read_text()
    if code:
      killed += 1
      inside += bool(half_written(workdir))
      continue
    assert saved(workdir) == [STEPS - 1, STEPS]
    assert digest(workdir, STEPS) == digest(whole, STEPS)
    mine, theirs = arrays(workdir, STEPS), arrays(whole, STEPS)
    assert mine.keys() == theirs.keys()
    for name, array in mine.items():
      np.testing.assert_array_equal(array, theirs[name], strict=True)
    assert numbers(workdir) == numbers(whole)
    assert not half_written(workdir), "what killed saves left is cleaned up"
    workdir = None
  assert inside >= KILLS // 4, f"only {inside} of {KILLS} kills hit a save"


def test_a_resume_onto_other_meshes_gives_the_same_curve(runs, uninterrupted):
  """4 steps on 1 device, 4 on 8 that share the rows, 4 on 2 x 2 x 2."""
  workdir = runs.directory / "moving"
  plan = [(1, Mesh()), (8, Mesh()), (8, Mesh(data=2, fsdp=2, tensor=2))]
  for part, (devices, mesh) in enumerate(plan, start=1):
    pid = runs.start(on(mesh), workdir, devices=devices)
    if part < len(plan):
      rows = 5 * part
      assert runs.until(pid, lambda rows=rows: len(numbers(workdir)) >= rows)
      os.kill(pid, signal.SIGTERM)
      assert runs.code() == 128 + signal.SIGTERM, runs.log.read_text()
    else:
      assert runs.code() == 0, runs.log.read_text()
  expected = numbers(uninterrupted(1))
  found = numbers(workdir)
  assert [row[:2] for row in found] == [row[:2] for row in expected]
  for (step, kind, mine), (_, _, theirs) in zip(found, expected, strict=True):
    for name, value in theirs.items():
      # Sums over rows are made in another order on another mesh.
      assert mine[name] == pytest.approx(value, rel=1e-4, abs=1e-5), (
        f"{name} of {kind} {step}"
      )


@pytest.mark.parametrize("moment", ["compiling", "stepping", "saving"])
def test_sigterm_loses_nothing(runs, uninterrupted, moment):
  whole = uninterrupted(1)
  workdir = runs.directory / f"terminated_{moment}"
  pid = runs.start(EXPERIMENT, workdir)
  ready = {
    "compiling": lambda: (workdir / "experiment.json").exists(),
    "stepping": lambda: len(numbers(workdir)) >= 5,
    "saving": lambda: saved(workdir) and half_written(workdir),
  }
  assert runs.until(pid, ready[moment]), runs.log.read_text()
  os.kill(pid, signal.SIGTERM)
  code = runs.code()
  if moment == "compiling":
    assert code in (-signal.SIGTERM, 128 + signal.SIGTERM)
  else:
    # It finished its step, and saved.
    assert code == 128 + signal.SIGTERM, runs.log.read_text()
    assert saved(workdir)[-1] >= numbers(workdir)[-1][0]
    assert not half_written(workdir)
  assert not (workdir / "result.json").exists()
  code, said = runs.run(EXPERIMENT, workdir)
  assert code == 0, said
  assert digest(workdir, STEPS) == digest(whole, STEPS)
  assert numbers(workdir) == numbers(whole)
