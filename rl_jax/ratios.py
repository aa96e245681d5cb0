"""Importance ratios between the trained policy and the one that acted.

    token       r_it = exp(d_it)                    one per token
    sequence    r_i  = exp(sum_t d_it)              one per row
    geometric   r_i  = exp(mean_t d_it)             one per row

with d = log pi - log behaviour where the mask is true. Ratios carry the
gradient of the trained policy and never the behaviour's. Weights made of them
(`truncated_weight`, `masked_weight`) are constants to multiply a loss with,
and carry none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp

from rl_jax.masks import keep, masked_mean, widened
from rl_jax.reduce import Total

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float

__all__ = [
  "WeightMoments",
  "clipped_fraction",
  "geometric_ratio",
  "masked_weight",
  "sequence_ratio",
  "token_ratio",
  "truncated_weight",
  "weight_moments",
]


def token_ratio(
  log_prob: Float[Array, "*batch time"],
  behaviour_log_prob: Float[Array, "*batch time"],
  mask: Bool[Array, "*batch time"],
  *,
  clamp: float | None,
) -> Float[Array, "*batch time"]:
  """Ratio of the two policies' probabilities of each token.

      r_it = exp(clamp(d_it)),   d = log_prob - behaviour_log_prob

  Args:
    log_prob: log pi(a_t), nats. The gradient flows through it.
    behaviour_log_prob: log of the probability that a_t was drawn with, nats.
      No gradient flows through it.
    mask: true where a_t was drawn by the behaviour policy.
    clamp: bound in nats on |d| before the exponential; the gradient is zero
      beyond it. None leaves d alone, and float32 overflows above 88.

  Returns:
    r, unitless; 1 with zero gradient where `mask` is false.

  Raises:
    ValueError: if `clamp` is not positive.

  >>> log_prob = jnp.log(jnp.array([0.5, 0.25]))
  >>> behaviour = jnp.log(jnp.array([0.25, 0.25]))
  >>> mask = jnp.array([True, True])
  >>> token_ratio(log_prob, behaviour, mask, clamp=None).tolist()
  [2.0, 1.0]
  """
  return _bounded_exp(_log_ratio(log_prob, behaviour_log_prob, mask), clamp)


def sequence_ratio(
  log_prob: Float[Array, "*batch time"],
  behaviour_log_prob: Float[Array, "*batch time"],
  mask: Bool[Array, "*batch time"],
  *,
  clamp: float | None,
) -> Float[Array, "*batch"]:
  """Ratio of the two policies' probabilities of the whole row.

      r_i = exp(clamp(sum_t mask_it d_it)),   d = log_prob - behaviour_log_prob

  Args:
    log_prob: log pi(a_t), nats. The gradient flows through it.
    behaviour_log_prob: log of the probability that a_t was drawn with, nats.
      No gradient flows through it.
    mask: true where a_t was drawn by the behaviour policy.
    clamp: bound in nats on the absolute sum before the exponential; the
      gradient is zero beyond it. None leaves the sum alone.

  Returns:
    r, unitless; 1 for a row without a counted token.

  Raises:
    ValueError: if `clamp` is not positive.

  >>> log_prob = jnp.log(jnp.array([[0.5, 0.5, 0.125]]))
  >>> behaviour = jnp.log(jnp.array([[0.25, 0.25, 0.5]]))
  >>> mask = jnp.array([[True, True, False]])
  >>> sequence_ratio(log_prob, behaviour, mask, clamp=None).tolist()
  [4.0]
  """
  log_ratio = _log_ratio(log_prob, behaviour_log_prob, mask)
  return _bounded_exp(jnp.sum(log_ratio, axis=-1), clamp)


def geometric_ratio(
  log_prob: Float[Array, "*batch time"],
  behaviour_log_prob: Float[Array, "*batch time"],
  mask: Bool[Array, "*batch time"],
  *,
  clamp: float | None,
) -> Float[Array, "*batch"]:
  """Geometric mean of a row's token ratios, so that length does not matter.

      r_i = exp(clamp(sum_t mask_it d_it / |m_i|))

  Args:
    log_prob: log pi(a_t), nats. The gradient flows through it.
    behaviour_log_prob: log of the probability that a_t was drawn with, nats.
      No gradient flows through it.
    mask: true where a_t was drawn by the behaviour policy.
    clamp: bound in nats on the absolute mean before the exponential; the
      gradient is zero beyond it. None leaves the mean alone.

  Returns:
    r, unitless; 1 for a row without a counted token.

  Raises:
    ValueError: if `clamp` is not positive.

  The sequence ratio of GSPO (Zheng et al. 2025, arXiv:2507.18071, eq. 7).

  >>> log_prob = jnp.log(jnp.array([[0.5, 0.5, 0.125]]))
  >>> behaviour = jnp.log(jnp.array([[0.25, 0.25, 0.5]]))
  >>> mask = jnp.array([[True, True, False]])
  >>> geometric_ratio(log_prob, behaviour, mask, clamp=None).tolist()
  [2.0]
  """
  log_ratio = _log_ratio(log_prob, behaviour_log_prob, mask)
  return _bounded_exp(masked_mean(log_ratio, mask), clamp)


def truncated_weight(
  ratio: Float[Array, "*batch"], *, maximum: float
) -> Float[Array, "*batch"]:
  """The ratio, cut at a maximum: little variance for a known bias.

      w = min(r, C)

  Args:
    ratio: r, of tokens or of rows. No gradient flows through it.
    maximum: C, positive.

  Returns:
    w, a constant to multiply a loss with.

  Raises:
    ValueError: if `maximum` is not positive.

  Ionides 2008, "Truncated importance sampling".

  >>> truncated_weight(jnp.array([0.5, 4.0]), maximum=2.0).tolist()
  [0.5, 2.0]
  """
  if not maximum > 0:
    raise ValueError(f"maximum must be positive, got {maximum}")
  return jnp.minimum(jax.lax.stop_gradient(widened(ratio)), maximum)


def masked_weight(
  ratio: Float[Array, "*batch"], *, low: float, high: float
) -> Float[Array, "*batch"]:
  """The ratio inside [low, high], zero outside: far elements are dropped.

      w = r 1[low <= r <= high]

  The dropped element still counts in the denominator of a reduction, unless
  it is taken out of the mask as well.

  Args:
    ratio: r, of tokens or of rows. No gradient flows through it.
    low: smallest ratio that is kept.
    high: largest ratio that is kept.

  Returns:
    w, a constant to multiply a loss with.

  Raises:
    ValueError: unless 0 <= low <= high.

  >>> masked_weight(jnp.array([0.25, 1.5, 4.0]), low=0.5, high=2.0).tolist()
  [0.0, 1.5, 0.0]
  """
  _check_interval(low, high)
  ratio = jax.lax.stop_gradient(widened(ratio))
  return jnp.where((low <= ratio) & (ratio <= high), ratio, 0.0)


def clipped_fraction(
  ratio: Float[Array, "*batch"],
  mask: Bool[Array, "*batch"],
  *,
  low: float,
  high: float,
) -> Total:
  """How many of the counted ratios lie outside [low, high].

      value = sum mask 1[r < low or r > high],   weight = sum mask

  Args:
    ratio: r, of tokens or of rows. No gradient flows through it.
    mask: true = counts.
    low: smallest ratio that is not clipped.
    high: largest ratio that is not clipped.

  Returns:
    The Total whose mean is the fraction. A NaN that counts is outside.

  Raises:
    ValueError: unless 0 <= low <= high.

  >>> ratio, mask = jnp.array([0.25, 1.0, 4.0]), jnp.ones(3, bool)
  >>> clipped_fraction(ratio, mask, low=0.25, high=2.0).value.item()
  1.0
  """
  _check_interval(low, high)
  ratio = jax.lax.stop_gradient(widened(ratio))
  outside = mask & ~((low <= ratio) & (ratio <= high))
  return Total(
    jnp.sum(outside, dtype=jnp.float32), jnp.sum(mask, dtype=jnp.float32)
  )


class WeightMoments(NamedTuple):
  """First and second moment of importance weights; batches of them add.

  The effective sample size is no mean, so it cannot be one Total; it is made
  of two that are.

  Attributes:
    first: Total of w.
    second: Total of w^2.

  >>> weight = jnp.array([1.0, 1.0, 0.0, 0.0])
  >>> moments = weight_moments(weight, jnp.ones(4, bool))
  >>> (moments + moments).effective_fraction().item()
  0.5
  """

  first: Total
  second: Total

  def __add__(self, other: WeightMoments) -> WeightMoments:  # type: ignore[override]
    return WeightMoments(self.first + other.first, self.second + other.second)

  def effective_fraction(self) -> Float[Array, ""]:
    """Effective sample size over the number of samples, in [0, 1].

        (mean w)^2 / mean w^2 = (sum w)^2 / (n sum w^2)

    Returns:
      1 when all weights are equal; 0 when nothing counts or all weigh zero.
    """
    first, second = self.first.mean(), self.second.mean()
    some = second > 0
    # The ratio first: the square of a large weight would overflow sooner.
    return jnp.where(some, first * (first / jnp.where(some, second, 1.0)), 0.0)


def weight_moments(
  weight: Float[Array, "*batch"], mask: Bool[Array, "*batch"]
) -> WeightMoments:
  """Moments of the counted weights, from which the effective size follows.

      first = (sum mask w, sum mask),   second = (sum mask w^2, sum mask)

  Args:
    weight: w, of tokens or of rows. No gradient flows through it.
    mask: true = counts.

  Returns:
    Two Totals; see `WeightMoments.effective_fraction`.

  >>> weight = jnp.array([3.0, 1.0])
  >>> weight_moments(weight, jnp.ones(2, bool)).effective_fraction().item()
  0.800000011920929
  """
  weight = jax.lax.stop_gradient(keep(weight, mask))
  count = jnp.sum(mask, dtype=jnp.float32)
  return WeightMoments(
    Total(jnp.sum(weight), count), Total(jnp.sum(jnp.square(weight)), count)
  )


def _log_ratio(log_prob, behaviour_log_prob, mask):
  behaviour = jax.lax.stop_gradient(keep(behaviour_log_prob, mask))
  return keep(log_prob, mask) - behaviour


def _bounded_exp(log_ratio, clamp):
  if clamp is None:
    return jnp.exp(log_ratio)
  if not clamp > 0:
    raise ValueError(f"clamp must be positive nats or None, got {clamp}")
  return jnp.exp(jnp.clip(log_ratio, -clamp, clamp))


def _check_interval(low, high):
  if not 0 <= low <= high:
    raise ValueError(f"needs 0 <= low <= high, got low={low}, high={high}")
