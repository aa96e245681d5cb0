"""A small classifier: the judge of class-conditional samples."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from rl_jax.models import layers

if TYPE_CHECKING:
  from jaxtyping import Array, Float, PRNGKeyArray

  from rl_jax.models.protocol import Params

__all__ = ["Classifier"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Classifier:
  """One hidden layer of rectified units.

      logits = W_1 relu(W_0 x + b_0) + b_1

  Weights start from normals of standard deviation 1/sqrt(inputs), biases from
  zero.

  Raises:
    ValueError: if a size is below 1.
  """

  inputs: int = 64
  """Numbers in a sample."""
  width: int = 128
  """Hidden units."""
  classes: int = 10
  """Number of classes."""

  def __post_init__(self):
    if min(self.inputs, self.width, self.classes) < 1:
      raise ValueError(f"sizes must be at least 1, got {self}")

  def init(self, key: PRNGKeyArray) -> Params:
    """Fresh float32 parameters; the same for the same key."""
    return nn.unbox(self._boxed(key))

  def apply(
    self, params: Params, x: Float[Array, "*batch inputs"]
  ) -> Float[Array, "*batch classes"]:
    """Unnormalised log-probability of each class, float32."""
    if x.shape[-1] != self.inputs:
      raise ValueError(f"samples of {x.shape[-1]} numbers, not {self.inputs}")
    return layers.applied(_Network(self), params, x)

  def logical_axes(self, params: Params) -> Params:
    """Names of the axes of all parameters; see `VelocityModel`."""
    return layers.axis_names(
      jax.eval_shape(self._boxed, jax.random.key(0)), params
    )

  def _boxed(self, key: PRNGKeyArray) -> Any:
    return _Network(self).init(key, jnp.zeros((1, self.inputs)))["params"]


class _Network(nn.Module):
  config: Classifier

  @nn.compact
  def __call__(self, x):
    width, classes = self.config.width, self.config.classes
    h = x.astype(jnp.float32)
    h = layers.dense(width, ("embed", "mlp"), name="in", dtype=h.dtype)(h)
    return layers.dense(classes, ("mlp", "classes"), name="out", dtype=h.dtype)(
      nn.relu(h)
    )
