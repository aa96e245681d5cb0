"""Rewards: pure transforms, their combination, and judges."""

from rl_jax.rewards.classifier import ClassifierReward
from rl_jax.rewards.combine import Sum, Verdict
from rl_jax.rewards.transforms import (
  class_match,
  log_likelihood_reward,
  weighted_sum,
)

__all__ = [
  "ClassifierReward",
  "Sum",
  "Verdict",
  "class_match",
  "log_likelihood_reward",
  "weighted_sum",
]
