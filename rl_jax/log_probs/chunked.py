r"""Log-probabilities from features and output embedding, without the logits.

The logits of a batch, `[rows, time, vocabulary]`, are the largest array of a
language model's update by far. Here they exist one block of tokens times
entries at a time: forward with a running logarithm of the sum of exponentials,
backward by computing each block once more. What is kept between the two is
a few numbers per token.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import jax.numpy as jnp

from rl_jax.log_probs.blocks import Plan, blockwise, even
from rl_jax.log_probs.tokens import (
  known_tokens,
  require_scale,
  require_tokens,
)

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float, Int

__all__ = ["TokenScores", "chunked_log_prob"]

# A vocabulary sharded over up to this many devices (a power of two) is walked
# in step by all of them: a block takes some entries of each piece.
_PIECES = 64


class TokenScores(NamedTuple):
  """What a distribution says of a token, and what it is like.

  Attributes:
    log_prob: log p of the token, nats.
    entropy: H of the distribution, nats.
  """

  log_prob: Float[Array, "*batch time"]
  entropy: Float[Array, "*batch time"]


def chunked_log_prob(
  hidden: Float[Array, "*batch time width"],
  embedding: Float[Array, "vocabulary width"],
  token: Int[Array, "*batch time"],
  mask: Bool[Array, "*batch time"],
  *,
  chunk_tokens: int,
  chunk_vocabulary: int,
  temperature: float,
  soft_cap: float | None,
) -> TokenScores:
  """Log-probability of each token and entropy, a block of logits at a time.

      z = cap(hidden embedding^T) / temperature
      log p_t = z_t[token_t] - log sum_v exp z_t[v]
      H_t = -sum_v p_v log p_v,   p = softmax(z_t)

  The values and, in `hidden` and `embedding`, the gradients of
  `token_log_prob` and `token_entropy` of the product, in memory for one block
  of it. Four products of the size of the logits are computed where the full
  form computes three; the entropy adds none. Sums are taken in at least
  float32, whatever the inputs. Reverse mode only, once.

  The distribution is over the whole vocabulary: a set such as top-p's is not
  known before all logits of a token are. Use `support_log_prob` where tokens
  were drawn from one (`Support.truncates`).

  Args:
    hidden: features of each column, after the model's last norm. Column t
      scores `token_t`; see `next_token`.
    embedding: the output embedding, one vector per entry; its first axis may
      be sharded.
    token: ids in [0, vocabulary); anything where masked.
    mask: true = counts.
    chunk_tokens: how many tokens of all rows together a block may have. It
      has whole columns and at least one, so that rows sharded over devices
      stay sharded; with rows more than this it has one per row.
    chunk_vocabulary: how many entries a block may have.
    temperature: what the sampler divided its logits with.
    soft_cap: bound on the absolute logits, smooth, that belongs to the model;
      None if it has none.

  Returns:
    log p and H in nats, at least float32; 0 with zero gradient where masked.
    An id out of range gives a log p of NaN if only run time can see it.

  Raises:
    ValueError: if a chunk is less than one, `temperature` or `soft_cap` is
      not positive, or a counted id is seen to be out of range.

  >>> log_prob, _ = chunked_log_prob(
  ...   jnp.array([[1.0, 0.0]]),
  ...   jnp.log(jnp.array([[0.25, 1.0], [0.75, 1.0]])),
  ...   jnp.array([1]),
  ...   jnp.array([True]),
  ...   chunk_tokens=1,
  ...   chunk_vocabulary=1,
  ...   temperature=1.0,
  ...   soft_cap=None,
  ... )
  >>> jnp.exp(log_prob).round(5).tolist()
  [0.75]
  """
  require_scale(temperature, soft_cap)
  for name, chunk in (
    ("chunk_tokens", chunk_tokens),
    ("chunk_vocabulary", chunk_vocabulary),
  ):
    if chunk < 1:
      raise ValueError(f"{name} must be at least 1, got {chunk}")
  *batch, time, width = hidden.shape
  rows, vocabulary = math.prod(batch), embedding.shape[0]
  require_tokens(token, mask, vocabulary)
  safe, known = known_tokens(token, mask, vocabulary)
  pieces = math.gcd(vocabulary, _PIECES)
  while pieces > chunk_vocabulary:
    pieces //= 2
  plan = Plan(
    columns=even(time, chunk_tokens // max(rows, 1)),
    entries=even(vocabulary // pieces, chunk_vocabulary // pieces),
    pieces=pieces,
    temperature=temperature,
    soft_cap=soft_cap,
  )
  log_prob, entropy = blockwise(
    plan,
    jnp.where(mask[..., None], hidden, 0).reshape(rows, time, width),
    embedding.reshape(pieces, vocabulary // pieces, width),
    safe.reshape(rows, time),
  )
  log_prob = jnp.where(known, log_prob.reshape(token.shape), jnp.nan)
  return TokenScores(
    jnp.where(mask, log_prob, 0.0),
    jnp.where(mask, entropy.reshape(token.shape), 0.0),
  )
