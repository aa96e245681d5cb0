"""Rewards: pure transforms, their combination, and judges."""

from rl_jax.rewards.classifier import ClassifierReward
from rl_jax.rewards.combine import Sum, Verdict
from rl_jax.rewards.learned import LearnedReward
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
from rl_jax.rewards.transforms import (
  class_match,
  log_likelihood_reward,
  weighted_sum,
)

__all__ = [
  "ClassifierReward",
  "LearnedReward",
  "Sum",
  "Term",
  "TextReward",
  "Verdict",
  "at_last_token",
  "class_match",
  "clipped_reward",
  "kl_shaped",
  "length_penalised",
  "log_likelihood_reward",
  "overlong_penalty",
  "penalised_if_unfinished",
  "relative_length_reward",
  "replaced_if_unfinished",
  "weighted_sum",
]
