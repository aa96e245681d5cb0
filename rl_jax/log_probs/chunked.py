r"""Log-probabilities from features and output embedding, without the logits.

The logits of a batch, `[rows, time, vocabulary]`, are the largest array of a
language model's update by far. Here they exist one block of tokens times
entries at a time: forward with a running logarithm of the sum of exponentials,
backward by computing each block once more. What is kept between the two is
three numbers per token.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import jax.numpy as jnp

from rl_jax.log_probs.blocks import Plan, blockwise, even
from rl_jax.log_probs.tokens import (
  known_tokens,
  require_scale,
  require_tokens,
)

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float, Int

__all__ = ["chunked_log_prob", "chunked_log_prob_and_entropy"]

# A vocabulary sharded over up to this many devices (a power of two) is walked
# in step by all of them: a block takes some entries of each piece.
_PIECES = 64


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
) -> Float[Array, "*batch time"]:
  """Log-probability of each token, a block of the logits at a time.

      z = cap(hidden embedding^T) / temperature
      log p_t = z_t[token_t] - log sum_v exp z_t[v]

  The value and, in `hidden` and `embedding`, the gradient of
  `token_log_prob` of the product, in memory for one block of it. Four
  products of the size of the logits are computed where the full form
  computes three. Sums are taken in at least float32, whatever the inputs.
  Reverse mode only, once.

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
    log p in nats, at least float32; 0 with zero gradient where masked. An id
    out of range gives NaN if only run time can see it.

  Raises:
    ValueError: if a chunk is less than one, `temperature` or `soft_cap` is
      not positive, or a counted id is seen to be out of range.

  >>> log_prob = chunked_log_prob(
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
  plan = _plan(
    hidden,
    embedding,
    chunk_tokens=chunk_tokens,
    chunk_vocabulary=chunk_vocabulary,
    temperature=temperature,
    soft_cap=soft_cap,
    entropy=False,
  )
  return _run(plan, hidden, embedding, token, mask)[0]


def chunked_log_prob_and_entropy(
  hidden: Float[Array, "*batch time width"],
  embedding: Float[Array, "vocabulary width"],
  token: Int[Array, "*batch time"],
  mask: Bool[Array, "*batch time"],
  *,
  chunk_tokens: int,
  chunk_vocabulary: int,
  temperature: float,
  soft_cap: float | None,
) -> tuple[Float[Array, "*batch time"], Float[Array, "*batch time"]]:
  """`chunked_log_prob` together with the entropy, from the same blocks.

      H_t = -sum_v p_v log p_v,   p = softmax(z_t)

  Both have exact gradients in `hidden` and `embedding`.

  Args:
    hidden: as in `chunked_log_prob`.
    embedding: as there.
    token: as there.
    mask: as there.
    chunk_tokens: as there.
    chunk_vocabulary: as there.
    temperature: as there.
    soft_cap: as there.

  Returns:
    log p and H in nats, at least float32; 0 with zero gradient where masked.

  Raises:
    ValueError: as `chunked_log_prob`.

  >>> _, entropy = chunked_log_prob_and_entropy(
  ...   jnp.ones((1, 2)),
  ...   jnp.ones((4, 2)),
  ...   jnp.array([1]),
  ...   jnp.array([True]),
  ...   chunk_tokens=1,
  ...   chunk_vocabulary=2,
  ...   temperature=1.0,
  ...   soft_cap=None,
  ... )
  >>> jnp.exp(entropy).round(5).tolist()
  [4.0]
  """
  plan = _plan(
    hidden,
    embedding,
    chunk_tokens=chunk_tokens,
    chunk_vocabulary=chunk_vocabulary,
    temperature=temperature,
    soft_cap=soft_cap,
    entropy=True,
  )
  log_prob, entropy = _run(plan, hidden, embedding, token, mask)
  return log_prob, entropy


def _plan(
  hidden,
  embedding,
  *,
  chunk_tokens,
  chunk_vocabulary,
  temperature,
  soft_cap,
  entropy,
):
  for name, chunk in (
    ("chunk_tokens", chunk_tokens),
    ("chunk_vocabulary", chunk_vocabulary),
  ):
    if chunk < 1:
      raise ValueError(f"{name} must be at least 1, got {chunk}")
  require_scale(temperature, soft_cap)
  *batch, time, _ = hidden.shape
  vocabulary = embedding.shape[0]
  pieces = math.gcd(vocabulary, _PIECES)
  while pieces > chunk_vocabulary:
    pieces //= 2
  return Plan(
    columns=even(time, chunk_tokens // max(math.prod(batch), 1)),
    entries=even(vocabulary // pieces, chunk_vocabulary // pieces),
    pieces=pieces,
    temperature=temperature,
    soft_cap=soft_cap,
    entropy=entropy,
  )


def _run(plan, hidden, embedding, token, mask):
  vocabulary, width = embedding.shape
  require_tokens(token, mask, vocabulary)
  safe, known = known_tokens(token, mask, vocabulary)
  *batch, time = token.shape
  rows = math.prod(batch)
  log_prob, entropy = blockwise(
    plan,
    jnp.where(mask[..., None], hidden, 0).reshape(rows, time, width),
    embedding.reshape(plan.pieces, vocabulary // plan.pieces, width),
    safe.reshape(rows, time),
  )
  log_prob = jnp.where(known, log_prob.reshape(token.shape), jnp.nan)
  entropy = entropy.reshape(token.shape)
  return jnp.where(mask, log_prob, 0.0), jnp.where(mask, entropy, 0.0)
