"""Importance ratios, and what is done when they are far from one.

    token       r_it = exp(d_it)                    one per token
    sequence    r_i  = exp(sum_t d_it)              one per row
    geometric   r_i  = exp(mean_t d_it)             one per row

with d = log pi - log behaviour where the mask is true. Ratios carry the
gradient of the trained policy and never the behaviour's.

Tokens may come from a policy other than the one that the loss's ratio is
taken to: the engine that sampled them computes other probabilities, or was
some updates behind. With `old` the log-probs that the trainer computed before
its updates and `rollout` those that the engine reported, two things help:

* weights: `truncated_weight` or `masked_weight` of `token_ratio(old, rollout,
  ...)` or of a row's ratio, made one with `normalised_weight` if wished, to
  multiply the loss with;
* rejection: `keep_by_ratio`, `keep_by_divergence` and
  `off_policy_sequence_mask` return the mask that is left, so that what is
  rejected leaves the denominators too.

Do one correction once. Where the loss is given `rollout` as its behaviour
("bypass" of the recomputed log-probs), its ratio pi / rollout is already the
whole correction, and multiplying it with old / rollout counts that twice.
"""

from rl_jax.ratios.importance import (
  clamped_log_prob,
  geometric_ratio,
  sequence_ratio,
  token_ratio,
)
from rl_jax.ratios.rejection import (
  keep_by_divergence,
  keep_by_ratio,
  off_policy_sequence_mask,
  rejected_fraction,
)
from rl_jax.ratios.weights import (
  WeightMoments,
  clipped_fraction,
  masked_weight,
  normalised_weight,
  row_maximum,
  truncated_weight,
  weight_moments,
)

__all__ = [
  "WeightMoments",
  "clamped_log_prob",
  "clipped_fraction",
  "geometric_ratio",
  "keep_by_divergence",
  "keep_by_ratio",
  "masked_weight",
  "normalised_weight",
  "off_policy_sequence_mask",
  "rejected_fraction",
  "row_maximum",
  "sequence_ratio",
  "token_ratio",
  "truncated_weight",
  "weight_moments",
]
