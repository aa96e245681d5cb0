r"""Moving averages of parameters, as functions of trees.

Advantage weighted matching keeps two: a slow copy that the policy is held
near, whose decay grows linearly from almost nothing, and one for evaluation.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from rl_jax.masks import widened

if TYPE_CHECKING:
  from jaxtyping import Array, Float, Int

__all__ = ["ema_update", "linear_ema_decay", "warmup_ema_decay"]


def ema_update[Tree](
  average: Tree, params: Tree, decay: float | Float[Array, ""]
) -> Tree:
  """Move an average towards the parameters, leaf by leaf.

      average' = decay average + (1 - decay) params

  Args:
    average: tree of floating arrays; its dtypes are kept.
    params: tree of the same structure and shapes.
    decay: in [0, 1]; 0 copies the parameters.

  Returns:
    The new average, computed in float32 or wider.

  >>> ema_update({"w": jnp.array(1.0)}, {"w": jnp.array(3.0)}, 0.5)["w"].item()
  2.0
  """

  def update(old, new):
    old_part = decay * widened(old)
    return (old_part + (1.0 - decay) * widened(new)).astype(old.dtype)

  return jax.tree.map(update, average, params)


def linear_ema_decay(
  step: int | Int[Array, ""], *, slope: float, maximum: float
) -> Float[Array, ""]:
  """Decay that grows with the step up to a maximum.

      d = min(maximum, slope n)

  Args:
    step: n, optimiser steps already taken.
    slope: decay per step; 0.001 in advantage weighted matching.
    maximum: in [0, 1]; 0.3 there.

  Returns:
    d, a float32 scalar.

  Raises:
    ValueError: if `slope` is negative or `maximum` is not in [0, 1].

  >>> linear_ema_decay(2, slope=0.125, maximum=0.5).item()
  0.25
  """
  if not slope >= 0:
    raise ValueError(f"slope must not be negative, got {slope}")
  _require_maximum(maximum)
  return jnp.minimum(slope * jnp.asarray(step, jnp.float32), maximum)


def warmup_ema_decay(
  step: int | Int[Array, ""], *, maximum: float
) -> Float[Array, ""]:
  """Decay that lets an average of few steps follow quickly.

      d = min((1 + n) / (10 + n), maximum)

  Args:
    step: n, optimiser steps already taken.
    maximum: in [0, 1]; 0.99 in advantage weighted matching, 0.9 in Flow-GRPO.

  Returns:
    d, a float32 scalar.

  Raises:
    ValueError: if `maximum` is not in [0, 1].

  >>> warmup_ema_decay(8, maximum=0.25).item()
  0.25
  """
  _require_maximum(maximum)
  n = jnp.asarray(step, jnp.float32)
  return jnp.minimum((1.0 + n) / (10.0 + n), maximum)


def _require_maximum(maximum):
  if not 0 <= maximum <= 1:
    raise ValueError(f"maximum must be in [0, 1], got {maximum}")
