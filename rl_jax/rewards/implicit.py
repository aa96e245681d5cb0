r"""Process rewards that a language model has without having been taught any.

A model that is trained to tell right responses from wrong ones by its
log-ratio to a reference,

    r(y) = beta log(pi(y | x) / ref(y | x)),

has a score of every prefix too, the same sum up to there:

    q_t = beta sum_{s <= t} log(pi(y_s | x, y_<s) / ref(y_s | x, y_<s))
        = beta log E_{y' ~ ref(. | y_<=t)} exp(r(y') / beta)

It is the soft expectation of the outcome reward over how the reference goes
on, exactly and for any pi: what is added by a token, or by a step, is a
process reward. The mean in place of the soft expectation is something else.

Yuan et al. 2024, arXiv:2412.01981 (Implicit PRM).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import jax.numpy as jnp

from rl_jax.advantages.segments import segment_sums
from rl_jax.losses.preference import require_positive
from rl_jax.masks import keep, last_valid, widened
from rl_jax.ratios.importance import log_ratio_of

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float, Int

__all__ = [
  "Gathered",
  "aggregate_steps",
  "gather_steps",
  "implicit_q",
  "implicit_step_rewards",
  "token_log_ratio",
]


class Gathered(NamedTuple):
  """One number for each step of a response.

  Attributes:
    value: 0 where there is no such step.
    valid: true = the response has this step.
  """

  value: Float[Array, "row segments"]
  valid: Bool[Array, "row segments"]


def token_log_ratio(
  log_prob: Float[Array, "*batch time"],
  reference_log_prob: Float[Array, "*batch time"],
  mask: Bool[Array, "*batch time"],
) -> Float[Array, "*batch time"]:
  r"""How much likelier each token is than under the reference.

      d_t = log pi(y_t | x, y_<t) - log ref(y_t | x, y_<t)

  Times beta, it is the process reward of a token. Both models must cut text
  into the same tokens.

  Args:
    log_prob: log pi(y_t | x, y_<t), nats.
    reference_log_prob: that of the reference, nats. No gradient flows through
      it.
    mask: true = a token of the response.

  Returns:
    d in nats, zero where the mask is false.

  Yuan et al. 2024, arXiv:2412.01981.

  >>> token_log_ratio(
  ...   jnp.array([-1.0, -2.0]), jnp.array([-1.5, -1.0]), jnp.ones(2, bool)
  ... ).tolist()
  [0.5, -1.0]
  """
  return log_ratio_of(log_prob, reference_log_prob, mask)


def implicit_q(
  log_prob: Float[Array, "*batch time"],
  reference_log_prob: Float[Array, "*batch time"],
  mask: Bool[Array, "*batch time"],
  *,
  beta: float,
) -> Float[Array, "*batch time"]:
  r"""The score of every prefix of a response.

      q_t = beta sum_{s <= t} d_s,   d = log pi - log ref

  At the last token it is the outcome reward of the whole response.

  Args:
    log_prob: log pi(y_t | x, y_<t), nats.
    reference_log_prob: that of the reference, nats. No gradient flows through
      it.
    mask: true = a token of the response.
    beta: reward per nat. What a model is read with may differ from what it
      was trained with (.001 and .05 in the paper): a scale of all scores,
      which changes the order of none.

  Returns:
    q in units of reward, zero where the mask is false.

  Raises:
    ValueError: if `beta` is not positive and finite.

  Yuan et al. 2024, arXiv:2412.01981, proposition 3.1.

  >>> half = jnp.full(3, 0.5)
  >>> implicit_q(half, 0 * half, jnp.ones(3, bool), beta=0.5).tolist()
  [0.25, 0.5, 0.75]
  """
  require_positive("beta", beta)
  ratio = log_ratio_of(log_prob, reference_log_prob, mask)
  return beta * keep(jnp.cumsum(ratio, axis=-1), mask)


def gather_steps(
  value: Float[Array, "row time"],
  index: Int[Array, "row time"],
  *,
  num_segments: int,
) -> Gathered:
  r"""What stands at the last token of each step.

      v_k = value at max {t: k_t = k}

  Args:
    value: one number for each token; anything where the index is negative.
    index: k_t, the step of each token, as from `segment_index`; negative = in
      no step. See `check_segments`: a step beyond the last is left out.
    num_segments: how many steps there may be; static.

  Returns:
    v_k, and which steps have a token.

  Raises:
    ValueError: if `num_segments` < 1.

  >>> steps = gather_steps(
  ...   jnp.array([[1.0, 2.0, 4.0, 8.0]]),
  ...   jnp.array([[0, 0, 1, -1]]),
  ...   num_segments=3,
  ... )
  >>> steps.value.tolist(), steps.valid.tolist()
  ([[2.0, 4.0, 0.0]], [[True, True, False]])
  """
  if num_segments < 1:
    raise ValueError(f"num_segments must be at least 1, got {num_segments}")
  step = jnp.arange(num_segments)[None, :, None]
  last = last_valid(index[:, None, :] == step)
  valid = last >= 0
  # What no step reads may be anything, and so may what stands at place 0.
  place = jnp.maximum(last, 0)
  found = jnp.take_along_axis(widened(value), place, axis=-1)
  return Gathered(jnp.where(valid, found, 0.0), valid)


def implicit_step_rewards(
  log_prob: Float[Array, "row time"],
  reference_log_prob: Float[Array, "row time"],
  index: Int[Array, "row time"],
  *,
  beta: float,
  mode: Literal["single", "accumulative"],
  num_segments: int,
) -> Gathered:
  r"""The process reward of each step.

      single         r_k = beta sum_{t: k_t = k} d_t = q_end(k) - q_end(k-1)
      accumulative   r_k = q_end(k)

  Args:
    log_prob: log pi(y_t | x, y_<t), nats.
    reference_log_prob: that of the reference, nats. No gradient flows through
      it.
    index: k_t, the step of each token; negative = not of the response. Steps
      follow each other from 0 and have a token at least: `check_segments`.
    beta: reward per nat; positive.
    mode: what a step added, or the score of the prefix that it ends.
    num_segments: how many steps there may be; static.

  Returns:
    r_k in units of reward, and which steps the response has.

  Raises:
    ValueError: if `beta` is not positive and finite, the mode is unknown, or
      `num_segments` < 1.

  Yuan et al. 2024, arXiv:2412.01981. The printed sum runs from the token that
  ends the step before; this one, as the code, does not count that twice.

  >>> steps = implicit_step_rewards(
  ...   jnp.array([[0.5, -1.0, 2.0]]),
  ...   jnp.zeros((1, 3)),
  ...   jnp.array([[0, 0, 1]]),
  ...   beta=0.5,
  ...   mode="single",
  ...   num_segments=2,
  ... )
  >>> steps.value.tolist()
  [[-0.25, 1.0]]
  """
  if mode not in ("single", "accumulative"):
    raise ValueError(f"mode must be 'single' or 'accumulative', got {mode!r}")
  require_positive("beta", beta)
  ratio = log_ratio_of(log_prob, reference_log_prob, index >= 0)
  if mode == "accumulative":
    q = beta * jnp.cumsum(ratio, axis=-1)
    return gather_steps(q, index, num_segments=num_segments)
  value = beta * segment_sums(ratio, index, num_segments=num_segments)
  valid = (
    segment_sums(jnp.ones_like(ratio), index, num_segments=num_segments) > 0
  )
  return Gathered(value, valid)


def aggregate_steps(
  value: Float[Array, "row segment"],
  valid: Bool[Array, "row segment"],
  *,
  method: Literal["min", "sum", "mean", "last"],
) -> Float[Array, "row"]:
  r"""One score of a response from those of its steps.

      min    the weakest step; of `single` rewards, the paper's choice
      sum    of `single` rewards, the outcome reward; grows with the length
      mean   sum over how many
      last   of `accumulative` rewards, the outcome reward ("orm")

  Args:
    value: of each step.
    valid: true = the response has this step.
    method: how they become one.

  Returns:
    The score; 0 for a response without a step.

  Raises:
    ValueError: if the method is unknown.

  Yuan et al. 2024, arXiv:2412.01981; min as in Lightman et al. 2023,
  arXiv:2305.20050.

  >>> value, valid = jnp.array([[0.5, -0.5, 1.0]]), jnp.ones((1, 3), bool)
  >>> aggregate_steps(value, valid, method="min").tolist()
  [-0.5]
  """
  kept = keep(value, valid)
  some = jnp.any(valid, axis=-1)
  if method == "min":
    low = jnp.min(jnp.where(valid, kept, jnp.inf), axis=-1, initial=jnp.inf)
    return jnp.where(some, low, 0.0)
  if method == "last":
    place = jnp.maximum(last_valid(valid), 0)[:, None]
    return jnp.take_along_axis(kept, place, axis=-1)[:, 0]
  total = jnp.sum(kept, axis=-1)
  if method == "sum":
    return total
  if method == "mean":
    return total / jnp.maximum(jnp.sum(valid, axis=-1), 1)
  raise ValueError(
    f"method must be 'min', 'sum', 'mean' or 'last', got {method!r}"
  )
