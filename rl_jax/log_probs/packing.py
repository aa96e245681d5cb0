"""Rows and the sequences in them: alignment, sums and means.

Logits of one column score the token of the next. In a packed row, where
several sequences stand one after the other and `segment` numbers them from
one, the last column of a sequence scores nothing: the next token begins
another one.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rl_jax.masks import keep, masked_mean

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float, Int

__all__ = [
  "NextToken",
  "at_own_position",
  "next_token",
  "segment_log_prob_mean",
  "segment_log_prob_sum",
  "sequence_log_prob_mean",
  "sequence_log_prob_sum",
]


class NextToken(NamedTuple):
  """What each column's logits are asked to score.

  Attributes:
    token: id of the token in the next column; 0 where it does not count.
    mask: true where there is a next token of the same sequence and it counts.
  """

  token: Int[Array, "*batch time"]
  mask: Bool[Array, "*batch time"]


def next_token(
  token: Int[Array, "*batch time"],
  mask: Bool[Array, "*batch time"],
  segment: Int[Array, "*batch time"],
) -> NextToken:
  """The token that each column's logits score, within its own sequence.

      counts_t = mask_{t+1} and segment_t = segment_{t+1} != 0
      target_t = token_{t+1}   where counts_t

  The first token of a sequence is scored by nobody, whatever `mask` says.

  Args:
    token: ids as they stand in the row.
    mask: true for tokens to be scored, at their own position: the response,
      not the prompt, tool output or padding.
    segment: id of the sequence that each column belongs to; 0 = padding.
      All ones where rows are not packed.

  Returns:
    Targets and their mask, at the columns whose logits score them. Bring
    scores back to the tokens' own columns with `at_own_position`.

  >>> scored, counts = next_token(
  ...   jnp.array([5, 6, 7, 8]),
  ...   jnp.array([True, True, True, True]),
  ...   jnp.array([1, 1, 2, 2]),
  ... )
  >>> scored.tolist(), counts.tolist()
  ([6, 0, 8, 0], [True, False, True, False])
  """
  same = (segment[..., :-1] == segment[..., 1:]) & (segment[..., 1:] != 0)
  counts = _padded(same & mask[..., 1:], before=0)
  return NextToken(
    jnp.where(counts, _padded(token[..., 1:], before=0), 0), counts
  )


def at_own_position(
  value: Float[Array, "*batch time"], mask: Bool[Array, "*batch time"]
) -> Float[Array, "*batch time"]:
  """Scores moved from the column that made them to the token they are of.

      x_0 = 0,   x_{t+1} = mask_t value_t

  The inverse of the shift of `next_token`.

  Args:
    value: one number per token, any unit, at the column whose logits made it.
    mask: `next_token(...).mask`.

  Returns:
    The numbers at the tokens' own columns, at least float32; 0 for tokens
    without a score.

  >>> at_own_position(
  ...   jnp.array([0.5, jnp.nan, 2.0]), jnp.array([True, False, True])
  ... ).tolist()
  [0.0, 0.5, 0.0]
  """
  return _padded(keep(value, mask)[..., :-1], before=1)


def sequence_log_prob_sum(
  log_prob: Float[Array, "*batch time"], mask: Bool[Array, "*batch time"]
) -> Float[Array, "*batch"]:
  """Log-probability of a whole response: the sum over its tokens.

      log p(y_i) = sum_t mask_it log p_it

  Args:
    log_prob: nats per token.
    mask: true = counts.

  Returns:
    The sum per row in nats; 0 for a row without counted tokens.

  >>> log_prob = jnp.array([[-1.0, -2.0, jnp.nan]])
  >>> sequence_log_prob_sum(log_prob, jnp.array([[True, True, False]])).tolist()
  [-3.0]
  """
  return jnp.sum(keep(log_prob, mask), axis=-1)


def sequence_log_prob_mean(
  log_prob: Float[Array, "*batch time"], mask: Bool[Array, "*batch time"]
) -> Float[Array, "*batch"]:
  """Log-probability per token of a response, so that length does not matter.

      a_i = sum_t mask_it log p_it / max(1, |m_i|)

  Args:
    log_prob: nats per token.
    mask: true = counts.

  Returns:
    The mean per row in nats per token; 0 for a row without counted tokens.

  >>> log_prob = jnp.array([[-1.0, -2.0, jnp.nan]])
  >>> sequence_log_prob_mean(
  ...   log_prob, jnp.array([[True, True, False]])
  ... ).tolist()
  [-1.5]
  """
  return masked_mean(log_prob, mask)


def segment_log_prob_sum(
  log_prob: Float[Array, "*batch time"],
  segment: Int[Array, "*batch time"],
  mask: Bool[Array, "*batch time"],
  *,
  num_segments: int,
) -> Float[Array, "*batch segments"]:
  """Log-probability of every sequence of a packed row.

      s_ik = sum_{t: segment_it = k} mask_it log p_it,   k = 1 .. num_segments

  Args:
    log_prob: nats per token, where `segment` and `mask` have them.
    segment: id of the sequence that each column belongs to, at most
      `num_segments`; 0 = padding, which never counts.
    mask: true = counts.
    num_segments: the largest id; static.

  Returns:
    The sums in nats, sequence k at index k - 1; 0 for a sequence without
    counted tokens. A row with an id out of range gives NaN if only run time
    can see it.

  Raises:
    ValueError: if `num_segments` < 1 or an id is seen to be out of range.

  >>> segment_log_prob_sum(
  ...   jnp.array([[-1.0, -2.0, -4.0, jnp.nan]]),
  ...   jnp.array([[1, 1, 2, 0]]),
  ...   jnp.array([[True, True, True, False]]),
  ...   num_segments=2,
  ... ).tolist()
  [[-3.0, -4.0]]
  """
  _require_segments(segment, num_segments)
  return _per_segment(keep(log_prob, mask), segment, num_segments)


def segment_log_prob_mean(
  log_prob: Float[Array, "*batch time"],
  segment: Int[Array, "*batch time"],
  mask: Bool[Array, "*batch time"],
  *,
  num_segments: int,
) -> Float[Array, "*batch segments"]:
  """Log-probability per token of every sequence of a packed row.

      a_ik = s_ik / max(1, n_ik),   s and k as in `segment_log_prob_sum`

  with n_ik the counted tokens of sequence k. The same numbers as
  `sequence_log_prob_mean` of the sequences unpacked.

  Args:
    log_prob: nats per token, where `segment` and `mask` have them.
    segment: id of the sequence that each column belongs to, at most
      `num_segments`; 0 = padding, which never counts.
    mask: true = counts.
    num_segments: the largest id; static.

  Returns:
    The means in nats per token, sequence k at index k - 1; 0 for a sequence
    without counted tokens. A row with an id out of range gives NaN if only
    run time can see it.

  Raises:
    ValueError: if `num_segments` < 1 or an id is seen to be out of range.

  >>> segment_log_prob_mean(
  ...   jnp.array([[-1.0, -2.0, -4.0, jnp.nan]]),
  ...   jnp.array([[1, 1, 2, 0]]),
  ...   jnp.array([[True, True, True, False]]),
  ...   num_segments=2,
  ... ).tolist()
  [[-1.5, -4.0]]
  """
  _require_segments(segment, num_segments)
  kept = keep(log_prob, mask)
  total = _per_segment(kept, segment, num_segments)
  count = _per_segment(mask.astype(kept.dtype), segment, num_segments)
  return total / jnp.maximum(count, 1.0)


def _per_segment(value, segment, num_segments):
  *batch, time = value.shape
  rows = math.prod(batch), time

  # Row by row, so that rows that live on several devices stay there.
  def one(value, segment):
    return jax.ops.segment_sum(value, segment, num_segments + 1)[1:]

  total = jax.vmap(one)(value.reshape(rows), segment.reshape(rows))
  total = total.reshape(*batch, num_segments)
  wrong = jnp.any((segment < 0) | (segment > num_segments), axis=-1)
  return jnp.where(wrong[..., None], jnp.nan, total)


def _require_segments(segment, num_segments):
  if num_segments < 1:
    raise ValueError(f"num_segments must be at least 1, got {num_segments}")
  if isinstance(segment, jax.core.Tracer):
    return
  ids = np.asarray(segment)
  if ids.size and (ids.min() < 0 or ids.max() > num_segments):
    raise ValueError(
      f"segment ids must lie in [0, {num_segments}], got ids from {ids.min()}"
      f" to {ids.max()}: raise num_segments, or start numbering at 1"
    )


def _padded(value, *, before):
  """One zero more on the time axis, in front or behind."""
  width = [(0, 0)] * (value.ndim - 1) + [(before, 1 - before)]
  return jnp.pad(value, width)
