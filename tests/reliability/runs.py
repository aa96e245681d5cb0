"""Processes to kill, and what they left behind."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import time

import numpy as np
import orbax.checkpoint as ocp

from rl_jax.experiment import to_dict
from rl_jax.launch.records import read_records

TESTS = pathlib.Path(__file__).parents[1]


class Runs:
  """Runs of experiments below one directory, one process at a time."""

  def __init__(self, directory):
    self.directory = directory
    environment = {
      **os.environ,
      "JAX_PLATFORMS": "cpu",
      "XLA_FLAGS": "",
      "PYTHONPATH": os.pathsep.join([str(TESTS.parent), str(TESTS)]),
      # Restarts find what the first start compiled; in a folder of its own,
      # since who is killed while storing leaves half a program.
      "JAX_COMPILATION_CACHE_DIR": str(directory / "compiled"),
    }
    self._server = subprocess.Popen(
      [sys.executable, str(TESTS / "reliability" / "server.py")],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      env=environment,
      cwd=directory,
      text=True,
    )
    self.log = directory / "log"

  def start(self, experiment, workdir, *, devices=1, **more):
    """Starts a run and returns the id of its process."""
    self.log.write_text("")
    order = {
      "devices": devices,
      "experiment": to_dict(experiment),
      "workdir": str(workdir),
      "root": str(self.directory / "runs"),
      "log": str(self.log),
    } | more
    self._server.stdin.write(json.dumps(order) + "\n")
    self._server.stdin.flush()
    return json.loads(self._server.stdout.readline())

  def code(self):
    """Waits for the run and returns its exit code."""
    self._server.stdin.write("\n")
    self._server.stdin.flush()
    return json.loads(self._server.stdout.readline())

  def until(self, pid, condition):
    """Waits for a condition or the end of the process; says which it was."""
    deadline = time.monotonic() + 60
    while not condition():
      state = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1]
      if state.split()[0] == "Z":
        return False
      assert time.monotonic() < deadline, self.log.read_text()
      time.sleep(0.002)
    return True

  def run(self, experiment, workdir, **more):
    """A whole run; returns exit code and what it said."""
    self.start(experiment, workdir, **more)
    return self.code(), self.log.read_text()

  def close(self):
    self._server.stdin.close()
    self._server.wait()
    self._server.stdout.close()


def saved(workdir):
  """Steps of all complete checkpoints."""
  names = [path.name for path in (workdir / "checkpoints").glob("*")]
  return sorted(int(name) for name in names if name.isdecimal())


def arrays(workdir, step):
  """Every array of a checkpoint, by its path, read without our code."""
  path = workdir / "checkpoints" / str(step)
  found = {}
  with ocp.StandardCheckpointer() as reader:
    for part in ("params", "rest"):
      leaves = ocp.tree.to_flat_dict(reader.restore(path / part))
      found |= {(part, *k): np.asarray(v) for k, v in leaves.items()}
  return found


def digest(workdir, step):
  """The digest that the checkpoint carries."""
  path = workdir / "checkpoints" / str(step) / "meta" / "metadata"
  return json.loads(path.read_text())["digest"]


def numbers(workdir):
  """What was measured, without the seconds it took."""
  return [(r.step, r.kind, r.metrics) for r in read_records(workdir)]
