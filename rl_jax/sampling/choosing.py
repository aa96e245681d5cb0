"""One token of each row, and its log-probability."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp

from rl_jax.log_probs import supported_logits, token_entropy, token_log_prob

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float, Int, Key

  from rl_jax.log_probs import Support

__all__ = ["Chosen", "choose"]


class Chosen(NamedTuple):
  """The next token of each row.

  Attributes:
    token: ids; 0 where the row takes none.
    log_prob: of them under the distribution they were drawn from, nats; 0
      where the row takes none.
    entropy: of that distribution, nats; None if it was not asked for.
  """

  token: Int[Array, "row"]
  log_prob: Float[Array, "row"]
  entropy: Float[Array, "row"] | None


def choose(
  logits: Float[Array, "row vocabulary"],
  row_key: Key[Array, "row"],
  mask: Bool[Array, "row"],
  *,
  support: Support,
  greedy: bool,
  entropy: bool,
) -> Chosen:
  """Draws a token of each row, from the row's logits and key alone.

      p(block) = sum_{v in block} p_v,   p(v | block) = p_v / p(block)
      p = softmax(z),   z = supported_logits(logits)

  The vocabulary is cut into blocks, and a block is drawn first: exact, and a
  row needs about 2 sqrt(vocabulary) random numbers. Greedily, the likeliest
  id is taken, the first of equal ones.

  Args:
    logits: unnormalised log-probabilities, before cap and temperature; -inf
      for ids that are not allowed, which the support then is chosen without.
    row_key: one key per row.
    mask: true = takes a token.
    support: how logits become a distribution.
    greedy: whether the likeliest token is taken instead of a draw.
    entropy: whether to compute it.

  Returns:
    The tokens. Greedy ones too have their log-probability under softmax(z):
    that of the policy, not that of the choice, which is 0.

  Raises:
    ValueError: if `support.top_k` exceeds the vocabulary.

  >>> choose(
  ...   jnp.log(jnp.array([[0.25, 0.75]])),
  ...   jax.random.split(jax.random.key(0), 1),
  ...   jnp.array([True]),
  ...   support=Support(temperature=1.0),
  ...   greedy=True,
  ...   entropy=False,
  ... ).token.tolist()
  [1]
  """
  z = supported_logits(logits, mask, support=support)
  token = jax.vmap(_likeliest if greedy else _drawn)(row_key, _blocks(z))
  token = jnp.where(mask, token, 0).astype(jnp.int32)
  # z is scaled and capped already.
  drawn_from = {"temperature": 1.0, "soft_cap": None}
  return Chosen(
    token=token,
    log_prob=token_log_prob(z, token, mask, **drawn_from),
    entropy=token_entropy(z, mask, **drawn_from) if entropy else None,
  )


def _blocks(z):
  """The entries in blocks, as many as a block has entries; -inf fills up."""
  vocabulary = z.shape[-1]
  size = math.isqrt(vocabulary - 1) + 1
  count = -(-vocabulary // size)
  padding = ((0, 0), (0, count * size - vocabulary))
  z = jnp.pad(z, padding, constant_values=-jnp.inf)
  return z.reshape(z.shape[0], count, size)


def _drawn(key, blocks):
  outer, inner = jax.random.split(key)
  total = jax.nn.logsumexp(blocks, axis=-1)
  block = jax.random.categorical(outer, total)
  return block * blocks.shape[1] + jax.random.categorical(inner, blocks[block])


def _likeliest(key, blocks):
  del key
  block = jnp.argmax(jnp.max(blocks, axis=-1))
  return block * blocks.shape[1] + jnp.argmax(blocks[block])
