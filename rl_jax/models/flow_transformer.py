"""A diffusion transformer for image latents.

Peebles and Xie 2023, arXiv:2212.09748 (DiT, adaLN-zero), as a velocity model.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from rl_jax.models import layers
from rl_jax.models.transformer_block import TransformerBlock, modulated, norm

if TYPE_CHECKING:
  from jaxtyping import Array, Float, PRNGKeyArray, Shaped

  from rl_jax.models.protocol import Params

__all__ = ["FlowTransformer"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class FlowTransformer:
  """Patches as tokens, modulated by time and condition (adaLN-zero).

      c = silu(W_2 silu(W_1 time(t)) + condition)
      h = patches(x) W_p + positions
      h = h + g_1(c) attention(norm(h) (1 + s_1(c)) + b_1(c))
      h = h + g_2(c) mlp(norm(h) (1 + s_2(c)) + b_2(c))      layers times
      v = patches^-1((norm(h) (1 + s(c)) + b(c)) W_o)

  All gates, shifts, scales and W_o start at zero: every block starts as the
  identity and the velocity as zero. The blocks are one compiled body scanned
  over stacked parameters, so compile time does not grow with `layers`.

  Raises:
    ValueError: if a size is below 1, `patch` does not divide the image,
      `heads` does not divide `width`, the width of a head (rope) or the
      width (sincos) is no multiple of 4, or not exactly one of `classes`
      and `condition_features` is given.
  """

  height: int
  """Rows of a latent image."""
  width_pixels: int
  """Columns of a latent image."""
  channels: int
  """Channels of a latent image."""
  patch: int = 2
  """Side of the square that becomes one token."""
  width: int = 256
  """Width of a token."""
  layers: int = 6
  """Number of blocks."""
  heads: int = 4
  """Attention heads."""
  mlp_ratio: int = 4
  """Hidden width of a block's MLP over the width of a token."""
  classes: int | None = None
  """Number of classes, if a condition is a class id."""
  condition_features: int | None = None
  """Length of the vector, if a condition is a vector (a text embedding)."""
  positions: Literal["sincos", "rope"] = "sincos"
  """Where a token is: added sines, or rotations of queries and keys."""
  remat: bool = False
  """Recompute each block in the backward pass instead of storing it."""
  dtype: Literal["float32", "bfloat16"] = "float32"
  """Precision of the products; parameters and result are float32."""

  def __post_init__(self):
    sizes = (self.height, self.width_pixels, self.channels, self.patch)
    if min(*sizes, self.width, self.layers, self.heads, self.mlp_ratio) < 1:
      raise ValueError(f"sizes must be at least 1, got {self}")
    if self.height % self.patch or self.width_pixels % self.patch:
      raise ValueError(
        f"patches of {self.patch} do not tile an image of {self.height} x"
        f" {self.width_pixels}"
      )
    if self.width % self.heads:
      raise ValueError(
        f"a width of {self.width} does not split over {self.heads} heads"
      )
    rope = self.positions == "rope"
    rotated = self.width // self.heads if rope else self.width
    if rotated % 4:
      raise ValueError(
        f"{self.positions} positions need a multiple of 4 (a sine and a cosine"
        f" for each of two axes), got {rotated} features"
      )
    kinds = [self.classes, self.condition_features]
    if sum(kind is not None for kind in kinds) != 1 or any(
      kind is not None and kind < 1 for kind in kinds
    ):
      raise ValueError(
        f"give exactly one of classes and condition_features, at least 1, got"
        f" {self.classes} and {self.condition_features}"
      )

  @property
  def event_shape(self) -> tuple[int, int, int]:
    """Shape of one latent."""
    return (self.height, self.width_pixels, self.channels)

  def init(self, key: PRNGKeyArray) -> Params:
    """Fresh float32 parameters; the same for the same key."""
    return nn.unbox(self._boxed(key))

  def apply(
    self,
    params: Params,
    x: Float[Array, "*batch height width channel"],
    t: Float[Array, "*batch"],
    condition: Shaped[Array, "..."],
  ) -> Float[Array, "*batch height width channel"]:
    """Velocity at x; see `VelocityModel.apply`.

    A condition is an integer id, or a float vector on the last axis.
    """
    batch = layers.check_times(x, t, self.event_shape)
    event = 0 if self.condition_features is None else 1
    wanted = layers.over_trailing(condition, batch, event=event)
    if event and wanted.shape[-1] != self.condition_features:
      raise ValueError(
        f"condition vectors of {wanted.shape[-1]} numbers, not"
        f" {self.condition_features}"
      )
    velocity = layers.applied(
      _Network(self),
      params,
      x.reshape(-1, *self.event_shape),
      t.reshape(-1),
      wanted.reshape(-1, *wanted.shape[len(batch) :]),
    )
    return velocity.astype(jnp.float32).reshape(x.shape)

  def logical_axes(self, params: Params) -> Params:
    """Names of the axes of all parameters; see `VelocityModel`."""
    return layers.axis_names(
      jax.eval_shape(self._boxed, jax.random.key(0)), params
    )

  def _boxed(self, key: PRNGKeyArray) -> Any:
    if self.condition_features is None:
      condition = jnp.zeros(1, int)
    else:
      condition = jnp.zeros((1, self.condition_features))
    x, t = jnp.zeros((1, *self.event_shape)), jnp.zeros(1)
    return _Network(self).init(key, x, t, condition)["params"]


class _Network(nn.Module):
  config: FlowTransformer

  @nn.compact
  def __call__(self, x, t, condition):
    config = self.config
    dtype = jnp.dtype(config.dtype)
    grid = (config.height // config.patch, config.width_pixels // config.patch)
    h = _dense(config.width, ("patch", "embed"), "patches", dtype)(
      _to_patches(x.astype(dtype), grid, config.patch)
    )
    if config.positions == "sincos":
      angle = _angles(grid, config.width, slowest=1e-4)
      place = jnp.concatenate([jnp.sin(angle), jnp.cos(angle)], -1)
      h = h + place.astype(dtype)[None]
      rotation = jnp.zeros((grid[0] * grid[1], 0))
    else:
      rotation = _angles(grid, config.width // config.heads, slowest=1e-2)
    signal = nn.silu(_Condition(config, name="condition")(t, condition))

    block = TransformerBlock
    if config.remat:
      # Inside a scan the compiler cannot undo the recomputation.
      block = nn.remat(block, prevent_cse=False)
    stack = nn.scan(
      block,
      variable_axes={"params": 0},
      split_rngs={"params": True},
      in_axes=(nn.broadcast, nn.broadcast),
      length=config.layers,
      metadata_params={nn.PARTITION_NAME: "layers"},
    )
    h, _ = stack(config.heads, config.mlp_ratio, dtype, name="blocks")(
      h, signal, rotation
    )

    shift, scale = jnp.split(
      _zero(2 * config.width, ("embed", "mlp"), "modulation", dtype)(signal),
      2,
      axis=-1,
    )
    h = modulated(norm(h), shift, scale)
    size = config.patch**2 * config.channels
    h = _zero(size, ("embed", "patch"), "out", dtype)(h)
    return _from_patches(h, grid, config.patch)


class _Condition(nn.Module):
  """Time and condition as one vector per latent."""

  config: FlowTransformer

  @nn.compact
  def __call__(self, t, condition):
    config = self.config
    dtype = jnp.dtype(config.dtype)
    features = layers.time_features(
      t.astype(jnp.float32), features=256, fastest=1000.0
    ).astype(dtype)
    time = nn.silu(
      _dense(config.width, (None, "embed"), "time_in", dtype)(features)
    )
    time = _dense(config.width, ("embed", "mlp"), "time_out", dtype)(time)
    if config.classes is not None:
      return time + layers.ClassEmbedding(
        config.classes, config.width, 0.02, dtype, name="class"
      )(condition)
    return time + _dense(config.width, (None, "embed"), "vector", dtype)(
      condition.astype(dtype)
    )


def _to_patches(x, grid, patch):
  rows, columns = grid
  x = x.reshape(len(x), rows, patch, columns, patch, x.shape[-1])
  x = jnp.swapaxes(x, 2, 3)
  return x.reshape(len(x), rows * columns, -1)


def _from_patches(h, grid, patch):
  rows, columns = grid
  x = h.reshape(len(h), rows, columns, patch, patch, -1)
  x = jnp.swapaxes(x, 2, 3)
  return x.reshape(len(h), rows * patch, columns * patch, -1)


def _angles(grid, features, *, slowest):
  """Row and column times geometric frequencies, [token, features / 2]."""
  count = features // 4
  frequency = slowest ** (np.arange(count) / count)
  row, column = np.indices(grid).reshape(2, -1)
  angle = [np.outer(row, frequency), np.outer(column, frequency)]
  return jnp.asarray(np.concatenate(angle, axis=-1), jnp.float32)


def _dense(features, axes, name, dtype):
  return layers.dense(features, axes, name=name, dtype=dtype)


def _zero(features, axes, name, dtype):
  zeros = nn.initializers.zeros
  return layers.dense(features, axes, name=name, dtype=dtype, kernel=zeros)
