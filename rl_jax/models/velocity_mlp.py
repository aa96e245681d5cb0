"""A class-conditional velocity network for small flat latents."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from rl_jax.models import layers

if TYPE_CHECKING:
  from jaxtyping import Array, Float, Int, PRNGKeyArray

  from rl_jax.models.protocol import Params

__all__ = ["VelocityMLP"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class VelocityMLP:
  """Latent, time and class joined, an MLP with residual blocks on top.

      h = silu(W_0 [x, time(t), class(c)] + b_0)
      h = h + silu(W_k h + b_k),    k = 1 .. blocks
      v = W_o h + b_o

  Weights start from normals of standard deviation 1/sqrt(inputs), the last
  layer from a tenth of that, the class vectors from 0.5, biases from zero.

  Raises:
    ValueError: if a size is below 1 (`blocks`: below 0), or `time_features`
      is odd or below 4.
  """

  event: int = 64
  """Numbers in a latent."""
  classes: int = 10
  """Number of classes; a condition is an id in [0, classes)."""
  width: int = 256
  """Width of the hidden layers."""
  blocks: int = 2
  """Residual blocks."""
  time_features: int = 32
  """Sines and cosines of time."""
  class_features: int = 32
  """Width of a class vector."""
  dtype: Literal["float32", "bfloat16"] = "float32"
  """Precision of the products; parameters and result are float32."""

  def __post_init__(self):
    sizes = (self.event, self.classes, self.width, self.class_features)
    if min(sizes) < 1 or self.blocks < 0:
      raise ValueError(
        f"sizes must be at least 1 and blocks at least 0, got {self}"
      )
    if self.time_features < 4 or self.time_features % 2:
      raise ValueError(
        f"time_features must be even and at least 4, got {self.time_features}"
      )

  @property
  def event_shape(self) -> tuple[int]:
    """Shape of one latent."""
    return (self.event,)

  def init(self, key: PRNGKeyArray) -> Params:
    """Fresh float32 parameters; the same for the same key."""
    return nn.unbox(self._boxed(key))

  def apply(
    self,
    params: Params,
    x: Float[Array, "*batch event"],
    t: Float[Array, "*batch"],
    condition: Int[Array, "..."],
  ) -> Float[Array, "*batch event"]:
    """Velocity at x; see `VelocityModel.apply`."""
    batch = layers.check_times(x, t, self.event_shape)
    label = layers.over_trailing(condition, batch, event=0)
    velocity = layers.applied(_Network(self), params, x, t, label)
    return velocity.astype(jnp.float32)

  def logical_axes(self, params: Params) -> Params:
    """Names of the axes of all parameters; see `VelocityModel`."""
    return layers.axis_names(
      jax.eval_shape(self._boxed, jax.random.key(0)), params
    )

  def _boxed(self, key: PRNGKeyArray) -> Any:
    x, t = jnp.zeros((1, self.event)), jnp.zeros(1)
    return _Network(self).init(key, x, t, jnp.zeros(1, int))["params"]


class _Network(nn.Module):
  config: VelocityMLP

  @nn.compact
  def __call__(self, x, t, label):
    config = self.config
    dtype = jnp.dtype(config.dtype)
    # Time in float32 up to its sines: the highest frequency needs the bits.
    time = layers.time_features(
      t.astype(jnp.float32), features=config.time_features, fastest=100.0
    )
    wanted = layers.ClassEmbedding(
      config.classes, config.class_features, 0.5, dtype, name="class"
    )(label)
    h = jnp.concatenate([x.astype(dtype), time.astype(dtype), wanted], -1)
    h = nn.silu(
      layers.dense(config.width, ("embed", "mlp"), name="in", dtype=dtype)(h)
    )
    for block in range(config.blocks):
      h = h + nn.silu(
        layers.dense(
          config.width, ("embed", "mlp"), name=f"block_{block}", dtype=dtype
        )(h)
      )
    return layers.dense(
      config.event,
      ("mlp", "embed"),
      name="out",
      dtype=dtype,
      kernel=layers.fan_in_normal(0.1),
    )(h)
