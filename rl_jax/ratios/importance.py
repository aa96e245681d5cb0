"""Ratios between the trained policy and the one that acted, by level."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from rl_jax.masks import keep, masked_mean

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float

__all__ = [
  "clamped_log_prob",
  "geometric_ratio",
  "sequence_ratio",
  "token_ratio",
]


def token_ratio(
  log_prob: Float[Array, "*batch time"],
  behaviour_log_prob: Float[Array, "*batch time"],
  mask: Bool[Array, "*batch time"],
  *,
  clamp: float | None,
) -> Float[Array, "*batch time"]:
  """Ratio of the two policies' probabilities of each token.

      r_it = exp(clamp(d_it)),   d = log_prob - behaviour_log_prob

  Args:
    log_prob: log pi(a_t), nats. The gradient flows through it.
    behaviour_log_prob: log of the probability that a_t was drawn with, nats.
      No gradient flows through it.
    mask: true where a_t was drawn by the behaviour policy.
    clamp: bound in nats on |d| before the exponential; the gradient is zero
      beyond it. None leaves d alone, and float32 overflows above 88.

  Returns:
    r, unitless; 1 with zero gradient where `mask` is false.

  Raises:
    ValueError: if `clamp` is not positive.

  >>> log_prob = jnp.log(jnp.array([0.5, 0.25]))
  >>> behaviour = jnp.log(jnp.array([0.25, 0.25]))
  >>> mask = jnp.array([True, True])
  >>> token_ratio(log_prob, behaviour, mask, clamp=None).tolist()
  [2.0, 1.0]
  """
  return _bounded_exp(log_ratio_of(log_prob, behaviour_log_prob, mask), clamp)


def sequence_ratio(
  log_prob: Float[Array, "*batch time"],
  behaviour_log_prob: Float[Array, "*batch time"],
  mask: Bool[Array, "*batch time"],
  *,
  clamp: float | None,
) -> Float[Array, "*batch"]:
  """Ratio of the two policies' probabilities of the whole row.

      r_i = exp(clamp(sum_t mask_it d_it)),   d = log_prob - behaviour_log_prob

  Args:
    log_prob: log pi(a_t), nats. The gradient flows through it.
    behaviour_log_prob: log of the probability that a_t was drawn with, nats.
      No gradient flows through it.
    mask: true where a_t was drawn by the behaviour policy.
    clamp: bound in nats on the absolute sum before the exponential; the
      gradient is zero beyond it. None leaves the sum alone.

  Returns:
    r, unitless; 1 for a row without a counted token.

  Raises:
    ValueError: if `clamp` is not positive.

  >>> log_prob = jnp.log(jnp.array([[0.5, 0.5, 0.125]]))
  >>> behaviour = jnp.log(jnp.array([[0.25, 0.25, 0.5]]))
  >>> mask = jnp.array([[True, True, False]])
  >>> sequence_ratio(log_prob, behaviour, mask, clamp=None).tolist()
  [4.0]
  """
  log_ratio = log_ratio_of(log_prob, behaviour_log_prob, mask)
  return _bounded_exp(jnp.sum(log_ratio, axis=-1), clamp)


def geometric_ratio(
  log_prob: Float[Array, "*batch time"],
  behaviour_log_prob: Float[Array, "*batch time"],
  mask: Bool[Array, "*batch time"],
  *,
  clamp: float | None,
) -> Float[Array, "*batch"]:
  """Geometric mean of a row's token ratios, so that length does not matter.

      r_i = exp(clamp(sum_t mask_it d_it / |m_i|))

  Args:
    log_prob: log pi(a_t), nats. The gradient flows through it.
    behaviour_log_prob: log of the probability that a_t was drawn with, nats.
      No gradient flows through it.
    mask: true where a_t was drawn by the behaviour policy.
    clamp: bound in nats on the absolute mean before the exponential; the
      gradient is zero beyond it. None leaves the mean alone.

  Returns:
    r, unitless; 1 for a row without a counted token.

  Raises:
    ValueError: if `clamp` is not positive.

  The sequence ratio of GSPO (Zheng et al. 2025, arXiv:2507.18071, eq. 7).

  >>> log_prob = jnp.log(jnp.array([[0.5, 0.5, 0.125]]))
  >>> behaviour = jnp.log(jnp.array([[0.25, 0.25, 0.5]]))
  >>> mask = jnp.array([[True, True, False]])
  >>> geometric_ratio(log_prob, behaviour, mask, clamp=None).tolist()
  [2.0]
  """
  log_ratio = log_ratio_of(log_prob, behaviour_log_prob, mask)
  return _bounded_exp(masked_mean(log_ratio, mask), clamp)


def clamped_log_prob(
  log_prob: Float[Array, "*batch time"],
  other_log_prob: Float[Array, "*batch time"],
  mask: Bool[Array, "*batch time"],
  *,
  clamp: float,
) -> Float[Array, "*batch time"]:
  """The log-prob, kept within a bound of another's, for any loss of the two.

      other_t + max(-clamp, min(clamp, log_prob_t - other_t))

  Frameworks bound log-ratios before they exponentiate them, silently; the
  losses and divergences of this library do not. Given this in place of
  `log_prob` they do: a ratio above exp(clamp) becomes exp(clamp), and its
  gradient is zero.

  Args:
    log_prob: log pi(a_t), nats. The gradient flows through it.
    other_log_prob: of the behaviour or the reference, nats. No gradient flows
      through it.
    mask: true = counts.
    clamp: bound in nats on the difference; 20 in verl, TRL and tunix.

  Returns:
    The bounded log-prob in nats, zero with zero gradient where `mask` is
    false.

  Raises:
    ValueError: if `clamp` is not positive.

  >>> clamped_log_prob(
  ...   jnp.array([-1.0, -9.0]), jnp.zeros(2), jnp.ones(2, bool), clamp=2.0
  ... ).tolist()
  [-1.0, -2.0]
  """
  if not clamp > 0:
    raise ValueError(f"clamp must be positive nats, got {clamp}")
  other = jax.lax.stop_gradient(keep(other_log_prob, mask))
  return jnp.clip(keep(log_prob, mask), other - clamp, other + clamp)


def log_ratio_of(
  log_prob: Float[Array, "*batch time"],
  behaviour_log_prob: Float[Array, "*batch time"],
  mask: Bool[Array, "*batch time"],
) -> Float[Array, "*batch time"]:
  """log_prob - behaviour_log_prob, zero where masked; for siblings."""
  behaviour = jax.lax.stop_gradient(keep(behaviour_log_prob, mask))
  return keep(log_prob, mask) - behaviour


def _bounded_exp(log_ratio, clamp):
  if clamp is None:
    return jnp.exp(log_ratio)
  if not clamp > 0:
    raise ValueError(f"clamp must be positive nats or None, got {clamp}")
  return jnp.exp(jnp.clip(log_ratio, -clamp, clamp))
