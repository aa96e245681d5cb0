"""Policy losses that weigh a token down instead of stopping its gradient."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from rl_jax.losses.policy import PolicyLoss, importance_ratio
from rl_jax.masks import keep

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float

__all__ = ["clipped_weight_loss", "soft_gate_loss"]


def clipped_weight_loss(
  log_prob: Float[Array, "*batch time"],
  behaviour_log_prob: Float[Array, "*batch time"],
  advantage: Float[Array, "*batch time"],
  mask: Bool[Array, "*batch time"],
  *,
  low: float,
  high: float,
) -> PolicyLoss:
  r"""Policy gradient with a clipped importance weight: no token is dropped.

      l_t = -stop(clip(r_t, low, high)) A_t log_prob_t
      r_t = exp(log_prob_t - behaviour_log_prob_t)

  The clip bounds the weight of a token, never its gradient: rare tokens that
  PPO's clip silences go on learning. The value means nothing; the gradient is
  -clip(r) A grad log pi.

  Args:
    log_prob: log pi(a_t | s_t) of the policy being trained, nats.
    behaviour_log_prob: the same of the policy that acted. No gradient flows
      through it.
    advantage: A_t, in units of reward. No gradient flows through it.
    mask: true = counts.
    low: smallest weight: a bound on the ratio itself, not a distance from
      one. 0 switches it off.
    high: largest weight, likewise.

  Returns:
    Loss, ratio (not clipped) and whether that lies outside [low, high].

  Raises:
    ValueError: unless 0 <= low <= high.

  MiniMax 2025, arXiv:2506.13585 (CISPO). The bounds are
  [1 - eps_low, 1 + eps_high] in verl, [0, epsilon_high] in TRL and
  [0, 1 + clip_higher] in open-instruct.

  >>> log_prob = jnp.log(jnp.array([0.5]))
  >>> slope = jax.grad(
  ...   lambda x: clipped_weight_loss(
  ...     x, jnp.log(jnp.ones(1) / 8), jnp.ones(1), x < 1, low=0.0, high=2.0
  ...   ).loss.sum()
  ... )
  >>> slope(log_prob).tolist()
  [-2.0]
  """
  if not 0 <= low <= high:
    raise ValueError(f"needs 0 <= low <= high, got low={low}, high={high}")
  ratio = jax.lax.stop_gradient(
    importance_ratio(log_prob, behaviour_log_prob, mask)
  )
  advantage = jax.lax.stop_gradient(keep(advantage, mask))
  loss = -jnp.clip(ratio, low, high) * advantage * keep(log_prob, mask)
  return PolicyLoss(loss, ratio, mask & ((ratio < low) | (ratio > high)))


def soft_gate_loss(
  log_prob: Float[Array, "*batch time"],
  behaviour_log_prob: Float[Array, "*batch time"],
  advantage: Float[Array, "*batch time"],
  mask: Bool[Array, "*batch time"],
  *,
  sharpness: float,
  negative_sharpness: float,
) -> PolicyLoss:
  r"""A sigmoid in place of the clip: the gradient fades as the ratio moves.

      l_t = -A_t (4 / k_t) sigmoid(k_t (r_t - 1))
      r_t = exp(log_prob_t - behaviour_log_prob_t)
      k_t = sharpness where A_t > 0, else negative_sharpness

  The slope by r is one at r = 1, whatever k, and falls to zero on both sides:
  gradient -A r 4 sigmoid(u) sigmoid(-u) grad log pi with u = k (r - 1).

  Args:
    log_prob: log pi(a_t | s_t) of the policy being trained, nats.
    behaviour_log_prob: the same of the policy that acted. No gradient flows
      through it.
    advantage: A_t, in units of reward. No gradient flows through it.
    mask: true = counts.
    sharpness: k of good actions, positive; 1 in the paper.
    negative_sharpness: k of bad ones, whose gradients are the less stable;
      1.05 in the paper.

  Returns:
    Loss; ratio; nothing clipped, since no gradient is stopped.

  Raises:
    ValueError: if a sharpness is not positive.

  Gao et al. 2025, arXiv:2511.20347 (SAPO).

  >>> zero, kept = jnp.zeros(1), jnp.ones(1, bool)
  >>> slope = jax.grad(
  ...   lambda x: soft_gate_loss(
  ...     x, zero, zero + 3.0, kept, sharpness=1.0, negative_sharpness=2.0
  ...   ).loss.sum()
  ... )
  >>> slope(zero).tolist()
  [-3.0]
  """
  for name, value in (
    ("sharpness", sharpness),
    ("negative_sharpness", negative_sharpness),
  ):
    if not value > 0:
      raise ValueError(f"{name} must be positive, got {value}")
  ratio = importance_ratio(log_prob, behaviour_log_prob, mask)
  advantage = jax.lax.stop_gradient(keep(advantage, mask))
  k = jnp.where(advantage > 0, sharpness, negative_sharpness)
  gate = 4.0 / k * jax.nn.sigmoid(k * (ratio - 1.0))
  return PolicyLoss(
    -advantage * gate, jax.lax.stop_gradient(ratio), jnp.zeros_like(mask)
  )
