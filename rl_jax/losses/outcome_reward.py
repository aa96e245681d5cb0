"""Outcome labels as targets of a log-ratio: what makes an implicit PRM."""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from rl_jax.losses.preference import (
  require_batch,
  require_positive,
  require_values,
)
from rl_jax.masks import keep

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float

__all__ = ["implicit_ce_loss"]


def implicit_ce_loss(
  log_ratio: Float[Array, "*batch"],
  label: Float[Array, "*batch"],
  valid: Bool[Array, "*batch"],
  *,
  beta: float,
) -> Float[Array, "*batch"]:
  r"""Cross-entropy of single responses whose logit is their log-ratio.

      l = -y log sigmoid(beta h) - (1 - y) log(1 - sigmoid(beta h))
      h = log pi(response) - log ref(response)

  The slope by the log-prob of every token is beta (sigmoid(beta h) - y), and
  at pi = ref the loss is log 2. With labels of 0 and 1 it is `bco_loss` with
  no shift; a label between says how sure it is. It needs no second response
  to the same prompt. Logits, not probabilities: those round to 1.

  Args:
    log_ratio: h, nats, summed over the tokens of the response.
    label: y in [0, 1]: 1 = right.
    valid: true = the response counts.
    beta: reward per nat; positive; .05 in the paper.

  Returns:
    The loss of each response in nats, zero where `valid` is false. A mean of
    it times weights, over them, is the weighted loss.

  Raises:
    ValueError: if `beta` is not positive and finite, a counted label is
      outside [0, 1] (outside jit), or shapes disagree.

  Yuan et al. 2024, arXiv:2412.01981, eq. 5 (ImplicitPRM, CE).

  >>> zero, label = jnp.zeros(2), jnp.array([1.0, 0.0])
  >>> loss = implicit_ce_loss(zero, label, jnp.ones(2, bool), beta=0.5)
  >>> jnp.exp(-loss).round(5).tolist()
  [0.5, 0.5]
  """
  require_batch(valid, {"log_ratio": log_ratio, "label": label})
  require_positive("beta", beta)
  inside = (label >= 0) & (label <= 1)
  require_values("label", label, valid, inside, "be in [0, 1]")
  z = beta * keep(log_ratio, valid)
  y = jax.lax.stop_gradient(keep(label, valid))
  loss = y * jax.nn.softplus(-z) + (1.0 - y) * jax.nn.softplus(z)
  return keep(loss, jnp.asarray(valid))
