"""Algorithms: frozen values that say how a step is made of pure functions."""

from rl_jax.algorithms.advantages import (
  Estimate,
  GroupRelative,
  PromptStatistics,
)
from rl_jax.algorithms.denoising import Average, DenoisingPolicyGradient
from rl_jax.algorithms.matching import AdvantageWeightedMatching, SlowCopy
from rl_jax.algorithms.offline import Classification, FlowMatching

__all__ = [
  "AdvantageWeightedMatching",
  "Average",
  "Classification",
  "DenoisingPolicyGradient",
  "Estimate",
  "FlowMatching",
  "GroupRelative",
  "PromptStatistics",
  "SlowCopy",
]
