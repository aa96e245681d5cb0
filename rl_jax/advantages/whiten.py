"""Whitening: zero mean and unit spread over everything that counts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import jax
import jax.numpy as jnp

from rl_jax.masks import keep

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float

__all__ = ["Guard", "whiten"]

Guard = Literal["inside_root", "outside_root", "floor"]


def whiten(
  signal: Float[Array, "*batch"],
  mask: Bool[Array, "*batch"],
  *,
  ddof: int,
  epsilon: float,
  guard: Guard,
  shift_mean: bool,
) -> Float[Array, "*batch"]:
  r"""Standardise over every counted element of the array at once.

      y = (x - m) / s  (+ m if not shift_mean)
      m = mean of the counted x,   v = sum (x - m)^2 / (n - ddof)

      guard "inside_root":   s = sqrt(v + epsilon)       TRL, verl, EasyLM
      guard "outside_root":  s = sqrt(v) + epsilon
      guard "floor":         s = sqrt(max(v, epsilon))   OpenRLHF

  TRL and verl: ddof 1, epsilon 1e-8; EasyLM: ddof 1, epsilon 1e-6; OpenRLHF:
  ddof 0, epsilon 1e-8.

  It biases a policy gradient: m and s are made of the same actions that y
  weighs, and s makes the step larger where rewards hardly vary. The result
  depends on what shares the array, so whiten the whole batch once, before it
  is split into micro-batches; inside `jit` an array that is sharded over
  devices is whole.

  Args:
    signal: x: advantages, rewards, any unit. No gradient flows through it.
    mask: true = counts.
    ddof: 0 for the population variance, 1 for the sample variance.
    epsilon: guards the division: in units of x for "outside_root", squared
      for the others.
    guard: how epsilon enters.
    shift_mean: whether the mean is taken away; False scales around it, as is
      done with rewards.

  Returns:
    y, 0 where `mask` is false.

  Raises:
    ValueError: for an unknown guard, ddof not 0 or 1, a negative epsilon, or
      less than two elements, counted ones where the mask is no tracer: a
      spread needs two. Traced, one counted element gives 0, or its mean.

  >>> signal, mask = jnp.array([1.0, 5.0, jnp.nan]), jnp.arange(3) < 2
  >>> whiten(
  ...   signal, mask, ddof=0, epsilon=0.0, guard="floor", shift_mean=True
  ... ).tolist()
  [-1.0, 1.0, 0.0]
  """
  if guard not in ("inside_root", "outside_root", "floor"):
    raise ValueError(
      f"guard must be 'inside_root', 'outside_root' or 'floor', got {guard!r}"
    )
  if ddof not in (0, 1):
    raise ValueError(f"ddof must be 0 or 1, got {ddof}")
  if not epsilon >= 0:
    raise ValueError(f"epsilon must not be negative, got {epsilon}")
  counted = jnp.sum(mask)
  known = mask.size
  if not isinstance(counted, jax.core.Tracer):
    known = int(counted)
  if known < 2:
    raise ValueError(
      f"whitening needs two counted elements at least, got {known} of"
      f" {mask.size}: leave it out, or whiten a larger batch"
    )
  signal = jax.lax.stop_gradient(keep(signal, mask))
  count = counted.astype(signal.dtype)
  mean = jnp.sum(signal) / jnp.maximum(count, 1.0)
  centred = keep(signal - mean, mask)
  variance = jnp.sum(centred**2) / jnp.maximum(count - ddof, 1.0)
  if guard == "inside_root":
    spread = jnp.sqrt(variance + epsilon)
  elif guard == "outside_root":
    spread = jnp.sqrt(variance) + epsilon
  else:
    spread = jnp.sqrt(jnp.maximum(variance, epsilon))
  # Without a guard, equal elements leave zero over zero.
  white = centred / jnp.where(spread > 0, spread, 1.0)
  return white if shift_mean else keep(white + mean, mask)
