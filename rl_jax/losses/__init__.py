"""Losses: arrays in, one value per element out. Reduce with `rl_jax.reduce`."""

from rl_jax.losses.denoising import (
  denoising_advantage,
  denoising_clip,
  denoising_policy_loss,
  kl_masked_policy_loss,
)
from rl_jax.losses.matching import (
  awm_loss,
  matching_error,
  matching_log_prob,
  velocity_kl,
  weighted_error,
)
from rl_jax.losses.policy import (
  PolicyLoss,
  clipped_policy_loss,
  clipped_policy_terms,
)
from rl_jax.losses.regression import (
  edm_loss,
  edm_lower_noise,
  edm_noisy_target,
  edm_weight,
  flow_matching_loss,
  karras_grid,
)

__all__ = [
  "PolicyLoss",
  "awm_loss",
  "clipped_policy_loss",
  "clipped_policy_terms",
  "denoising_advantage",
  "denoising_clip",
  "denoising_policy_loss",
  "edm_loss",
  "edm_lower_noise",
  "edm_noisy_target",
  "edm_weight",
  "flow_matching_loss",
  "karras_grid",
  "kl_masked_policy_loss",
  "matching_error",
  "matching_log_prob",
  "velocity_kl",
  "weighted_error",
]
