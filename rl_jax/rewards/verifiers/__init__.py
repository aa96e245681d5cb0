"""Verifiers: judges of completions that run on the host.

Each is a frozen value, `verifier(completion, reference) -> Judgement`; `Pool`
runs any of them in parallel under limits of time and memory. Checks of form
stand in `instructions`.
"""

from rl_jax.rewards.verifiers.functions import RewardFunction
from rl_jax.rewards.verifiers.ifeval import ifeval
from rl_jax.rewards.verifiers.instructions import Check, Format
from rl_jax.rewards.verifiers.judgement import (
  Judged,
  Judgement,
  Verifier,
  judged,
  no_verdict,
)
from rl_jax.rewards.verifiers.match import (
  Exact,
  FirstNumber,
  boxed,
  final_answer,
)
from rl_jax.rewards.verifiers.mathematics import Math
from rl_jax.rewards.verifiers.pool import Pool, Report
from rl_jax.rewards.verifiers.programs import Code, UnitTests
from rl_jax.rewards.verifiers.sandboxes import (
  Bubblewrap,
  Monty,
  Sandbox,
  SandboxError,
)
from rl_jax.rewards.verifiers.structured import Json, ToolCall
from rl_jax.rewards.verifiers.warden import Limits

__all__ = [
  "Bubblewrap",
  "Check",
  "Code",
  "Exact",
  "FirstNumber",
  "Format",
  "Json",
  "Judged",
  "Judgement",
  "Limits",
  "Math",
  "Monty",
  "Pool",
  "Report",
  "RewardFunction",
  "Sandbox",
  "SandboxError",
  "ToolCall",
  "UnitTests",
  "Verifier",
  "boxed",
  "final_answer",
  "ifeval",
  "judged",
  "no_verdict",
]
