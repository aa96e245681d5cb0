"""Keys and values of tokens already seen, computed once."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp

if TYPE_CHECKING:
  from jaxtyping import Array, Float, Int

__all__ = ["Cache", "place"]


class Cache(NamedTuple):
  """What a decoder remembers of the columns it was given.

  All rows write the same slot at a time. Rows of different lengths pad: a
  column of segment 0 takes a slot that nothing ever sees.

  Attributes:
    key: turned and normalised keys.
    value: values.
    segment: id of the sequence in each slot; 0 = padding or not written.
    position: within its sequence, of the token in each slot.
    used: slots written so far, the same for all rows.
  """

  key: Float[Array, "layer row slot head features"]
  value: Float[Array, "layer row slot head features"]
  segment: Int[Array, "row slot"]
  position: Int[Array, "row slot"]
  used: Int[Array, ""]

  def repeated(self, times: int) -> Cache:
    """Each row `times` times in a row: samples that share one prompt.

    Args:
      times: samples for each prompt.

    Returns:
      A cache of rows x times rows: 0, 0, .., 1, 1, ..

    Raises:
      ValueError: if `times` is below 1.
    """
    if times < 1:
      raise ValueError(f"times must be at least 1, got {times}")
    return Cache(
      key=jnp.repeat(self.key, times, axis=1),
      value=jnp.repeat(self.value, times, axis=1),
      segment=jnp.repeat(self.segment, times, axis=0),
      position=jnp.repeat(self.position, times, axis=0),
      used=self.used,
    )


def place(
  stored: Float[Array, "layer row slot head features"],
  new: Float[Array, "row time head features"],
  *,
  layer: Int[Array, ""],
  slot: Int[Array, ""],
) -> Float[Array, "layer row slot head features"]:
  """Writes the new columns of one layer, and nothing else, from a slot on.

  Args:
    stored: of all layers; donated or carried, it is changed in place.
    new: keys or values of the new columns.
    layer: which layer they belong to.
    slot: where the first one goes.

  Returns:
    The array with those columns.
  """
  zero = jnp.zeros((), slot.dtype)
  start = (layer.astype(slot.dtype), zero, slot, zero, zero)
  return jax.lax.dynamic_update_slice(
    stored, new[None].astype(stored.dtype), start
  )
