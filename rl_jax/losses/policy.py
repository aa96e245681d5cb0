"""Policy-gradient losses on log-probabilities, per element."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp

from rl_jax.masks import keep

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float

__all__ = ["PolicyLoss", "clipped_policy_loss", "clipped_policy_terms"]


class PolicyLoss(NamedTuple):
  """A loss and what is worth watching about it, all of one shape.

  Attributes:
    loss: per element, in units of reward; zero where masked.
    ratio: pi / behaviour per element, one where masked; carries no gradient.
    clipped: true where the ratio left the clip range (or, for losses without
      one, where the gradient was stopped); false where masked.
  """

  loss: Float[Array, "*batch time"]
  ratio: Float[Array, "*batch time"]
  clipped: Bool[Array, "*batch time"]


def clipped_policy_loss(
  log_prob: Float[Array, "*batch time"],
  behaviour_log_prob: Float[Array, "*batch time"],
  advantage: Float[Array, "*batch time"],
  mask: Bool[Array, "*batch time"],
  *,
  clip_low: float | Float[Array, "*batch time"],
  clip_high: float | Float[Array, "*batch time"],
) -> Float[Array, "*batch time"]:
  r"""Clipped surrogate of PPO, per element.

      l_t = max(-A_t r_t, -A_t clip(r_t, 1 - clip_low, 1 + clip_high))
      r_t = exp(log_prob_t - behaviour_log_prob_t)

  Args:
    log_prob: log pi(a_t | s_t) of the policy being trained, nats. A token, a
      denoising step, or the matching log-prob at one training time.
    behaviour_log_prob: the same of the policy that acted. No gradient flows
      through it.
    advantage: A_t, in units of reward. No gradient flows through it.
    mask: true = counts. Elsewhere the inputs may hold anything, NaN included;
      the loss and its gradient there are zero.
    clip_low: how far below one the ratio may fall before its gradient stops;
      a number, or one per element.
    clip_high: how far above one it may rise; infinity switches it off.

  Returns:
    The loss of each element, not reduced; see `rl_jax.reduce`.

  Raises:
    ValueError: if a clip bound that is a number is negative.

  Schulman et al. 2017, arXiv:1707.06347, eq. 7; two bounds as in Yu et al.
  2025, arXiv:2503.14476.

  >>> log_prob = jnp.log(jnp.array([2.0, 1.0]))
  >>> zero, one, kept = jnp.zeros(2), jnp.ones(2), jnp.ones(2, bool)
  >>> clipped_policy_loss(
  ...   log_prob, zero, one, kept, clip_low=0.5, clip_high=0.25
  ... ).tolist()
  [-1.25, -1.0]
  """
  return clipped_policy_terms(
    log_prob,
    behaviour_log_prob,
    advantage,
    mask,
    clip_low=clip_low,
    clip_high=clip_high,
  ).loss


def clipped_policy_terms(
  log_prob: Float[Array, "*batch time"],
  behaviour_log_prob: Float[Array, "*batch time"],
  advantage: Float[Array, "*batch time"],
  mask: Bool[Array, "*batch time"],
  *,
  clip_low: float | Float[Array, "*batch time"],
  clip_high: float | Float[Array, "*batch time"],
) -> PolicyLoss:
  r"""`clipped_policy_loss` together with its ratio and who left the range.

      clipped_t = r_t < 1 - clip_low  or  r_t > 1 + clip_high

  Args:
    log_prob: as in `clipped_policy_loss`.
    behaviour_log_prob: as there.
    advantage: as there.
    mask: as there.
    clip_low: as there.
    clip_high: as there.

  Returns:
    Loss, ratio and clip indicator of each element.

  Raises:
    ValueError: if a clip bound that is a number is negative.

  >>> log_prob = jnp.log(jnp.array([2.0, 1.0]))
  >>> zero, one, kept = jnp.zeros(2), jnp.ones(2), jnp.ones(2, bool)
  >>> clipped_policy_terms(
  ...   log_prob, zero, one, kept, clip_low=0.5, clip_high=0.25
  ... ).clipped.tolist()
  [True, False]
  """
  for name, bound in (("clip_low", clip_low), ("clip_high", clip_high)):
    if isinstance(bound, int | float) and not bound >= 0:
      raise ValueError(f"{name} must not be negative, got {bound}")
  ratio = importance_ratio(log_prob, behaviour_log_prob, mask)
  advantage = jax.lax.stop_gradient(keep(advantage, mask))
  low = jnp.broadcast_to(1.0 - clip_low, ratio.shape)
  high = jnp.broadcast_to(1.0 + clip_high, ratio.shape)
  loss = jnp.maximum(
    -advantage * ratio, -advantage * jnp.clip(ratio, low, high)
  )
  ratio = jax.lax.stop_gradient(ratio)
  return PolicyLoss(loss, ratio, mask & ((ratio < low) | (ratio > high)))


def importance_ratio(
  log_prob: Float[Array, "*batch time"],
  behaviour_log_prob: Float[Array, "*batch time"],
  mask: Bool[Array, "*batch time"],
) -> Float[Array, "*batch time"]:
  """exp(log_prob - behaviour_log_prob), one where masked."""
  behaviour = jax.lax.stop_gradient(keep(behaviour_log_prob, mask))
  return jnp.exp(keep(log_prob, mask) - behaviour)
