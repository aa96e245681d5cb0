"""Divergences summed over a whole vocabulary: value and gradient are exact."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from rl_jax.masks import widened

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float

__all__ = [
  "categorical_forward_kl",
  "categorical_jensen_shannon",
  "categorical_kl",
]


def categorical_kl(
  logits: Float[Array, "*batch time vocabulary"],
  reference_logits: Float[Array, "*batch time vocabulary"],
  mask: Bool[Array, "*batch time"],
) -> Float[Array, "*batch time"]:
  """KL(pi || ref) summed over the whole vocabulary: exact value and gradient.

      p = softmax(z_t),  q = softmax(z'_t),  KL_t = sum_v p_v log(p_v / q_v)

  A logit of -inf removes an entry from the support. Where pi lacks it the
  term is zero; where only the reference lacks it the divergence is infinite.

  Args:
    logits: z, unnormalised log-probabilities of pi, at the temperature that
      is meant.
    reference_logits: z', the same of the reference. No gradient flows
      through it.
    mask: true = counts.

  Returns:
    KL in nats, zero with zero gradient where `mask` is false.

  >>> logits = jnp.log(jnp.array([[0.5, 0.5, 0.0]]))
  >>> wider = jnp.log(jnp.array([[0.25, 0.25, 0.5]]))
  >>> nats = categorical_kl(logits, wider, jnp.array([True]))
  >>> jnp.exp(nats).round(5).tolist()
  [2.0]
  """
  log_p, log_q = _log_probs(logits, reference_logits, mask)
  return _kl(log_p, log_q)


def categorical_forward_kl(
  logits: Float[Array, "*batch time vocabulary"],
  reference_logits: Float[Array, "*batch time vocabulary"],
  mask: Bool[Array, "*batch time"],
) -> Float[Array, "*batch time"]:
  """KL(ref || pi) summed over the whole vocabulary: exact value and gradient.

      p = softmax(z_t),  q = softmax(z'_t),  KL_t = sum_v q_v log(q_v / p_v)

  It covers all that the reference does, where `categorical_kl` settles on a
  part; its gradient by z is p - q. Infinite where pi lacks an entry that the
  reference has.

  Args:
    logits: z, unnormalised log-probabilities of pi, at the temperature that
      is meant.
    reference_logits: z', the same of the reference. No gradient flows
      through it.
    mask: true = counts.

  Returns:
    KL in nats, zero with zero gradient where `mask` is false.

  >>> logits = jnp.log(jnp.array([[0.25, 0.25, 0.5]]))
  >>> narrower = jnp.log(jnp.array([[0.5, 0.5, 0.0]]))
  >>> nats = categorical_forward_kl(logits, narrower, jnp.array([True]))
  >>> jnp.exp(nats).round(5).tolist()
  [2.0]
  """
  log_p, log_q = _log_probs(logits, reference_logits, mask)
  return _kl(log_q, log_p)


def categorical_jensen_shannon(
  logits: Float[Array, "*batch time vocabulary"],
  reference_logits: Float[Array, "*batch time vocabulary"],
  mask: Bool[Array, "*batch time"],
  *,
  mixture: float,
) -> Float[Array, "*batch time"]:
  """Divergence of both from their mixture: bounded, exact value and gradient.

      m = b q + (1 - b) p
      JS_t = b KL(q || m) + (1 - b) KL(p || m)

  with p = softmax(z_t) and q = softmax(z'_t). Never more than log 2, whatever
  either lacks; symmetric at b = 1/2. Divided by b it tends to KL(q || p) as b
  tends to zero, divided by 1 - b to KL(p || q) as b tends to one.

  Args:
    logits: z, unnormalised log-probabilities of pi, at the temperature that
      is meant.
    reference_logits: z', the same of the reference. No gradient flows
      through it.
    mask: true = counts.
    mixture: b, the share of the reference, strictly between 0 and 1.

  Returns:
    JS in nats, zero with zero gradient where `mask` is false.

  Raises:
    ValueError: unless 0 < mixture < 1.

  Agarwal et al. 2024, arXiv:2306.13649, with the reference as teacher.

  >>> apart = jnp.log(jnp.array([[1.0, 0.0]])), jnp.log(jnp.array([[0.0, 1.0]]))
  >>> nats = categorical_jensen_shannon(*apart, jnp.array([True]), mixture=0.5)
  >>> jnp.exp(nats).round(5).tolist()
  [2.0]
  """
  if not 0 < mixture < 1:
    raise ValueError(f"mixture must lie between 0 and 1, got {mixture}")
  log_p, log_q = _log_probs(logits, reference_logits, mask)
  # An entry that both lack: any finite number does, its weight is zero.
  either = ~(jnp.isneginf(log_p) & jnp.isneginf(log_q))
  log_m = jnp.logaddexp(
    jnp.where(either, log_q, 0.0) + math.log(mixture),
    jnp.where(either, log_p, 0.0) + math.log1p(-mixture),
  )
  nats = mixture * _kl(log_q, log_m) + (1.0 - mixture) * _kl(log_p, log_m)
  return jnp.where(mask, nats, 0.0)


def _log_probs(logits, reference_logits, mask):
  """Normalised, uniform where masked: no divergence and no gradient there."""
  counted = mask[..., None]
  reference = jax.lax.stop_gradient(widened(reference_logits))
  return (
    jax.nn.log_softmax(jnp.where(counted, widened(logits), 0.0)),
    jax.nn.log_softmax(jnp.where(counted, reference, 0.0)),
  )


def _kl(log_p, log_q):
  # Outside p's support -inf - log_q must not meet the zero it multiplies.
  excess = jnp.where(jnp.isneginf(log_p), 0.0, log_p - log_q)
  return jnp.sum(jnp.exp(log_p) * excess, axis=-1)
