"""From what a judge says to a reward: pure functions of arrays.

A row that cannot be judged has no reward, which is not the reward zero. Here
"no verdict" is NaN; `rl_jax.rewards.combine` turns it into a validity mask.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from rl_jax.masks import keep, widened

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float, Int

__all__ = ["class_match", "log_likelihood_reward", "weighted_sum"]


def class_match(
  logits: Float[Array, "row class"], label: Int[Array, "row"]
) -> Float[Array, "row"]:
  """Whether the judge's most likely class is the one that was asked for.

      r_i = 1 if argmax_c logits_ic = label_i, else 0

  The first class wins a tie. A row with a NaN logit or a label outside of
  [0, class) has no verdict: an argmax would call NaN the winner.

  Args:
    logits: the judge's unnormalised log-probabilities.
    label: the class that was asked for.

  Returns:
    1 or 0, NaN without verdict. Carries no gradient.

  Folklore; the verifiable reward of the digits experiments.

  >>> logits = jnp.array([[0.0, 2.0], [0.0, 2.0], [0.0, jnp.nan]])
  >>> class_match(logits, jnp.array([1, 0, 1])).tolist()
  [1.0, 0.0, nan]
  """
  match = (jnp.argmax(logits, axis=-1) == label).astype(jnp.float32)
  return jnp.where(_judged(logits, label), match, jnp.nan)


def log_likelihood_reward(
  logits: Float[Array, "row class"], label: Int[Array, "row"]
) -> Float[Array, "row"]:
  """How likely the judge finds the class that was asked for.

      r_i = logits_i,label - log sum_c exp logits_ic

  Args:
    logits: the judge's unnormalised log-probabilities.
    label: the class that was asked for.

  Returns:
    Nats, at most 0; NaN where a logit is NaN or the label is outside of
    [0, class). Differentiable in the logits.

  Folklore: the score of a classifier, as guidance and steering use it.

  >>> log_likelihood_reward(jnp.zeros((1, 1)), jnp.array([0])).tolist()
  [0.0]
  """
  judged = _judged(logits, label)
  # Safe values first, so that the gradient of a judged row is its own.
  safe = keep(logits, jnp.broadcast_to(judged[:, None], logits.shape))
  chosen = jnp.where(judged, label, 0)[:, None]
  log_prob = jnp.take_along_axis(jax.nn.log_softmax(safe), chosen, axis=-1)
  return jnp.where(judged, log_prob[:, 0], jnp.nan)


def weighted_sum(
  reward: Float[Array, "row term"],
  valid: Bool[Array, "row term"],
  weight: Float[Array, "term"],
) -> tuple[Float[Array, "row"], Bool[Array, "row"]]:
  """Several rewards as one, for the rows that all of them judged.

      r_i = sum_k w_k r_ik,   valid_i = all_k valid_ik

  A term without verdict makes the row invalid. Leaving the term out of the
  sum would call it zero and favour or punish the row for nothing.

  Args:
    reward: r_ik, any units.
    valid: false where a term has no verdict; its reward may hold anything.
    weight: w_k, in units of the sum over units of the term.

  Returns:
    The sum, 0 in invalid rows, and which rows are valid.

  >>> total, valid = weighted_sum(
  ...   jnp.array([[1.0, 0.5], [1.0, jnp.nan]]),
  ...   jnp.array([[True, True], [True, False]]),
  ...   jnp.array([2.0, 4.0]),
  ... )
  >>> total.tolist(), valid.tolist()
  ([4.0, 0.0], [True, False])
  """
  judged = jnp.all(valid, axis=-1)
  terms = keep(reward, jnp.broadcast_to(judged[:, None], reward.shape))
  return jnp.sum(terms * widened(weight)[None], axis=-1), judged


def _judged(
  logits: Float[Array, "row class"], label: Int[Array, "row"]
) -> Bool[Array, "row"]:
  known = (label >= 0) & (label < logits.shape[-1])
  return known & ~jnp.any(jnp.isnan(logits), axis=-1)
