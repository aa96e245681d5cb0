"""From a model and keys to samples."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax

from rl_jax.sampling.steps import fold_rows, row_normal

if TYPE_CHECKING:
  from jaxtyping import Array, Key, PyTree

__all__ = ["draw"]


def draw(
  sampler: Any,
  model: Any,
  params: PyTree,
  condition: PyTree,
  row_key: Key[Array, "row"],
) -> Any:
  """Samples of a model, each from its own key.

  Args:
    sampler: see `rl_jax.sampling`.
    model: a velocity model.
    params: its parameters.
    condition: what each row is asked for.
    row_key: one key per row; its initial noise and the noise of the sampler
      come of it, so a row does not depend on its neighbours.

  Returns:
    The sampler's trajectory.
  """

  def velocity(x: jax.Array, t: jax.Array) -> jax.Array:
    return model.apply(params, x, t, condition)

  noise = row_normal(fold_rows(row_key, 0), model.event_shape)
  return sampler(velocity, noise, fold_rows(row_key, 1))
