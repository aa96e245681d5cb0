"""Advantage estimators: rewards and signals in, advantages out."""

from rl_jax.advantages.adora import (
  AdoraCriteria,
  AdoraEmpty,
  adora_weight,
  difficulty_advantage,
  length_advantage,
)
from rl_jax.advantages.baselines import (
  MovingBaseline,
  above_baseline,
  init_moving_baseline,
  leave_one_out,
  length_weighted_relative,
  nonzero_relative,
  update_moving_baseline,
)
from rl_jax.advantages.canon import (
  canon_advantage,
  conditional_halves,
  mu_schedule,
  response_entropy,
  response_length,
  restarting_cosine,
)
from rl_jax.advantages.combine import sum_of_relatives
from rl_jax.advantages.effective_rank import (
  effective_rank,
  prefix_effective_ranks,
  rank_acceleration,
  rank_velocity,
)
from rl_jax.advantages.gream import (
  bonus_calibrated,
  pass_at_k_bonus,
)
from rl_jax.advantages.groups import (
  Scale,
  best_minus_second,
  clip_and_rescale,
  group_mean,
  group_relative,
  group_size,
  informative_groups,
)
from rl_jax.advantages.moving_means import (
  MovingMeans,
  init_moving_means,
  update_moving_means,
)
from rl_jax.advantages.multistep import (
  VTrace,
  discounted_returns,
  generalized_advantage,
  lambda_returns,
  length_adaptive_trace,
  vtrace,
)
from rl_jax.advantages.n_step import n_step_returns
from rl_jax.advantages.others import leave_one_out_scaled
from rl_jax.advantages.passk import PassAtK, pass_at_k
from rl_jax.advantages.prompt_statistics import (
  PromptStatistics,
  init_prompt_statistics,
  update_prompt_statistics,
)
from rl_jax.advantages.rank_shaping import (
  rank_signal,
  shaped_by_signal,
  success_scaled,
)
from rl_jax.advantages.recursion import carried_back, following, next_values
from rl_jax.advantages.relative_sign import (
  active_tokens,
  psr_nsr,
  relative_negative,
  split_relative_advantage,
  weighted_relative,
)
from rl_jax.advantages.salt import (
  StateBaseline,
  Weighting,
  salt_step_advantages,
  visit_mean,
  visitor_count,
)
from rl_jax.advantages.segments import (
  at_segment_ends,
  check_segments,
  segment_index,
  segment_sums,
  spread_segments,
  suffix_sums,
)
from rl_jax.advantages.sigma_filter import (
  Filtered,
  filtered_whiten,
  sigma_filter,
)
from rl_jax.advantages.spae import (
  StepSegments,
  checking_tokens,
  difference_shaping,
  saturation_factor,
  spae_advantage,
  step_differences,
  step_potential,
  step_segments,
)
from rl_jax.advantages.step_probes import (
  probe_confidence,
  probe_correctness,
  released_probe,
)
from rl_jax.advantages.suite_weights import (
  pass_rate_density,
  pass_rates,
  verpo_test_weights,
)
from rl_jax.advantages.tp_grpo import (
  merge_thoughts,
  sample_efficiency,
  step_rewards,
  tp_grpo_advantage,
)
from rl_jax.advantages.verpo import (
  degenerate_group_ratio,
  discounted_outcome,
  suite_passed,
  turn_relative,
  turn_rewards,
  verpo_advantage,
)
from rl_jax.advantages.whiten import Guard, whiten

__all__ = [
  "AdoraCriteria",
  "AdoraEmpty",
  "Filtered",
  "Guard",
  "MovingBaseline",
  "MovingMeans",
  "PassAtK",
  "PromptStatistics",
  "Scale",
  "StateBaseline",
  "StepSegments",
  "VTrace",
  "Weighting",
  "above_baseline",
  "active_tokens",
  "adora_weight",
  "at_segment_ends",
  "best_minus_second",
  "bonus_calibrated",
  "canon_advantage",
  "carried_back",
  "check_segments",
  "checking_tokens",
  "clip_and_rescale",
  "conditional_halves",
  "degenerate_group_ratio",
  "difference_shaping",
  "difficulty_advantage",
  "discounted_outcome",
  "discounted_returns",
  "effective_rank",
  "filtered_whiten",
  "following",
  "generalized_advantage",
  "group_mean",
  "group_relative",
  "group_size",
  "informative_groups",
  "init_moving_baseline",
  "init_moving_means",
  "init_prompt_statistics",
  "lambda_returns",
  "leave_one_out",
  "leave_one_out_scaled",
  "length_adaptive_trace",
  "length_advantage",
  "length_weighted_relative",
  "merge_thoughts",
  "mu_schedule",
  "n_step_returns",
  "next_values",
  "nonzero_relative",
  "pass_at_k",
  "pass_at_k_bonus",
  "pass_rate_density",
  "pass_rates",
  "prefix_effective_ranks",
  "probe_confidence",
  "probe_correctness",
  "psr_nsr",
  "rank_acceleration",
  "rank_signal",
  "rank_velocity",
  "relative_negative",
  "released_probe",
  "response_entropy",
  "response_length",
  "restarting_cosine",
  "salt_step_advantages",
  "sample_efficiency",
  "saturation_factor",
  "segment_index",
  "segment_sums",
  "shaped_by_signal",
  "sigma_filter",
  "spae_advantage",
  "split_relative_advantage",
  "spread_segments",
  "step_differences",
  "step_potential",
  "step_rewards",
  "step_segments",
  "success_scaled",
  "suffix_sums",
  "suite_passed",
  "sum_of_relatives",
  "tp_grpo_advantage",
  "turn_relative",
  "turn_rewards",
  "update_moving_baseline",
  "update_moving_means",
  "update_prompt_statistics",
  "verpo_advantage",
  "verpo_test_weights",
  "visit_mean",
  "visitor_count",
  "vtrace",
  "weighted_relative",
  "whiten",
]
