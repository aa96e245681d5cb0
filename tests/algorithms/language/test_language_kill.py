"""A language run, killed where it hurts, ends where an undisturbed one does."""

from __future__ import annotations

import json
import os
import signal

import numpy as np
import pytest

from algorithms.language import deadly
from reliability.runs import Runs, arrays, digest, numbers, saved

pytestmark = pytest.mark.slow

STEPS = 9
# Calls are counted from the start of each process. Two micro-batches of each
# of four updates, each asked twice: the sixth call is well inside of one.
PLANS = [("sampled", 2), ("judged", 2), ("accumulating", 6)]


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
  server = Runs(tmp_path_factory.mktemp("language"))
  yield server
  server.close()


def half_written(workdir):
  return list((workdir / "checkpoints").glob("*tmp*"))


def test_a_killed_run_ends_bit_identical(runs):
  experiment = deadly.experiment()
  whole, workdir = runs.directory / "whole", runs.directory / "killed"
  code, said = runs.run(experiment, whole)
  assert code == 0, said
  updated = [metrics["updated"] for _, _, metrics in numbers(whole)]
  assert 0 in updated
  assert 1 in updated

  for moment, call in PLANS:
    before = saved(workdir)[-1:]
    plan = runs.directory / deadly.PLAN
    plan.write_text(json.dumps({"moment": moment, "call": call}))
    code, said = runs.run(experiment, workdir)
    assert code == -signal.SIGKILL, f"{moment}: {said}"
    assert not plan.exists()
    assert saved(workdir)[-1] < STEPS
    assert saved(workdir)[-1:] >= before
  pid = runs.start(experiment, workdir)
  old = set(half_written(workdir))
  assert runs.until(pid, lambda: set(half_written(workdir)) - old)
  os.kill(pid, signal.SIGKILL)
  assert runs.code() == -signal.SIGKILL
  assert saved(workdir)[-1] < STEPS

  code, said = runs.run(experiment, workdir)
  assert code == 0, said
  assert numbers(workdir) == numbers(whole)
  assert digest(workdir, STEPS) == digest(whole, STEPS)
  mine, theirs = arrays(workdir, STEPS), arrays(whole, STEPS)
  assert mine.keys() == theirs.keys()
  for name in ("waiting", "behaviour", "critic"):
    assert any(name in path for path in mine)
  for name, array in mine.items():
    np.testing.assert_array_equal(array, theirs[name], strict=True)
