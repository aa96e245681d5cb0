"""Policy-gradient losses over the steps of a denoising chain.

The chain is an episode: the state is (x_t, t, condition), the action the next
latent, the reward comes with the clean sample. Steps are the time axis.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from rl_jax.losses.policy import (
  PolicyLoss,
  clipped_policy_terms,
  importance_ratio,
)
from rl_jax.masks import keep, widened

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float, Int

__all__ = [
  "denoising_advantage",
  "denoising_clip",
  "denoising_policy_loss",
  "kl_masked_policy_loss",
]


def denoising_policy_loss(
  log_prob: Float[Array, "row time"],
  behaviour_log_prob: Float[Array, "row time"],
  advantage: Float[Array, "row"],
  mask: Bool[Array, "row time"],
  *,
  clip_low: float | Float[Array, "row time"],
  clip_high: float | Float[Array, "row time"],
) -> PolicyLoss:
  r"""PPO over denoising steps, one advantage for the whole chain of a row.

      l_ik = max(-A_i r_ik, -A_i clip(r_ik, 1 - clip_low, 1 + clip_high))
      r_ik = exp(log_prob_ik - behaviour_ik)

  Args:
    log_prob: log-prob of each step under the network being trained, nats;
      summed or averaged over the event as the clip range expects.
    behaviour_log_prob: the same, as stored by the sampler. No gradient flows
      through it.
    advantage: A_i, in units of reward. No gradient flows through it.
    mask: true for the steps that are trained (the last step of a chain
      usually is not) of rows that count.
    clip_low: how far below one the ratio may fall before its gradient stops.
    clip_high: how far above one it may rise. Flow-GRPO and DDPO use 1e-4 for
      both, on log-probs averaged over the event.

  Returns:
    Loss, ratio and clip indicator per row and step, not reduced.

  Raises:
    ValueError: if a clip bound that is a number is negative.

  Black et al. 2023, arXiv:2305.13301, section 4.3; Liu et al. 2025,
  arXiv:2505.05470, eq. 6, without its KL term.

  >>> denoising_policy_loss(
  ...   jnp.log(jnp.array([[2.0, 1.0]])),
  ...   jnp.zeros((1, 2)),
  ...   jnp.ones(1),
  ...   jnp.ones((1, 2), bool),
  ...   clip_low=0.5,
  ...   clip_high=0.5,
  ... ).loss.tolist()
  [[-1.5, -1.0]]
  """
  return clipped_policy_terms(
    log_prob,
    behaviour_log_prob,
    jnp.broadcast_to(advantage[:, None], mask.shape),
    mask,
    clip_low=clip_low,
    clip_high=clip_high,
  )


def denoising_advantage(
  advantage: Float[Array, "row"],
  remaining: Int[Array, "row time"],
  *,
  discount: float,
) -> Float[Array, "row time"]:
  r"""The environment's advantage, discounted along the denoising chain.

      A_ik = discount^remaining_ik A_i

  Args:
    advantage: A_i of the action that the chain produced, units of reward.
    remaining: denoising steps that follow this one; 0 for the last.
    discount: in (0, 1]; less than 1 trusts the noisy early steps less.

  Returns:
    A_ik, for `clipped_policy_loss`.

  Raises:
    ValueError: if `discount` is not in (0, 1].

  Ren et al. 2024, arXiv:2409.00588 (DPPO), reconstructed from its
  description.

  >>> remaining = jnp.array([[2, 1, 0]])
  >>> denoising_advantage(jnp.array([4.0]), remaining, discount=0.5).tolist()
  [[1.0, 2.0, 4.0]]
  """
  if not 0 < discount <= 1:
    raise ValueError(f"discount must be in (0, 1], got {discount}")
  weight = discount ** remaining.astype(jnp.float32)
  return weight * widened(advantage)[:, None]


def denoising_clip(
  remaining: Int[Array, "row time"],
  *,
  num_steps: int,
  clip_first: float,
  clip_last: float,
  rate: float,
) -> Float[Array, "row time"]:
  r"""A clip range that widens exponentially towards the end of the chain.

      e_k = first + (last - first) (exp(rate u_k) - 1) / (exp(rate) - 1)
      u_k = 1 - remaining_k / (num_steps - 1)

  Args:
    remaining: denoising steps that follow this one; 0 for the last.
    num_steps: length of the fine-tuned part of the chain; at least 2.
    clip_first: range of the first, noisiest step.
    clip_last: range of the last step.
    rate: > 0; larger keeps the range small for longer.

  Returns:
    e_k, for both bounds of `clipped_policy_loss`.

  Raises:
    ValueError: if num_steps < 2, rate <= 0 or a range is negative.

  Ren et al. 2024, arXiv:2409.00588 (DPPO), reconstructed from its
  description.

  >>> denoising_clip(
  ...   jnp.array([[2, 0]]),
  ...   num_steps=3,
  ...   clip_first=0.25,
  ...   clip_last=0.5,
  ...   rate=1.0,
  ... ).tolist()
  [[0.25, 0.5]]
  """
  if num_steps < 2:
    raise ValueError(f"num_steps must be at least 2, got {num_steps}")
  if not rate > 0:
    raise ValueError(f"rate must be positive, got {rate}")
  if not (clip_first >= 0 and clip_last >= 0):
    raise ValueError(
      f"clip_first and clip_last must not be negative, got {clip_first} "
      f"and {clip_last}"
    )
  progress = 1.0 - remaining.astype(jnp.float32) / (num_steps - 1)
  share = jnp.expm1(rate * progress) / math.expm1(rate)
  return clip_first + (clip_last - clip_first) * share


def kl_masked_policy_loss(
  log_prob: Float[Array, "row time"],
  behaviour_log_prob: Float[Array, "row time"],
  advantage: Float[Array, "row"],
  kl: Float[Array, "row time"],
  mask: Bool[Array, "row time"],
  *,
  threshold: float,
) -> PolicyLoss:
  r"""The unclipped surrogate, stopped where a step has already moved far.

      l_ik = -A_i r_ik,   no gradient where  kl_ik > threshold  and
                          (r_ik > 1 and A_i > 0)  or  (r_ik < 1 and A_i < 0)

  A trust region on the exact divergence of the step instead of on the ratio
  of one draw; updates that lead back are never stopped.

  Args:
    log_prob: log-prob of each step under the network being trained, nats.
    behaviour_log_prob: the same, as stored by the sampler.
    advantage: A_i, in units of reward. No gradient flows through it.
    kl: exact KL(current || behaviour) of each step, nats. No gradient flows
      through it.
    mask: true = counts.
    threshold: nats; not negative.

  Returns:
    Loss, ratio and stop indicator per row and step, not reduced.

  Raises:
    ValueError: if `threshold` is negative.

  Flow-DPPO, after a third party's description.

  >>> kl_masked_policy_loss(
  ...   jnp.log(jnp.array([[2.0, 2.0]])),
  ...   jnp.zeros((1, 2)),
  ...   jnp.ones(1),
  ...   jnp.array([[0.5, 0.0]]),
  ...   jnp.ones((1, 2), bool),
  ...   threshold=0.25,
  ... ).clipped.tolist()
  [[True, False]]
  """
  if not threshold >= 0:
    raise ValueError(f"threshold must not be negative, got {threshold}")
  ratio = importance_ratio(log_prob, behaviour_log_prob, mask)
  advantage = jnp.broadcast_to(advantage[:, None], mask.shape)
  advantage = jax.lax.stop_gradient(keep(advantage, mask))
  loss = -advantage * ratio
  held = jax.lax.stop_gradient(ratio)
  outward = ((held > 1) & (advantage > 0)) | ((held < 1) & (advantage < 0))
  stop = jax.lax.stop_gradient(keep(kl, mask) > threshold) & outward
  loss = jnp.where(stop, jax.lax.stop_gradient(loss), loss)
  return PolicyLoss(loss, held, stop)
