"""Functions that stand in recipes and in no paper of their own."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import jax.numpy as jnp

from rl_jax import losses
from rl_jax.masks import keep
from rl_jax.reduce import Total, over_rows

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float

__all__ = ["fresh_policy_gradient", "loosely_clipped", "over_all_rows"]


def fresh_policy_gradient(
  log_prob: Float[Array, "row time"],
  behaviour_log_prob: Float[Array, "row time"],
  advantage: Float[Array, "row time"],
  mask: Bool[Array, "row time"],
) -> losses.PolicyLoss:
  """The plain policy gradient, which does not ask who acted.

  Args:
    log_prob: nats per token; the gradient flows through it.
    behaviour_log_prob: not asked for.
    advantage: A_t.
    mask: true = counts.

  Returns:
    See `losses.policy_gradient_loss`.
  """
  del behaviour_log_prob
  return losses.policy_gradient_loss(log_prob, advantage, mask)


def loosely_clipped(
  log_prob: Float[Array, "row time"],
  behaviour_log_prob: Float[Array, "row time"],
  advantage: Float[Array, "row time"],
  mask: Bool[Array, "row time"],
  *,
  clip_low: float,
  clip_high: float,
) -> losses.PolicyLoss:
  """The clipped surrogate with the looser bound for negative advantages.

      l_t = max(-A_t r_t, -A_t clip(r_t))   where A_t >= 0, as PPO
      l_t = min(-A_t r_t, -A_t clip(r_t))   where A_t < 0, as EasyDeL 0.3.0

  A bad token is pushed down without limit once it is below the range, and not
  at all while it is above: the clip is on the wrong side.

  Args:
    log_prob: nats per token; the gradient flows through it.
    behaviour_log_prob: of the policy that acted.
    advantage: A_t.
    mask: true = counts.
    clip_low: how far below one the ratio may be.
    clip_high: how far above.

  Returns:
    See `losses.clipped_policy_terms`.
  """
  terms = functools.partial(
    losses.clipped_policy_terms, clip_low=clip_low, clip_high=clip_high
  )
  tight = terms(log_prob, behaviour_log_prob, advantage, mask)
  loose = terms(log_prob, behaviour_log_prob, -advantage, mask)
  bad = keep(advantage, mask) < 0
  return tight._replace(loss=jnp.where(bad, -loose.loss, tight.loss))


def over_all_rows(
  loss: Float[Array, "row time"],
  mask: Bool[Array, "row time"],
  *,
  divisor: float,
) -> Total:
  """`over_rows` of every row, empty or not.

  Args:
    loss: one value per token.
    mask: true = counts.
    divisor: what a row's sum is divided by.

  Returns:
    The Total.
  """
  every = jnp.ones(mask.shape[:-1], bool)
  return over_rows(loss, mask, every, divisor=divisor)
