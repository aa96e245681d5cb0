"""Programs, judged by each test of a suite, for rewards of partial success."""

from __future__ import annotations

import dataclasses
import time
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from rl_jax.rewards.verifiers.judgement import Judgement, no_verdict
from rl_jax.rewards.verifiers.sandboxes import Monty, Sandbox, SandboxError
from rl_jax.rewards.verifiers.structured import fenced

if TYPE_CHECKING:
  from collections.abc import Sequence

  from jaxtyping import Bool, Integer, Num

__all__ = [
  "PerTest",
  "Suite",
  "SuiteResult",
  "check_passes",
  "result",
]

# Kinds of reasons; results stand behind the colon, one digit for each test.
_PASSED, _FAILED, _LATE = "passed", "failed", "time limit of a test"
_BROKEN, _ENDLESS = "does not run", "time limit of the program"


class Suite(NamedTuple):
  """What a program is judged by, test by test.

  Attributes:
    task_id: which task it is.
    prefix: source before the completion.
    tests: sources after it, each of which raises if the program is wrong.
  """

  task_id: str
  prefix: str
  tests: tuple[str, ...]


class SuiteResult(NamedTuple):
  """What became of a program.

  Attributes:
    task_id: of the suite.
    tests: of the suite.
    results: 1 for a test that was passed, else 0.
    compile_ok: whether the program without any test comes to its end.
    timeout: whether it or a test ran out of time.
  """

  task_id: str
  tests: tuple[str, ...]
  results: Integer[np.ndarray, " test"]
  compile_ok: bool
  timeout: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class PerTest:
  """1 if a program passes all tests of its suite, else 0, and which it passed.

  Each test is run with the program in a sandbox of its own, so a program that
  deceives or kills one has failed that one only. A program that does not run
  passes nothing. The program is that of `Code`: the last fenced block, or the
  whole completion.

  Raises:
    ValueError: if a limit is not positive.
  """

  sandbox: Sandbox = Monty()
  """`Monty`, or `Bubblewrap` for full CPython."""
  seconds: float = 10.0
  """For all tests together; tests that are not begun by then have failed."""
  longest: int = 100_000
  """Most characters of a program."""

  def __post_init__(self) -> None:
    if self.longest < 1 or not self.seconds > 0:
      raise ValueError(
        "longest and seconds must be positive, got"
        f" {self.longest} and {self.seconds}"
      )

  def prepare(self) -> None:
    """See that the sandbox works; raises what to install or to allow."""
    self.sandbox.prepare()

  def __call__(self, completion: str, reference: Suite) -> Judgement:
    """Run the program with each test; see `Verifier`.

    The reason holds the results, see `result`.
    """
    if not reference.tests:
      return no_verdict(f"bad reference: {reference.task_id} has no tests")
    if len(completion) > self.longest:
      return _said(_BROKEN, [0] * len(reference.tests))
    try:
      return self._run(completion, reference)
    except (SandboxError, ImportError) as error:
      return no_verdict(f"sandbox: {error}")

  def _run(self, completion: str, suite: Suite) -> Judgement:
    block = fenced(completion)
    body = completion if block is None else f"\n{block}"
    program = f"{suite.prefix}{body}\n"
    until, late, results = time.monotonic() + self.seconds, False, []
    for test in suite.tests:
      if time.monotonic() > until:
        late = True
        break
      stopped = self.sandbox.run(f"{program}{test}\n")
      results.append(int(not stopped))
      late |= stopped == "time limit"
      if len(results) == 1 and stopped:
        alone = self.sandbox.run(program)
        if alone:
          # The other tests need not be tried.
          kind = _ENDLESS if alone == "time limit" else _BROKEN
          return _said(kind, [0] * len(suite.tests))
    results += [0] * (len(suite.tests) - len(results))
    kind = _PASSED if all(results) else _LATE if late else _FAILED
    return _said(kind, results)


def _said(kind: str, results: Sequence[int]) -> Judgement:
  return Judgement(float(all(results)), f"{kind}:{''.join(map(str, results))}")


def result(judgement: Judgement, suite: Suite) -> SuiteResult | None:
  """The results that the reason of a judgement of `PerTest` holds.

  Args:
    judgement: of a program.
    suite: what it was judged by.

  Returns:
    The results; None for no verdict.
  """
  if judgement.reward is None:
    return None
  kind, _, digits = judgement.reason.partition(":")
  return SuiteResult(
    task_id=suite.task_id,
    tests=suite.tests,
    results=np.array([int(digit) for digit in digits], np.uint8),
    compile_ok=kind not in (_BROKEN, _ENDLESS),
    timeout=kind in (_LATE, _ENDLESS),
  )


def check_passes(
  passed: Num[np.ndarray, "row turn test"],
  mask: Bool[np.ndarray, "row turn"],
  test_mask: Bool[np.ndarray, "row test"],
  *,
  success: Num[np.ndarray, "row"] | None = None,
  fractions: bool = False,
) -> None:
  """Refuse results of tests that cannot be right.

  Args:
    passed: 1 for a test that the turn passed, else 0.
    mask: true = the turn exists.
    test_mask: true = the row's task has such a test.
    success: outcome of each trajectory, if it comes from elsewhere.
    fractions: whether a test may be passed in part.

  Raises:
    ValueError: with the first bad row: if it has turns and no tests, a gap
      between its turns or a turn after one that passed all tests, a result
      that is not 0 or 1 (not in [0, 1] with `fractions`), or an outcome that
      its last turn contradicts.
  """
  counted = mask[..., None] & test_mask[:, None]
  value = np.where(counted, passed, 0)
  good = (value >= 0) & (value <= 1) if fractions else np.isin(value, (0, 1))
  whole = mask & np.all((value >= 1) | ~test_mask[:, None], axis=-1)
  problems = {
    "has a result that is no pass or failure": ~good.all((1, 2)),
    "has turns and no tests": mask.any(-1) & ~test_mask.any(-1),
    "has a gap between its turns": (mask[:, 1:] & ~mask[:, :-1]).any(-1),
    "goes on after a turn that passed all tests": (
      mask[:, 1:] & whole[:, :-1]
    ).any(-1),
  }
  if success is not None:
    last = np.maximum(mask.sum(-1) - 1, 0)[:, None]
    final = np.take_along_axis(whole, last, axis=1)[:, 0]
    problems["has an outcome that its last turn contradicts"] = (
      success.astype(float) != final
    )
  for problem, rows in problems.items():
    if rows.any():
      raise ValueError(f"row {int(rows.argmax())} {problem}")
