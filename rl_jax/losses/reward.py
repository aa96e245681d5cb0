"""Losses of reward models, on the scores they give."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax.numpy as jnp

from rl_jax.losses.preference import require_batch, require_values
from rl_jax.losses.preference_logistic import logistic_preference_loss
from rl_jax.masks import keep

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float

__all__ = ["bradley_terry_loss"]


def bradley_terry_loss(
  chosen: Float[Array, "*batch"],
  rejected: Float[Array, "*batch"],
  valid: Bool[Array, "*batch"],
  *,
  margin: float | Float[Array, "*batch"],
  centring: float,
) -> Float[Array, "*batch"]:
  r"""Negative log-likelihood of a preference under the two scores.

      l = -log sigmoid(r_w - r_l - m) + eta (r_w + r_l)^2

  Only differences of scores are identified by preferences; a small eta keeps
  the scores of a pair around zero, so that those of several models compare.
  The margin stands inside the sigmoid: outside it would have no gradient.
  Labels that may be wrong are `logistic_preference_loss` with beta 1.

  Args:
    chosen: r_w, score of the preferred response, in units of reward.
    rejected: r_l, that of the other one.
    valid: true = the pair counts.
    margin: m in units of reward, a number or one per pair: how much better
      the chosen response should be; 0 for the plain loss. No gradient flows
      through it.
    centring: eta, not negative; 0 for none, 0.01 is common.

  Returns:
    The loss of each pair in nats, zero where `valid` is false.

  Raises:
    ValueError: if `centring` is negative, a counted score is not finite
      (outside jit; inside, the loss is not either), or shapes disagree.

  Bradley and Terry 1952; margins as in Touvron et al. 2023, arXiv:2307.09288,
  eq. 2; centring as in Eisenstein et al. 2023, arXiv:2312.09244, section 3.

  >>> one, kept = jnp.ones(1), jnp.ones(1, bool)
  >>> loss = bradley_terry_loss(one, one, kept, margin=0.0, centring=0.0)
  >>> jnp.exp(-loss).round(5).tolist()
  [0.5]
  """
  if not centring >= 0:
    raise ValueError(f"centring must not be negative, got {centring}")
  require_batch(valid, {"chosen": chosen, "rejected": rejected})
  for name, score in (("chosen", chosen), ("rejected", rejected)):
    require_values(name, score, valid, jnp.isfinite(score), "be finite")
  ranking = logistic_preference_loss(
    chosen, rejected, valid, beta=1.0, offset=-margin
  )
  return ranking + centring * jnp.square(
    keep(chosen, valid) + keep(rejected, valid)
  )
