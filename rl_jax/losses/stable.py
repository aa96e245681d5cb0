"""The clipped surrogate on a ratio that is bounded before it is one."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import jax.numpy as jnp

from rl_jax.losses.policy import PolicyLoss, clipped_terms
from rl_jax.ratios.importance import log_ratio_of

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float

__all__ = ["preclip_ratio", "stable_reinforce_loss"]


def preclip_ratio(
  log_prob: Float[Array, "*batch time"],
  behaviour_log_prob: Float[Array, "*batch time"],
  mask: Bool[Array, "*batch time"],
  *,
  low: float,
  high: float,
) -> Float[Array, "*batch time"]:
  r"""Ratio of the policies' probabilities, clipped before the exponential.

      r_t = exp(max(log low, min(log high, log_prob_t - behaviour_t)))

  Finite for any finite log-probs, and no gradient flows beyond the bounds.
  With low = 1 / high it is `token_ratio` with the clamp log high. How often
  it bites is `clipped_fraction` of the `token_ratio` without a clamp.

  Args:
    log_prob: log pi(a_t), nats. The gradient flows through it.
    behaviour_log_prob: log of the probability that a_t was drawn with, nats.
      No gradient flows through it.
    mask: true = counts.
    low: the smallest ratio, not its logarithm; in (0, 1). .001 in the code.
    high: the largest ratio; above 1. 1000 in the code.

  Returns:
    r, unitless; 1 where the mask is false.

  Raises:
    ValueError: unless 0 < low < 1 < high < infinity.

  Zhang et al. 2025, arXiv:2505.02835 (StableReinforce, Pre-CLIP).

  >>> preclip_ratio(
  ...   jnp.array([20.0, -20.0, 0.0]),
  ...   jnp.zeros(3),
  ...   jnp.ones(3, bool),
  ...   low=0.25,
  ...   high=8.0,
  ... ).round(4).tolist()
  [8.0, 0.25, 1.0]
  """
  if not 0 < low < 1 < high < math.inf:
    raise ValueError(
      "the bounds are ratios, not logarithms of them: 0 < low < 1 < high <"
      f" infinity is needed, got low={low}, high={high}"
    )
  log_ratio = log_ratio_of(log_prob, behaviour_log_prob, mask)
  return jnp.exp(jnp.clip(log_ratio, math.log(low), math.log(high)))


def stable_reinforce_loss(
  log_prob: Float[Array, "*batch time"],
  behaviour_log_prob: Float[Array, "*batch time"],
  advantage: Float[Array, "*batch time"],
  mask: Bool[Array, "*batch time"],
  *,
  clip_low: float,
  clip_high: float,
  low: float,
  high: float,
) -> PolicyLoss:
  r"""`clipped_policy_terms` on `preclip_ratio`.

      l_t = -min(r_t A_t, clip(r_t, 1 - clip_low, 1 + clip_high) A_t)

  PPO's minimum does not bound a bad action whose ratio explodes: its loss is
  -A r, with r up to infinity in float32 from 88 nats on, and NaN after that.
  Between the bounds the two are the same. Reduced in the paper over the
  tokens of a response, then over responses (`over_sequences`).

  Args:
    log_prob: log pi(a_t), nats. The gradient flows through it.
    behaviour_log_prob: the same of the policy that acted. No gradient flows
      through it.
    advantage: A_t, in units of reward. No gradient flows through it.
    mask: true = counts.
    clip_low: how far below one the ratio may fall before its gradient stops.
    clip_high: how far above one it may rise.
    low: the smallest ratio there is, in (0, 1).
    high: the largest ratio there is, above 1.

  Returns:
    Loss, bounded ratio and who left the clip range.

  Raises:
    ValueError: if a clip bound is negative, or unless 0 < low < 1 < high.

  Zhang et al. 2025, arXiv:2505.02835 (StableReinforce).

  >>> zero, one, kept = jnp.zeros(1), jnp.ones(1), jnp.ones(1, bool)
  >>> stable_reinforce_loss(
  ...   200 * one,
  ...   zero,
  ...   -one,
  ...   kept,
  ...   clip_low=0.2,
  ...   clip_high=0.2,
  ...   low=0.25,
  ...   high=8.0,
  ... ).loss.round(4).tolist()
  [8.0]
  """
  ratio = preclip_ratio(log_prob, behaviour_log_prob, mask, low=low, high=high)
  return clipped_terms(
    ratio, advantage, mask, clip_low=clip_low, clip_high=clip_high
  )
