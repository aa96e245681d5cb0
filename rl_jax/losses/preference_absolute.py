r"""Losses of a pair that say where each response should go on its own.

A loss of the margin is content when the chosen response falls, as long as
the rejected one falls further. These are not: they read both log-ratios,
r_w = beta h_w and r_l = beta h_l, and not only the difference.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from rl_jax.losses.preference import require_batch, require_positive
from rl_jax.masks import keep

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float

__all__ = ["apo_down_loss", "apo_zero_loss", "nca_loss", "sppo_loss"]


def nca_loss(
  chosen: Float[Array, "*batch"],
  rejected: Float[Array, "*batch"],
  valid: Bool[Array, "*batch"],
  *,
  beta: float,
) -> Float[Array, "*batch"]:
  r"""Noise-contrastive alignment: raise the chosen one, keep both in place.

      l = -log sigmoid(r_w) - (1/2) log sigmoid(-r_w) - (1/2) log sigmoid(-r_l)
      r = beta h

  The slope by h_w is beta (3/2 sigmoid(r_w) - 1), zero at r_w = log 2: the
  chosen response is raised that far and no further.

  Args:
    chosen: h_w, log-ratio of the preferred response, nats.
    rejected: h_l, that of the other one.
    valid: true = the pair counts.
    beta: reward per nat; positive.

  Returns:
    The loss of each pair in nats, zero where `valid` is false.

  Raises:
    ValueError: if `beta` is not positive and finite, or shapes disagree.

  Chen et al. 2024, arXiv:2402.05369, algorithm for pairs.

  >>> zero, kept = jnp.zeros(1), jnp.ones(1, bool)
  >>> jnp.exp(-nca_loss(zero, zero, kept, beta=0.5)).round(5).tolist()
  [0.25]
  """
  r_w, r_l = _rewards(chosen, rejected, valid, beta)
  softplus = jax.nn.softplus
  return keep(softplus(-r_w) + (softplus(r_w) + softplus(r_l)) / 2, valid)


def sppo_loss(
  chosen: Float[Array, "*batch"],
  rejected: Float[Array, "*batch"],
  valid: Bool[Array, "*batch"],
  *,
  beta: float,
) -> Float[Array, "*batch"]:
  r"""Self-play regression of both log-ratios onto a won and a lost game.

      l = (h_w - 1 / (2 beta))^2 + (h_l + 1 / (2 beta))^2

  The "hard" form: the chosen response wins with probability one.

  Args:
    chosen: h_w, log-ratio of the preferred response, nats.
    rejected: h_l, that of the other one.
    valid: true = the pair counts.
    beta: 1 / eta of the paper, per nat; positive.

  Returns:
    The loss of each pair in nats squared, zero where `valid` is false.

  Raises:
    ValueError: if `beta` is not positive and finite, or shapes disagree.

  Wu et al. 2024, arXiv:2405.00675, eq. 4.7 with probabilities 1 and 0.

  >>> one, kept = jnp.ones(1), jnp.ones(1, bool)
  >>> sppo_loss(one, -one, kept, beta=0.25).tolist()
  [2.0]
  """
  r_w, r_l = _rewards(chosen, rejected, valid, beta)
  # (h - 1/2b)^2 = (bh - 1/2)^2 / b^2, of rewards as everywhere here.
  square = jnp.square(r_w - 0.5) + jnp.square(r_l + 0.5)
  return keep(square / beta**2, valid)


def apo_zero_loss(
  chosen: Float[Array, "*batch"],
  rejected: Float[Array, "*batch"],
  valid: Bool[Array, "*batch"],
  *,
  beta: float,
) -> Float[Array, "*batch"]:
  r"""Anchored: the chosen response up, the rejected one down.

      l = 1 - sigmoid(r_w) + sigmoid(r_l),   r = beta h

  For pairs whose chosen response is better than what the model writes. It is
  `kto_loss` of both responses at a reference point of zero.

  Args:
    chosen: h_w, log-ratio of the preferred response, nats.
    rejected: h_l, that of the other one.
    valid: true = the pair counts.
    beta: reward per nat; positive.

  Returns:
    The loss of each pair in [0, 2], zero where `valid` is false.

  Raises:
    ValueError: if `beta` is not positive and finite, or shapes disagree.

  D'Oosterlinck et al. 2024, arXiv:2408.06266, eq. 7.

  >>> zero, kept = jnp.zeros(1), jnp.ones(1, bool)
  >>> apo_zero_loss(zero, zero, kept, beta=0.5).tolist()
  [1.0]
  """
  r_w, r_l = _rewards(chosen, rejected, valid, beta)
  return keep(jax.nn.sigmoid(-r_w) + jax.nn.sigmoid(r_l), valid)


def apo_down_loss(
  chosen: Float[Array, "*batch"],
  rejected: Float[Array, "*batch"],
  valid: Bool[Array, "*batch"],
  *,
  beta: float,
) -> Float[Array, "*batch"]:
  r"""Anchored: both responses down, the rejected one further.

      l = sigmoid(r_w) + 1 - sigmoid(r_w - r_l),   r = beta h

  For pairs whose chosen response is worse than what the model writes.

  Args:
    chosen: h_w, log-ratio of the preferred response, nats.
    rejected: h_l, that of the other one.
    valid: true = the pair counts.
    beta: reward per nat; positive.

  Returns:
    The loss of each pair in [0, 2], zero where `valid` is false.

  Raises:
    ValueError: if `beta` is not positive and finite, or shapes disagree.

  D'Oosterlinck et al. 2024, arXiv:2408.06266, eq. 8.

  >>> zero, kept = jnp.zeros(1), jnp.ones(1, bool)
  >>> apo_down_loss(zero, zero, kept, beta=0.5).tolist()
  [1.0]
  """
  r_w, r_l = _rewards(chosen, rejected, valid, beta)
  return keep(jax.nn.sigmoid(r_w) + jax.nn.sigmoid(r_l - r_w), valid)


def _rewards(chosen, rejected, valid, beta):
  require_batch(valid, {"chosen": chosen, "rejected": rejected})
  require_positive("beta", beta)
  return beta * keep(chosen, valid), beta * keep(rejected, valid)
