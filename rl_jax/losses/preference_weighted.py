"""What preference losses take from single tokens: weights, sums, KL.

Each function turns arrays per token into one number per response, which a
loss of `preference_logistic` or its like then reads.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from rl_jax.masks import keep, masked_mean

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float, Int

__all__ = [
  "length_desensitised_log_prob",
  "on_policy_weight",
  "sequential_kl_log_ratio",
]


def on_policy_weight(
  log_prob: Float[Array, "*batch time"],
  log_collision: Float[Array, "*batch time"],
  mask: Bool[Array, "*batch time"],
) -> Float[Array, "*batch"]:
  r"""How likely the policy itself is to write a response, per token.

      w = exp(mean_t (log pi(y_t) - c_t)),   c_t = log sum_v pi(v)^2

  The weight of a pair is the product of both responses' weights. Two forms
  are in use: with c as above and no bound (the paper's "sampled alignment";
  TRL), and with c = 0, bounded by one with `ratios.truncated_weight`
  (open-instruct).

  Args:
    log_prob: log pi(y_t), nats. No gradient flows through it.
    log_collision: c_t, log of the probability that two tokens drawn here
      agree: logsumexp(2 z) - 2 logsumexp(z) of logits z. Zeros for the second
      form. No gradient flows through it.
    mask: true on the tokens of the response.

  Returns:
    w, positive, a constant to multiply a loss with; 1 for a row without
    tokens.

  Zhou et al. 2024, arXiv:2406.11827 (WPO).

  >>> log_prob = jnp.log(jnp.array([[0.5, 0.125]]))
  >>> on_policy_weight(
  ...   log_prob, jnp.zeros((1, 2)), jnp.ones((1, 2), bool)
  ... ).tolist()
  [0.25]
  """
  excess = keep(log_prob, mask) - keep(log_collision, mask)
  return jnp.exp(masked_mean(jax.lax.stop_gradient(excess), mask))


def length_desensitised_log_prob(
  log_prob: Float[Array, "*batch time"],
  length: Int[Array, "*batch"],
  mask: Bool[Array, "*batch time"],
  *,
  tail: float,
) -> Float[Array, "*batch"]:
  """Log-prob of a response whose tokens beyond a length count for less.

      sum_{first `length` tokens} log pi(y_t) + tail sum_{the rest} log pi(y_t)

  Use it for the policy and for the reference, with one length for both
  responses of a pair: that of the shorter one.

  Args:
    log_prob: log pi(y_t), nats.
    length: how many tokens count in full, min(length_w, length_l).
    mask: true on the tokens of the response; the counted columns need not be
      adjacent.
    tail: weight of the other tokens in [0, 1]; 1 is the plain sum.

  Returns:
    Nats per response; 0 for a row without tokens.

  Raises:
    ValueError: if `tail` is outside [0, 1].

  Liu et al. 2024, arXiv:2409.06411 (LD-DPO).

  >>> length_desensitised_log_prob(
  ...   jnp.array([[-1.0, -2.0, -4.0]]),
  ...   jnp.array([1]),
  ...   jnp.ones((1, 3), bool),
  ...   tail=0.5,
  ... ).tolist()
  [-4.0]
  """
  if not 0 <= tail <= 1:
    raise ValueError(f"tail must be in [0, 1], got {tail}")
  place = jnp.cumsum(mask, axis=-1)
  weight = jnp.where(place <= length[..., None], 1.0, tail)
  return jnp.sum(weight * keep(log_prob, mask), axis=-1)


def sequential_kl_log_ratio(
  log_prob: Float[Array, "*batch time"],
  reference_log_prob: Float[Array, "*batch time"],
  reference_kl: Float[Array, "*batch time"],
  mask: Bool[Array, "*batch time"],
  *,
  kl_weight: float,
  through_kl: bool,
) -> Float[Array, "*batch"]:
  r"""Log-ratio of a response plus the KL that the policy spends along it.

      h = sum_t [log pi(y_t) - log ref(y_t)] + w sum_t KL(ref || pi)_t

  Token-level DPO is the logistic loss of this h for both responses:

      TDPO    w = 1, gradient through the KL of both
      TDPO2   w = alpha (0.5), gradient through the rejected one's KL only

  Args:
    log_prob: log pi(y_t), nats.
    reference_log_prob: log ref(y_t). No gradient flows through it.
    reference_kl: KL(ref || pi) over the vocabulary before token t, nats; note
      the direction.
    mask: true on the tokens of the response.
    kl_weight: w, not negative; 0 is the plain log-ratio.
    through_kl: whether the gradient flows through `reference_kl`.

  Returns:
    h in nats; 0 for a row without tokens.

  Raises:
    ValueError: if `kl_weight` is negative.

  Zeng et al. 2024, arXiv:2404.11999 (TDPO).

  >>> log_prob = jnp.array([[-1.0, -2.0]])
  >>> sequential_kl_log_ratio(
  ...   log_prob,
  ...   log_prob - 0.5,
  ...   jnp.array([[0.25, 0.75]]),
  ...   jnp.ones((1, 2), bool),
  ...   kl_weight=0.5,
  ...   through_kl=True,
  ... ).tolist()
  [1.5]
  """
  if not kl_weight >= 0:
    raise ValueError(f"kl_weight must not be negative, got {kl_weight}")
  reference = jax.lax.stop_gradient(keep(reference_log_prob, mask))
  kl = keep(reference_kl, mask)
  kl = kl if through_kl else jax.lax.stop_gradient(kl)
  return jnp.sum(keep(log_prob, mask) - reference + kl_weight * kl, axis=-1)
