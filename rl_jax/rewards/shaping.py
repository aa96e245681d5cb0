"""What is added to, taken from or done to a reward before it is compared.

All pure functions of arrays, each named for what it does; an experiment that
wants several of them says in which order. No gradient flows through them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp

from rl_jax.masks import keep, last_valid, widened

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float, Int

__all__ = [
  "at_last_token",
  "clipped_reward",
  "kl_shaped",
  "length_penalised",
  "overlong_penalty",
  "penalised_if_unfinished",
  "relative_length_reward",
  "replaced_if_unfinished",
]


def at_last_token(
  reward: Float[Array, "*batch"], mask: Bool[Array, "*batch time"]
) -> Float[Array, "*batch time"]:
  """The reward of a response, given on its last counted token.

      r_t = r 1[t = max {u: mask_u}]

  Args:
    reward: r of the whole response, any unit.
    mask: true = counts. A row without any has no place for its reward.

  Returns:
    r_t, 0 on all other tokens.

  >>> mask = jnp.array([[True, True, False]])
  >>> at_last_token(jnp.array([2.0]), mask).tolist()
  [[0.0, 2.0, 0.0]]
  """
  reward = jax.lax.stop_gradient(widened(reward))
  time = jnp.arange(mask.shape[-1]).reshape(
    (1,) * (mask.ndim - 1) + mask.shape[-1:]
  )
  here = time == last_valid(mask)[..., None]
  return jnp.where(here, reward[..., None], 0.0)


def kl_shaped(
  reward: Float[Array, "*batch time"],
  kl: Float[Array, "*batch time"],
  mask: Bool[Array, "*batch time"],
  *,
  weight: float | Float[Array, ""],
) -> Float[Array, "*batch time"]:
  r"""Reward per token minus an estimate of the KL to a reference.

      r'_t = r_t - weight kl_t

  With kl = `k1` of actions of the policy, the log-ratio itself, a policy
  gradient of r' is an unbiased gradient of E[r] - weight KL(pi || ref). With
  `k3` the value has the same expectation and the gradient another one. The
  same k1 added to a *loss* has no expected gradient at all; see
  `rl_jax.divergences`.

  Args:
    reward: r_t, any unit; `at_last_token` of a score.
    kl: nats, of the sampled tokens.
    mask: true = counts.
    weight: units of reward per nat; a number, or the state of a controller.

  Returns:
    r'_t, 0 where `mask` is false.

  Raises:
    ValueError: if a `weight` that is a number is negative.

  Ziegler et al. 2019, arXiv:1909.08593, eq. 2.

  >>> mask = jnp.array([[True, True]])
  >>> reward, kl = jnp.array([[0.0, 1.5]]), jnp.array([[0.5, -0.25]])
  >>> kl_shaped(reward, kl, mask, weight=0.5).tolist()
  [[-0.25, 1.625]]
  """
  if isinstance(weight, int | float):
    _check_not_negative("weight", weight)
  shaped = keep(reward, mask) - weight * keep(kl, mask)
  return jax.lax.stop_gradient(shaped)


def replaced_if_unfinished(
  reward: Float[Array, "*batch"],
  finished: Bool[Array, "*batch"],
  *,
  replacement: float,
) -> Float[Array, "*batch"]:
  """A fixed score for what did not come to an end, whatever it earned.

      r' = r if finished, else replacement

  A response that fills its whole buffer has no room for the token that ends
  it, and is not finished.

  Args:
    reward: r of the whole response, any unit.
    finished: whether the last token ends the response.
    replacement: same unit; -10 in EasyLM.

  Returns:
    r'; what stood in a row that is replaced does not matter, NaN included.

  Ivison et al. 2024, arXiv:2406.09279, code.

  >>> finished = jnp.array([True, False])
  >>> replaced_if_unfinished(
  ...   jnp.array([1.5, 8.0]), finished, replacement=-10.0
  ... ).tolist()
  [1.5, -10.0]
  """
  reward = jax.lax.stop_gradient(widened(reward))
  return jnp.where(finished, reward, replacement)


def penalised_if_unfinished(
  reward: Float[Array, "*batch"],
  finished: Bool[Array, "*batch"],
  *,
  penalty: float,
) -> Float[Array, "*batch"]:
  """A deduction for what did not come to an end.

      r' = r - penalty (1 - finished)

  Args:
    reward: r of the whole response, any unit.
    finished: whether the last token ends the response.
    penalty: same unit; `missing_eos_penalty` of TRL.

  Returns:
    r'.

  Raises:
    ValueError: if `penalty` is negative, which would be a bonus.

  >>> finished = jnp.array([True, False])
  >>> penalised_if_unfinished(
  ...   jnp.array([1.5, 8.0]), finished, penalty=1.0
  ... ).tolist()
  [1.5, 7.0]
  """
  _check_not_negative("penalty", penalty)
  reward = jax.lax.stop_gradient(widened(reward))
  return jnp.where(finished, reward, reward - penalty)


def overlong_penalty(
  tokens: Float[Array, "*batch"], *, soft: float, hard: float, factor: float
) -> Float[Array, "*batch"]:
  r"""What a response loses for being nearly or entirely too long.

      p = 0                                       l <= soft
      p = -factor (l - soft) / (hard - soft)      soft < l <= hard
      p = -factor                                 l > hard

  Add it to the reward. A hard limit alone would punish a sound argument that
  was cut off like a wrong one.

  Args:
    tokens: l, counted tokens of the response.
    soft: length from which it costs; the maximum minus the buffer.
    hard: length at which all of `factor` is lost: the longest response.
    factor: units of reward; 1 in DAPO.

  Returns:
    p, between -factor and 0.

  Raises:
    ValueError: unless 0 <= soft < hard, or if `factor` is negative.

  Yu et al. 2025, arXiv:2503.14476 (DAPO), eq. 13: soft 16384, hard 20480.
  verl goes on falling beyond hard, where its responses cannot be.

  >>> tokens = jnp.array([4.0, 6.0, 8.0, 99.0])
  >>> penalty = overlong_penalty(tokens, soft=4.0, hard=8.0, factor=1.0)
  >>> (penalty + 1.0).tolist()
  [1.0, 0.5, 0.0, 0.0]
  """
  if not 0 <= soft < hard:
    raise ValueError(f"need 0 <= soft < hard, got {soft} and {hard}")
  _check_not_negative("factor", factor)
  tokens = jax.lax.stop_gradient(widened(tokens))
  return -factor * jnp.clip((tokens - soft) / (hard - soft), 0.0, 1.0)


def length_penalised(
  reward: Float[Array, "*batch"],
  tokens: Float[Array, "*batch"],
  *,
  weight: float,
) -> Float[Array, "*batch"]:
  """Reward minus a price per token.

      r' = r - weight l

  Args:
    reward: r of the whole response, any unit.
    tokens: l, counted tokens of the response.
    weight: units of reward per token; negative values pay for length.

  Returns:
    r'.

  Folklore; the reward whose optimum the length term of length-regularised
  DPO describes, Park et al. 2024, arXiv:2403.19159.

  >>> length_penalised(
  ...   jnp.array([1.0]), jnp.array([8.0]), weight=0.0625
  ... ).tolist()
  [0.5]
  """
  reward, tokens = widened(reward), widened(tokens)
  return jax.lax.stop_gradient(reward - weight * tokens)


def relative_length_reward(
  tokens: Float[Array, "row"],
  correct: Bool[Array, "row"],
  group: Int[Array, "row"],
  valid: Bool[Array, "row"],
  *,
  num_groups: int,
) -> Float[Array, "row"]:
  r"""Which of the responses to a prompt are the short ones.

      s_i = 1/2 - (l_i - min_g l) / (max_g l - min_g l)
      p_i = s_i if correct, else min(0, s_i)

  Add it to the reward, weighted. A wrong response gains nothing by being
  short and loses by being long.

  Args:
    tokens: l_i, counted tokens of the response.
    correct: whether it solved its task.
    group: which prompt each row answers, in [0, num_groups).
    valid: false for rows that do not count.
    num_groups: how many ids there are; static.

  Returns:
    p_i between -1/2 and 1/2; 0 for invalid rows and where all valid
    responses of the group are equally long.

  Raises:
    ValueError: if `num_groups` < 1.

  Kimi team 2025, arXiv:2501.12599 (Kimi k1.5), section 2.3.3.

  >>> relative_length_reward(
  ...   jnp.array([2.0, 4.0, 6.0, 2.0]),
  ...   jnp.array([True, True, True, False]),
  ...   jnp.zeros(4, jnp.int32),
  ...   jnp.ones(4, bool),
  ...   num_groups=1,
  ... ).tolist()
  [0.5, 0.0, -0.5, 0.0]
  """
  if num_groups < 1:
    raise ValueError(f"num_groups must be at least 1, got {num_groups}")
  tokens = jax.lax.stop_gradient(widened(tokens))
  low = jnp.where(valid, tokens, jnp.inf)
  low = jax.ops.segment_min(low, group, num_groups)[group]
  high = jnp.where(valid, tokens, -jnp.inf)
  high = jax.ops.segment_max(high, group, num_groups)[group]
  some = valid & (high > low)
  spread = jnp.where(some, high - low, 1.0)
  score = 0.5 - (jnp.where(some, tokens - low, 0.0)) / spread
  score = jnp.where(correct, score, jnp.minimum(score, 0.0))
  return jnp.where(some, score, 0.0)


def clipped_reward(
  reward: Float[Array, "*batch"], *, low: float, high: float
) -> Float[Array, "*batch"]:
  """The reward, kept within bounds.

      r' = min(max(r, low), high)

  NaN, no verdict, stays NaN.

  Args:
    reward: r, any unit.
    low: smallest value; OpenRLHF clips scores to [-10, 10] by default.
    high: largest value.

  Returns:
    r'.

  Raises:
    ValueError: unless low < high.

  >>> clipped_reward(jnp.array([-20.0, 3.0]), low=-10.0, high=10.0).tolist()
  [-10.0, 3.0]
  """
  if not low < high:
    raise ValueError(f"low must be below high, got {low} and {high}")
  return jnp.clip(jax.lax.stop_gradient(widened(reward)), low, high)


def _check_not_negative(name, value):
  if value < 0:
    raise ValueError(f"{name} must not be negative, got {value}")
