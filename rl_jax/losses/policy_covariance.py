r"""Policy losses that spare the tokens at which entropy is lost.

Entropy falls where the log-prob and the advantage of a token are both far
above their means, by about their covariance. Two losses act on such tokens:
one penalises the change of their log-prob, the other drops their gradient.

Which tokens those are depends on the whole batch. So that micro-batches do
not matter, there are three steps, the first two on the full batch before it
is split, the last on any part of it:

    mean     = over_tokens(x, mask).mean()      for log-prob and advantage
    spared   = largest_fraction(token_covariance(...), mask, mask, ...)
    terms    = covariance_penalty_loss(..., spared, ...)

Cui et al. 2025, arXiv:2505.22617, "The entropy mechanism of reinforcement
learning for reasoning language models", reconstructed after the form that
their code and verl's have: there all of it happens per micro-batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from rl_jax.divergences import absolute_log_ratio
from rl_jax.losses.policy import (
  PolicyLoss,
  clipped_policy_terms,
  importance_ratio,
)
from rl_jax.masks import keep, widened

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float

__all__ = [
  "covariance_clip_loss",
  "covariance_penalty_loss",
  "largest_fraction",
  "token_covariance",
]


def token_covariance(
  log_prob: Float[Array, "*batch time"],
  advantage: Float[Array, "*batch time"],
  mean_log_prob: Float[Array, ""],
  mean_advantage: Float[Array, ""],
  mask: Bool[Array, "*batch time"],
) -> Float[Array, "*batch time"]:
  r"""How much each token adds to the covariance of log-prob and advantage.

      cov_t = (log_prob_t - mean log_prob) (A_t - mean A)

  Args:
    log_prob: log pi(a_t | s_t), nats.
    advantage: A_t, in units of reward.
    mean_log_prob: mean over the counted tokens of the full batch.
    mean_advantage: likewise.
    mask: true = counts.

  Returns:
    cov, in nats times reward, zero where masked; carries no gradient. Its
    mean over the counted tokens is their covariance.

  Cui et al. 2025, arXiv:2505.22617.

  >>> log_prob, advantage = jnp.array([0.0, -2.0]), jnp.array([3.0, 1.0])
  >>> token_covariance(
  ...   log_prob, advantage, jnp.array(-1.0), jnp.array(2.0), log_prob < 1
  ... ).tolist()
  [1.0, 1.0]
  """
  from_mean = keep(log_prob, mask) - widened(mean_log_prob)
  covariance = from_mean * (keep(advantage, mask) - widened(mean_advantage))
  return jax.lax.stop_gradient(jnp.where(mask, covariance, 0.0))


def largest_fraction(
  score: Float[Array, "*batch time"],
  eligible: Bool[Array, "*batch time"],
  mask: Bool[Array, "*batch time"],
  *,
  fraction: float,
) -> Bool[Array, "*batch time"]:
  r"""The eligible tokens of highest score, as many as a fraction of all.

      k = max(1, floor(fraction * number of counted tokens))
      the k eligible, counted tokens of highest score; all, if there are fewer

  For KL-Cov the score is the covariance and every token is eligible. For
  Clip-Cov the choice is random: the score is a number drawn for each token,
  and eligible are those whose covariance lies between two bounds (1 and 5)
  and whose gradient the clip has not stopped anyway.

  Args:
    score: any unit. Ties go to the earlier token.
    eligible: true = may be chosen.
    mask: true = counts.
    fraction: of the counted tokens, in (0, 1]; the code of the paper writes
      KL-Cov's in percent (0.2 is 0.002 here).

  Returns:
    True for the chosen ones.

  Raises:
    ValueError: unless 0 < fraction <= 1.

  >>> score, kept = jnp.array([1.0, 4.0, 3.0, 2.0]), jnp.ones(4, bool)
  >>> largest_fraction(score, kept, kept, fraction=0.5).tolist()
  [False, True, True, False]
  """
  if not 0 < fraction <= 1:
    raise ValueError(f"fraction must lie in (0, 1], got {fraction}")
  counted = jnp.sum(mask, dtype=jnp.float32)
  number = jnp.maximum(1, jnp.floor(fraction * counted))
  chosen = mask & eligible
  # Two sorts: the second says which place each token took in the first.
  last_first = jnp.where(chosen, -jax.lax.stop_gradient(score), jnp.inf)
  order = jnp.argsort(last_first.reshape(-1))
  place = jnp.argsort(order).reshape(mask.shape)
  return chosen & (place < number)


def covariance_penalty_loss(
  log_prob: Float[Array, "*batch time"],
  behaviour_log_prob: Float[Array, "*batch time"],
  advantage: Float[Array, "*batch time"],
  spared: Bool[Array, "*batch time"],
  mask: Bool[Array, "*batch time"],
  *,
  weight: float,
) -> PolicyLoss:
  r"""KL-Cov: no clip, and a penalty on change for the spared tokens.

      l_t = -A_t r_t + weight |d_t| spared_t
      d = log_prob - behaviour_log_prob,   r = exp(d)

  On policy the penalty has no slope, so the first of several updates is the
  plain policy gradient.

  Args:
    log_prob: log pi(a_t | s_t) of the policy being trained, nats.
    behaviour_log_prob: the same of the policy that acted. No gradient flows
      through it.
    advantage: A_t, in units of reward. No gradient flows through it.
    spared: true for the tokens of high covariance; see `largest_fraction`.
    mask: true = counts.
    weight: reward per nat, not negative; 1 in the paper.

  Returns:
    Loss; ratio; nothing clipped.

  Raises:
    ValueError: if `weight` is negative.

  Cui et al. 2025, arXiv:2505.22617. The paper writes a KL; its code and
  verl's take |d|, as here.

  >>> d, one = jnp.log(jnp.array([2.0, 2.0])), jnp.ones(2)
  >>> slope = jax.grad(
  ...   lambda x: covariance_penalty_loss(
  ...     x, 0 * one, one, jnp.array([True, False]), one > 0, weight=0.5
  ...   ).loss.sum()
  ... )
  >>> slope(d).round(5).tolist()
  [-1.5, -2.0]
  """
  if not weight >= 0:
    raise ValueError(f"weight must not be negative, got {weight}")
  ratio = importance_ratio(log_prob, behaviour_log_prob, mask)
  change = absolute_log_ratio(log_prob, behaviour_log_prob, mask)
  advantage = jax.lax.stop_gradient(keep(advantage, mask))
  loss = -advantage * ratio + weight * jnp.where(spared, change, 0.0)
  return PolicyLoss(loss, jax.lax.stop_gradient(ratio), jnp.zeros_like(mask))


def covariance_clip_loss(
  log_prob: Float[Array, "*batch time"],
  behaviour_log_prob: Float[Array, "*batch time"],
  advantage: Float[Array, "*batch time"],
  spared: Bool[Array, "*batch time"],
  mask: Bool[Array, "*batch time"],
  *,
  clip_low: float,
  clip_high: float,
) -> PolicyLoss:
  r"""Clip-Cov: the clipped surrogate without the spared tokens.

      l_t = (1 - spared_t) clipped_policy_loss_t

  A spared token still counts in the denominator of a reduction, as in the
  authors' code.

  Args:
    log_prob: as in `clipped_policy_loss`.
    behaviour_log_prob: as there.
    advantage: as there.
    spared: true for tokens chosen at random among those of middling
      covariance; see `largest_fraction`.
    mask: true = counts.
    clip_low: as in `clipped_policy_loss`.
    clip_high: as there.

  Returns:
    Loss; ratio; clipped where the ratio left its range or the token is
    spared.

  Raises:
    ValueError: if a clip bound is negative.

  Cui et al. 2025, arXiv:2505.22617.

  >>> one = jnp.ones(2)
  >>> covariance_clip_loss(
  ...   0 * one,
  ...   0 * one,
  ...   one,
  ...   jnp.array([True, False]),
  ...   one > 0,
  ...   clip_low=0.25,
  ...   clip_high=0.25,
  ... ).loss.tolist()
  [0.0, -1.0]
  """
  terms = clipped_policy_terms(
    log_prob,
    behaviour_log_prob,
    advantage,
    mask,
    clip_low=clip_low,
    clip_high=clip_high,
  )
  return terms._replace(
    loss=jnp.where(spared, 0.0, terms.loss),
    clipped=mask & (terms.clipped | spared),
  )
