r"""Losses of a pair that read the margin as the logit of a preference.

    z = beta (chosen - rejected),   p(chosen preferred) = sigmoid(z)

They take any log-ratio of `rl_jax.losses.preference`, or plain log-prob, of
both responses. Adding a constant to both of a pair changes nothing.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import jax

from rl_jax.losses.preference import (
  require_batch,
  require_values,
  scaled_margin,
)
from rl_jax.masks import keep

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float

__all__ = [
  "logistic_preference_loss",
  "reverse_kl_preference_loss",
  "robust_preference_loss",
]


def logistic_preference_loss(
  chosen: Float[Array, "*batch"],
  rejected: Float[Array, "*batch"],
  valid: Bool[Array, "*batch"],
  *,
  beta: float,
  smoothing: float | Float[Array, "*batch"] = 0.0,
  offset: float | Float[Array, "*batch"] = 0.0,
) -> Float[Array, "*batch"]:
  r"""Cross-entropy of a Bradley-Terry model with the preference label.

      l = -(1 - e) log sigmoid(z) - e log sigmoid(-z)
      z = beta (chosen - rejected) + offset

  At e = 0, offset = 0 the slope is -beta sigmoid(-z) by `chosen` and its
  opposite by `rejected`.

  Args:
    chosen: log-ratio (or log-prob) of the preferred response, nats.
    rejected: that of the other one.
    valid: true = the pair counts.
    beta: margin per nat; positive. 0.1 is common for summed log-ratios, 2 and
      more for length-averaged log-probs.
    smoothing: e in [0, 1], the probability that the label is wrong; a number
      or one per pair. 1 swaps the pair.
    offset: added to the margin, in units of z; a number or one per pair. A
      negative one asks for a margin (SimPO's -gamma, a preference strength);
      alpha (length_chosen - length_rejected) is the length term of R-DPO. No
      gradient flows through it.

  Returns:
    The loss of each pair in nats, zero where `valid` is false.

  Raises:
    ValueError: if `beta` is not positive and finite, `smoothing` is outside
      [0, 1] (an array: outside jit), or shapes disagree.

  Rafailov et al. 2023, arXiv:2305.18290, eq. 7 (DPO); Mitchell
  2023, "A note on DPO with noisy preferences" (cDPO); Meng et al. 2024,
  arXiv:2405.14734 (SimPO); Park et al. 2024, arXiv:2403.19159 (R-DPO), where
  the length term has the sign that the length-penalised reward implies.

  >>> zero, kept = jnp.zeros(1), jnp.ones(1, bool)
  >>> loss = logistic_preference_loss(zero, zero, kept, beta=0.5)
  >>> jnp.exp(-loss).round(5).tolist()
  [0.5]
  """
  z = scaled_margin(chosen, rejected, valid, beta)
  if not isinstance(offset, int | float):
    require_batch(valid, {"offset": offset})
    offset = jax.lax.stop_gradient(keep(offset, valid))
  if not isinstance(smoothing, int | float):
    require_batch(valid, {"smoothing": smoothing})
    inside = (smoothing >= 0) & (smoothing <= 1)
    require_values("smoothing", smoothing, valid, inside, "be in [0, 1]")
    smoothing = jax.lax.stop_gradient(keep(smoothing, valid))
  elif not 0 <= smoothing <= 1:
    raise ValueError(f"smoothing must be in [0, 1], got {smoothing}")
  z = z + offset
  loss = (1 - smoothing) * _surprise(z) + smoothing * _surprise(-z)
  return keep(loss, valid)


def robust_preference_loss(
  chosen: Float[Array, "*batch"],
  rejected: Float[Array, "*batch"],
  valid: Bool[Array, "*batch"],
  *,
  beta: float,
  noise: float,
) -> Float[Array, "*batch"]:
  r"""Logistic loss whose mean over flipped labels is that of clean ones.

      l = [-(1 - e) log sigmoid(z) + e log sigmoid(-z)] / (1 - 2 e)
      z = beta (chosen - rejected)

  If labels are flipped with probability e, the expectation over flips is the
  logistic loss of the true label. It has no lower bound for e > 0.

  Args:
    chosen: log-ratio (or log-prob) of the preferred response, nats.
    rejected: that of the other one.
    valid: true = the pair counts.
    beta: margin per nat; positive.
    noise: e in [0, 0.5), the rate of flipped labels.

  Returns:
    The loss of each pair in nats, zero where `valid` is false.

  Raises:
    ValueError: if `beta` is not positive and finite, `noise` is outside
      [0, 0.5), or shapes disagree.

  Chowdhury et al. 2024, arXiv:2403.00409 (rDPO).

  >>> zero, kept = jnp.zeros(1), jnp.ones(1, bool)
  >>> loss = robust_preference_loss(zero, zero, kept, beta=0.5, noise=0.25)
  >>> jnp.exp(-loss).round(5).tolist()
  [0.5]
  """
  if not 0 <= noise < 0.5:
    raise ValueError(
      f"noise must be in [0, 0.5), got {noise}: labels that are wrong half of"
      " the time say nothing"
    )
  z = scaled_margin(chosen, rejected, valid, beta)
  loss = (1 - noise) * _surprise(z) - noise * _surprise(-z)
  return keep(loss / (1 - 2 * noise), valid)


def reverse_kl_preference_loss(
  chosen: Float[Array, "*batch"],
  rejected: Float[Array, "*batch"],
  valid: Bool[Array, "*batch"],
  *,
  beta: float,
  smoothing: float,
) -> Float[Array, "*batch"]:
  r"""KL from the model's preference to the smoothed label, not to the model.

      l = KL([s, 1 - s] || [1 - e, e])
        = s (log s - log(1 - e)) + (1 - s)(log(1 - s) - log e)
      s = sigmoid(z),   z = beta (chosen - rejected)

  Zero, its minimum, where s = 1 - e: z = log((1 - e) / e). The smoothed
  logistic loss is the other direction of this KL, up to a constant.

  Args:
    chosen: log-ratio (or log-prob) of the preferred response, nats.
    rejected: that of the other one.
    valid: true = the pair counts.
    beta: margin per nat; positive.
    smoothing: e in (0, 1), the probability that the label is wrong.

  Returns:
    The loss of each pair in nats, zero where `valid` is false.

  Raises:
    ValueError: if `beta` is not positive and finite, `smoothing` is not
      strictly between 0 and 1 (a certain label makes this KL infinite), or
      shapes disagree.

  Ji et al. 2024, arXiv:2402.00856 (EXO), two responses.

  >>> zero, kept = jnp.zeros(1), jnp.ones(1, bool)
  >>> reverse_kl_preference_loss(
  ...   zero, zero, kept, beta=1.0, smoothing=0.5
  ... ).round(6).tolist()
  [0.0]
  """
  if not 0 < smoothing < 1:
    raise ValueError(
      f"smoothing must be strictly between 0 and 1, got {smoothing}: the loss"
      " is infinite at a certain label"
    )
  z = scaled_margin(chosen, rejected, valid, beta)
  right = jax.nn.sigmoid(z) * (-_surprise(z) - math.log1p(-smoothing))
  wrong = jax.nn.sigmoid(-z) * (-_surprise(-z) - math.log(smoothing))
  return keep(right + wrong, valid)


def _surprise(z):
  """-log sigmoid(z)."""
  return jax.nn.softplus(-z)
