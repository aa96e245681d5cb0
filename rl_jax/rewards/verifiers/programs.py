"""Programs, judged by running tests on them."""

from __future__ import annotations

import dataclasses
from typing import NamedTuple

from rl_jax.rewards.verifiers.judgement import Judgement, no_verdict
from rl_jax.rewards.verifiers.sandboxes import Monty, Sandbox, SandboxError
from rl_jax.rewards.verifiers.structured import fenced

__all__ = ["Code", "UnitTests"]


class UnitTests(NamedTuple):
  """What a program is judged by.

  Attributes:
    prefix: source before the completion: imports, and the head of the
      function that the prompt shows.
    test: source after it, which raises if the program is wrong.
  """

  prefix: str
  test: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Code:
  """1 if the program passes its tests in a sandbox, else 0.

  The program is the last fenced block of the completion, or without one the
  completion itself, which then goes on where the prefix ends. A program that
  runs out of its time or memory fails like one that is wrong; only a sandbox
  that does not work is no verdict.

  Tests run in the interpreter of the program, and a program that is made to
  deceive them (an `__eq__` that is always true) can. It gains nothing by
  leaving early: the end of the tests must be reached.
  """

  sandbox: Sandbox = Monty()
  """`Monty`, or `Bubblewrap` for full CPython."""
  longest: int = 100_000
  """Most characters of a program."""

  def __post_init__(self):
    if self.longest < 1:
      raise ValueError(f"longest must be at least 1, got {self.longest}")

  def prepare(self) -> None:
    """See that the sandbox works; raises what to install or to allow."""
    self.sandbox.prepare()

  def __call__(self, completion: str, reference: UnitTests) -> Judgement:
    """Run the program and its tests; see `Verifier`."""
    prefix, test = reference
    if len(completion) > self.longest:
      return Judgement(0.0, f"too long: {len(completion)} characters")
    block = fenced(completion)
    body = completion if block is None else f"\n{block}"
    try:
      stopped = self.sandbox.run(f"{prefix}{body}\n{test}\n")
    except (SandboxError, ImportError) as error:
      return no_verdict(f"sandbox: {error}")
    return Judgement(0.0 if stopped else 1.0, stopped)
