"""Entropy in the loss: an incentive to keep a policy from settling early."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from rl_jax.masks import keep

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float

__all__ = ["entropy_bonus"]


def entropy_bonus(
  entropy: Float[Array, "*batch time"],
  mask: Bool[Array, "*batch time"],
  *,
  weight: float | Float[Array, ""],
) -> Float[Array, "*batch time"]:
  """What the entropy of each token takes off the loss.

      l_t = -weight H_t,   H_t = -sum_v p_v log p_v   over the whole vocabulary

  Add it to the policy loss of the same tokens and reduce both alike. The
  entropy must be the exact one of the distribution, at the temperature that
  is meant: -log pi(a_t) of the sampled token has its value on average and,
  differentiated, no expected gradient at all.

  Args:
    entropy: H_t, nats. The gradient flows through it.
    mask: true = counts.
    weight: reward per nat: a number, or an array that a controller adapts
      between updates. A negative one makes the policy sharper. No gradient
      flows through it.

  Returns:
    The bonus of each token with the sign of a loss, zero where masked.

  >>> entropy = jnp.array([2.0, jnp.nan])
  >>> entropy_bonus(entropy, jnp.array([True, False]), weight=0.25).tolist()
  [-0.5, 0.0]
  """
  weight = jax.lax.stop_gradient(jnp.asarray(weight, jnp.float32))
  return jnp.where(mask, -weight * keep(entropy, mask), 0.0)
