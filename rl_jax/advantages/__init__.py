"""Advantage estimators: rewards and signals in, advantages out."""

from rl_jax.advantages.baselines import (
  MovingBaseline,
  above_baseline,
  init_moving_baseline,
  leave_one_out,
  length_weighted_relative,
  nonzero_relative,
  update_moving_baseline,
)
from rl_jax.advantages.combine import sum_of_relatives
from rl_jax.advantages.groups import (
  Scale,
  best_minus_second,
  clip_and_rescale,
  group_mean,
  group_relative,
  group_size,
  informative_groups,
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
from rl_jax.advantages.recursion import carried_back, following, next_values
from rl_jax.advantages.whiten import Guard, whiten

__all__ = [
  "Guard",
  "MovingBaseline",
  "PassAtK",
  "PromptStatistics",
  "Scale",
  "VTrace",
  "above_baseline",
  "best_minus_second",
  "carried_back",
  "clip_and_rescale",
  "discounted_returns",
  "following",
  "generalized_advantage",
  "group_mean",
  "group_relative",
  "group_size",
  "informative_groups",
  "init_moving_baseline",
  "init_prompt_statistics",
  "lambda_returns",
  "leave_one_out",
  "leave_one_out_scaled",
  "length_adaptive_trace",
  "length_weighted_relative",
  "n_step_returns",
  "next_values",
  "nonzero_relative",
  "pass_at_k",
  "sum_of_relatives",
  "update_moving_baseline",
  "update_prompt_statistics",
  "vtrace",
  "whiten",
]
