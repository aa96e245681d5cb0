"""A disk that fills up during a save: one clear error, nothing lost."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest

from reliability.runs import digest, numbers, saved
from rl_jax.experiment import Checkpoints
from training import tiny

pytestmark = pytest.mark.slow

STEPS = 6
EXPERIMENT = tiny.experiment(
  steps=STEPS,
  # Large enough that a parameter's file is larger than any record.
  model=tiny.Field(width=8192),
  data=tiny.Prompts(delay=0.1),
  checkpoints=Checkpoints(every=2, keep=3),
)
FILE = '''"""A run on a small disk."""

from reliability.test_full_disk import EXPERIMENT as experiment
'''


@pytest.fixture
def command(tmp_path):
  path = tmp_path / "small_disk.py"
  path.write_text(FILE)
  return lambda workdir: ["train", str(path), "--workdir", str(workdir)]


@pytest.fixture
def small_disk(tmp_path):
  """A file system of 8 MB."""
  path = tmp_path / "disk"
  path.mkdir()
  mount = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(path)]
  if os.geteuid() or subprocess.run(mount, capture_output=True).returncode:
    pytest.skip("only root may mount a small file system")
  yield path
  subprocess.run(["umount", str(path)], check=True)


def stopped_half_way(runs, workdir, command):
  pid = runs.start(EXPERIMENT, workdir, command=command(workdir))
  runs.until(pid, lambda: len(numbers(workdir)) >= 2)
  os.kill(pid, signal.SIGTERM)
  assert runs.code() == 128 + signal.SIGTERM, runs.log.read_text()
  return saved(workdir)


def check_refusal(code, said, kept):
  assert code == 1, said
  assert "Traceback" not in said, said
  (line,) = [line for line in said.splitlines() if "rl-jax:" in line]
  assert "could not be written" in line
  assert f"complete ones: {kept}" in line


def test_no_file_may_grow(runs, command):
  """EFBIG from the limit of the process, as a quota would give."""
  workdir = runs.directory / "no_growth"
  kept = stopped_half_way(runs, workdir, command)
  code, said = runs.run(
    EXPERIMENT, workdir, command=command(workdir), largest_file=60_000
  )
  check_refusal(code, said, kept)
  assert saved(workdir) == kept
  code, said = runs.run(EXPERIMENT, workdir, command=command(workdir))
  assert code == 0, said
  assert saved(workdir)[-1] == STEPS

  undisturbed = runs.directory / "growth"
  code, said = runs.run(EXPERIMENT, undisturbed, command=command(undisturbed))
  assert code == 0, said
  assert digest(workdir, STEPS) == digest(undisturbed, STEPS)


def test_no_space_left(runs, small_disk, command):
  workdir = small_disk / "run"
  kept = stopped_half_way(runs, workdir, command)
  free = os.statvfs(small_disk)
  ballast = small_disk / "ballast"
  ballast.write_bytes(b"0" * (free.f_bavail * free.f_bsize - 200_000))
  code, said = runs.run(EXPERIMENT, workdir, command=command(workdir))
  check_refusal(code, said, kept)
  assert saved(workdir) == kept
  ballast.unlink()
  code, said = runs.run(EXPERIMENT, workdir, command=command(workdir))
  assert code == 0, said
  assert saved(workdir)[-1] == STEPS
