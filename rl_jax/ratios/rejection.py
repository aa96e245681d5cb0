"""Tokens and rows that are left out because their ratio went too far.

Each function returns what is left of a mask. Give that to the loss and to the
reduction: what is rejected then leaves the numerator and the denominator.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import jax
import jax.numpy as jnp

from rl_jax.masks import masked_mean
from rl_jax.ratios.importance import log_ratio_of
from rl_jax.reduce import Total

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float

__all__ = [
  "keep_by_divergence",
  "keep_by_ratio",
  "off_policy_sequence_mask",
  "rejected_fraction",
]


def keep_by_ratio(
  log_prob: Float[Array, "*batch time"],
  behaviour_log_prob: Float[Array, "*batch time"],
  mask: Bool[Array, "*batch time"],
  *,
  level: Literal["token", "sum", "mean"],
  low: float,
  high: float,
) -> Bool[Array, "*batch time"]:
  """Leave out what the behaviour found too likely or too unlikely.

      k1_it = behaviour_log_prob_it - log_prob_it
      "token":  keep where  log low <= k1_it <= log high
      "sum":    keep a row where  log low <= sum_t k1_it <= log high
      "mean":   keep a row where  log low <= mean_t k1_it <= log high

  Mind the direction: the bounds are on behaviour / pi, the inverse of the
  importance ratio. To bound pi / behaviour by [a, b] give [1/b, 1/a]. They
  are inclusive, and compared in log space so that nothing overflows.

  Args:
    log_prob: log pi(a_t), nats: of the trainer, before its updates.
    behaviour_log_prob: log of the probability that a_t was drawn with, nats.
    mask: true = counts.
    level: what is compared; "mean" bounds the geometric mean.
    low: smallest behaviour / pi that is kept, positive.
    high: largest that is kept; infinity switches it off.

  Returns:
    What is left of `mask`. A NaN that counts is left out.

  Raises:
    ValueError: unless 0 < low <= high, or for an unknown level.

  The k1 rejections of verl ("token_k1", "seq_sum_k1", "seq_mean_k1").

  >>> log_prob = jnp.log(jnp.array([[0.5, 0.5]]))
  >>> behaviour = jnp.log(jnp.array([[0.125, 0.5]]))
  >>> keep_by_ratio(
  ...   log_prob,
  ...   behaviour,
  ...   jnp.ones((1, 2), bool),
  ...   level="token",
  ...   low=0.5,
  ...   high=2.0,
  ... ).tolist()
  [[False, True]]
  """
  if not 0 < low <= high:
    raise ValueError(f"needs 0 < low <= high, got low={low}, high={high}")
  k1 = -_stopped(log_prob, behaviour_log_prob, mask)
  statistic = _over_row(k1, mask, level)
  inside = (math.log(low) <= statistic) & (statistic <= math.log(high))
  return mask & inside


def keep_by_divergence(
  log_prob: Float[Array, "*batch time"],
  behaviour_log_prob: Float[Array, "*batch time"],
  mask: Bool[Array, "*batch time"],
  *,
  statistic: Literal["k2", "k3"],
  level: Literal["token", "sum", "mean", "max"],
  maximum: float,
) -> Bool[Array, "*batch time"]:
  """Leave out what lies too far from the behaviour, in either direction.

      d_it = log_prob_it - behaviour_log_prob_it
      "k2":  s_it = d_it^2 / 2
      "k3":  s_it = exp(d_it) - 1 - d_it

      "token":  keep where  s_it <= maximum
      others:   keep a row where the sum, mean or maximum over its counted
                tokens is at most that

  k3 estimates KL(behaviour || pi) without bias, since a_t is the behaviour's;
  it grows as the ratio upwards and as d downwards. An infinite k3 is left
  out.

  Args:
    log_prob: log pi(a_t), nats: of the trainer, before its updates.
    behaviour_log_prob: log of the probability that a_t was drawn with, nats.
    mask: true = counts.
    statistic: which s.
    level: what of it is compared.
    maximum: the largest that is kept, inclusive; nats squared or nats.

  Returns:
    What is left of `mask`. A NaN that counts is left out.

  Raises:
    ValueError: if `maximum` is negative, or for an unknown statistic or level.

  The k2 and k3 rejections of verl ("token_k2", "seq_max_k3", ...).

  >>> keep_by_divergence(
  ...   jnp.array([[0.0, 2.0], [0.0, 1.0]]),
  ...   jnp.zeros((2, 2)),
  ...   jnp.ones((2, 2), bool),
  ...   statistic="k2",
  ...   level="max",
  ...   maximum=1.0,
  ... ).tolist()
  [[False, False], [True, True]]
  """
  if not maximum >= 0:
    raise ValueError(f"maximum must not be negative, got {maximum}")
  d = _stopped(log_prob, behaviour_log_prob, mask)
  match statistic:
    case "k2":
      value = 0.5 * jnp.square(d)
    case "k3":
      value = jnp.expm1(d) - d
    case _:
      raise ValueError(f"statistic must be 'k2' or 'k3', got {statistic!r}")
  return mask & (_over_row(value, mask, level) <= maximum)


def off_policy_sequence_mask(
  log_prob: Float[Array, "*batch time"],
  behaviour_log_prob: Float[Array, "*batch time"],
  advantage: Float[Array, "*batch time"],
  mask: Bool[Array, "*batch time"],
  *,
  threshold: float,
) -> Bool[Array, "*batch time"]:
  """Leave out failures that the policy has already moved away from.

      K_i = mean_t (behaviour_log_prob_it - log_prob_it)
      keep where  A_it >= 0  or  K_i <= threshold

  A bad sample that pi hardly produces any more teaches little and costs
  stability; a good one is kept however far it is.

  Args:
    log_prob: log pi(a_t) of the policy being trained, nats. No gradient flows
      through it.
    behaviour_log_prob: log of the probability that a_t was drawn with, nats:
      the sampler's own.
    advantage: A, in units of reward; usually one number for a row.
    mask: true = counts.
    threshold: nats per token.

  Returns:
    What is left of `mask`. A NaN that counts is left out.

  The off-policy sequence masking of DeepSeek-V3.2 (2025).

  >>> mask, stale = jnp.ones((2, 2), bool), jnp.full((2, 2), -3.0)
  >>> advantage = jnp.array([[1.0, 1.0], [-1.0, -1.0]])
  >>> off_policy_sequence_mask(
  ...   stale, jnp.zeros((2, 2)), advantage, mask, threshold=2.0
  ... ).tolist()
  [[True, True], [False, False]]
  """
  drift = masked_mean(-_stopped(log_prob, behaviour_log_prob, mask), mask)
  near = (drift <= threshold)[..., None]
  return mask & ((advantage >= 0) | near)


def rejected_fraction(
  mask: Bool[Array, "*batch"], kept: Bool[Array, "*batch"]
) -> Total:
  """How much of a mask was left out.

      value = sum mask (1 - kept),   weight = sum mask

  Args:
    mask: true = counted before: of tokens, or `jnp.any(mask, axis=-1)` of
      rows.
    kept: what was left of it, in the same shape.

  Returns:
    The Total whose mean is the fraction.

  >>> mask, kept = jnp.array([True, True, False]), jnp.zeros(3, bool)
  >>> kept = kept.at[0].set(True)
  >>> rejected_fraction(mask, kept).mean().item()
  0.5
  """
  return Total(
    jnp.sum(mask & ~kept, dtype=jnp.float32), jnp.sum(mask, dtype=jnp.float32)
  )


def _stopped(log_prob, behaviour_log_prob, mask):
  return jax.lax.stop_gradient(log_ratio_of(log_prob, behaviour_log_prob, mask))


def _over_row(value, mask, level):
  """The value itself, or one number of each row, beside every token."""
  match level:
    case "token":
      return value
    case "sum":
      row = jnp.sum(value, axis=-1)
    case "mean":
      row = masked_mean(value, mask)
    case "max":
      row = jnp.max(value, axis=-1, initial=0.0)
    case _:
      raise ValueError(f"no level is called {level!r}")
  return jnp.broadcast_to(row[..., None], value.shape)
