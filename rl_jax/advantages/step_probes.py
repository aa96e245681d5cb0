"""What probes say of a policy that is made to answer now; see `spae`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from rl_jax.log_probs import token_log_prob
from rl_jax.masks import keep, masked_mean

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float, Int

__all__ = ["probe_confidence", "probe_correctness", "released_probe"]


def probe_confidence(
  entropy: Float[Array, "*batch sample time"],
  mask: Bool[Array, "*batch sample time"],
) -> Float[Array, "*batch"]:
  r"""How sure a policy is of what it goes on to say.

      Conf = mean_n exp(-mean_l H_{n,l})

  Args:
    entropy: H of each token of some continuations, over the whole vocabulary,
      nats; see `token_entropy`.
    mask: true = counts.

  Returns:
    Conf in [0, 1]: 1 / V for a uniform distribution over V ids, 1 if there is
    no choice. A mean over continuations with a token; 0 without any.

  arXiv:2601.03823, equations of the confidence.

  >>> probe_confidence(jnp.zeros((1, 2, 3)), jnp.ones((1, 2, 3), bool)).tolist()
  [1.0]
  """
  sure = jnp.exp(-masked_mean(entropy, mask))
  return masked_mean(sure, jnp.any(mask, axis=-1))


def probe_correctness(
  log_prob: Float[Array, "*batch time"], mask: Bool[Array, "*batch time"]
) -> Float[Array, "*batch"]:
  """How much of the true answer a policy would give.

      Acc = mean_m pi(y*_m | context, y*_{<m})

  Args:
    log_prob: of each token of the true answer, given those before it, nats.
    mask: true = counts.

  Returns:
    Acc in [0, 1], a mean of probabilities; 0 for an empty answer, which is to
    be refused where answers come from.

  arXiv:2601.03823, equation of the correctness.

  >>> log_prob = jnp.log(jnp.array([[0.5, 1.0]]))
  >>> probe_correctness(log_prob, jnp.ones((1, 2), bool)).tolist()
  [0.75]
  """
  return masked_mean(jnp.exp(keep(log_prob, mask)), mask)


def released_probe(
  logits: Float[Array, "*batch sample time vocabulary"],
  mask: Bool[Array, "*batch sample time"],
  answer: Int[Array, "*batch answer"],
  answer_mask: Bool[Array, "*batch answer"],
  *,
  top: int = 20,
) -> tuple[Float[Array, "*batch"], Float[Array, "*batch"]]:
  r"""Both numbers as the published script has them, which differ.

      Acc = mean_n exp(sum_m l_{n,m}) / |y*|
      l_{n,m} = log p of y*_m at place m of continuation n if that is among
                its `top` likeliest ids, else -10
      Conf = mean_n exp(-sum_l H_{n,l}) / L_n
      H_{n,l} = -sum p log p over the `top` likeliest ids

  The true answer is looked up in distributions that follow the sampled
  continuation, not the answer itself. For comparison only: the equations of
  the paper are `probe_correctness` and `probe_confidence`.

  Args:
    logits: of some continuations, at the temperature they were drawn with.
      No gradient flows through them.
    mask: true = counts.
    answer: ids of the true answer.
    answer_mask: true = counts.
    top: ids that are looked at.

  Returns:
    Acc and Conf; means over continuations with a token.

  Raises:
    ValueError: if `top` < 1.

  arXiv:2601.03823, code.
  """
  if top < 1:
    raise ValueError(f"top must be at least 1, got {top}")
  *_, time, vocabulary = logits.shape
  some = jnp.any(mask, axis=-1)
  logits = jax.lax.stop_gradient(jnp.where(mask[..., None], logits, 0.0))
  log_p = jax.nn.log_softmax(logits.astype(jnp.float32))
  likely = jax.lax.top_k(log_p, min(top, vocabulary))[0]
  nats = keep(-jnp.sum(jnp.exp(likely) * likely, axis=-1), mask)
  length = jnp.maximum(jnp.sum(mask, axis=-1), 1)
  sure = jnp.exp(-jnp.sum(nats, axis=-1)) / length
  # The answer beside every continuation, cut or padded to its places.
  size = answer.shape[-1]
  pad = [(0, 0)] * (answer.ndim - 1) + [(0, max(time - size, 0))]
  wanted = jnp.pad(answer_mask, pad)[..., None, :time] & mask
  ids = jnp.where(wanted, jnp.pad(answer, pad)[..., None, :time], 0)
  own = token_log_prob(log_p, ids, wanted, temperature=1.0, soft_cap=None)
  listed = wanted & (own >= likely[..., -1])
  count = jnp.sum(answer_mask, axis=-1)[..., None]
  missing = count - jnp.sum(listed, axis=-1)
  total = jnp.sum(keep(own, listed), axis=-1) - 10.0 * missing
  right = jnp.where(count > 0, jnp.exp(total) / jnp.maximum(count, 1), 0.0)
  return masked_mean(right, some), masked_mean(sure, some)
