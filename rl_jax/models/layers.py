"""What several networks need: features of time, conditions, named axes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

if TYPE_CHECKING:
  from collections.abc import Callable

  from jaxtyping import Array, Float, Shaped

__all__ = [
  "ClassEmbedding",
  "applied",
  "axis_names",
  "check_times",
  "dense",
  "fan_in_normal",
  "over_trailing",
  "time_features",
]


def time_features(
  t: Float[Array, "*batch"], *, features: int, fastest: float
) -> Float[Array, "*batch features"]:
  """Sines, then cosines, of t at geometrically spaced frequencies.

      f_k = fastest^(k / (features/2 - 1)),   k = 0 .. features/2 - 1
      [sin(t f), cos(t f)]

  Args:
    t: time in [0, 1].
    features: how many; even, at least 4.
    fastest: the highest frequency in radians per unit of t; the lowest is 1.

  Returns:
    Values in [-1, 1].
  """
  # A constant table, rounded once: powers in float32 would be off by several
  # roundings, which the fastest angle multiplies.
  power = np.arange(features // 2) / (features // 2 - 1)
  frequency = jnp.asarray(fastest**power, jnp.float32)
  angle = t[..., None] * jax.lax.broadcast_to_rank(frequency, t.ndim + 1)
  return jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], axis=-1)


def over_trailing(
  condition: Shaped[Array, "..."], batch: tuple[int, ...], *, event: int
) -> Shaped[Array, "..."]:
  """A condition of the first batch axes, repeated over those after them.

  Args:
    condition: first axes of `batch`, then `event` axes of its own.
    batch: the batch axes of the latents.
    event: how many axes one condition has (0 for a class id).

  Returns:
    The condition with all axes of `batch`.

  Raises:
    ValueError: if its axes are not the first ones of `batch`.

  >>> over_trailing(jnp.array([3, 5]), (2, 2), event=0).tolist()
  [[3, 3], [5, 5]]
  """
  split = condition.ndim - event
  own, rest = condition.shape[:split], condition.shape[split:]
  if split < 0 or own != batch[:split]:
    raise ValueError(
      f"condition of shape {condition.shape} does not fit latents with batch"
      f" axes {batch}: its first axes must be the first of those"
    )
  ones = (1,) * (len(batch) - split)
  return jnp.broadcast_to(condition.reshape(own + ones + rest), batch + rest)


def check_times(
  x: Float[Array, "..."], t: Float[Array, "..."], event_shape: tuple[int, ...]
) -> tuple[int, ...]:
  """The batch axes of latents and their times, which must agree.

  Args:
    x: latents, event axes last.
    t: one time per latent.
    event_shape: axes of one latent.

  Returns:
    The lengths of the batch axes.

  Raises:
    ValueError: if x does not end in `event_shape` or t has other batch axes.
  """
  split = x.ndim - len(event_shape)
  if split < 0 or x.shape[split:] != event_shape:
    raise ValueError(f"latents of shape {x.shape} do not end in {event_shape}")
  if t.shape != x.shape[:split]:
    raise ValueError(
      f"times of shape {t.shape} for latents with batch axes"
      f" {x.shape[:split]}: give one time for each latent"
    )
  return t.shape


def fan_in_normal(scale: float = 1.0) -> Callable[..., Any]:
  """Normal with standard deviation scale / sqrt(inputs).

  Args:
    scale: standard deviation of an output whose inputs have variance one.

  Returns:
    A linen initialiser.
  """
  return nn.initializers.variance_scaling(scale**2, "fan_in", "normal")


def dense(
  features: int,
  axes: tuple[str | None, str | None],
  *,
  name: str,
  dtype: Any,
  kernel: Callable[..., Any] | None = None,
) -> nn.Dense:
  """A linear layer whose axes carry logical names.

  Args:
    features: how many outputs.
    axes: names of the axes of inputs and of outputs.
    name: of the layer within its module.
    dtype: of the arithmetic; parameters are float32.
    kernel: initialiser; `fan_in_normal()` if None.

  Returns:
    The linen layer, with a bias that starts at zero.
  """
  kernel = fan_in_normal() if kernel is None else kernel
  return nn.Dense(
    features,
    dtype=dtype,
    kernel_init=nn.with_logical_partitioning(kernel, axes),
    bias_init=nn.with_logical_partitioning(nn.initializers.zeros, axes[1:]),
    name=name,
  )


class ClassEmbedding(nn.Module):
  """A vector per class. An id outside of [0, classes) gives NaN, not class 0.

  Attributes:
    classes: how many ids there are.
    features: width of a vector.
    stddev: of the normal that it starts from.
    dtype: of the result.
  """

  classes: int
  features: int
  stddev: float
  dtype: Any

  @nn.compact
  def __call__(self, label: Shaped[Array, "*batch"]) -> Shaped[Array, "..."]:
    """The vectors of those ids, with their axes first."""
    table: Any = self.param(
      "embedding",
      nn.with_logical_partitioning(
        nn.initializers.normal(self.stddev), ("classes", "embed")
      ),
      (self.classes, self.features),
    )
    return (
      table.astype(self.dtype)
      .at[label]
      .get(mode="fill", fill_value=jnp.nan, wrap_negative_indices=False)
    )


def applied(
  module: nn.Module, params: Any, *inputs: Shaped[Array, "..."]
) -> Shaped[Array, "..."]:
  """What a linen module with one output and no other state computes.

  Args:
    module: the linen module.
    params: its parameters.
    *inputs: positional arguments of its call.

  Returns:
    The output.
  """
  output: Any = module.apply({"params": params}, *inputs)
  return output


def axis_names(boxed: Any, params: Any) -> Any:
  """Names of all axes from a tree of partitioned shapes.

  Args:
    boxed: `jax.eval_shape` of a linen init, metadata included.
    params: what the names are for.

  Returns:
    A tree like `params` with a tuple of names for each array.

  Raises:
    ValueError: if `params` are not the parameters of this network.
  """
  shapes = jax.tree.map(jnp.shape, nn.unbox(boxed), is_leaf=_has_shape)
  found = jax.tree.map(jnp.shape, params, is_leaf=_has_shape)
  if shapes != found:
    raise ValueError(
      f"these are not the parameters of this model: expected {shapes}, got"
      f" {found}"
    )
  return jax.tree.map(
    lambda box: box.names,
    boxed,
    is_leaf=lambda box: isinstance(box, nn.Partitioned),
  )


def _has_shape(node: Any) -> bool:
  return isinstance(node, jax.Array | jax.ShapeDtypeStruct)
