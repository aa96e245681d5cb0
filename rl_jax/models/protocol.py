"""What a step may ask of a velocity model; any network that answers serves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
  from jaxtyping import Array, Float, PRNGKeyArray, Shaped

  # Nested: every value is an array or such a dict again.
  Params = dict[str, Any]

__all__ = ["VelocityModel"]


class VelocityModel(Protocol):
  """A network v(x, t, condition) with the shape of x, as a frozen value.

  The parameters are a plain nested dict that travels apart from the model, so
  a step is a pure function of them and may be jitted, sharded, vmapped.
  """

  @property
  def event_shape(self) -> tuple[int, ...]:
    """Shape of one latent."""
    ...

  def init(self, key: PRNGKeyArray) -> Params:
    """Fresh float32 parameters; the same for the same key."""
    ...

  def apply(
    self,
    params: Params,
    x: Float[Array, "..."],
    t: Float[Array, "*batch"],
    condition: Shaped[Array, "..."],
  ) -> Float[Array, "..."]:
    """Velocity at x, in float32.

    Args:
      params: as `init` makes them.
      x: `*batch` axes, then those of `event_shape`.
      t: training time of each latent, in [0, 1], with exactly those batch
        axes; 1 is noise.
      condition: what is asked for. Its batch axes are the first ones of x,
        because a prompt belongs to a row: [row] serves x of [row, time].

    Returns:
      dx/dt with the shape of x.
    """
    ...

  def logical_axes(self, params: Params) -> Params:
    """For each array the names of its axes, for `training.sharding`.

    Args:
      params: arrays or their shapes, as `init` makes them.

    Returns:
      The same nested dict with a tuple of names (None: never split).
    """
    ...
