"""Policy losses whose ratio is one of a whole row, at each of its tokens.

A row's ratio r_i is exp(mean_t d_it) ("geometric") or exp(sum_t d_it)
("sequence"), d = log pi - log behaviour where the mask is true. Every counted
token of a row carries the loss of the row, so that `reduce.over_sequences`
gives the mean over rows that the papers write.

Rows are sequences here: of rows that pack several, unpack first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import jax
import jax.numpy as jnp

from rl_jax.losses.policy import PolicyLoss, clipped_terms
from rl_jax.masks import keep, masked_mean
from rl_jax.ratios import geometric_ratio, sequence_ratio

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float

__all__ = [
  "geometric_mean_loss",
  "sequence_clipped_loss",
  "sequence_token_loss",
]


def sequence_clipped_loss(
  log_prob: Float[Array, "*batch time"],
  behaviour_log_prob: Float[Array, "*batch time"],
  advantage: Float[Array, "*batch time"],
  mask: Bool[Array, "*batch time"],
  *,
  level: Literal["geometric", "sequence"],
  clip_low: float,
  clip_high: float,
  clamp: float | None,
) -> PolicyLoss:
  r"""Clipped surrogate of the ratio of whole rows.

      l_it = max(-A_it r_i, -A_it clip(r_i, 1 - clip_low, 1 + clip_high))
      r_i = exp(mean_t d_it)  or  exp(sum_t d_it)

  Differentiated through r_i. On policy sum_t l_it has the gradient
  -mean_t(A_it) grad log pi of each token with "geometric" and
  -sum_t(A_it) grad log pi with "sequence", where a row's ratio moves with
  each of its tokens in full: reduce with `reduce.over_sequences`, or it is
  counted once per token.

  Args:
    log_prob: log pi(a_t | s_t) of the policy being trained, nats.
    behaviour_log_prob: the same of the policy that acted. No gradient flows
      through it.
    advantage: A, in units of reward; usually one number for a row. No
      gradient flows through it.
    mask: true = counts.
    level: which ratio.
    clip_low: how far below one r may fall before its gradient stops.
    clip_high: how far above one it may rise. GSPO: 3e-4 and 4e-4.
    clamp: bound in nats on |log r|; the gradient is zero beyond it. None
      leaves it alone, and float32 overflows above 88.

  Returns:
    Loss, the row's ratio and whether that left its range, at each token.

  Raises:
    ValueError: if a clip bound is negative or `clamp` not positive.

  "geometric": Zheng et al. 2025, arXiv:2507.18071 (GSPO), eq. 5; with one
  advantage per row, `over_sequences` of this and of `sequence_token_loss`
  agree. "sequence": the RLOO of TRL, after Ahmadian et al. 2024,
  arXiv:2402.14740.

  >>> zero, kept = jnp.zeros((1, 2)), jnp.ones((1, 2), bool)
  >>> sequence_clipped_loss(
  ...   jnp.log(jnp.array([[2.0, 2.0]])),
  ...   zero,
  ...   zero - 1.0,
  ...   kept,
  ...   level="sequence",
  ...   clip_low=0.25,
  ...   clip_high=0.25,
  ...   clamp=None,
  ... ).loss.tolist()
  [[4.0, 4.0]]
  """
  row_ratio = _row_ratio(level)
  ratio = row_ratio(log_prob, behaviour_log_prob, mask, clamp=clamp)
  return clipped_terms(
    _beside(ratio, mask),
    advantage,
    mask,
    clip_low=clip_low,
    clip_high=clip_high,
  )


def sequence_token_loss(
  log_prob: Float[Array, "*batch time"],
  behaviour_log_prob: Float[Array, "*batch time"],
  advantage: Float[Array, "*batch time"],
  mask: Bool[Array, "*batch time"],
  *,
  level: Literal["geometric", "sequence"],
  clip_low: float,
  clip_high: float,
  clamp: float | None,
) -> PolicyLoss:
  r"""Value of the ratio of a whole row, gradient of each token's own log-prob.

      r_it = stop(r_i) exp(log_prob_it - stop(log_prob_it))
      l_it = max(-A_it r_it, -A_it clip(r_it, 1 - clip_low, 1 + clip_high))

  The value of r_it is r_i, its gradient r_i grad log pi(a_t): whole rows are
  weighed and clipped, and tokens may still have advantages of their own. On
  policy the gradient of l_it is -A_it grad log pi.

  Args:
    log_prob: as in `sequence_clipped_loss`.
    behaviour_log_prob: as there.
    advantage: A, in units of reward, of each token. No gradient flows
      through it.
    mask: as there.
    level: as there.
    clip_low: as there.
    clip_high: as there.
    clamp: as there, but the gradient goes on beyond it.

  Returns:
    Loss, the row's ratio and whether that left its range, at each token.

  Raises:
    ValueError: if a clip bound is negative or `clamp` not positive.

  "geometric": Zheng et al. 2025, arXiv:2507.18071 (GSPO-token); verl
  implements GSPO by this form.

  >>> log_prob = jnp.log(jnp.array([[1.0, 4.0]]))
  >>> def total(log_prob):
  ...   return sequence_token_loss(
  ...     log_prob,
  ...     jnp.zeros((1, 2)),
  ...     jnp.array([[-1.0, -3.0]]),
  ...     jnp.ones((1, 2), bool),
  ...     level="geometric",
  ...     clip_low=0.25,
  ...     clip_high=0.25,
  ...     clamp=None,
  ...   ).loss.sum()
  >>> jax.grad(total)(log_prob).round(5).tolist()
  [[2.0, 6.0]]
  """
  row_ratio = _row_ratio(level)
  ratio = row_ratio(log_prob, behaviour_log_prob, mask, clamp=clamp)
  own = keep(log_prob, mask)
  step = jnp.exp(own - jax.lax.stop_gradient(own))
  return clipped_terms(
    jax.lax.stop_gradient(_beside(ratio, mask)) * step,
    advantage,
    mask,
    clip_low=clip_low,
    clip_high=clip_high,
  )


def geometric_mean_loss(
  log_prob: Float[Array, "*batch time"],
  behaviour_log_prob: Float[Array, "*batch time"],
  advantage: Float[Array, "*batch time"],
  mask: Bool[Array, "*batch time"],
  *,
  clip_low: float,
  clip_high: float,
) -> PolicyLoss:
  r"""Geometric mean of token ratios, each clipped on its own in log space.

      c_it = s_it min(s_it d_it, s_it clip(d_it, -clip_low, clip_high))
      l_it = -mean_u(A_iu) exp(mean_u c_iu)
      s = sign(A),   d = log_prob - behaviour_log_prob

  A token far out no longer drags its row along, and is clipped without
  stopping its neighbours. On policy the gradient of sum_t l_it is
  -mean_t(A_it) grad log pi of each token.

  Args:
    log_prob: log pi(a_t | s_t) of the policy being trained, nats.
    behaviour_log_prob: the same of the policy that acted. No gradient flows
      through it.
    advantage: A, in units of reward; usually one number for a row. No
      gradient flows through it.
    mask: true = counts.
    clip_low: nats that a bad token's log-ratio may fall below zero before
      its gradient stops.
    clip_high: nats that a good token's may rise above it; 0.4 for both in
      the paper.

  Returns:
    The row's loss and geometric mean ratio at each token, and which tokens'
    log-ratio left [-clip_low, clip_high]. The ratio is the clipped one.

  Raises:
    ValueError: if a clip bound is negative.

  Zhao et al. 2025, arXiv:2507.20673 (GMPO), and its code, which averages
  the advantages of a row.

  >>> zero, kept = jnp.zeros((1, 2)), jnp.ones((1, 2), bool)
  >>> log_prob = jnp.log(jnp.array([[4.0, 1.0]]))
  >>> geometric_mean_loss(
  ...   log_prob, zero, zero - 1.0, kept, clip_low=0.5, clip_high=0.5
  ... ).loss.round(5).tolist()
  [[2.0, 2.0]]
  """
  for name, nats in (("clip_low", clip_low), ("clip_high", clip_high)):
    if not nats >= 0:
      raise ValueError(f"{name} must not be negative, got {nats}")
  behaviour = jax.lax.stop_gradient(keep(behaviour_log_prob, mask))
  d = keep(log_prob, mask) - behaviour
  advantage = jax.lax.stop_gradient(keep(advantage, mask))
  sign = jnp.sign(advantage)
  bounded = jnp.clip(d, -clip_low, clip_high)
  c = sign * jnp.minimum(sign * d, sign * bounded)
  ratio = jnp.exp(masked_mean(c, mask))
  loss = jnp.where(
    mask, _beside(-masked_mean(advantage, mask) * ratio, mask), 0.0
  )
  outside = mask & ((d < -clip_low) | (d > clip_high))
  return PolicyLoss(loss, jax.lax.stop_gradient(_beside(ratio, mask)), outside)


def _row_ratio(level):
  if level not in ("geometric", "sequence"):
    raise ValueError(f"level must be 'geometric' or 'sequence', got {level!r}")
  return geometric_ratio if level == "geometric" else sequence_ratio


def _beside(row, mask):
  """One number of each row at each of its tokens; one where masked."""
  return jnp.where(mask, row[..., None], 1.0)
