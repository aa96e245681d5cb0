"""Whatever a policy writes gets a verdict or none, in bounded time.

Ten thousand of them: experiments/benchmarks/hostile_completions.py.
"""

from __future__ import annotations

import time

import pytest

from experiments.benchmarks import hostile_completions as hostile
from experiments.benchmarks import hostile_texts
from rl_jax.rewards.verifiers import SandboxError
from rl_jax.rewards.verifiers.judgement import Prepares

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trap():
  with hostile.trap() as trap:
    yield trap
    assert not trap.sprung()


def needed(name):
  """The verifier of a kind, unless it cannot work on this machine."""
  kind = hostile.KINDS[name]
  if isinstance(kind.verifier, Prepares):
    try:
      kind.verifier.prepare()
    except (ImportError, SandboxError) as error:
      pytest.skip(f"{error}")
  return kind


@pytest.mark.parametrize("name", sorted(hostile.KINDS))
def test_every_completion_is_judged_and_none_accepted(trap, name):
  kind = needed(name)
  count = len(kind.texts)
  found = hostile.measure(kind, count, workers=2, seed=1, trap=trap)
  assert not found.wrong
  assert found.verdicts + sum(found.without.values()) == count
  # Far more than it takes, and far less than without limits.
  assert found.seconds < 200
  assert not trap.sprung()


def test_bombs_of_processes_stop_at_the_limit(trap):
  kind = needed("bubblewrap")._replace(texts=hostile_texts.FORKS)
  found = hostile.measure(kind, 6, workers=2, seed=4, trap=trap)
  assert not found.wrong


# Programs of a policy do not close what they open.
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_trap_that_is_reached_is_noticed():
  """The control: without a sandbox both escapes work."""
  names = {}
  with hostile.trap() as trap:
    assert not trap.sprung()
    reads, writes, _, _, connects = hostile_texts.generated(
      hostile_texts.PROGRAMS, 18, 0
    )[13:]
    exec(trap.set_in(reads), names)
    assert names.pop("stolen") == "secret"
    exec(trap.set_in(connects), names)
    assert names.pop("stolen")
    names.clear()
    until = time.monotonic() + 60
    while not trap.sprung() and time.monotonic() < until:
      time.sleep(0.01)
    assert len(trap.connections) == 1
    trap.connections.clear()
    exec(trap.set_in(writes), names)
    names.clear()
    assert trap.sprung()


def test_the_script_prints_a_table(capsys):
  for name in hostile.KINDS:
    needed(name)
  assert hostile.main(["--count", "20"]) == 0
  said = capsys.readouterr().out.splitlines()
  assert [line.split("  ")[0] for line in said[1:8]] == list(hostile.KINDS)
  assert said[-1] == "what got out: nothing"
