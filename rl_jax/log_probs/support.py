"""Log-probabilities within the part of the vocabulary that was sampled from.

A sampler with top-k, top-p or min-p draws from a renormalised part of the
softmax. The log-softmax over everything is not the log-probability of what it
did: importance ratios built of it are biased. Carry the `Support` with the
rollout and compute both sides of a ratio with it.

The support moves with the policy. A ratio whose two sides have two supports
reweights to the new policy *within its own support*, which is unbiased only
if that lies inside the old one. To hold the set fixed, keep the behaviour's
mask and use `token_log_prob` of `jnp.where(kept, logits, -jnp.inf)`: that
reweights to the new policy restricted to the old set, always unbiased.
"""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from rl_jax.log_probs.tokens import (
  picked_log_prob,
  require_scale,
  require_tokens,
  scaled_logits,
)

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float, Int

__all__ = ["Support", "support_log_prob", "support_mask", "supported_logits"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Support:
  """How a sampler turned logits into the distribution that it drew from.

  In this order: soft cap, temperature, top-k, top-p among what top-k left,
  min-p; or min-p before the other two. Entries as likely as the last one
  that is kept are kept too, so the set does not depend on how a sort breaks
  ties.

  >>> Support(temperature=1.0, top_k=2).truncates
  True
  """

  temperature: float
  """Divides the logits; positive."""
  soft_cap: float | None = None
  """Smooth bound on the absolute logits, part of the model; None: none."""
  top_k: int | None = None
  """Entries kept, the likeliest ones; None: all."""
  top_p: float | None = None
  """Probability that the likeliest entries must reach; None or 1: all."""
  min_p: float | None = None
  """Least probability kept, as a share of the likeliest entry's; None: 0."""
  min_p_first: bool | None = None
  """Whether min-p comes before top-p, as in vLLM, or after, as in
  transformers; to be said where both are given."""

  def __post_init__(self) -> None:
    require_scale(self.temperature, self.soft_cap)
    if self.top_k is not None and self.top_k < 1:
      raise ValueError(f"top_k must be at least 1 or None, got {self.top_k}")
    for name in ("top_p", "min_p"):
      value = getattr(self, name)
      if value is not None and not 0 < value <= 1:
        raise ValueError(f"{name} must lie in (0, 1] or be None, got {value}")
    both = self.top_p is not None and self.min_p is not None
    if both and self.min_p_first is None:
      raise ValueError(
        f"top_p = {self.top_p} and min_p = {self.min_p} give another support"
        " in another order: set min_p_first to the sampler's"
      )

  @property
  def truncates(self) -> bool:
    """Whether any entry may be left out; if not, chunked forms will do."""
    kept = (self.top_k, self.min_p, None if self.top_p == 1 else self.top_p)
    return any(x is not None for x in kept)


def supported_logits(
  logits: Float[Array, "*batch time vocabulary"],
  mask: Bool[Array, "*batch time"],
  *,
  support: Support,
) -> Float[Array, "*batch time vocabulary"]:
  """Logits to draw from: scaled, and -inf outside the support.

      z_v = cap(logits_v) / temperature   if v in S(logits), else -inf

  The categorical distribution of the result is the one that
  `support_log_prob` speaks of. No gradient flows through the choice of S.

  Args:
    logits: unnormalised log-probabilities, before cap and temperature.
    mask: true = counts.
    support: how the sampler chooses; of the same model on both sides.

  Returns:
    z, at least float32; all zero, which is uniform, where masked.

  Raises:
    ValueError: if `support.top_k` exceeds the vocabulary.

  >>> supported_logits(
  ...   jnp.array([[1.0, 3.0, 2.0]]),
  ...   jnp.array([True]),
  ...   support=Support(temperature=0.5, top_k=2),
  ... ).tolist()
  [[-inf, 6.0, 4.0]]
  """
  z = scaled_logits(
    jnp.where(mask[..., None], logits, 0.0),
    temperature=support.temperature,
    soft_cap=support.soft_cap,
  )
  if not support.truncates:
    return z
  return jnp.where(_at_least(z, _threshold(z, support)), z, -jnp.inf)


def support_mask(
  logits: Float[Array, "*batch time vocabulary"],
  mask: Bool[Array, "*batch time"],
  *,
  support: Support,
) -> Bool[Array, "*batch time vocabulary"]:
  """Which entries of the vocabulary the sampler could have drawn.

      S = {v: z_v >= threshold},   z = cap(logits) / temperature

  The threshold is the largest of those of top-k (the k-th largest z), min-p
  (log min_p below the largest z) and top-p (the z with which the likeliest
  entries first reach the probability top_p).

  Args:
    logits: unnormalised log-probabilities of the behaviour policy, before cap
      and temperature.
    mask: true = counts.
    support: how the sampler chose.

  Returns:
    True where an entry could be drawn; all true where masked.

  Raises:
    ValueError: if `support.top_k` exceeds the vocabulary.

  Top-p: Holtzman et al. 2020, arXiv:1904.09751; min-p: Nguyen et al. 2024,
  arXiv:2407.01082.

  >>> support_mask(
  ...   jnp.log(jnp.array([[0.5, 0.25, 0.125, 0.125]])),
  ...   jnp.array([True]),
  ...   support=Support(temperature=1.0, top_p=0.625),
  ... ).tolist()
  [[True, True, False, False]]
  """
  return ~jnp.isneginf(supported_logits(logits, mask, support=support))


def support_log_prob(
  logits: Float[Array, "*batch time vocabulary"],
  token: Int[Array, "*batch time"],
  mask: Bool[Array, "*batch time"],
  *,
  support: Support,
) -> Float[Array, "*batch time"]:
  """Log-probability of each token within the support of these logits.

      log p_t = z_t[token_t] - log sum_{v in S_t} exp z_t[v]

  A token outside S, which the policy of these logits could not have drawn,
  has log-probability -inf and no gradient: its importance ratio is 0. Keep
  such tokens away from losses that are linear in the log-probability.

  Args:
    logits: unnormalised log-probabilities, before cap and temperature.
    token: ids in [0, vocabulary); anything where masked.
    mask: true = counts.
    support: how the sampler chose.

  Returns:
    log p in nats, at least float32; 0 with zero gradient where masked. An id
    out of range gives NaN if only run time can see it.

  Raises:
    ValueError: if a counted id is seen to be out of range, or
      `support.top_k` exceeds the vocabulary.

  >>> log_prob = support_log_prob(
  ...   jnp.log(jnp.array([[0.5, 0.25, 0.25], [0.125, 0.375, 0.5]])),
  ...   jnp.array([0, 0]),
  ...   jnp.ones(2, bool),
  ...   support=Support(temperature=1.0, min_p=0.75),
  ... )
  >>> jnp.exp(log_prob).tolist()
  [1.0, 0.0]
  """
  require_tokens(token, mask, logits.shape[-1])
  z = supported_logits(logits, mask, support=support)
  return picked_log_prob(z, token, mask)


def _at_least(z, threshold):
  return z >= threshold[..., None]


def _threshold(z, support):
  """The smallest scaled logit that is kept, one per column; to compare with.

  Comparisons have no gradient, so none is stopped here.
  """
  vocabulary = z.shape[-1]
  if support.top_k is not None and support.top_k > vocabulary:
    raise ValueError(
      f"top_k = {support.top_k} of a vocabulary of {vocabulary}: give None to"
      " keep all of it"
    )
  partly = support.top_p is not None and support.top_p < 1
  if partly:
    ordered = jnp.sort(z, axis=-1, descending=True)
  elif support.top_k is not None:
    ordered = jax.lax.top_k(z, support.top_k)[0]
  else:
    ordered = jnp.max(z, axis=-1, keepdims=True)
  threshold = jnp.full(z.shape[:-1], -jnp.inf, z.dtype)
  if support.top_k is not None:
    threshold = ordered[..., support.top_k - 1]
  if support.min_p is None:
    relative = threshold
  else:
    relative = jnp.maximum(threshold, ordered[..., 0] + math.log(support.min_p))
  if partly:
    first = relative if support.min_p_first else threshold
    likeliest = _likeliest(ordered, first, support.top_p)
    return jnp.maximum(relative, likeliest)
  return relative


def _likeliest(ordered, threshold, top_p):
  """The last of the ordered entries before which less than top_p is left."""
  left = _at_least(ordered, threshold) & ~jnp.isneginf(ordered)
  share = jax.nn.softmax(jnp.where(left, ordered, -jnp.inf))
  before = jnp.cumsum(share, axis=-1)[..., :-1]
  # The first entry has nothing before it, whatever rounding makes of sums.
  reached = jnp.concatenate([jnp.zeros_like(share[..., :1]), before], axis=-1)
  kept = left & (reached < top_p)
  return jnp.min(jnp.where(kept, ordered, jnp.inf), axis=-1)
