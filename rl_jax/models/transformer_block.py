"""One block of a diffusion transformer, with adaLN-zero modulation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from rl_jax.models import layers

if TYPE_CHECKING:
  from jaxtyping import Array, Float

__all__ = ["TransformerBlock", "modulated", "norm", "rotated"]


class TransformerBlock(nn.Module):
  """Attention and MLP, each gated, shifted and scaled by a signal.

  Called with a signal of zeros at initialisation it is the identity, because
  the layer that makes gates, shifts and scales starts at zero.

  Attributes:
    heads: attention heads.
    mlp_ratio: hidden width of the MLP over the width of a token.
    dtype: of the products.
  """

  heads: int
  mlp_ratio: int
  dtype: Any

  @nn.compact
  def __call__(
    self,
    h: Float[Array, "row token width"],
    signal: Float[Array, "row width"],
    rotation: Float[Array, "token pairs"],
  ) -> tuple[Float[Array, "row token width"], None]:
    """The block's output, in the pair that a scan wants."""
    width = h.shape[-1]
    modulation = layers.dense(
      6 * width,
      ("embed", "mlp"),
      name="modulation",
      dtype=self.dtype,
      kernel=nn.initializers.zeros,
    )(signal)
    shift, scale, gate, mlp_shift, mlp_scale, mlp_gate = jnp.split(
      modulation, 6, axis=-1
    )
    attended = self._attention(modulated(norm(h), shift, scale), rotation)
    h = h + gate[:, None] * attended
    inner = modulated(norm(h), mlp_shift, mlp_scale)
    inner = layers.dense(
      self.mlp_ratio * width, ("embed", "mlp"), name="up", dtype=self.dtype
    )(inner)
    inner = layers.dense(
      width, ("mlp", "embed"), name="down", dtype=self.dtype
    )(nn.gelu(inner))
    return h + mlp_gate[:, None] * inner, None

  def _attention(self, h, rotation):
    width = h.shape[-1]
    query, key, value = (
      self._heads(name, width)(h) for name in ("query", "key", "value")
    )
    query, key = rotated(query, rotation), rotated(key, rotation)
    attended = jax.nn.dot_product_attention(query, key, value)
    return nn.DenseGeneral(
      width,
      axis=(-2, -1),
      dtype=self.dtype,
      kernel_init=nn.with_logical_partitioning(
        layers.fan_in_normal(), ("heads", "head", "embed")
      ),
      bias_init=nn.with_logical_partitioning(nn.initializers.zeros, ("embed",)),
      name="attention_out",
    )(attended)

  def _heads(self, name, width):
    axes = ("heads", "head")
    return nn.DenseGeneral(
      (self.heads, width // self.heads),
      dtype=self.dtype,
      kernel_init=nn.with_logical_partitioning(
        layers.fan_in_normal(), ("embed", *axes)
      ),
      bias_init=nn.with_logical_partitioning(nn.initializers.zeros, axes),
      name=name,
    )


def norm(h: Float[Array, "*batch width"]) -> Float[Array, "*batch width"]:
  """Mean 0, variance 1 over the last axis, computed in float32, no weights.

      (h - mean(h)) / sqrt(var(h) + 1e-6)

  Args:
    h: features.

  Returns:
    The same in the dtype of h.
  """
  wide = h.astype(jnp.float32)
  return jax.nn.standardize(wide, epsilon=1e-6).astype(h.dtype)


def modulated(
  h: Float[Array, "row token width"],
  shift: Float[Array, "row width"],
  scale: Float[Array, "row width"],
) -> Float[Array, "row token width"]:
  """Tokens times (1 + scale) plus shift, the same for all of a row.

  Args:
    h: features of each token.
    shift: added; zero changes nothing.
    scale: relative change of size; zero changes nothing.

  Returns:
    The features as modulated.
  """
  return h * (1 + scale[:, None]) + shift[:, None]


def rotated(
  h: Float[Array, "row token head features"],
  rotation: Float[Array, "token pairs"],
) -> Float[Array, "row token head features"]:
  """Pairs of features turned by angles (rotary positions).

      (a, b) -> (a cos r - b sin r, a sin r + b cos r)

  The k-th pair is feature k and feature k + features/2. The product of two
  rotated vectors depends on the difference of their angles only.

  Args:
    h: queries or keys.
    rotation: radians; features / 2 pairs, or none to leave h as it is.

  Returns:
    The rotated vectors.

  Su et al. 2021, arXiv:2104.09864.
  """
  if rotation.shape[-1] == 0:
    return h
  cos = jnp.cos(rotation).astype(h.dtype)[None, :, None]
  sin = jnp.sin(rotation).astype(h.dtype)[None, :, None]
  first, second = jnp.split(h, 2, axis=-1)
  return jnp.concatenate(
    [first * cos - second * sin, first * sin + second * cos], axis=-1
  )
