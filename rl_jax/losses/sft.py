"""Supervised fine-tuning: likelihood of given tokens, and noise against it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from rl_jax.masks import keep, widened

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float, Key

__all__ = ["negative_log_likelihood", "noisy_embedding"]


def negative_log_likelihood(
  log_prob: Float[Array, "*batch time"], mask: Bool[Array, "*batch time"]
) -> Float[Array, "*batch time"]:
  """How surprising each given token is: the loss of supervised fine-tuning.

      l_t = -log p(token_t | what stands before it)

  Args:
    log_prob: nats per token, from `rl_jax.log_probs`. The gradient flows
      through it.
    mask: true = counts: the response, not the prompt.

  Returns:
    The loss of each token in nats, zero where masked, not reduced.

  >>> log_prob = jnp.array([-2.0, jnp.nan])
  >>> negative_log_likelihood(log_prob, jnp.array([True, False])).tolist()
  [2.0, 0.0]
  """
  return jnp.where(mask, -keep(log_prob, mask), 0.0)


def noisy_embedding(
  embedding: Float[Array, "*batch time width"],
  mask: Bool[Array, "*batch time"],
  key: Key[Array, "*batch"],
  *,
  alpha: float,
) -> Float[Array, "*batch time width"]:
  """Token embeddings with uniform noise, whose norm does not grow with length.

      e'_t = e_t + alpha / sqrt(|m| width) u_t,   u_t ~ U(-1, 1)^width

  A transform of the input during training, to generate and evaluate without.
  The expected norm of a row's noise is about alpha / sqrt(3).

  Args:
    embedding: e, one vector per token.
    mask: true for tokens that the model reads, prompt included; |m| is how
      many there are in the row. In the paper's code it is the attention mask;
      transformers counts the padded width instead, so that a batch's longest
      row decides on every row's noise.
    key: one per row, so that a row's noise depends on no neighbour.
    alpha: 5, 10 or 15 in the paper; 0 adds nothing.

  Returns:
    e', at least float32; zero where masked.

  Raises:
    ValueError: if `alpha` is negative or not finite.

  Jain et al. 2023, arXiv:2310.05914, algorithm 1.

  >>> row = jnp.ones((1, 2, 3))
  >>> key = jax.random.split(jax.random.key(0), 1)
  >>> noisy = noisy_embedding(row, jnp.ones((1, 2), bool), key, alpha=0.0)
  >>> bool((noisy == row).all())
  True
  """
  if not 0 <= alpha < math.inf:
    raise ValueError(f"alpha must be finite and not negative, got {alpha}")
  embedding = widened(embedding)
  time, width = embedding.shape[-2:]

  def noise_of(key):
    # Column by column: columns that are added change no other's noise.
    keys = jax.vmap(jax.random.fold_in, (None, 0))(key, jnp.arange(time))
    return jax.vmap(
      lambda key: jax.random.uniform(
        key, (width,), embedding.dtype, minval=-1.0, maxval=1.0
      )
    )(keys)

  noise = jax.vmap(noise_of)(key.reshape(-1)).reshape(embedding.shape)
  count = jnp.maximum(jnp.sum(mask, axis=-1), 1).astype(embedding.dtype)
  size = alpha / jnp.sqrt(count * width)
  noisy = jnp.where(mask[..., None], embedding, 0.0)
  noisy = noisy + size[..., None, None] * noise
  return jnp.where(mask[..., None], noisy, 0.0)
