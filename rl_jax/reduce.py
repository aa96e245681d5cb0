"""The denominator contract: sums and weights travel, one division at the end.

A mean is not additive; a sum and its weight are. Every loss of this library
returns one value per element. The functions here turn that into a `Total`,
Totals of micro-batches, devices and hosts add up, and `Total.mean` divides
once. The result is then the same for every micro-batch split, mesh, padding,
packing and order of rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp

from rl_jax.masks import keep, masked_mean, widened

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float, Int

__all__ = [
  "Total",
  "group_tokens",
  "over_constant",
  "over_groups",
  "over_rows",
  "over_segments",
  "over_sequences",
  "over_tokens",
]


class Total(NamedTuple):
  """A sum and how much it is the sum of.

  Attributes:
    value: sum of weighted elements, in the unit of the element.
    weight: sum of the weights; no gradient flows through it.

  >>> (
  ...   Total(jnp.array(3.0), jnp.array(2.0))
  ...   + Total(jnp.array(1.0), jnp.array(2.0))
  ... ).mean().item()
  1.0
  """

  value: Float[Array, ""]
  weight: Float[Array, ""]

  # A Total is a tuple only so that any pytree leaf may stand in it; adding
  # two of them adds the numbers.
  def __add__(self, other: Total) -> Total:  # type: ignore[override]
    return Total(self.value + other.value, self.weight + other.weight)

  def mean(self) -> Float[Array, ""]:
    """Divide once; zero, with zero gradient, when nothing was counted.

    An empty Total is never a silent success: its weight of zero is visible,
    and the first-step doctor of the engine refuses a loss that has one.

    Returns:
      The mean, in the unit of `value`.
    """
    weight = jax.lax.stop_gradient(self.weight)
    some = weight != 0
    return jnp.where(some, self.value / jnp.where(some, weight, 1.0), 0.0)

  @classmethod
  def of(cls, value: Float[Array, "*any"]) -> Total:
    """Every element of an array, each with weight one.

    Args:
      value: numbers to average, all of which count.

    Returns:
      The Total whose mean is the array's.
    """
    count = jnp.asarray(value.size, jnp.float32)
    return cls(jnp.sum(widened(value)), count)


def over_tokens(
  loss: Float[Array, "*batch time"], mask: Bool[Array, "*batch time"]
) -> Total:
  """Every counted token weighs the same, whatever row it stands in.

      value = sum_{i,t} mask_it loss_it,   weight = sum_{i,t} mask_it

  The "token-mean" of DAPO (Yu et al. 2025, arXiv:2503.14476, eq. 8).

  Args:
    loss: one value per token.
    mask: true = counts; elsewhere `loss` may hold anything.

  Returns:
    The Total whose mean is the mean over counted tokens.

  >>> mask = jnp.array([[True, True, True], [True, False, False]])
  >>> loss = jnp.array([[1.0, 1.0, 1.0], [5.0, 9.0, 9.0]])
  >>> over_tokens(loss, mask).mean().item()
  2.0
  """
  return Total(jnp.sum(keep(loss, mask)), _count(mask))


def over_sequences(
  loss: Float[Array, "*batch time"], mask: Bool[Array, "*batch time"]
) -> Total:
  """Every non-empty row weighs the same, whatever its length.

      value = sum_i (1/|m_i|) sum_t mask_it loss_it,   weight = #{i: |m_i| > 0}

  The aggregation of the original GRPO (Shao et al. 2024, arXiv:2402.03300,
  eq. 3). Rows with no counted token are left out of the weight.

  Args:
    loss: one value per token.
    mask: true = counts; elsewhere `loss` may hold anything.

  Returns:
    The Total whose mean is the mean over rows of their token means.

  >>> mask = jnp.array([[True, True, True], [True, False, False]])
  >>> loss = jnp.array([[1.0, 1.0, 1.0], [5.0, 9.0, 9.0]])
  >>> over_sequences(loss, mask).mean().item()
  3.0
  """
  return Total(jnp.sum(masked_mean(loss, mask)), _count(jnp.any(mask, axis=-1)))


def group_tokens(
  mask: Bool[Array, "row time"], group: Int[Array, "row"], *, num_groups: int
) -> Float[Array, "row"]:
  """Counted tokens in the whole group of each row, for `over_groups`.

      n_i = sum_{j: group_j = group_i} sum_t mask_jt

  Compute it on the full batch, before the rows are split into micro-batches.

  Args:
    mask: true = counts.
    group: which prompt each row answers, in [0, num_groups).
    num_groups: how many ids there are; static.

  Returns:
    n_i for each row, in tokens; carries no gradient.

  Raises:
    ValueError: if `num_groups` < 1.

  >>> mask = jnp.array([[True, True], [True, False], [True, True]])
  >>> group_tokens(mask, jnp.array([0, 0, 1]), num_groups=2).tolist()
  [3.0, 3.0, 2.0]
  """
  if num_groups < 1:
    raise ValueError(f"num_groups must be at least 1, got {num_groups}")
  tokens = jnp.sum(mask, axis=-1).astype(jnp.float32)
  return jax.ops.segment_sum(tokens, group, num_groups)[group]


def over_groups(
  loss: Float[Array, "*batch time"],
  mask: Bool[Array, "*batch time"],
  tokens: Float[Array, "*batch"],
) -> Total:
  """Every group weighs the same; inside a group every token does.

      value = sum_{i,t} mask_it loss_it / n_i
      weight = sum_{i,t} mask_it / n_i

  n_i counts the tokens of the whole group of row i, so the weight of all rows
  is the number of non-empty groups, however the rows are split.

  Args:
    loss: one value per token.
    mask: true = counts; elsewhere `loss` may hold anything.
    tokens: n_i, from `group_tokens` on the full batch.

  Returns:
    The Total whose mean is the mean over groups of their token means.

  >>> mask = jnp.array([[True, True], [True, False], [True, True]])
  >>> tokens = group_tokens(mask, jnp.array([0, 0, 1]), num_groups=2)
  >>> loss = jnp.array([[1.0, 1.0], [4.0, 9.0], [3.0, 5.0]])
  >>> over_groups(loss, mask, tokens).mean().item()
  3.0
  """
  tokens = jax.lax.stop_gradient(widened(tokens))[..., None]
  share = jnp.where(mask, 1.0 / jnp.maximum(tokens, 1.0), 0.0)
  return Total(jnp.sum(keep(loss, mask) * share), jnp.sum(share))


def over_constant(
  loss: Float[Array, "*batch time"],
  mask: Bool[Array, "*batch time"],
  *,
  divisor: float,
) -> Total:
  """Sum of each non-empty row over a constant length, averaged over rows.

      value = sum_i (1/divisor) sum_t mask_it loss_it
      weight = #{i: |m_i| > 0}

  The unbiased aggregation of Dr. GRPO (Liu et al. 2025, arXiv:2503.20783).
  The divisor is a constant of the experiment, such as the longest allowed
  response, never the padded width of a batch.

  Args:
    loss: one value per token.
    mask: true = counts; elsewhere `loss` may hold anything.
    divisor: tokens; must be positive.

  Returns:
    The Total whose mean is the mean over rows of their scaled sums.

  Raises:
    ValueError: if `divisor` is not positive.

  >>> mask = jnp.array([[True, True], [True, False]])
  >>> loss = jnp.array([[1.0, 1.0], [2.0, 9.0]])
  >>> over_constant(loss, mask, divisor=2.0).mean().item()
  1.0
  """
  if not divisor > 0:
    raise ValueError(f"divisor must be positive, got {divisor}")
  return Total(
    jnp.sum(keep(loss, mask)) / divisor, _count(jnp.any(mask, axis=-1))
  )


def over_rows(
  loss: Float[Array, "*batch time"],
  mask: Bool[Array, "*batch time"],
  valid: Bool[Array, "*batch"],
  *,
  divisor: float,
) -> Total:
  """Sum of each row over a constant, averaged over rows that may be empty.

      value = sum_i valid_i (1/divisor) sum_t mask_it loss_it
      weight = #{i: valid_i}

  `over_constant` leaves rows without a counted token out of the weight; here
  they dilute the mean, as they do where the batch size divides. Padding rows
  are those that are not valid. TRL's "dr_grpo" is this with the longest
  allowed response as divisor, verl 0.9's "seq-mean-token-sum-norm" with its
  constant. Older verl did not divide by the B rows of the batch at all: there
  the divisor is the constant over B, and the two B cancel.

  Args:
    loss: one value per token.
    mask: true = counts; elsewhere `loss` may hold anything.
    valid: true for the rows that count, empty or not.
    divisor: tokens; must be positive.

  Returns:
    The Total whose mean is the mean over valid rows of their scaled sums.

  Raises:
    ValueError: if `divisor` is not positive.

  >>> mask = jnp.array([[True, True], [False, False]])
  >>> loss = jnp.array([[1.0, 3.0], [9.0, 9.0]])
  >>> over_rows(loss, mask, jnp.array([True, True]), divisor=2.0).mean().item()
  1.0
  """
  if not divisor > 0:
    raise ValueError(f"divisor must be positive, got {divisor}")
  counted = mask & valid[..., None]
  return Total(jnp.sum(keep(loss, counted)) / divisor, _count(valid))


def over_segments(
  loss: Float[Array, "*batch time"],
  mask: Bool[Array, "*batch time"],
  segment: Int[Array, "*batch time"],
  *,
  divisor: float | None,
) -> Total:
  """`over_sequences` and `over_constant` for rows that pack several sequences.

      value = sum_{i,s} (1/d_is) sum_{t: segment_it = s} mask_it loss_it
      weight = number of sequences with a counted token

  d_is is the number of counted tokens of the sequence, or the constant. The
  same Total as of the same sequences in rows of their own. `over_tokens`
  needs no ids to be right for packed rows.

  Args:
    loss: one value per token.
    mask: true = counts; elsewhere `loss` may hold anything.
    segment: id of the sequence that each token belongs to, any positive
      integer; 0 = padding. A sequence lies within one row.
    divisor: a constant number of tokens, positive; None for each sequence's
      own.

  Returns:
    The Total whose mean is the mean over sequences.

  Raises:
    ValueError: if `divisor` is a number that is not positive.

  >>> loss = jnp.array([[1.0, 1.0, 1.0, 5.0, 9.0]])
  >>> segment = jnp.array([[1, 1, 1, 2, 0]])
  >>> over_segments(loss, segment > 0, segment, divisor=None).mean().item()
  3.0
  """
  if divisor is not None and not divisor > 0:
    raise ValueError(f"divisor must be positive or None, got {divisor}")
  counted = mask & (segment > 0)
  tokens = jnp.vectorize(_tokens_alike, signature="(t),(t)->(t)")(
    counted, segment
  )
  share = jnp.where(counted, 1.0 / jnp.maximum(tokens, 1), 0.0)
  scale = share if divisor is None else 1.0 / divisor
  return Total(jnp.sum(keep(loss, counted) * scale), jnp.sum(share))


def _tokens_alike(counted, segment):
  """How many counted tokens carry the id of each token of one row."""
  order = jnp.argsort(segment)
  ids = segment[order]
  # Equal ids are now adjacent: number the runs, count in each, sort back.
  run = jnp.cumsum(ids != jnp.roll(ids, 1))
  tokens = jax.ops.segment_sum(
    counted[order].astype(jnp.int32), run, order.size + 1
  )
  return jnp.zeros_like(run).at[order].set(tokens[run])


def _count(mask: Bool[Array, "*any"]) -> Float[Array, ""]:
  return jnp.sum(mask, dtype=jnp.float32)
