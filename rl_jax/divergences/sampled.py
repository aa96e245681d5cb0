"""Estimators of a KL from the sampled action alone, differentiated as they are.

The first three are Schulman's. What each is worth as a value and as a loss is
said in its docstring and proven by enumeration in the tests.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from rl_jax.masks import keep

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float

__all__ = ["absolute_log_ratio", "k1", "k2", "k3"]


def k1(
  log_prob: Float[Array, "*batch time"],
  reference_log_prob: Float[Array, "*batch time"],
  mask: Bool[Array, "*batch time"],
) -> Float[Array, "*batch time"]:
  """The log-ratio to the reference: an unbiased KL value, of any sign.

      x_t = log pi(a_t) - log ref(a_t),   k1_t = x_t

  Value: E_pi[k1] = KL(pi || ref). Gradient, when differentiated with a_t
  drawn from pi: zero in expectation, so as a loss it is noise only. It
  belongs in the reward, where a policy gradient makes it exact.

  Args:
    log_prob: log pi(a_t), nats.
    reference_log_prob: log ref(a_t), nats. No gradient flows through it.
    mask: true where a_t was drawn from pi.

  Returns:
    k1 in nats, zero with zero gradient where `mask` is false.

  Schulman 2020, "Approximating KL divergence"; for the gradients of the
  three estimators see `k2` and `k3`.

  >>> k1(jnp.array([-1.0]), jnp.array([-1.5]), jnp.array([True])).tolist()
  [0.5]
  """
  return log_ratio(log_prob, reference_log_prob, mask)


def k2(
  log_prob: Float[Array, "*batch time"],
  reference_log_prob: Float[Array, "*batch time"],
  mask: Bool[Array, "*batch time"],
) -> Float[Array, "*batch time"]:
  """Half the squared log-ratio: a biased KL value with the right gradient.

      x_t = log pi(a_t) - log ref(a_t),   k2_t = x_t^2 / 2

  Value: never negative, biased. Gradient, when differentiated with a_t drawn
  from pi: exactly that of KL(pi || ref) in expectation.

  Args:
    log_prob: log pi(a_t), nats.
    reference_log_prob: log ref(a_t), nats. No gradient flows through it.
    mask: true where a_t was drawn from pi.

  Returns:
    k2 in nats squared, zero with zero gradient where `mask` is false.

  Schulman 2020, "Approximating KL divergence".

  >>> k2(jnp.array([-1.0]), jnp.array([-1.5]), jnp.array([True])).tolist()
  [0.125]
  """
  return 0.5 * jnp.square(log_ratio(log_prob, reference_log_prob, mask))


def k3(
  log_prob: Float[Array, "*batch time"],
  reference_log_prob: Float[Array, "*batch time"],
  mask: Bool[Array, "*batch time"],
) -> Float[Array, "*batch time"]:
  """An unbiased KL value that is never negative; its gradient is another KL's.

      x_t = log pi(a_t) - log ref(a_t),   k3_t = exp(-x_t) - 1 + x_t

  Value: E_pi[k3] = KL(pi || ref) wherever pi covers ref. Gradient, when
  differentiated with a_t drawn from pi: that of KL(ref || pi), the other
  direction, in expectation. Nothing is clamped: x_t below -88 overflows
  float32 and the value is then infinite.

  Args:
    log_prob: log pi(a_t), nats.
    reference_log_prob: log ref(a_t), nats. No gradient flows through it.
    mask: true where a_t was drawn from pi.

  Returns:
    k3 in nats, zero with zero gradient where `mask` is false.

  Schulman 2020, "Approximating KL divergence"; as a penalty in Shao et al.
  2024, arXiv:2402.03300, eq. 4.

  >>> log_prob = jnp.log(jnp.array([0.5]))
  >>> round(k3(log_prob, jnp.zeros(1), jnp.array([True])).item(), 4)
  0.3069
  """
  x = log_ratio(log_prob, reference_log_prob, mask)
  return jnp.expm1(-x) + x


def absolute_log_ratio(
  log_prob: Float[Array, "*batch time"],
  reference_log_prob: Float[Array, "*batch time"],
  mask: Bool[Array, "*batch time"],
) -> Float[Array, "*batch time"]:
  """Size of the log-ratio: a penalty, and neither a KL nor its gradient.

      x_t = log pi(a_t) - log ref(a_t),   |x_t|

  Value: never negative, above the KL on average. Gradient, when
  differentiated with a_t drawn from pi: E[sign(x) grad log pi], that of no
  divergence in general; zero where the two agree.

  Args:
    log_prob: log pi(a_t), nats.
    reference_log_prob: log ref(a_t), nats. No gradient flows through it.
    mask: true where a_t was drawn from pi.

  Returns:
    |x| in nats, zero with zero gradient where `mask` is false.

  The "abs" penalty of verl, and what the KL-Cov loss adds to its tokens.

  >>> absolute_log_ratio(
  ...   jnp.array([-2.0]), jnp.array([-1.5]), jnp.array([True])
  ... ).tolist()
  [0.5]
  """
  x = log_ratio(log_prob, reference_log_prob, mask)
  # Not jnp.abs, whose derivative at zero is one.
  return jnp.sign(x) * x


def log_ratio(
  log_prob: Float[Array, "*batch time"],
  reference_log_prob: Float[Array, "*batch time"],
  mask: Bool[Array, "*batch time"],
) -> Float[Array, "*batch time"]:
  """log_prob - reference_log_prob, zero where masked; for siblings."""
  reference = jax.lax.stop_gradient(keep(reference_log_prob, mask))
  return keep(log_prob, mask) - reference
