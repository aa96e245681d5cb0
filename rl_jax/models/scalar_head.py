"""A decoder that says a number: critics and reward models."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import jax.numpy as jnp

from rl_jax.models.decoder import Decoder

if TYPE_CHECKING:
  from jaxtyping import Array, Float, Int, PRNGKeyArray

  from rl_jax.models.protocol import Params

__all__ = ["ScalarHead"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ScalarHead:
  """One number per column: v_t = hidden_t . w + b, in float32.

  `w` starts at zero, so that every value starts at `start`.
  """

  body: Decoder
  """Makes the features; without LoRA."""
  start: float = 0.0
  """Value before any training, in units of reward."""

  def __post_init__(self):
    if self.body.lora is not None:
      raise ValueError("the body of a scalar head is trained whole: lora=None")

  def init(self, key: PRNGKeyArray, *, body: Params | None = None) -> Params:
    """Fresh parameters.

    Args:
      key: of the body, where it is not given.
      body: parameters of a decoder to begin with, such as the policy's.

    Returns:
      `body` and `head`.
    """
    own = self.body.init(key) if body is None else body
    weight = jnp.zeros((self.body.width,), jnp.float32)
    bias = jnp.full((), self.start, jnp.float32)
    return {"body": own, "head": {"weight": weight, "bias": bias}}

  def value(
    self, params: Params, hidden: Float[Array, "*batch width"]
  ) -> Float[Array, "*batch"]:
    """The number at each column.

    Args:
      params: as `init` makes them.
      hidden: features of the body.

    Returns:
      Numbers in the unit that the head is trained to.
    """
    head = params["head"]
    wide = hidden.astype(jnp.float32)
    return jnp.tensordot(wide, head["weight"], 1) + head["bias"]

  def hidden(
    self,
    params: Params,
    token: Int[Array, "row time"],
    segment: Int[Array, "row time"],
    *,
    adapter: None = None,
  ) -> Float[Array, "row time width"]:
    """Features of the body; see `Decoder.hidden`."""
    return self.body.hidden(params["body"], token, segment, adapter=adapter)

  def logical_axes(self, params: Params) -> Params:
    """Names of the axes of all parameters; see `VelocityModel`."""
    return {
      "body": self.body.logical_axes(params["body"]),
      "head": {"weight": ("embed",), "bias": ()},
    }
