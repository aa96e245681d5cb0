"""Losses: arrays in, one value per element out. Reduce with `rl_jax.reduce`."""

from rl_jax.losses.denoising import (
  denoising_advantage,
  denoising_clip,
  denoising_policy_loss,
  kl_masked_policy_loss,
)
from rl_jax.losses.entropy import entropy_bonus
from rl_jax.losses.matching import (
  awm_loss,
  matching_error,
  matching_log_prob,
  velocity_kl,
  weighted_error,
)
from rl_jax.losses.outcome_reward import (
  implicit_ce_loss,
)
from rl_jax.losses.policy import (
  PolicyLoss,
  clipped_policy_loss,
  clipped_policy_terms,
  decoupled_clipped_loss,
  dual_clipped_loss,
  policy_gradient_loss,
)
from rl_jax.losses.policy_covariance import (
  covariance_clip_loss,
  covariance_penalty_loss,
  largest_fraction,
  token_covariance,
)
from rl_jax.losses.policy_gates import clipped_weight_loss, soft_gate_loss
from rl_jax.losses.policy_sequence import (
  geometric_mean_loss,
  sequence_clipped_loss,
  sequence_token_loss,
)
from rl_jax.losses.preference import (
  ImplicitReward,
  implicit_reward,
  jensen_shannon_link,
  log_odds,
  log_ratio,
  matched_by_rank,
  per_token,
  power_link,
)
from rl_jax.losses.preference_absolute import (
  apo_down_loss,
  apo_zero_loss,
  nca_loss,
  sppo_loss,
)
from rl_jax.losses.preference_logistic import (
  logistic_preference_loss,
  reverse_kl_preference_loss,
  robust_preference_loss,
)
from rl_jax.losses.preference_margin import (
  exponential_preference_loss,
  hinge_preference_loss,
  modulated_preference_loss,
  sigmoid_preference_loss,
  squared_preference_loss,
)
from rl_jax.losses.preference_unpaired import (
  RunningReward,
  bco_loss,
  init_running_reward,
  kto_loss,
  kto_reference_point,
  update_running_reward,
)
from rl_jax.losses.preference_weighted import (
  length_desensitised_log_prob,
  on_policy_weight,
  sequential_kl_log_ratio,
)
from rl_jax.losses.regression import (
  edm_loss,
  edm_lower_noise,
  edm_noisy_target,
  edm_weight,
  flow_matching_loss,
  karras_grid,
)
from rl_jax.losses.reward import bradley_terry_loss
from rl_jax.losses.sft import negative_log_likelihood, noisy_embedding
from rl_jax.losses.stable import (
  preclip_ratio,
  stable_reinforce_loss,
)
from rl_jax.losses.value import (
  ExplainedVariance,
  ValueLoss,
  categorical_mean,
  categorical_value_loss,
  clipped_value_loss,
  explained_variance,
  gaussian_target,
  huber_value_loss,
  two_hot_target,
)

__all__ = [
  "ExplainedVariance",
  "ImplicitReward",
  "PolicyLoss",
  "RunningReward",
  "ValueLoss",
  "apo_down_loss",
  "apo_zero_loss",
  "awm_loss",
  "bco_loss",
  "bradley_terry_loss",
  "categorical_mean",
  "categorical_value_loss",
  "clipped_policy_loss",
  "clipped_policy_terms",
  "clipped_value_loss",
  "clipped_weight_loss",
  "covariance_clip_loss",
  "covariance_penalty_loss",
  "decoupled_clipped_loss",
  "denoising_advantage",
  "denoising_clip",
  "denoising_policy_loss",
  "dual_clipped_loss",
  "edm_loss",
  "edm_lower_noise",
  "edm_noisy_target",
  "edm_weight",
  "entropy_bonus",
  "explained_variance",
  "exponential_preference_loss",
  "flow_matching_loss",
  "gaussian_target",
  "geometric_mean_loss",
  "hinge_preference_loss",
  "huber_value_loss",
  "implicit_ce_loss",
  "implicit_reward",
  "init_running_reward",
  "jensen_shannon_link",
  "karras_grid",
  "kl_masked_policy_loss",
  "kto_loss",
  "kto_reference_point",
  "largest_fraction",
  "length_desensitised_log_prob",
  "log_odds",
  "log_ratio",
  "logistic_preference_loss",
  "matched_by_rank",
  "matching_error",
  "matching_log_prob",
  "modulated_preference_loss",
  "nca_loss",
  "negative_log_likelihood",
  "noisy_embedding",
  "on_policy_weight",
  "per_token",
  "policy_gradient_loss",
  "power_link",
  "preclip_ratio",
  "reverse_kl_preference_loss",
  "robust_preference_loss",
  "sequence_clipped_loss",
  "sequence_token_loss",
  "sequential_kl_log_ratio",
  "sigmoid_preference_loss",
  "soft_gate_loss",
  "sppo_loss",
  "squared_preference_loss",
  "stable_reinforce_loss",
  "token_covariance",
  "two_hot_target",
  "update_running_reward",
  "velocity_kl",
  "weighted_error",
]
