"""What each turn of a batch of responses passed, as arrays."""

from __future__ import annotations

import collections
import dataclasses
import functools
import threading
from typing import TYPE_CHECKING, Any

import numpy as np

from rl_jax.rewards.verifiers.functions import RewardFunction
from rl_jax.rewards.verifiers.per_test import (
  PerTest,
  Suite,
  SuiteResult,
  check_passes,
  result,
)
from rl_jax.rewards.verifiers.pool import Pool

if TYPE_CHECKING:
  from collections.abc import Callable, Sequence

  from jaxtyping import Bool, Int

  from rl_jax.rewards.verifiers.judgement import Judgement
  from rl_jax.types import TextRollouts

__all__ = ["AllPassed", "SuiteNote", "turn_numbers"]

_REMEMBERED = 1 << 16


def turn_numbers(
  mask: Bool[np.ndarray, "row time"],
) -> Int[np.ndarray, "row time"]:
  """Which turn each token is in: turns are runs of tokens without a gap.

  What an environment writes in between is not the policy's, and separates
  its turns.

  Args:
    mask: true = the policy chose the token.

  Returns:
    Numbers from 0, -1 where the mask is false.

  >>> turn_numbers(np.array([[True, True, False, True, False]])).tolist()
  [[0, 0, -1, 1, -1]]
  """
  begins = mask.copy()
  begins[:, 1:] &= ~mask[:, :-1]
  return np.where(mask, np.cumsum(begins, axis=-1) - 1, -1).astype(np.int32)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SuiteNote:
  """Finds which tests each turn passed, for components that want it.

  Gives "passed" [turn, test], "turn_mask" [turn], "test_mask" [test] and
  "turn" [time], which turn a token is in. References are `Suite`s. A row with
  a turn that has no verdict has no turns. A program that was judged before is
  not run again: with `outcome` as the judge of a term, which is 1 if all tests
  were passed, every program is run once.

  Raises:
    ValueError: if a number is out of range. A suite without tests or with
      more than `tests`, a response with more than `turns`, and a turn after
      one that passed all tests are errors when they come.
  """

  judge: PerTest = PerTest()
  """What runs the programs."""
  tests: int
  """Most tests of a suite."""
  turns: int = 1
  """Most turns of a response."""
  workers: int = dataclasses.field(default=2, metadata={"identity": False})
  """Processes that run programs at one time; 0: none but this one, which is
  for judges that need no limits."""
  seconds: float = 30.0
  """Longest for one program, more than `judge.seconds`."""
  memory: int = 1 << 30
  """Most bytes that a worker may take."""

  def __post_init__(self) -> None:
    if min(self.tests, self.turns) < 1 or self.workers < 0:
      raise ValueError(
        "tests and turns must be at least 1 and workers at least 0, got"
        f" {self.tests}, {self.turns} and {self.workers}"
      )
    if self.seconds <= self.judge.seconds:
      raise ValueError(
        f"seconds = {self.seconds} would end a suite that may take"
        f" {self.judge.seconds}"
      )

  @property
  def outcome(self) -> RewardFunction:
    """The judge of a term that runs no program which the note runs again."""
    return RewardFunction(function=AllPassed(note=self), name="passes")

  def shapes(self, time: int) -> dict[str, tuple[tuple[int, ...], Any]]:
    """See `rl_jax.rewards.text.Note`."""
    return {
      "passed": ((self.turns, self.tests), np.uint8),
      "turn_mask": ((self.turns,), np.bool_),
      "test_mask": ((self.tests,), np.bool_),
      "turn": ((time,), np.int32),
    }

  def bind(self, data: Any) -> Callable[[TextRollouts], dict[str, np.ndarray]]:
    """See `rl_jax.rewards.text.Note`."""
    tokenizer, source = data.vocabulary.load(), data.source()
    end = None if tokenizer.eos is None else tokenizer.id(tokenizer.eos)

    def text(ids: list[int]) -> str:
      return tokenizer.decode(ids[:-1] if ids[-1] == end else ids)

    def find(rollouts: TextRollouts) -> dict[str, np.ndarray]:
      token, mask = np.asarray(rollouts.token), np.asarray(rollouts.mask)
      different, where = np.unique(
        np.asarray(rollouts.item), return_inverse=True
      )
      references = source.columns(different)["reference"]
      turn = turn_numbers(mask)
      written = [
        [text(ids[own == number].tolist()) for number in range(own.max() + 1)]
        for ids, own in zip(token, turn, strict=True)
      ]
      found = self.matrices(written, [references[i] for i in where])
      return found | {"turn": turn}

    return find

  def matrices(
    self, written: Sequence[Sequence[str]], suites: Sequence[Suite]
  ) -> dict[str, np.ndarray]:
    """The arrays of programs that are given as text.

    Args:
      written: turns of each row, which may be none.
      suites: one per row.

    Returns:
      "passed", "turn_mask" and "test_mask".

    Raises:
      ValueError: see the class.
    """
    rows = len(written)
    passed = np.zeros((rows, self.turns, self.tests), np.uint8)
    turn_mask = np.zeros((rows, self.turns), bool)
    test_mask = np.zeros((rows, self.tests), bool)
    flat = [
      (r, t, x) for r, own in enumerate(written) for t, x in enumerate(own)
    ]
    for row, (own, suite) in enumerate(zip(written, suites, strict=True)):
      count = len(suite.tests)
      if not 1 <= count <= self.tests or len(own) > self.turns:
        raise ValueError(
          f"row {row} ({suite.task_id}) has {count} tests and {len(own)} turns;"
          f" 1 to {self.tests} tests and at most {self.turns} turns are allowed"
        )
      test_mask[row, :count] = True
    judged = self.results([x for *_, x in flat], [suites[r] for r, *_ in flat])
    unknown = {
      r for (r, *_), each in zip(flat, judged, strict=True) if not each
    }
    for (row, turn, _), each in zip(flat, judged, strict=True):
      if each is not None and row not in unknown:
        passed[row, turn, : len(each.results)] = each.results
        turn_mask[row, turn] = True
    check_passes(passed, turn_mask, test_mask)
    return {"passed": passed, "turn_mask": turn_mask, "test_mask": test_mask}

  def results(
    self, completions: Sequence[str], suites: Sequence[Suite]
  ) -> list[SuiteResult | None]:
    """Run programs, each with its suite and each pair once.

    Args:
      completions: one per row.
      suites: one per row.

    Returns:
      The results; None where there is no verdict.
    """
    return _runner(self, threading.get_ident())(completions, suites)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AllPassed:
  """A function for a term: 1 if a program passes its whole suite, else 0.

  Of one turn; what was written in all turns of a response together is no
  program.
  """

  note: SuiteNote
  """What runs the programs."""

  def __call__(
    self, completions: Sequence[str], reference: Sequence[Suite], **columns: Any
  ) -> list[float | None]:
    """One number per row, None for no verdict."""
    del columns
    found = self.note.results(completions, reference)
    return [None if x is None else float(x.results.all()) for x in found]


class _Runner:
  """Judgements of programs, the latest of which are remembered."""

  def __init__(self, note: SuiteNote):
    self._judge = note.judge
    self._pool = None
    if note.workers:
      self._pool = Pool(
        workers=note.workers, seconds=note.seconds, memory=note.memory
      )
    self._known: collections.OrderedDict[Any, Judgement]
    self._known = collections.OrderedDict()

  def __call__(
    self, completions: Sequence[str], suites: Sequence[Suite]
  ) -> list[SuiteResult | None]:
    pairs = list(zip(completions, suites, strict=True))
    new = [pair for pair in dict.fromkeys(pairs) if pair not in self._known]
    texts, references = [x for x, _ in new], [suite for _, suite in new]
    if self._pool is None:
      fresh = [self._judge(*pair) for pair in new]
    else:
      fresh = self._pool.judge(self._judge, texts, references)
    here = dict(zip(new, fresh, strict=True))
    found = [here.get(pair) or self._known[pair] for pair in pairs]
    # No verdict is not known: a worker may have died of something else.
    self._known |= {k: x for k, x in here.items() if x.reward is not None}
    while len(self._known) > _REMEMBERED:
      self._known.popitem(last=False)
    return [
      result(each, suite) for each, suite in zip(found, suites, strict=True)
    ]


# A pool belongs to one thread.
@functools.lru_cache(maxsize=16)
def _runner(note: SuiteNote, thread: int) -> _Runner:
  del thread
  return _Runner(note)
