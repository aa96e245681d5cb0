"""Low-rank changes to the products of a decoder whose weights stay frozen."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from rl_jax.models.decoder_weights import Weight

if TYPE_CHECKING:
  from jaxtyping import Array, Float

  from rl_jax.models.protocol import Params

__all__ = ["Lora"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lora:
  """Which products are changed, and by how much.

      y = h W + (alpha / rank) (h down) up

  `down` starts at random, `up` at zero, so the model starts as its base.

  Hu et al. 2021, arXiv:2106.09685.

  Raises:
    ValueError: if `rank` or `alpha` is not positive, or no target is named.
  """

  rank: int
  """Columns of `down`."""
  alpha: float
  """The change is scaled with alpha / rank."""
  targets: tuple[str, ...] = ("query", "key", "value", "out")
  """Names of products: query, key, value, out, gate, up, down."""

  def __post_init__(self):
    if self.rank < 1 or not self.alpha > 0:
      raise ValueError(
        f"rank and alpha must be positive, got {self.rank} and {self.alpha}"
      )
    if not self.targets or len(set(self.targets)) != len(self.targets):
      raise ValueError(
        f"targets must be different names, at least one, got {self.targets}"
      )

  @property
  def scale(self) -> float:
    """What the change is multiplied with, alpha / rank."""
    return self.alpha / self.rank

  def weights(self, block: dict[str, Weight]) -> dict[str, dict[str, Weight]]:
    """The arrays of the change, for one layer.

    Args:
      block: the weights of a layer.

    Returns:
      `down` and `up` for each target.

    Raises:
      ValueError: if a target is no product of the layer.
    """
    products = sorted(name for name in block if block[name].inputs)
    unknown = sorted(set(self.targets) - set(products))
    if unknown:
      raise ValueError(f"no products {unknown} in a layer; it has {products}")
    found = {}
    for name in self.targets:
      own = block[name]
      inner, outer = own.shape[: own.inputs], own.shape[own.inputs :]
      found[name] = {
        "down": Weight(
          (*inner, self.rank),
          (*own.axes[: own.inputs], None),
          start=1 / math.sqrt(math.prod(inner)),
        ),
        "up": Weight((self.rank, *outer), (None, *own.axes[own.inputs :])),
      }
    return found

  def merged(self, blocks: Params, adapter: Params) -> Params:
    """The layers with the change added to their weights.

    Args:
      blocks: the stacked layers of the base.
      adapter: the change, stacked as they are.

    Returns:
      Layers that need no adapter, each array in the dtype of its base.
    """

    def merge(
      base: Float[Array, "..."],
      down: Float[Array, "..."],
      up: Float[Array, "..."],
    ) -> Float[Array, "..."]:
      wide = [x.astype(jnp.float32) for x in (base, down, up)]
      change = jax.vmap(lambda a, b: jnp.tensordot(a, b, 1))(*wide[1:])
      return (wide[0] + self.scale * change).astype(base.dtype)

    return blocks | {
      name: merge(blocks[name], pair["down"], pair["up"])
      for name, pair in adapter.items()
    }
