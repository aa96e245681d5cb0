"""Classifier-free guidance as a model of its own."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from rl_jax.sampling.flow import guided

if TYPE_CHECKING:
  from jaxtyping import Array, Float, PRNGKeyArray, PyTree

  from rl_jax.models.protocol import Params

__all__ = ["Guided"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Guided:
  """A velocity model under guidance, for sampling and training alike.

      v = v_unc + weight (v_cond - v_unc)

  No gradient flows through v_unc; see `rl_jax.sampling.guided`. A model whose
  guidance is distilled into it (FLUX) does not need this.

  Raises:
    ValueError: if `weight` is not positive.
  """

  model: Any
  """The velocity model."""
  weight: float
  """1 is the conditional velocity alone, and costs twice as much."""
  unconditional: int = 0
  """What every entry of the condition is for the unconditional branch: the
  null class of class ids, zero of embeddings."""

  def __post_init__(self):
    if not self.weight > 0:
      raise ValueError(f"weight must be positive, got {self.weight}")

  @property
  def event_shape(self) -> tuple[int, ...]:
    """Shape of one latent."""
    return self.model.event_shape

  @property
  def classes(self) -> int:
    """Number of classes of the model."""
    return self.model.classes

  def init(self, key: PRNGKeyArray) -> Params:
    """Fresh parameters of the model."""
    return self.model.init(key)

  def apply(
    self,
    params: Params,
    x: Float[Array, "..."],
    t: Float[Array, "*batch"],
    condition: PyTree,
  ) -> Float[Array, "..."]:
    """Guided velocity at x; see `VelocityModel.apply`."""
    nothing = jax.tree.map(
      lambda c: jnp.full_like(c, self.unconditional), condition
    )
    velocity = guided(
      lambda x, t: self.model.apply(params, x, t, condition),
      lambda x, t: self.model.apply(params, x, t, nothing),
      weight=self.weight,
    )
    return velocity(x, t)

  def logical_axes(self, params: Params) -> Params:
    """Names of the axes of all parameters; see `VelocityModel`."""
    return self.model.logical_axes(params)
