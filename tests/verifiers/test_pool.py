from __future__ import annotations

import importlib
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from rl_jax.rewards.verifiers import Exact, Judgement, Pool
from rl_jax.rewards.verifiers.pool import limited
from rl_jax.rewards.verifiers.start import postpone
from rl_jax.rewards.verifiers.warden import framed, frames, working
from verifiers.crooked import Crooked, Heavy, Unprepared

# Processes are started and waited for. What is asserted of time holds on a busy
# machine too: limits are seconds, what must not be waited for is a minute.
pytestmark = pytest.mark.slow
ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="module")
def pool():
  with Pool(workers=2, seconds=2.0, memory=1 << 26) as pool:
    yield pool


@pytest.fixture(scope="module")
def single():
  with Pool(workers=1, seconds=1.5, memory=1 << 28) as pool:
    yield pool


def alive(pid: int) -> bool:
  """Running, and not a zombie."""
  try:
    stat = pathlib.Path(f"/proc/{pid}/stat").read_text()
  except OSError:
    return False
  return stat.rpartition(")")[2].split()[0] != "Z"


def children(pid: int) -> list[int]:
  found = []
  for path in pathlib.Path("/proc").glob("[0-9]*/stat"):
    try:
      fields = path.read_text().rpartition(")")[2].split()
    except OSError:
      continue
    if int(fields[1]) == pid:
      found.append(int(path.parent.name))
  return found


def within(condition, seconds: float = 30.0):
  """What a condition gives once it is true, or at the end of that time."""
  until = time.monotonic() + seconds
  while not (found := condition()) and time.monotonic() < until:
    time.sleep(0.02)
  return found


def gone(pids: list[int]) -> bool:
  return within(lambda: not any(alive(pid) for pid in pids))


def workers(warden: int, count: int) -> list[int]:
  found = within(lambda: len(children(warden)) == count and children(warden))
  assert found
  return found


def judge(pool, completions, reference=1.0):
  return pool.judge(Crooked(), completions, [reference] * len(completions))


def test_results_keep_the_order_of_the_rows(pool):
  completions = ["nap" if row % 7 == 0 else "" for row in range(40)]
  found = pool.judge(Crooked(), completions, list(range(40)))
  assert [reward for reward, _ in found] == list(range(40))


@pytest.mark.parametrize(
  ("completion", "reason"),
  [
    ("sleep", "time limit"),
    ("spin", "time limit"),
    ("stubborn", "time limit"),
    ("children", "time limit"),
    ("die", "died: exit code 3"),
    ("segfault", "died: signal 11"),
    ("raise", "error: KeyError: 'what it says'"),
    ("exit", "error: SystemExit: 0"),
    ("memory", "memory limit"),
    ("grow", "memory limit"),
  ],
)
def test_a_bad_item_has_no_verdict_and_harms_no_other(pool, completion, reason):
  start = time.monotonic()
  found = judge(pool, ["", completion, "", ""])
  assert found[1] == Judgement(None, reason)
  assert [found[row] for row in (0, 2, 3)] == [Judgement(1.0)] * 3
  assert time.monotonic() - start < 40


def test_lost_workers_are_replaced_and_counted(single):
  before = single.report
  judge(single, ["", "sleep", "die", "segfault", "memory", "raise", ""])
  judged, without, replaced = single.report
  assert judged - before.judged == 2
  # One that saw an exception goes on.
  assert replaced == {"time limit": 1, "died": 2, "memory limit": 1}
  assert without == replaced | {"error": 1}


def test_a_killed_item_leaves_no_process_behind(single, tmp_path):
  judge(single, [""])
  (found,) = judge(single, ["children"], f"{tmp_path / 'pids'}")
  assert found == Judgement(None, "time limit")
  worker, child = map(int, (tmp_path / "pids").read_text().split())
  assert gone([worker, child])


def test_workers_judge_while_the_caller_does_something_else(pool, tmp_path):
  paths = [tmp_path / f"{row}" for row in range(4)]
  ticket = pool.submit(Crooked(), ["touch"] * 4, [f"{path}" for path in paths])
  other = judge(pool, [""])
  # Nobody asks the pool for anything while these appear.
  assert within(lambda: all(path.exists() for path in paths))
  assert pool.collect(ticket) == [Judgement(1.0)] * 4
  assert other == [Judgement(1.0)]


def test_total_time_is_bounded(pool):
  start = time.monotonic()
  ticket = pool.submit(Crooked(), ["nap"] * 500, [1.0] * 500)
  found = pool.collect(ticket, seconds=0.5)
  # All of it takes 25 seconds.
  assert time.monotonic() - start < 15
  reasons = {reason for _, reason in found}
  assert {"total time limit"} <= reasons <= {"", "total time limit"}
  # What was given up does not hold up what comes next.
  assert judge(pool, [""]) == [Judgement(1.0)]


def test_the_number_of_workers_does_not_show(pool, single):
  completions = ["", "raise", "nap", "exit", ""] * 4
  assert judge(pool, completions) == judge(single, completions)


def test_large_items_pass_both_ways(pool):
  text = "x\ud800é" * 100_000
  found = pool.judge(Exact(), [text] * 4, [text] * 4)
  assert found == [Judgement(1.0)] * 4


def test_a_batch_may_be_empty(pool):
  assert judge(pool, []) == []


def test_what_a_verifier_prints_goes_nowhere(pool, capfd):
  assert judge(pool, ["talk"]) == [Judgement(1.0)]
  assert capfd.readouterr() == ("", "")


def test_a_killed_pool_is_reported_starts_again_and_closes():
  pool = Pool(workers=2, seconds=60.0)
  judge(pool, [""])
  ticket = pool.submit(Crooked(), ["spin", "sleep"], [1.0, 1.0])
  processes = workers(pool._process.pid, 2)
  os.kill(pool._process.pid, signal.SIGKILL)
  lost = Judgement(None, "died: the process that runs the pool")
  assert pool.collect(ticket) == [lost, lost]
  assert gone(processes)
  assert judge(pool, [""]) == [Judgement(1.0)]
  assert pool.report.replaced == {"pool": 1}

  ticket = pool.submit(Crooked(), ["sleep", "spin"], [1.0, 1.0])
  warden = pool._process.pid
  processes = [warden, *workers(warden, 2)]
  pool.close()
  assert gone(processes)
  assert pool.collect(ticket) == [Judgement(None, "pool closed")] * 2


KILLED = """
import sys, time
from verifiers.crooked import Crooked
from rl_jax.rewards.verifiers import Pool
pool = Pool(workers=2, seconds=60.0)
pool.judge(Crooked(), [""], [1.0])
pool.submit(Crooked(), ["spin", "sleep"], [1.0, 1.0])
print(pool._process.pid, flush=True)
time.sleep(60)
"""


def test_no_process_outlives_a_killed_parent():
  path = os.pathsep.join((f"{ROOT}", f"{ROOT / 'tests'}"))
  with subprocess.Popen(
    [sys.executable, "-c", KILLED],
    stdout=subprocess.PIPE,
    text=True,
    env=os.environ | {"PYTHONPATH": path},
  ) as parent:
    warden = int(parent.stdout.readline())
    processes = [warden, *workers(warden, 2)]
    parent.kill()
  assert gone(processes)


def test_workers_start_without_the_code_of_devices(pool):
  assert judge(pool, ["light"]) == [Judgement(1.0)]
  # A verifier that asks for it gets it.
  assert pool.judge(Heavy(), [""], [None]) == [Judgement(1.0)]


def test_bad_input_is_refused(pool):
  with pytest.raises(ValueError, match="2 completions but 1 references"):
    pool.submit(Exact(), ["a", "b"], ["a"])
  with pytest.raises(ValueError, match="cannot be pickled"):
    pool.submit(lambda completion, reference: Judgement(0.0), ["a"], ["a"])
  with pytest.raises(RuntimeError, match="pip install something"):
    pool.submit(Unprepared(), ["a"], ["a"])
  with pytest.raises(ValueError, match="ticket 99999 is unknown"):
    pool.collect(99999)
  with pytest.raises(ValueError, match="0 workers"):
    Pool(workers=0, seconds=1.0)
  assert judge(pool, [""]) == [Judgement(1.0)]


def test_a_ticket_is_collected_once(pool):
  ticket = pool.submit(Crooked(), [""], [1.0])
  pool.collect(ticket)
  with pytest.raises(ValueError, match="collected before"):
    pool.collect(ticket)


def test_frames_survive_any_cut():
  bodies = [b"", b"a", b"bc" * 1000]
  stream = b"".join(map(framed, bodies))
  buffer, found = bytearray(), []
  for byte in stream:
    buffer.append(byte)
    found += frames(buffer)
  assert found == bodies
  assert not buffer


def test_a_single_judgement_is_limited_too():
  assert not working()
  assert limited(Crooked(), "die", 1.0).reason == "died: exit code 3"
  assert limited(Crooked(), "", 1.0) == Judgement(1.0)


def test_a_package_is_run_when_a_name_of_it_is_asked_for(tmp_path, monkeypatch):
  package = tmp_path / "postponed_outer" / "inner"
  package.mkdir(parents=True)
  (package.parent / "__init__.py").touch()
  (package / "__init__.py").write_text(
    "from postponed_outer.inner.two import two\nranks = [two]\n"
  )
  (package / "one.py").write_text("one = 1\n")
  (package / "two.py").write_text(
    "import postponed_outer.inner.one as module\ntwo = module.one + 1\n"
  )
  monkeypatch.syspath_prepend(tmp_path)
  postpone("postponed_outer.inner")
  inner = importlib.import_module("postponed_outer.inner")
  assert importlib.import_module("postponed_outer.inner.one").one == 1
  assert "ranks" not in vars(inner)
  assert inner.ranks == [2]
  with pytest.raises(AttributeError):
    inner.none  # noqa: B018
  with pytest.raises(ValueError, match="imported already"):
    postpone("postponed_outer.inner")
  with pytest.raises(ValueError, match="no package"):
    postpone("postponed_outer.none")
  for name in [n for n in sys.modules if n.startswith("postponed_outer")]:
    monkeypatch.delitem(sys.modules, name)
