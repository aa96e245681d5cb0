"""Rewards: pure transforms, their combination, and judges."""

from rl_jax.rewards.classifier import ClassifierReward
from rl_jax.rewards.combine import Sum, Verdict
from rl_jax.rewards.episodes import (
  EpisodeReward,
)
from rl_jax.rewards.implicit import (
  Gathered,
  aggregate_steps,
  gather_steps,
  implicit_q,
  implicit_step_rewards,
  token_log_ratio,
)
from rl_jax.rewards.learned import LearnedReward
from rl_jax.rewards.notes import Note, TextData
from rl_jax.rewards.process import (
  Refine,
  check_step_scores,
  clip_process_reward,
  combine_success_process,
  delta_process_reward,
  refined_process_reward,
  segment_steps,
)
from rl_jax.rewards.shaping import (
  at_last_token,
  clipped_reward,
  kl_shaped,
  length_penalised,
  overlong_penalty,
  penalised_if_unfinished,
  relative_length_reward,
  replaced_if_unfinished,
)
from rl_jax.rewards.text import Term, TextReward
from rl_jax.rewards.trajectory_graph import (
  AgentStep,
  CanonicalText,
  GraphSettings,
  Trajectory,
  TrajectoryGraph,
  build_edges,
)
from rl_jax.rewards.transforms import (
  class_match,
  log_likelihood_reward,
  weighted_sum,
)

__all__ = [
  "AgentStep",
  "CanonicalText",
  "ClassifierReward",
  "EpisodeReward",
  "Gathered",
  "GraphSettings",
  "LearnedReward",
  "Note",
  "Refine",
  "Sum",
  "Term",
  "TextData",
  "TextReward",
  "Trajectory",
  "TrajectoryGraph",
  "Verdict",
  "aggregate_steps",
  "at_last_token",
  "build_edges",
  "check_step_scores",
  "class_match",
  "clip_process_reward",
  "clipped_reward",
  "combine_success_process",
  "delta_process_reward",
  "gather_steps",
  "implicit_q",
  "implicit_step_rewards",
  "kl_shaped",
  "length_penalised",
  "log_likelihood_reward",
  "overlong_penalty",
  "penalised_if_unfinished",
  "refined_process_reward",
  "relative_length_reward",
  "replaced_if_unfinished",
  "segment_steps",
  "token_log_ratio",
  "weighted_sum",
]
