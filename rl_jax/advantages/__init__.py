"""Advantage estimators: rewards and signals in, advantages out."""

from rl_jax.advantages.groups import (
  clip_and_rescale,
  group_mean,
  group_relative,
)
from rl_jax.advantages.prompt_statistics import (
  PromptStatistics,
  init_prompt_statistics,
  update_prompt_statistics,
)

__all__ = [
  "PromptStatistics",
  "clip_and_rescale",
  "group_mean",
  "group_relative",
  "init_prompt_statistics",
  "update_prompt_statistics",
]
