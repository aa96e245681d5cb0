"""Policy-gradient losses on log-probabilities, per element.

Every loss of this module and its siblings reduces, where the trained policy
is the one that acted, to the gradient -A grad log pi of each token; they
differ in what they do as the two part. None reduces: see `rl_jax.reduce`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp

from rl_jax.masks import keep
from rl_jax.ratios import truncated_weight

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float

__all__ = [
  "PolicyLoss",
  "clipped_policy_loss",
  "clipped_policy_terms",
  "decoupled_clipped_loss",
  "dual_clipped_loss",
  "policy_gradient_loss",
]


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
  ratio = importance_ratio(log_prob, behaviour_log_prob, mask)
  return clipped_terms(
    ratio, advantage, mask, clip_low=clip_low, clip_high=clip_high
  )


def dual_clipped_loss(
  log_prob: Float[Array, "*batch time"],
  behaviour_log_prob: Float[Array, "*batch time"],
  advantage: Float[Array, "*batch time"],
  mask: Bool[Array, "*batch time"],
  *,
  clip_low: float,
  clip_high: float,
  bound: float,
) -> PolicyLoss:
  r"""Clipped surrogate whose loss is bounded for negative advantages too.

      l_t = clipped_policy_loss_t                       where A_t >= 0
      l_t = min(clipped_policy_loss_t, -bound A_t)      where A_t < 0

  The clip alone leaves a bad action whose ratio has risen without limit.
  With bound >= 1 + clip_high, the only case where it does anything sensible,
  this equals TRL's `delta`: max(-A min(r, bound), -A clip(r)).

  Args:
    log_prob: as in `clipped_policy_loss`.
    behaviour_log_prob: as there.
    advantage: as there.
    mask: as there.
    clip_low: as there, a number.
    clip_high: as there, a number.
    bound: the ratio above which a bad action's gradient stops; 3 in verl.

  Returns:
    Loss, ratio and whether it left the clip range. The elements that the
    bound stopped are those with A < 0 and a ratio above it.

  Raises:
    ValueError: if a clip bound is negative, or unless bound > 1 and
      bound >= 1 + clip_high.

  Ye et al. 2020, arXiv:1912.09729 (dual clip).

  >>> zero, one, kept = jnp.zeros(1), jnp.ones(1), jnp.ones(1, bool)
  >>> dual_clipped_loss(
  ...   jnp.log(5 * one),
  ...   zero,
  ...   -one,
  ...   kept,
  ...   clip_low=0.25,
  ...   clip_high=0.25,
  ...   bound=3.0,
  ... ).loss.tolist()
  [3.0]
  """
  if not (bound > 1 and bound >= 1 + clip_high):
    raise ValueError(
      f"bound must exceed 1 and be at least 1 + clip_high = {1 + clip_high},"
      f" got {bound}"
    )
  terms = clipped_policy_terms(
    log_prob,
    behaviour_log_prob,
    advantage,
    mask,
    clip_low=clip_low,
    clip_high=clip_high,
  )
  advantage = jax.lax.stop_gradient(keep(advantage, mask))
  bounded = jnp.minimum(terms.loss, -bound * advantage)
  return terms._replace(loss=jnp.where(advantage < 0, bounded, terms.loss))


def decoupled_clipped_loss(
  log_prob: Float[Array, "*batch time"],
  proximal_log_prob: Float[Array, "*batch time"],
  behaviour_log_prob: Float[Array, "*batch time"],
  advantage: Float[Array, "*batch time"],
  mask: Bool[Array, "*batch time"],
  *,
  clip_low: float,
  clip_high: float,
  maximum: float,
) -> PolicyLoss:
  r"""Clipped surrogate for stale samples: clip near here, weigh from there.

      w_t = min(maximum, exp(proximal_log_prob_t - behaviour_log_prob_t))
      r_t = exp(log_prob_t - proximal_log_prob_t)
      l_t = w_t max(-A_t r_t, -A_t clip(r_t, 1 - clip_low, 1 + clip_high))

  The clip keeps the policy near a recent one, the proximal policy; the weight
  corrects for the older one that acted. With the proximal policy as behaviour
  it is `clipped_policy_loss`.

  Args:
    log_prob: log pi(a_t | s_t) of the policy being trained, nats.
    proximal_log_prob: the same of the policy to stay near, such as the one
      before these updates or an average. No gradient flows through it.
    behaviour_log_prob: the same of the policy that acted. No gradient flows
      through it.
    advantage: A_t, in units of reward. No gradient flows through it.
    mask: true = counts.
    clip_low: how far below one r may fall before its gradient stops.
    clip_high: how far above one it may rise.
    maximum: where w is cut; infinity for the unbiased weight.

  Returns:
    Loss; r, the ratio to the proximal policy; and whether r left its range.

  Raises:
    ValueError: if a clip bound is negative or `maximum` not positive.

  Hilton et al. 2021, arXiv:2110.00641 (decoupled objective).

  >>> zero, one, kept = jnp.zeros(1), jnp.ones(1), jnp.ones(1, bool)
  >>> decoupled_clipped_loss(
  ...   zero,
  ...   zero,
  ...   jnp.log(one / 2),
  ...   one,
  ...   kept,
  ...   clip_low=0.25,
  ...   clip_high=0.25,
  ...   maximum=8.0,
  ... ).loss.tolist()
  [-2.0]
  """
  terms = clipped_policy_terms(
    log_prob,
    proximal_log_prob,
    advantage,
    mask,
    clip_low=clip_low,
    clip_high=clip_high,
  )
  stale = importance_ratio(proximal_log_prob, behaviour_log_prob, mask)
  weight = truncated_weight(stale, maximum=maximum)
  return terms._replace(loss=weight * terms.loss)


def policy_gradient_loss(
  log_prob: Float[Array, "*batch time"],
  advantage: Float[Array, "*batch time"],
  mask: Bool[Array, "*batch time"],
) -> PolicyLoss:
  r"""The plain policy gradient, for actions of the policy being trained.

      l_t = -A_t log_prob_t

  The value means nothing: only its gradient -A grad log pi does. It ignores
  who acted, so it is exact for one update on fresh samples.

  Args:
    log_prob: log pi(a_t | s_t) of the policy being trained, nats.
    advantage: A_t, in units of reward. No gradient flows through it.
    mask: true = counts.

  Returns:
    Loss; a ratio of one; nothing clipped.

  Williams 1992 (REINFORCE); the loss of GPG (Chu et al. 2025,
  arXiv:2504.02546), whose contribution is the scale of the advantage.

  >>> policy_gradient_loss(
  ...   jnp.array([-0.5]), jnp.array([2.0]), jnp.array([True])
  ... ).loss.tolist()
  [1.0]
  """
  log_prob = keep(log_prob, mask)
  loss = -jax.lax.stop_gradient(keep(advantage, mask)) * log_prob
  return PolicyLoss(loss, jnp.ones_like(loss), jnp.zeros_like(mask))


def clipped_terms(
  ratio: Float[Array, "*batch time"],
  advantage: Float[Array, "*batch time"],
  mask: Bool[Array, "*batch time"],
  *,
  clip_low: float | Float[Array, "*batch time"],
  clip_high: float | Float[Array, "*batch time"],
) -> PolicyLoss:
  """The clipped surrogate of any ratio, of tokens or of rows; for siblings."""
  for name, bound in (("clip_low", clip_low), ("clip_high", clip_high)):
    if isinstance(bound, int | float) and not bound >= 0:
      raise ValueError(f"{name} must not be negative, got {bound}")
  advantage = jax.lax.stop_gradient(keep(advantage, mask))
  # A range per element is an input like the others: masked, it counts not.
  low = 1.0 - keep(jnp.broadcast_to(clip_low, mask.shape), mask)
  high = 1.0 + keep(jnp.broadcast_to(clip_high, mask.shape), mask)
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
