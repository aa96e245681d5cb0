"""VERL: advantages that lean on how effective ranks deviate from the past."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import jax
import jax.numpy as jnp

from rl_jax.masks import keep, last_valid, widened

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float

__all__ = ["rank_signal", "shaped_by_signal", "success_scaled"]

_EPSILON = 1e-8


def rank_signal(
  rank: Float[Array, "row"],
  velocity: Float[Array, "row"],
  acceleration: Float[Array, "row"],
  past: Float[Array, "3"],
  *,
  gain: float,
  clip: float,
  bound: Float[Array, ""] | float,
  gate: Literal["era", "half", "both"],
) -> Float[Array, "row"]:
  r"""Whether a response explores or exploits more than those before it.

      r_x = clip((x - b_x) / (|b_x| + 1e-8), -clip, clip)
      Phi = bound (w_explore tanh(r_ER) + w_exploit tanh(r_ERV))

      gate "era":   w_explore = sigmoid(gain r_ERA), w_exploit = 1 - w_explore
      gate "half":  both 1/2
      gate "both":  both 1

  Args:
    rank: ER of each response. No gradient flows through any input.
    velocity: ERV.
    acceleration: ERA, which decides: a rank that grows faster than it used to
      is rewarded for being high.
    past: b of ER, ERV and ERA, from the steps before; see `MovingMeans`.
    gain: how sharply ERA decides; 2 in the paper's script, 1.5 by default in
      its code.
    clip: of relative deviations; 5 in the paper's code.
    bound: of |Phi|, for the gates "era" and "half", in units of advantage; 1
      in the paper's script.
    gate: who decides.

  Returns:
    Phi, in units of advantage.

  Raises:
    ValueError: for an unknown gate, or if gain, clip or bound is negative.

  arXiv:2509.23808, and its code.

  >>> phi = rank_signal(
  ...   jnp.array([12.0]),
  ...   jnp.array([1.2]),
  ...   jnp.array([0.05]),
  ...   jnp.array([10.0, 1.0, 0.1]),
  ...   gain=2.0,
  ...   clip=5.0,
  ...   bound=1.0,
  ...   gate="era",
  ... )
  >>> round(phi.item(), 6)
  0.197375
  """
  for name, value in (("gain", gain), ("clip", clip), ("bound", bound)):
    if isinstance(value, (int, float)) and not value >= 0:
      raise ValueError(f"{name} must not be negative, got {value}")
  if gate not in ("era", "half", "both"):
    raise ValueError(f"gate must be 'era', 'half' or 'both', got {gate!r}")
  found = jnp.stack(
    [widened(rank), widened(velocity), widened(acceleration)], axis=-1
  )
  past = widened(past)[None]
  relative = (found - past) / (jnp.abs(past) + _EPSILON)
  relative = jnp.clip(jax.lax.stop_gradient(relative), -clip, clip)
  explore = exploit = jnp.asarray(0.5 if gate == "half" else 1.0)
  if gate == "era":
    explore = jax.nn.sigmoid(gain * relative[:, 2])
    exploit = 1.0 - explore
  high, fast = jnp.tanh(relative[:, 0]), jnp.tanh(relative[:, 1])
  return jax.lax.stop_gradient(bound * (explore * high + exploit * fast))


def shaped_by_signal(
  advantage: Float[Array, "row time"],
  signal: Float[Array, "row"],
  mask: Bool[Array, "row time"],
  *,
  kappa: float,
  placement: Literal["response", "last_token"],
) -> Float[Array, "row time"]:
  """Advantages with a bonus that is never negative and never turns a sign.

      A'_t = A_t + min(max(Phi, 0), |A_t| / kappa)

      placement "response":    at every token, as the paper writes it
      placement "last_token":  at the last one only, where the paper's code
                               stores Phi

  Good responses are pushed further, bad ones punished less, and where the
  advantage is 0 it stays.

  Args:
    advantage: A_t, any unit. No gradient flows through any input.
    signal: Phi of each response, same unit; see `rank_signal`.
    mask: true = counts.
    kappa: one over the largest relative bonus, at least 1; infinity leaves
      the advantages as they are.
    placement: where the bonus lands.

  Returns:
    A'_t, 0 where the mask is false.

  Raises:
    ValueError: if `kappa` < 1, or for an unknown placement.

  arXiv:2509.23808, and its code.

  >>> shaped_by_signal(
  ...   jnp.array([[0.5, -1.0, 0.0]]),
  ...   jnp.array([0.25]),
  ...   jnp.ones((1, 3), bool),
  ...   kappa=2.0,
  ...   placement="response",
  ... ).tolist()
  [[0.75, -0.75, 0.0]]
  """
  if not kappa >= 1:
    raise ValueError(
      f"kappa must be at least 1, or the bonus could turn a sign: got {kappa}"
    )
  if placement not in ("response", "last_token"):
    raise ValueError(
      f"placement must be 'response' or 'last_token', got {placement!r}"
    )
  advantage = keep(advantage, mask)
  signal = keep(signal, jnp.any(mask, axis=-1))
  bonus = jnp.minimum(
    jnp.maximum(signal, 0.0)[:, None], jnp.abs(advantage) / kappa
  )
  if placement == "last_token":
    time = jnp.arange(mask.shape[-1])[None]
    bonus = jnp.where(time == last_valid(mask)[:, None], bonus, 0.0)
  return jax.lax.stop_gradient(advantage + bonus)


def success_scaled(
  score: Float[Array, "*batch"], *, bound: float
) -> Float[Array, "*batch"]:
  """A bound on the signal that shrinks as tasks are solved.

      b(s) = bound (1 - (s + 1) / 2)

  Args:
    score: s, a moving mean of scores that lie in [-1, 1].
    bound: of the signal while every score is -1.

  Returns:
    b(s), from `bound` at -1 to 0 at 1. No gradient flows.

  Raises:
    ValueError: if `bound` is negative or not finite.

  arXiv:2509.23808, code ("dynamic" scale).

  >>> success_scaled(jnp.array([-1.0, 0.0, 1.0]), bound=2.0).tolist()
  [2.0, 1.0, 0.0]
  """
  if not (bound >= 0 and math.isfinite(bound)):
    raise ValueError(f"bound must be finite and not negative, got {bound}")
  return bound * (1.0 - (jax.lax.stop_gradient(widened(score)) + 1.0) / 2.0)
