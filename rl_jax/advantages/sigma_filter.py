"""Advantages that stand far out are left out."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp

from rl_jax.advantages.whiten import whiten
from rl_jax.masks import keep

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float

__all__ = ["Filtered", "filtered_whiten", "sigma_filter"]


class Filtered(NamedTuple):
  """Advantages without those that stood too far out.

  Attributes:
    value: 0 where dropped or masked; no gradient flows.
    dropped: true = was counted and is now 0.
  """

  value: Float[Array, "*batch"]
  dropped: Bool[Array, "*batch"]


def sigma_filter(
  signal: Float[Array, "*batch"],
  mask: Bool[Array, "*batch"],
  *,
  bound: float,
) -> Filtered:
  r"""Zero in place of what is more than some standard deviations away.

      y = z   if |z| <= bound,   else 0

  A clip would keep the sign and the bound; this drops the element, so the sum
  changes and doing it twice is doing it once. Late in training the rare
  elements are the rare mistakes: then it drops the signal by design, and
  `dropped` is what to watch.

  Args:
    signal: z, whitened. No gradient flows through it.
    mask: true = counts.
    bound: in standard deviations; positive. 3 in the paper.

  Returns:
    y, and which were dropped.

  Raises:
    ValueError: if the bound is not positive.

  Zhang et al. 2025, arXiv:2505.02835 (StableReinforce, advantage filter).

  >>> found = sigma_filter(jnp.array([0.5, -4.0]), jnp.ones(2, bool), bound=3.0)
  >>> found.value.tolist(), found.dropped.tolist()
  ([0.5, 0.0], [False, True])
  """
  return _between(signal, mask, 0.0, bound)


def filtered_whiten(
  signal: Float[Array, "*batch"],
  mask: Bool[Array, "*batch"],
  *,
  bound: float,
  ddof: int,
  reference_bounds: bool,
) -> Filtered:
  r"""Whitening over everything that counts, then the filter.

      z = (A - m) / sqrt(max(v, 1e-8)),   m, v: mean and variance of A
      y = z if |z| <= bound, else 0                        the paper
      y = z if m - bound <= z + 1e-8 <= m + bound
              and |z| <= 10 and z is finite, else 0        `reference_bounds`

  The code that the paper points to moves the interval by the mean m of the
  advantages as they were before, though z has none any more; where rewards
  are mostly positive, it drops the wrong side. It is here for parity.

  Args:
    signal: A, any unit. No gradient flows through it.
    mask: true = counts; padding takes no part in m and v.
    bound: in standard deviations; positive. 3 in the paper.
    ddof: of the variance, see `whiten`; 0 in the code.
    reference_bounds: whether the interval is the code's.

  Returns:
    y, and which were dropped.

  Raises:
    ValueError: if the bound is not positive, ddof is not 0 or 1, or less
      than two elements count (see `whiten`).

  Zhang et al. 2025, arXiv:2505.02835, and its code.

  >>> found = filtered_whiten(
  ...   jnp.array([1.0, 1.0, 0.0, 0.0]),
  ...   jnp.ones(4, bool),
  ...   bound=3.0,
  ...   ddof=0,
  ...   reference_bounds=False,
  ... )
  >>> found.value.tolist()
  [1.0, 1.0, -1.0, -1.0]
  """
  white = whiten(
    signal, mask, ddof=ddof, epsilon=1e-8, guard="floor", shift_mean=True
  )
  if not reference_bounds:
    return sigma_filter(white, mask, bound=bound)
  signal = jax.lax.stop_gradient(keep(signal, mask))
  count = jnp.maximum(jnp.sum(mask), 1).astype(signal.dtype)
  found = _between(white + 1e-8, mask, jnp.sum(signal) / count, bound)
  far = mask & ~(jnp.abs(white + 1e-8) <= 10.0)
  value = jnp.where(far, 0.0, found.value)
  return Filtered(value, found.dropped | far)


def _between(signal, mask, centre, bound):
  if not bound > 0:
    raise ValueError(f"bound must be positive standard deviations, got {bound}")
  signal = jax.lax.stop_gradient(keep(signal, mask))
  # A NaN is not outside: it stays, for the doctor to see.
  outside = mask & ((signal < centre - bound) | (signal > centre + bound))
  return Filtered(jnp.where(outside, 0.0, signal), outside)
