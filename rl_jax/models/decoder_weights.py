"""The weights of a decoder: what each is, how it starts, what it multiplies."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

if TYPE_CHECKING:
  from jaxtyping import Array, Float, PRNGKeyArray

  from rl_jax.models.protocol import Params

__all__ = ["Layer", "Weight", "drawn", "kernel", "rms_norm"]


class Weight(NamedTuple):
  """One array of parameters before it exists.

  Attributes:
    shape: lengths of its axes.
    axes: logical names of them, for `training.sharding`; None is whole.
    inputs: how many of the first axes a product contracts; 0 if it is none.
    start: standard deviation of the normal that it starts from.
    mean: of that normal.
  """

  shape: tuple[int, ...]
  axes: tuple[str | None, ...]
  inputs: int = 0
  start: float = 0.0
  mean: float = 0.0

  def stacked(self, layers: int) -> Weight:
    """The same for that many layers at once."""
    axes = ("layers", *self.axes)
    return self._replace(shape=(layers, *self.shape), axes=axes)


class Layer(NamedTuple):
  """The weights of one layer, with a low-rank change if there is one.

  Attributes:
    weight: arrays by name.
    adapter: for some of those names a dict of `down` and `up`.
    scale: of the change.
  """

  weight: Params
  adapter: Params
  scale: float

  def product(
    self, name: str, h: Float[Array, "..."], *, inputs: int = 1
  ) -> Float[Array, "..."]:
    """Features times a weight, plus the change and the bias it has.

        y = h W + scale (h down) up + b

    Args:
      name: of the weight.
      h: features; the last `inputs` axes are contracted.
      inputs: how many axes that is.

    Returns:
      The product in the dtype of h.
    """
    dtype = h.dtype
    result = jnp.tensordot(h, self.weight[name].astype(dtype), inputs)
    if name in self.adapter:
      down, up = (self.adapter[name][k].astype(dtype) for k in ("down", "up"))
      low = jnp.tensordot(h, down, inputs)
      result = result + self.scale * jnp.tensordot(low, up, 1)
    if f"{name}_bias" in self.weight:
      bias = self.weight[f"{name}_bias"].astype(dtype)
      result = result + jax.lax.broadcast_to_rank(bias, result.ndim)
    return result


def drawn(key: PRNGKeyArray, weights: dict[str, Any]) -> Params:
  """Fresh float32 arrays for a nested dict of weights.

  Args:
    key: the same key gives the same arrays.
    weights: `Weight` values, nested.

  Returns:
    The same nested dict of arrays.
  """
  leaves, structure = jax.tree.flatten(
    weights, is_leaf=lambda node: isinstance(node, Weight)
  )
  keys = jax.random.split(key, len(leaves))
  return jax.tree.unflatten(
    structure,
    [
      weight.mean + weight.start * jax.random.normal(own, weight.shape)
      if weight.start
      else jnp.full(weight.shape, weight.mean, jnp.float32)
      for own, weight in zip(keys, leaves, strict=True)
    ],
  )


def kernel(
  shape: tuple[int, ...],
  axes: tuple[str, ...],
  *,
  inputs: int = 1,
  scale: float = 1.0,
) -> Weight:
  """A product whose outputs start with variance scale^2 for inputs of one.

  Args:
    shape: of the array, inputs first.
    axes: logical names.
    inputs: how many axes are inputs.
    scale: standard deviation of an output.

  Returns:
    The weight.
  """
  start = scale / math.sqrt(math.prod(shape[:inputs]))
  return Weight(shape, axes, inputs=inputs, start=start)


def rms_norm(
  h: Float[Array, "*batch features"],
  weight: Float[Array, " features"],
  *,
  epsilon: float,
  offset: float,
) -> Float[Array, "*batch features"]:
  """Features over their root mean square, times learned scales.

      h (offset + w) / sqrt(mean(h^2) + epsilon)

  Computed in float32 and rounded once. (Llama in transformers rounds to half
  precision before the scales too; in float32 both are the same.)

  Args:
    h: features.
    weight: w.
    epsilon: keeps the root from zero.
    offset: 0 where w holds scales, 1 where it holds differences from one.

  Returns:
    The same in the dtype of h.

  Zhang and Sennrich 2019, arXiv:1910.07467.

  >>> h = jnp.array([2.0, -2.0])
  >>> rms_norm(h, jnp.ones(2), epsilon=0.0, offset=1.0).round(4).tolist()
  [2.0, -2.0]
  """
  wide = h.astype(jnp.float32)
  square = jnp.mean(wide * wide, axis=-1, keepdims=True)
  scale = jax.lax.broadcast_to_rank(weight.astype(jnp.float32) + offset, h.ndim)
  return (wide * jax.lax.rsqrt(square + epsilon) * scale).astype(h.dtype)
