"""Verifiers: judges of completions that run on the host.

Each is a frozen value, `verifier(completion, reference) -> Judgement`; `Pool`
runs any of them in parallel under limits of time and memory. Checks of form
stand in `instructions`.
"""

from rl_jax.rewards.verifiers.functions import RewardFunction
from rl_jax.rewards.verifiers.ifeval import ifeval
from rl_jax.rewards.verifiers.instructions import Check, Format
from rl_jax.rewards.verifiers.items import (
  ItemAnswer,
  ItemNotes,
  ParsedItem,
  parse_answer,
  prefix_match_length,
  residual_sensitive_reward,
)
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
from rl_jax.rewards.verifiers.pairwise_judge import (
  AskedConsistency,
  Consistency,
  MentionConsistency,
  PairwiseJudge,
  PairwiseJudgeExample,
  ThinkAnswer,
  difficulty_filter,
  judge_prompt,
  judge_reward,
  parse_think_answer,
  shuffled_pairs,
)
from rl_jax.rewards.verifiers.per_test import (
  PerTest,
  Suite,
  SuiteResult,
  check_passes,
)
from rl_jax.rewards.verifiers.pool import Pool, Report
from rl_jax.rewards.verifiers.programs import Code, UnitTests
from rl_jax.rewards.verifiers.sandboxes import (
  Bubblewrap,
  Monty,
  Sandbox,
  SandboxError,
)
from rl_jax.rewards.verifiers.structured import Json, ToolCall
from rl_jax.rewards.verifiers.suite_notes import (
  AllPassed,
  SuiteNote,
  turn_numbers,
)
from rl_jax.rewards.verifiers.thought_prompts import (
  Prompted,
)
from rl_jax.rewards.verifiers.thought_rules import (
  Markers,
)
from rl_jax.rewards.verifiers.thoughts import (
  Evaluated,
  Evaluation,
  Evaluator,
  Response,
  Thoughts,
)
from rl_jax.rewards.verifiers.tool_calls import (
  Call,
  ParsedResponse,
  multiset_jaccard,
  parse_tool_response,
)
from rl_jax.rewards.verifiers.tool_config import (
  ToolRewardConfig,
)
from rl_jax.rewards.verifiers.tools import (
  ToolPart,
  ToolReward,
  ToolRewards,
  format_reward,
  length_reward,
  tool_correctness,
  tool_reward,
  tool_rewards,
)
from rl_jax.rewards.verifiers.warden import Limits

__all__ = [
  "AllPassed",
  "AskedConsistency",
  "Bubblewrap",
  "Call",
  "Check",
  "Code",
  "Consistency",
  "Evaluated",
  "Evaluation",
  "Evaluator",
  "Exact",
  "FirstNumber",
  "Format",
  "ItemAnswer",
  "ItemNotes",
  "Json",
  "Judged",
  "Judgement",
  "Limits",
  "Markers",
  "Math",
  "MentionConsistency",
  "Monty",
  "PairwiseJudge",
  "PairwiseJudgeExample",
  "ParsedItem",
  "ParsedResponse",
  "PerTest",
  "Pool",
  "Prompted",
  "Report",
  "Response",
  "RewardFunction",
  "Sandbox",
  "SandboxError",
  "Suite",
  "SuiteNote",
  "SuiteResult",
  "ThinkAnswer",
  "Thoughts",
  "ToolCall",
  "ToolPart",
  "ToolReward",
  "ToolRewardConfig",
  "ToolRewards",
  "UnitTests",
  "Verifier",
  "boxed",
  "check_passes",
  "difficulty_filter",
  "final_answer",
  "format_reward",
  "ifeval",
  "judge_prompt",
  "judge_reward",
  "judged",
  "length_reward",
  "multiset_jaccard",
  "no_verdict",
  "parse_answer",
  "parse_think_answer",
  "parse_tool_response",
  "prefix_match_length",
  "residual_sensitive_reward",
  "shuffled_pairs",
  "tool_correctness",
  "tool_reward",
  "tool_rewards",
  "turn_numbers",
]
