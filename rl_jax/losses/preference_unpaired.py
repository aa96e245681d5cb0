"""Losses of single responses with a label, and the batch numbers they need.

The loss of a row depends on its own log-ratio and on one number of the whole
batch. That number is an argument: compute it on the full batch, before rows
are split into micro-batches, and every split gives the same loss.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp

from rl_jax.losses.preference import require_batch, require_positive
from rl_jax.masks import keep, masked_mean

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float

__all__ = [
  "RunningReward",
  "bco_loss",
  "init_running_reward",
  "kto_loss",
  "kto_reference_point",
  "update_running_reward",
]


def kto_loss(
  log_ratio: Float[Array, "*batch"],
  desirable: Bool[Array, "*batch"],
  reference_point: Float[Array, ""],
  valid: Bool[Array, "*batch"],
  *,
  beta: float,
  desirable_weight: float,
  undesirable_weight: float,
) -> Float[Array, "*batch"]:
  r"""Value of a response relative to a reference point, as people feel it.

      l = w_d (1 - sigmoid(beta (h - z0)))      if desirable
      l = w_u (1 - sigmoid(beta (z0 - h)))      if not

  Average over responses, not over weights. The paper advises to keep
  w_d n_d / (w_u n_u), with n how many of each there are, in [1, 4/3].

  Args:
    log_ratio: h, of the response itself, nats.
    desirable: the label of each response.
    reference_point: z0 in nats, from `kto_reference_point`. No gradient flows
      through it.
    valid: true = the response counts.
    beta: reward per nat; positive.
    desirable_weight: w_d, not negative.
    undesirable_weight: w_u, not negative.

  Returns:
    The loss of each response, between 0 and its weight; zero where `valid` is
    false.

  Raises:
    ValueError: if `beta` is not positive and finite, a weight is negative,
      labels are not boolean, or shapes disagree.

  Ethayarajh et al. 2024, arXiv:2402.01306 (KTO).

  >>> h, label = jnp.array([1.0, 1.0]), jnp.array([True, False])
  >>> kto_loss(
  ...   h,
  ...   label,
  ...   jnp.array(1.0),
  ...   jnp.ones(2, bool),
  ...   beta=0.5,
  ...   desirable_weight=1.0,
  ...   undesirable_weight=2.0,
  ... ).tolist()
  [0.5, 1.0]
  """
  for name, weight in (
    ("desirable_weight", desirable_weight),
    ("undesirable_weight", undesirable_weight),
  ):
    if not weight >= 0:
      raise ValueError(f"{name} must not be negative, got {weight}")
  z = _signed(log_ratio, desirable, reference_point, valid, beta, beta)
  weight = jnp.where(desirable, desirable_weight, undesirable_weight)
  return keep(weight * jax.nn.sigmoid(-z), valid)


def kto_reference_point(
  log_ratio: Float[Array, "full"], valid: Bool[Array, "full"]
) -> Float[Array, ""]:
  r"""KTO's estimate of KL(pi || ref) from responses of other prompts.

      z0 = max(0, mean_i h_i)

  The paper's h_i is the log-ratio of a response paired with *another* row's
  prompt. The even-sampling form for pairs, which needs no mismatched samples,
  calls this twice on the pairs' own log-ratios: desirable responses are
  measured against z0 of the undesirable ones and the other way round
  (ImplicitPRM, whose code lets a gradient through both means).

  Args:
    log_ratio: h_i, nats, of the full batch (axis `full`), not of a
      micro-batch.
    valid: true = counts.

  Returns:
    z0 in nats; 0 if nothing counts. Carries no gradient.

  Raises:
    ValueError: if shapes disagree.

  Ethayarajh et al. 2024, arXiv:2402.01306 (KTO).

  >>> kto_reference_point(jnp.array([1.0, 2.0]), jnp.ones(2, bool)).item()
  1.5
  """
  require_batch(valid, {"log_ratio": log_ratio})
  mean = masked_mean(jax.lax.stop_gradient(log_ratio), valid)
  return jnp.maximum(mean, 0.0)


def bco_loss(
  log_ratio: Float[Array, "*batch"],
  desirable: Bool[Array, "*batch"],
  reward_shift: Float[Array, ""],
  valid: Bool[Array, "*batch"],
  *,
  beta: float,
) -> Float[Array, "*batch"]:
  r"""Binary classification of responses by their implicit reward.

      l = -log sigmoid(beta h - delta)       if desirable
      l = -log sigmoid(-(beta h - delta))    if not

  The pair form is the sum over both responses of a pair, chosen ones
  desirable; some code leaves delta at 0 there.

  Args:
    log_ratio: h, nats.
    desirable: the label of each response.
    reward_shift: delta in units of reward, usually the running mean of all
      implicit rewards with this batch's included
      (`update_running_reward`). No gradient flows through it.
    valid: true = the response counts.
    beta: reward per nat; positive.

  Returns:
    The loss of each response in nats, zero where `valid` is false.

  Raises:
    ValueError: if `beta` is not positive and finite, labels are not boolean,
      or shapes disagree.

  Jung et al. 2024, arXiv:2404.04656 (BCO).

  >>> h, label = jnp.array([1.0, 1.0]), jnp.array([True, False])
  >>> loss = bco_loss(h, label, jnp.array(0.5), jnp.ones(2, bool), beta=0.5)
  >>> jnp.exp(-loss).round(5).tolist()
  [0.5, 0.5]
  """
  z = _signed(log_ratio, desirable, reward_shift, valid, beta, 1.0)
  return keep(jax.nn.softplus(-z), valid)


class RunningReward(NamedTuple):
  """Mean of every implicit reward so far: part of the state of a run.

  Attributes:
    mean: in units of reward.
    count: how many rewards it is the mean of.
  """

  mean: Float[Array, ""]
  count: Float[Array, ""]


def init_running_reward() -> RunningReward:
  """Nothing seen yet.

  Returns:
    The state that `update_running_reward` starts from.

  >>> init_running_reward().mean.item()
  0.0
  """
  return RunningReward(jnp.zeros(()), jnp.zeros(()))


def update_running_reward(
  state: RunningReward,
  reward: Float[Array, "row"],
  valid: Bool[Array, "row"],
) -> RunningReward:
  """Take a batch's implicit rewards into the running mean.

      mean' = mean + (n / (N + n)) (batch mean - mean),   N' = N + n

  Every reward weighs the same, however batches are cut. TRL's pair form
  averaged batch means instead: equal only if all batches are equally large.

  Args:
    state: the mean so far, of N rewards.
    reward: beta h of all responses of the full batch, chosen and rejected. No
      gradient flows through it.
    valid: true = counts; n of them do.

  Returns:
    The mean of N + n rewards; the same state if nothing counts.

  Raises:
    ValueError: if shapes disagree.

  Jung et al. 2024, arXiv:2404.04656 (BCO's reward shift).

  >>> state = update_running_reward(
  ...   init_running_reward(), jnp.array([1.0, 2.0]), jnp.ones(2, bool)
  ... )
  >>> state.mean.item(), state.count.item()
  (1.5, 2.0)
  """
  require_batch(valid, {"reward": reward})
  added = jnp.sum(valid, dtype=jnp.float32)
  count = state.count + added
  change = masked_mean(jax.lax.stop_gradient(reward), valid) - state.mean
  return RunningReward(
    state.mean + change * (added / jnp.maximum(count, 1.0)), count
  )


def _signed(log_ratio, desirable, origin, valid, beta, unit):
  """Reward above the origin, counted downwards for undesirable responses."""
  require_batch(valid, {"log_ratio": log_ratio, "desirable": desirable})
  require_positive("beta", beta)
  if desirable.dtype != jnp.bool_:
    raise ValueError(
      f"desirable must be boolean, got {desirable.dtype}: labels of 0 and 1,"
      " or -1 and 1, say which they mean by == 1"
    )
  # Where nothing counts, the origin was measured on nothing either.
  origin = jnp.where(valid, jax.lax.stop_gradient(origin), 0.0)
  z = beta * keep(log_ratio, valid) - unit * origin
  return jnp.where(desirable, z, -z)
