"""Log-probability and entropy of tokens, from logits that are at hand."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from rl_jax.masks import widened

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float, Int

__all__ = ["token_entropy", "token_log_prob"]


def token_log_prob(
  logits: Float[Array, "*batch time vocabulary"],
  token: Int[Array, "*batch time"],
  mask: Bool[Array, "*batch time"],
  *,
  temperature: float,
  soft_cap: float | None,
) -> Float[Array, "*batch time"]:
  """Log-probability of each token under the distribution it was drawn from.

      z = cap(logits) / temperature,   cap(x) = soft_cap tanh(x / soft_cap)
      log p_t = z_t[token_t] - log sum_v exp z_t[v]

  Logits and tokens of one column belong together; `next_token` shifts tokens
  to the columns that predict them. A logit of -inf removes an entry from the
  support: a token there has log-probability -inf and no gradient. Tokens
  drawn within a support (top-k, top-p) want `support_log_prob`; long batches
  want `chunked_log_prob`.

  Args:
    logits: unnormalised log-probabilities, before cap and temperature.
    token: ids in [0, vocabulary); anything where masked.
    mask: true = counts.
    temperature: what the sampler divided its logits with. A ratio between
      log-probs at two temperatures is not one on policy.
    soft_cap: bound on the absolute logits, smooth, that belongs to the model
      (30 in Gemma 2); None if it has none.

  Returns:
    log p in nats, at least float32; 0 with zero gradient where masked. An id
    out of range gives NaN if only run time can see it.

  Raises:
    ValueError: if `temperature` or `soft_cap` is not positive, or a counted
      id is seen to be out of range.

  >>> logits = jnp.log(jnp.array([[0.25, 0.75], [0.5, 0.5]]))
  >>> log_prob = token_log_prob(
  ...   logits,
  ...   jnp.array([1, 0]),
  ...   jnp.ones(2, bool),
  ...   temperature=1.0,
  ...   soft_cap=None,
  ... )
  >>> jnp.exp(log_prob).tolist()
  [0.75, 0.5]
  """
  require_tokens(token, mask, logits.shape[-1])
  z = scaled_logits(
    jnp.where(mask[..., None], logits, 0.0),
    temperature=temperature,
    soft_cap=soft_cap,
  )
  return picked_log_prob(z, token, mask)


def token_entropy(
  logits: Float[Array, "*batch time vocabulary"],
  mask: Bool[Array, "*batch time"],
  *,
  temperature: float,
  soft_cap: float | None,
) -> Float[Array, "*batch time"]:
  """Entropy of the distribution of each token, over the whole vocabulary.

      H_t = -sum_v p_v log p_v,   p = softmax(z_t), z as in `token_log_prob`

  Exact in value and gradient. A logit of -inf adds nothing.

  Args:
    logits: unnormalised log-probabilities, before cap and temperature.
    mask: true = counts.
    temperature: what the sampler divides its logits with.
    soft_cap: as in `token_log_prob`.

  Returns:
    H in nats, at least float32; 0 with zero gradient where masked.

  Raises:
    ValueError: if `temperature` or `soft_cap` is not positive.

  >>> nats = token_entropy(
  ...   jnp.zeros((1, 4)), jnp.ones(1, bool), temperature=1.0, soft_cap=None
  ... )
  >>> jnp.exp(nats).round(5).tolist()
  [4.0]
  """
  z = scaled_logits(
    jnp.where(mask[..., None], logits, 0.0),
    temperature=temperature,
    soft_cap=soft_cap,
  )
  log_p = jax.nn.log_softmax(z)
  # -inf must not meet the zero that multiplies it, nor its gradient.
  nats = jnp.where(jnp.isneginf(log_p), 0.0, log_p)
  return jnp.where(mask, -jnp.sum(jnp.exp(log_p) * nats, axis=-1), 0.0)


def scaled_logits(logits, *, temperature, soft_cap):
  """Capped, then divided by the temperature, in at least float32."""
  require_scale(temperature, soft_cap)
  z = widened(logits)
  if soft_cap is not None:
    # tanh would bring an entry that was removed with -inf back to life.
    z = jnp.where(jnp.isneginf(z), z, soft_cap * jnp.tanh(z / soft_cap))
  return z / temperature


def picked_log_prob(z, token, mask):
  """Normalise, pick and mask; siblings share what is an error and how."""
  safe, known = known_tokens(token, mask, z.shape[-1])
  # Shifted first: the logarithm of the sum drowns in a large logit.
  top = jax.lax.stop_gradient(jnp.max(z, axis=-1, keepdims=True))
  z = z - jnp.where(jnp.isneginf(top), 0.0, top)
  own = jnp.take_along_axis(z, safe[..., None], axis=-1)[..., 0]
  removed = jnp.isneginf(own)
  log_prob = jnp.where(removed, 0.0, own) - jax.nn.logsumexp(z, axis=-1)
  log_prob = jnp.where(removed, -jnp.inf, log_prob)
  return jnp.where(mask, jnp.where(known, log_prob, jnp.nan), 0.0)


def known_tokens(token, mask, vocabulary):
  """Ids that may be used as indices, and whether they are the given ones."""
  known = (token >= 0) & (token < vocabulary)
  return jnp.where(mask & known, token, 0), known


def require_scale(temperature: float, soft_cap: float | None) -> None:
  """Refuse a temperature or a cap that would turn or erase the logits."""
  if not temperature > 0:
    raise ValueError(f"temperature must be positive, got {temperature}")
  if soft_cap is not None and not soft_cap > 0:
    raise ValueError(f"soft_cap must be positive or None, got {soft_cap}")


def require_tokens(
  token: Int[Array, "*batch time"],
  mask: Bool[Array, "*batch time"],
  vocabulary: int,
) -> None:
  """Refuse counted ids outside the vocabulary; inside jit none is seen."""
  if any(isinstance(x, jax.core.Tracer) for x in (token, mask)):
    return
  counted = np.asarray(token)[np.asarray(mask)]
  wrong = counted[(counted < 0) | (counted >= vocabulary)]
  if wrong.size:
    raise ValueError(
      f"token ids must lie in [0, {vocabulary}), got {wrong[:4].tolist()}"
      f" among the {wrong.size} of {counted.size} counted ones that do not:"
      " mask padding out, or give the vocabulary's full size"
    )
