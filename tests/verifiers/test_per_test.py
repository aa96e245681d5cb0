"""Results of each test of a suite, and the arrays that turns make of them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from rewards import written
from rl_jax.rewards import Term, TextReward
from rl_jax.rewards.verifiers import Bubblewrap, Monty, Pool, SandboxError
from rl_jax.rewards.verifiers.per_test import (
  PerTest,
  Suite,
  check_passes,
  result,
)
from rl_jax.rewards.verifiers.suite_notes import SuiteNote, turn_numbers

DOUBLE = Suite(
  "double",
  "def f(x):\n  return",
  ("assert f(0) == 0", "assert f(2) == 4", "assert f(3) == 6"),
)
QUICK = PerTest(sandbox=Monty(seconds=0.2), seconds=5.0)


def outcome(completion, suite=DOUBLE, judge=QUICK):
  judgement = judge(completion, suite)
  found = result(judgement, suite)
  assert judgement.reward == float(found.results.all())
  assert found[:2] == (suite.task_id, suite.tests)
  assert found.results.dtype == np.uint8
  return found.results.tolist(), found.compile_ok, found.timeout


@pytest.mark.slow
@pytest.mark.parametrize(
  ("completion", "results", "runs", "late"),
  [
    (" 2 * x", [1, 1, 1], True, False),
    (" x * x", [1, 1, 0], True, False),
    (" x + 3", [0, 0, 1], True, False),
    (" 2 ** x", [0, 1, 0], True, False),
    (" 0", [1, 0, 0], True, False),
    (" undefined", [0, 0, 0], True, False),
    # Not Python; stops before the tests; runs for ever without them.
    (" 2 *", [0, 0, 0], False, False),
    (" 2 * x\nraise ValueError()", [0, 0, 0], False, False),
    (" 2 * x\nwhile True: pass", [0, 0, 0], False, True),
    # In a test only.
    (" 2 * x if x < 3 else [1 for _ in iter(int, 1)]", [1, 1, 0], True, True),
    # A fenced block is the program.
    (" 0\n```python\ndef f(x):\n  return x + x\n```", [1, 1, 1], True, False),
  ],
)
def test_what_passes_what(completion, results, runs, late):
  assert outcome(completion) == (results, runs, late)


class Slow:
  """A sandbox that is never in time, and counts."""

  def __init__(self, stops="", wait=0.0):
    self.runs, self.stops, self.wait = 0, stops, wait

  def prepare(self):
    pass

  def run(self, program):
    import time

    self.runs += 1
    time.sleep(self.wait)
    return self.stops if "assert" in program or self.stops == "x" else ""


def test_a_program_that_does_not_run_is_tried_no_further():
  sandbox = Slow("x")
  judge = dataclasses.replace(QUICK, sandbox=sandbox)
  assert outcome(" 1", judge=judge) == ([0, 0, 0], False, False)
  assert sandbox.runs == 2


def test_tests_that_are_not_begun_in_time_have_failed():
  sandbox = Slow(wait=0.05)
  judge = dataclasses.replace(QUICK, sandbox=sandbox, seconds=0.06)
  assert outcome(" 1", judge=judge) == ([1, 1, 0], True, True)


def test_a_program_that_is_too_long_is_not_run():
  judge = dataclasses.replace(QUICK, longest=5, sandbox=Slow())
  assert outcome(" 2 * x", judge=judge) == ([0, 0, 0], False, False)
  assert judge.sandbox.runs == 0


def test_no_verdict_of_a_broken_sandbox_or_an_empty_suite():
  class Broken(Slow):
    def run(self, program):
      raise SandboxError("no namespaces")

  judge = dataclasses.replace(QUICK, sandbox=Broken())
  judgement = judge(" 1", DOUBLE)
  assert result(judgement, DOUBLE) is None
  assert judgement.reason == "sandbox: no namespaces"
  judgement = QUICK(" 1", Suite("none", "", ()))
  assert judgement.reward is None
  assert "none has no tests" in judgement.reason


@pytest.mark.parametrize(
  ("make", "match"),
  [
    (lambda: PerTest(seconds=0.0), "seconds"),
    (lambda: PerTest(longest=0), "longest"),
    (lambda: SuiteNote(tests=0), "tests"),
    (lambda: SuiteNote(tests=1, turns=0), "turns"),
    (lambda: SuiteNote(tests=1, workers=-1), "workers"),
    (lambda: SuiteNote(tests=1, seconds=5.0), "would end"),
  ],
)
def test_limits_out_of_range(make, match):
  with pytest.raises(ValueError, match=match):
    make()


def test_turns_are_runs_of_tokens():
  mask = np.array([[0, 1, 1, 0, 0, 1, 0], [1, 1, 0, 1, 0, 1, 1], [0] * 7], bool)
  np.testing.assert_array_equal(
    turn_numbers(mask),
    [[-1, 0, 0, -1, -1, 1, -1], [0, 0, -1, 1, -1, 2, 2], [-1] * 7],
  )


def small(**changes):
  return dataclasses.replace(
    SuiteNote(judge=QUICK, tests=4, workers=0), **changes
  )


def test_arrays_of_turns():
  two = Suite("two", "def f(x):\n  return", DOUBLE.tests[1:])
  rows = [[" x", " 0", " 2 * x"], [" 2 ** x"], []]
  found = small(turns=3).matrices(rows, [DOUBLE, two, DOUBLE])
  assert found["passed"].dtype == np.uint8
  np.testing.assert_array_equal(
    found["passed"],
    [
      [[1, 0, 0, 0], [1, 0, 0, 0], [1, 1, 1, 0]],
      [[1, 0, 0, 0], [0] * 4, [0] * 4],
      [[0] * 4] * 3,
    ],
  )
  np.testing.assert_array_equal(
    found["turn_mask"], [[1, 1, 1], [1, 0, 0], [0, 0, 0]]
  )
  np.testing.assert_array_equal(
    found["test_mask"], [[1, 1, 1, 0], [1, 1, 0, 0], [1, 1, 1, 0]]
  )


def test_a_row_without_a_verdict_has_no_turns():
  class Moody(Slow):
    def run(self, program):
      if "moody" in program:
        raise SandboxError("today not")
      return ""

  note = small(judge=PerTest(sandbox=Moody(), seconds=1.0), turns=2)
  found = note.matrices([["fail moody", "ok"], ["ok"]], [DOUBLE, DOUBLE])
  np.testing.assert_array_equal(found["turn_mask"], [[0, 0], [1, 0]])
  assert not found["passed"][0].any()


@pytest.mark.parametrize(
  ("rows", "suite", "match"),
  [
    ([[" 1", " 1"]], DOUBLE, "row 0 .double. has 3 tests and 2 turns"),
    ([[" 1"]], Suite("none", "", ()), "has 0 tests"),
    ([[" 1"]], Suite("many", "", ("pass",) * 5), "has 5 tests"),
  ],
)
def test_turns_and_suites_that_do_not_fit(rows, suite, match):
  with pytest.raises(ValueError, match=match):
    small().matrices(rows, [suite])


def test_a_turn_after_success_is_refused():
  with pytest.raises(ValueError, match="row 0 goes on after a turn"):
    small(turns=2).matrices([[" 2 * x", " x"]], [DOUBLE])


TURNS, TESTS = np.ones((2, 2), bool), np.ones((2, 3), bool)
FAILED = np.zeros((2, 2, 3))


@pytest.mark.parametrize(
  ("passed", "mask", "test_mask", "options", "match"),
  [
    (FAILED + 0.5, TURNS, TESTS, {}, "row 0 has a result"),
    (FAILED + 1.5, TURNS, TESTS, {"fractions": True}, "row 0 has a result"),
    (FAILED * np.nan, TURNS, TESTS, {}, "row 0 has a result"),
    (FAILED, TURNS, ~TESTS, {}, "row 0 has turns and no tests"),
    (
      FAILED,
      np.array([[True, False], [False, True]]),
      TESTS,
      {},
      "row 1 has a gap",
    ),
    (FAILED, TURNS, TESTS, {"success": np.array([0, 1])}, "row 1 has an out"),
    (
      np.ones((2, 1, 3)),
      TURNS[:, :1],
      TESTS,
      {"success": np.array([1, 0])},
      "row 1 has an out",
    ),
  ],
)
def test_inconsistent_results(passed, mask, test_mask, options, match):
  with pytest.raises(ValueError, match=match):
    check_passes(passed, mask, test_mask, **options)


def test_consistent_results_pass():
  check_passes(FAILED + 0.5, TURNS, TESTS, fractions=True)
  poison = np.where(TURNS[..., None], FAILED, np.nan)
  poison[1, 1] = np.nan
  mask = np.array([[True, True], [True, False]])
  check_passes(poison, mask, TESTS, success=np.array([0, 0]))


def test_a_note_and_a_term_run_each_program_once():
  """Through the judge of texts: five rows, two of them the same."""

  class Counting(Slow):
    def run(self, program):
      self.runs += 1
      return Monty(seconds=0.2).run(program)

  sandbox = Counting()
  note = small(judge=PerTest(sandbox=sandbox, seconds=5.0), tests=3)
  reward = TextReward(
    terms=(Term(name="passes", judge=note.outcome),), notes=(note,)
  )
  rollouts = written.rollouts(
    " 2*x", " x", " 2*x", " 0", " 2 -", item=[0, 0, 0, 1, 0], vocabulary=SIGNS
  )
  data = written.answers(DOUBLE, DOUBLE, vocabulary=SIGNS)
  shapes = note.shapes(rollouts.token.shape[1])
  score = reward.bind(data)
  judged = score(rollouts)
  score.close()
  np.testing.assert_array_equal(judged.reward, [1, 0, 1, 0, 0])
  np.testing.assert_array_equal(
    judged.extra["passed"][:, 0],
    [[1, 1, 1], [1, 0, 0], [1, 1, 1], [1, 0, 0], [0, 0, 0]],
  )
  assert judged.extra.keys() == shapes.keys()
  for name, (shape, dtype) in shapes.items():
    assert judged.extra[name].shape == (5, *shape)
    assert judged.extra[name].dtype == dtype
  np.testing.assert_array_equal(
    judged.extra["turn"], np.where(rollouts.mask, 0, -1)
  )
  # Two programs with three tests, one of them on two tasks of the same suite;
  # one that does not run is seen by its first test and alone.
  assert sandbox.runs == 3 + 3 + 3 + 2


SIGNS = written.Characters(alphabet="0123456789+-*= x\n")


@pytest.mark.slow
def test_in_a_pool_an_endless_program_costs_its_own_row_only():
  with Pool(workers=2, seconds=20.0) as pool:
    found = pool.judge(
      QUICK, [" 2 * x", " 2 * x\nwhile True: pass", " x"], [DOUBLE] * 3
    )
  results = [result(each, DOUBLE).results.tolist() for each in found]
  assert results == [[1, 1, 1], [0, 0, 0], [1, 0, 0]]
  note = small(workers=2)
  found = note.results([" 2 * x", " x", " x"], [DOUBLE] * 3)
  assert [x.results.sum() for x in found] == [3, 1, 1]


@pytest.mark.slow
def test_in_cpython():
  judge = PerTest(sandbox=Bubblewrap(seconds=2.0))
  try:
    judge.prepare()
  except (ImportError, SandboxError) as error:
    pytest.skip(f"no sandbox here: {error}")
  assert outcome(" x * x", judge=judge) == ([1, 1, 0], True, False)
  killed = " 2 * x if x < 3 else __import__('os')._exit(0)"
  assert outcome(killed, judge=judge) == ([1, 1, 0], True, False)
