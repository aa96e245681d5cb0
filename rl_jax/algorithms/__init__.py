"""Algorithms: frozen values that say how a step is made of pure functions."""

from rl_jax.algorithms.advantages import (
  Estimate,
  GroupRelative,
  PromptStatistics,
)
from rl_jax.algorithms.denoising import Average, DenoisingPolicyGradient
from rl_jax.algorithms.implicit_reward import LabelOptimisation
from rl_jax.algorithms.language import Critic, PolicyOptimisation
from rl_jax.algorithms.language_offline import (
  FineTuning,
  PreferenceOptimisation,
  RewardModelling,
)
from rl_jax.algorithms.matching import AdvantageWeightedMatching, SlowCopy
from rl_jax.algorithms.offline import Classification, FlowMatching
from rl_jax.algorithms.recipe import PolicyRecipe
from rl_jax.algorithms.responses import Scoring
from rl_jax.algorithms.view import View

__all__ = [
  "AdvantageWeightedMatching",
  "Average",
  "Classification",
  "Critic",
  "DenoisingPolicyGradient",
  "Estimate",
  "FineTuning",
  "FlowMatching",
  "GroupRelative",
  "LabelOptimisation",
  "PolicyOptimisation",
  "PolicyRecipe",
  "PreferenceOptimisation",
  "PromptStatistics",
  "RewardModelling",
  "Scoring",
  "SlowCopy",
  "View",
]
