"""Exponential averages of batch means, moved once per step of training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import jax
import jax.numpy as jnp

from rl_jax.masks import widened

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float

__all__ = ["MovingMeans", "init_moving_means", "update_moving_means"]


class MovingMeans(NamedTuple):
  """Averages of the means of past batches.

  Attributes:
    mean: the averages, each in the unit of what it is of; 0 before the first
      batch.
    weight: how much of them is filled, in [0, 1]; 0 says that no batch has
      been seen.
  """

  mean: Float[Array, "means"]
  weight: Float[Array, ""]


def init_moving_means(*, num_means: int) -> MovingMeans:
  """The averages before any batch.

  Args:
    num_means: how many there are.

  Returns:
    The state that `update_moving_means` starts from.

  Raises:
    ValueError: if `num_means` < 1.

  >>> init_moving_means(num_means=2).mean.tolist()
  [0.0, 0.0]
  """
  if num_means < 1:
    raise ValueError(f"num_means must be at least 1, got {num_means}")
  return MovingMeans(jnp.zeros(num_means), jnp.zeros(()))


def update_moving_means(
  state: MovingMeans,
  value: Float[Array, "row means"],
  valid: Bool[Array, "row"],
  *,
  decay: float,
  start: Literal["zero", "first", "unbiased"],
) -> MovingMeans:
  r"""Move the averages towards the means of a batch.

      w' = decay w + 1 - decay
      m' = m + rate (mean_i(x_i) - m)

      start "zero":      rate = 1 - decay: the first averages lean to zero
      start "first":     the same, but 1 at the first batch
      start "unbiased":  rate = (1 - decay) / w': the mean of all batches with
                         weights that fall by `decay` from each to the one
                         before it

  What stands in `state` before the update does not depend on the batch: that
  is the one to compare the batch with. Call it once per step of training, on
  the whole batch, and never in evaluation.

  Args:
    state: the averages so far.
    value: x_i, some numbers of each row. No gradient flows through it.
    valid: false for rows that do not count; without any the state stays.
    decay: how much of the past a batch keeps, in [0, 1).
    start: what is done about the batches that there were not.

  Returns:
    The averages for the next batch.

  Raises:
    ValueError: if `decay` is not in [0, 1), or for an unknown start.

  >>> state, kept = init_moving_means(num_means=1), jnp.ones(2, bool)
  >>> value = jnp.array([[1.0], [3.0]])
  >>> state = update_moving_means(state, value, kept, decay=0.5, start="zero")
  >>> state.mean.tolist(), state.weight.item()
  ([1.0], 0.5)
  """
  if not 0 <= decay < 1:
    raise ValueError(f"decay must be in [0, 1), got {decay}")
  if start not in ("zero", "first", "unbiased"):
    raise ValueError(
      f"start must be 'zero', 'first' or 'unbiased', got {start!r}"
    )
  value = jax.lax.stop_gradient(jnp.where(valid[:, None], widened(value), 0.0))
  count = jnp.sum(valid).astype(value.dtype)
  mean = jnp.sum(value, axis=0) / jnp.maximum(count, 1.0)
  weight = decay * state.weight + (1.0 - decay)
  rate = jnp.asarray(1.0 - decay)
  if start == "first":
    rate = jnp.where(state.weight > 0, rate, 1.0)
  elif start == "unbiased":
    rate = rate / weight
  some = count > 0
  return MovingMeans(
    jnp.where(some, state.mean + rate * (mean - state.mean), state.mean),
    jnp.where(some, weight, state.weight),
  )
