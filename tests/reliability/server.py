"""Runs experiments in processes that a test may kill.

Nobody waits for imports: each is a fork of this one, which has made them all.

One JSON order per line of input: {"devices", "workdir", "experiment", ...};
the answer is a line with the child's process id. An empty line asks for its
exit code.
"""

from __future__ import annotations

import json
import os
import pathlib
import resource
import sys
import traceback
import warnings

import jax

from rl_jax.experiment import from_dict
from rl_jax.launch import main, page, report, run  # noqa: F401
from rl_jax.launch.records import Records


def child(order):
  """What the forked process does; returns its exit code."""
  log = pathlib.Path(order["log"]).open("a", buffering=1)  # noqa: SIM115
  sys.stdout = sys.stderr = log
  os.dup2(sys.stderr.fileno(), 2)
  jax.config.update("jax_num_cpu_devices", order["devices"])
  if "largest_file" in order:
    limit = order["largest_file"]
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
  if "command" in order:
    return main.main(order["command"])
  outcome = run.train(
    from_dict(order["experiment"]),
    workdir=order["workdir"],
    root=order["root"],
    observers=lambda experiment, workdir: (Records(workdir),),
    resume_from=order.get("resume_from"),
  )
  return 0 if outcome.signal is None else 128 + outcome.signal


def serve():
  """Obeys until the input ends."""
  # The parent has no backend and no threads of jax that a fork could lose.
  warnings.filterwarnings("ignore", message=".*fork.*")
  while line := sys.stdin.readline():
    order = json.loads(line)
    pid = os.fork()
    if pid == 0:
      code = 70
      try:
        code = child(order)
      except BaseException:
        traceback.print_exc()
      finally:
        # As at the end of a program, but without the parent's exit handlers.
        os._exit(code)
    print(json.dumps(pid), flush=True)
    # Until asked, a dead child keeps its id, so that nobody else is killed.
    sys.stdin.readline()
    _, status = os.waitpid(pid, 0)
    print(json.dumps(os.waitstatus_to_exitcode(status)), flush=True)


if __name__ == "__main__":
  serve()
