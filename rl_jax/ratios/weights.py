"""Weights made of ratios, and what is worth watching about them.

Weights are constants to multiply a loss with; no gradient flows through them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp

from rl_jax.masks import keep, widened
from rl_jax.reduce import Total

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float

__all__ = [
  "WeightMoments",
  "clipped_fraction",
  "masked_weight",
  "normalised_weight",
  "row_maximum",
  "truncated_weight",
  "weight_moments",
]


def truncated_weight(
  ratio: Float[Array, "*batch"], *, maximum: float, minimum: float = 0.0
) -> Float[Array, "*batch"]:
  """The ratio, cut at a maximum: little variance for a known bias.

      w = max(c, min(r, C))

  Args:
    ratio: r, of tokens or of rows. No gradient flows through it.
    maximum: C, positive: 2 in verl and open-instruct, 3 in TRL.
    minimum: c; 0 leaves small ratios alone. OpenRLHF keeps weights in
      [0.5, 5].

  Returns:
    w, a constant to multiply a loss with.

  Raises:
    ValueError: unless 0 <= minimum <= maximum and maximum > 0.

  Ionides 2008, "Truncated importance sampling".

  >>> truncated_weight(jnp.array([0.5, 4.0]), maximum=2.0).tolist()
  [0.5, 2.0]
  """
  if not maximum > 0:
    raise ValueError(f"maximum must be positive, got {maximum}")
  if not 0 <= minimum <= maximum:
    raise ValueError(
      f"needs 0 <= minimum <= maximum, got minimum={minimum}, maximum={maximum}"
    )
  return jnp.clip(jax.lax.stop_gradient(widened(ratio)), minimum, maximum)


def normalised_weight(
  weight: Float[Array, "*batch"], mean_weight: Float[Array, ""]
) -> Float[Array, "*batch"]:
  """The weight over its mean, so that the step size does not drift with it.

      w' = w / mean w

  Args:
    weight: w, of tokens or of rows. No gradient flows through it.
    mean_weight: mean over all that counts in the whole batch, not in a
      micro-batch: `weight_moments(weight, mask).first.mean()` of Totals that
      were added up. No gradient flows through it.

  Returns:
    w', whose mean is one; zero where the mean is.

  >>> weight = jnp.array([1.0, 3.0])
  >>> normalised_weight(weight, jnp.mean(weight)).tolist()
  [0.5, 1.5]
  """
  weight = jax.lax.stop_gradient(widened(weight))
  mean = jax.lax.stop_gradient(widened(mean_weight))
  return jnp.where(mean != 0, weight / jnp.where(mean != 0, mean, 1.0), 0.0)


def row_maximum(
  weight: Float[Array, "*batch time"], mask: Bool[Array, "*batch time"]
) -> Float[Array, "*batch"]:
  """The largest counted weight of each row; 0 where nothing counts.

      m_i = max_t {w_it: mask_it}

  A maximum is no sum, so there is no Total of it: keep it per row, and take
  the maximum over rows and batches of these.

  Args:
    weight: w, not negative. No gradient flows through it.
    mask: true = counts.

  Returns:
    m, in the unit of `weight`.

  >>> weight = jnp.array([[0.5, 2.0, jnp.nan]])
  >>> row_maximum(weight, jnp.array([[True, True, False]])).tolist()
  [2.0]
  """
  weight = jax.lax.stop_gradient(keep(weight, mask))
  return jnp.max(weight, axis=-1, initial=0.0)


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


def _check_interval(low, high):
  if not 0 <= low <= high:
    raise ValueError(f"needs 0 <= low <= high, got low={low}, high={high}")
