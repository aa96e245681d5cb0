"""Effective rank of hidden states, and how it moves along a response.

From the eigenvalues of a Gram matrix, in float32: singular values below some
3e-4 of the largest are rounding. Where a matrix is known to have none, none
are looked at: centring t rows leaves t - 1 directions at most.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from rl_jax.masks import keep, masked_mean, widened

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float

__all__ = [
  "effective_rank",
  "prefix_effective_ranks",
  "rank_acceleration",
  "rank_velocity",
]

_EPSILON = 1e-8


def effective_rank(
  hidden: Float[Array, "row time width"], mask: Bool[Array, "row time"]
) -> Float[Array, "row"]:
  r"""In how many directions the features of a response spread.

      s = singular values of the counted rows of Z less their mean
      p_j = s_j / (sum_j s_j + 1e-8)
      ER = exp(-sum_j p_j log(p_j + 1e-8))

  Of t counted tokens in D features min(t - 1, D) singular values may differ
  from zero: the square roots of that many largest eigenvalues of the Gram
  matrix of the smaller side are taken, the others are rounding. ER lies in
  [1, min(t - 1, D)] and does not change with the order of the tokens, with
  rotation or scale of the features, or by a vector added to all of them.

  Args:
    hidden: Z, features of each token, any unit. No gradient flows through it.
    mask: true = counts; what counts need not be adjacent.

  Returns:
    ER of each row, in float32 at least; 0 with less than two tokens, NaN
    where a counted feature is.

  Raises:
    ValueError: if a counted feature is seen not to be finite.

  arXiv:2509.23808, and its code (singular values, not their squares).

  >>> hidden = jnp.array([[[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]]])
  >>> effective_rank(hidden, jnp.ones((1, 4), bool)).round(3).tolist()
  [2.0]
  """
  _check_finite(hidden, mask)
  return _ranks(_kept(hidden, mask), mask)


def prefix_effective_ranks(
  hidden: Float[Array, "row time width"],
  mask: Bool[Array, "row time"],
  *,
  stride: int,
  max_length: int,
) -> tuple[Float[Array, "row prefix"], Bool[Array, "row prefix"]]:
  """Effective rank of beginnings of a response that grow by a stride.

      m_j = ER(first j stride + 1 tokens),   j = 1, 2, ... with j stride < T

  T is the number of counted tokens. Of more than `max_length` the last
  `max_length` are the response that these are beginnings of.

  Args:
    hidden: features of each token, any unit. No gradient flows through it.
    mask: true = counts; tokens are taken in their order, gaps left out.
    stride: tokens from one beginning to the next; 40 in the paper's code.
    max_length: tokens that are looked at; 512 in the paper's code. Static, as
      the number of beginnings is.

  Returns:
    m_j, 0 where there is no such beginning, and where there is.

  Raises:
    ValueError: if `stride` < 1, `max_length` < 2, or a counted feature is
      seen not to be finite.

  arXiv:2509.23808, code.
  """
  if stride < 1 or max_length < 2:
    raise ValueError(
      f"stride must be at least 1 and max_length at least 2, got {stride} and"
      f" {max_length}"
    )
  _check_finite(hidden, mask)
  rows, time = mask.shape
  window = min(time, max_length)
  count = jnp.sum(mask, axis=-1)
  # Counted tokens in front, of which the last `window` are taken.
  order = jnp.argsort(~mask, axis=-1, stable=True)
  place = jnp.maximum(count - window, 0)[:, None]
  place = place + jnp.arange(window)[None]
  place = jnp.take_along_axis(order, place, axis=-1)
  length = jnp.minimum(count, window)
  inside = jnp.arange(window)[None] < length[:, None]
  own = jnp.take_along_axis(hidden, place[..., None], axis=1)
  own = _kept(own, inside)
  last = stride * jnp.arange(1, (max(window, 1) - 1) // stride + 1)
  valid = last[None] < length[:, None]
  if last.size == 0:
    return jnp.zeros((rows, 0)), valid

  def beginning(last: jax.Array) -> jax.Array:
    return _ranks(own, inside & (jnp.arange(window) <= last)[None])

  # One after the other: each needs Gram matrices of all rows.
  found = jax.lax.map(beginning, last).T
  return keep(found, valid), valid


def rank_velocity(
  rank: Float[Array, "row prefix"], mask: Bool[Array, "row prefix"]
) -> Float[Array, "row"]:
  """How far the rank of each beginning is from the mean of those before it.

      d_j = m_j - mean(m_1 .. m_{j-1}),   ERV = mean_{j >= 2} d_j

  Args:
    rank: m_j. No gradient flows through it.
    mask: true = there is such a beginning; those come first.

  Returns:
    ERV of each row; 0 with less than two.

  arXiv:2509.23808, and its code.

  >>> rank = jnp.array([[2.0, 4.0, 6.0]])
  >>> rank_velocity(rank, jnp.array([[True, True, True]])).tolist()
  [2.5]
  """
  return masked_mean(*_deviations(rank, mask))


def rank_acceleration(
  rank: Float[Array, "row prefix"], mask: Bool[Array, "row prefix"]
) -> Float[Array, "row"]:
  """How the deviations of `rank_velocity` change.

      e_j = d_j - d_{j-1},   ERA = mean_{j >= 3} e_j

  Args:
    rank: m_j. No gradient flows through it.
    mask: true = there is such a beginning; those come first.

  Returns:
    ERA of each row; 0 with less than three.

  arXiv:2509.23808, and its code.

  >>> rank = jnp.array([[2.0, 4.0, 6.0]])
  >>> rank_acceleration(rank, jnp.array([[True, True, True]])).tolist()
  [1.0]
  """
  deviation, some = _deviations(rank, mask)
  change = deviation[:, 1:] - deviation[:, :-1]
  return masked_mean(change, some[:, 1:] & some[:, :-1])


def _kept(hidden, mask):
  hidden = jnp.where(mask[..., None], widened(hidden), 0.0)
  return jax.lax.stop_gradient(hidden)


def _deviations(rank, mask):
  rank = jax.lax.stop_gradient(keep(rank, mask))
  before = jnp.cumsum(mask, axis=-1) - mask
  total = jnp.cumsum(rank, axis=-1) - rank
  some = mask & (before > 0)
  return keep(rank - total / jnp.maximum(before, 1), some), some


def _ranks(kept, mask):
  """Ranks of rows whose features are 0 where the mask is false."""
  precise = jax.lax.Precision.HIGHEST
  count = jnp.sum(mask, axis=-1)
  mean = jnp.einsum(
    "rtd,rt->rd", kept, mask.astype(kept.dtype), precision=precise
  )
  mean = mean / jnp.maximum(count, 1)[:, None]
  centred = jnp.where(mask[..., None], kept - mean[:, None], 0.0)
  time, width = kept.shape[1:]
  sides = "rtd,rsd->rts" if time <= width else "rtd,rte->rde"
  gram = jnp.einsum(sides, centred, centred, precision=precise)
  size = gram.shape[-1]
  values = jnp.linalg.eigvalsh(gram)  # in rising order
  real = jnp.minimum(count - 1, width)
  kept_values = jnp.arange(size)[None] >= size - real[:, None]
  root = jnp.where(kept_values, jnp.sqrt(jnp.maximum(values, 0.0)), 0.0)
  share = root / (jnp.sum(root, axis=-1, keepdims=True) + _EPSILON)
  rank = jnp.exp(-jnp.sum(share * jnp.log(share + _EPSILON), axis=-1))
  return jnp.where(count > 1, rank, 0.0)


def _check_finite(hidden, mask):
  if isinstance(hidden, jax.core.Tracer) or isinstance(mask, jax.core.Tracer):
    return
  bad = mask & ~jnp.all(jnp.isfinite(widened(hidden)), axis=-1)
  if bool(jnp.any(bad)):
    row = int(jnp.argmax(jnp.any(bad, axis=-1)))
    raise ValueError(
      f"row {row} has hidden states that are not finite at position"
      f" {int(jnp.argmax(bad[row]))}"
    )
