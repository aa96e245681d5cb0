"""CANON: responses compared across, and within, halves of their group.

A metric of a response, such as its length or its mean token entropy, splits
the responses to one prompt into two halves. Comparing a response with the
other half amplifies the metric as far as it tells good responses from bad;
comparing it with its own half damps it. Neither says beforehand that more of
the metric is better.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import jax
import jax.numpy as jnp

from rl_jax.advantages.groups import group_mean, group_size
from rl_jax.masks import keep, masked_mean, widened

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float, Int

__all__ = [
  "canon_advantage",
  "conditional_halves",
  "mu_schedule",
  "response_entropy",
  "response_length",
  "restarting_cosine",
]


def response_entropy(
  entropy: Float[Array, "row time"],
  mask: Bool[Array, "row time"],
  valid: Bool[Array, "row"],
) -> Float[Array, "row"]:
  """Mean token entropy of each response, a metric of CANON.

      c_i = sum_t m_it H_it / sum_t m_it

  Args:
    entropy: H_it of the policy that wrote the response, over the whole
      vocabulary and at the temperature it was drawn with, nats.
    mask: true = a token of the response.
    valid: false for rows that do not count.

  Returns:
    c_i in nats, 0 for invalid rows; NaN for a valid row without a token,
    which `canon_advantage` hands on to its group and the doctor refuses. No
    gradient flows.

  arXiv:2509.23962 (CANON); the released code adds 1e-8 to the count.

  >>> entropy = jnp.array([[0.5, 1.0, jnp.nan]])
  >>> mask = jnp.array([[True, True, False]])
  >>> response_entropy(entropy, mask, jnp.ones(1, bool)).tolist()
  [0.75]
  """
  mean = masked_mean(jax.lax.stop_gradient(entropy), mask)
  return _known(mean, mask, valid)


def response_length(
  mask: Bool[Array, "row time"], valid: Bool[Array, "row"]
) -> Float[Array, "row"]:
  """Tokens of each response, a metric of CANON.

      c_i = sum_t m_it

  Args:
    mask: true = a token of the response.
    valid: false for rows that do not count.

  Returns:
    c_i in tokens, 0 for invalid rows; NaN for a valid row without a token, as
    in `response_entropy`.

  >>> mask = jnp.array([[True, True, False], [True, False, False]])
  >>> response_length(mask, jnp.ones(2, bool)).tolist()
  [2.0, 1.0]
  """
  return _known(jnp.sum(mask, axis=-1).astype(jnp.float32), mask, valid)


def conditional_halves(
  metric: Float[Array, "row"],
  group: Int[Array, "row"],
  valid: Bool[Array, "row"],
  *,
  num_groups: int,
) -> Bool[Array, "row"]:
  """Which rows are in the half of their group with the larger metric.

      high_i = valid_i and rank_i >= floor(n_g(i) / 2)

      rank_i = #{j in g(i): c_j < c_i, or c_j = c_i and j < i}, from 0

  Of an odd number of rows the larger half is the high one. Rows with the same
  metric keep their order, so a metric that is the same for all splits a group
  by position alone: the control that the paper calls random.

  Args:
    metric: c_i, any unit; any increasing function of it gives the same halves.
    group: which prompt each row answers, in [0, num_groups). Rows of a group
      need not be adjacent.
    valid: false for rows that do not count: they are in neither half.
    num_groups: how many ids there are; static.

  Returns:
    True for the high half; the low one is the other valid rows. A row alone in
    its group is high. A metric that is NaN ranks last.

  Raises:
    ValueError: if `num_groups` < 1.

  arXiv:2509.23962 (CANON), and its code for ties.

  >>> conditional_halves(
  ...   jnp.array([5.0, 1.0, 3.0, 2.0]),
  ...   jnp.array([0, 1, 0, 1]),
  ...   jnp.ones(4, bool),
  ...   num_groups=2,
  ... ).tolist()
  [True, False, False, True]
  """
  size = group_size(group, valid, num_groups=num_groups)
  metric = keep(jax.lax.stop_gradient(metric), valid)
  # Rows that do not count are a last group of their own.
  owner = jnp.where(valid, group, num_groups)
  order = jnp.lexsort((metric, owner))
  ordered = owner[order]
  first = jnp.searchsorted(ordered, ordered, side="left")
  place = jnp.arange(owner.size) - first
  rank = jnp.zeros_like(place).at[order].set(place)
  return valid & (rank >= size // 2)


def canon_advantage(
  reward: Float[Array, "row"],
  metric: Float[Array, "row"],
  group: Int[Array, "row"],
  valid: Bool[Array, "row"],
  *,
  num_groups: int,
  mu: float | Float[Array, ""],
  alpha_side: Literal["high", "low"],
  alpha: float = 1.0,
  beta: float = 0.0,
  divisor: float = 1.0,
) -> Float[Array, "row"]:
  r"""Reward compared with the other half of its group, and with its own.

      A_i = (mu A_inter_i + (1 - mu) A_intra_i) / divisor

      A_intra_i = r_i - m_own
      A_inter_i = a_own r_i - a_other m_other + beta    (- beta in the low half)

  m are means of r over the halves of `conditional_halves`; a is `alpha` for
  the half on `alpha_side` and 1 for the other. With halves of equal size, mu =
  1/2 and alpha = 1 it is r_i less the mean of the group (Dr. GRPO), exactly;
  where n is odd the halves differ and so does the result.

  Args:
    reward: r_i, any unit. No gradient flows through it.
    metric: c_i, which splits a group; `response_length`, `response_entropy` or
      anything else.
    group: which prompt each row answers, in [0, num_groups).
    valid: false for rows that do not count: they get 0.
    num_groups: how many ids there are; static.
    mu: weight of the comparison with the other half, in [0, 1]; 1 is
      CANON-Inter, 0 CANON-Intra. An array, as of `mu_schedule`, outside of
      that makes every advantage NaN.
    alpha_side: the half whose rewards are multiplied by alpha: "high" to
      disfavour long responses by length, "low" to disfavour those of low
      entropy. The released functions of the two metrics differ in this.
    alpha: at most 1 to disfavour; 0.88 to 0.96 in CANON-Eff.
    beta: what the high half gains and the low one loses, units of reward.
    divisor: tokens that the loss would otherwise divide by; leave it at 1 with
      `reduce.over_constant`.

  Returns:
    A_i in units of reward. A row alone in its group has 0; a group with a
    valid row whose metric is NaN has NaN, so that it is not dropped unseen.

  Raises:
    ValueError: if a number `mu` is outside of [0, 1], `alpha` is negative, the
      side is unknown, `divisor` is not positive, or `num_groups` < 1.

  arXiv:2509.23962 (CANON and CANON-Eff), and its code.

  >>> canon_advantage(
  ...   jnp.array([1.0, 1.0, 1.0, 0.0]),
  ...   jnp.array([7.0, 6.0, 5.0, 4.0]),
  ...   jnp.zeros(4, jnp.int32),
  ...   jnp.ones(4, bool),
  ...   num_groups=1,
  ...   mu=1.0,
  ...   alpha_side="high",
  ... ).tolist()
  [0.5, 0.5, 0.0, -1.0]
  """
  _check_canon(mu, alpha_side, alpha, divisor)
  reward = jax.lax.stop_gradient(keep(reward, valid))
  high = conditional_halves(metric, group, valid, num_groups=num_groups)
  low = valid & ~high

  def mean(rows: jax.Array) -> jax.Array:
    return group_mean(reward, group, rows, num_groups=num_groups)

  high_mean, low_mean = mean(high), mean(low)
  up, down = (alpha, 1.0) if alpha_side == "high" else (1.0, alpha)
  inter = jnp.where(
    high,
    up * reward - down * low_mean + beta,
    down * reward - up * high_mean - beta,
  )
  intra = reward - jnp.where(high, high_mean, low_mean)
  mu = jax.lax.stop_gradient(widened(jnp.asarray(mu, jnp.float32)))
  mu = jnp.where((mu >= 0) & (mu <= 1), mu, jnp.nan)
  # Of a metric that is not known, the whole ranking is not.
  unknown = jnp.isnan(keep(metric, valid)).astype(jnp.float32)
  unknown = group_mean(unknown, group, valid, num_groups=num_groups) > 0
  mixed = (mu * inter + (1.0 - mu) * intra) / divisor
  mixed = jnp.where(unknown, jnp.nan, mixed)
  compared = group_size(group, valid, num_groups=num_groups) > 1
  return keep(mixed, valid & compared)


def restarting_cosine(
  step: Int[Array, ""],
  *,
  high: float,
  low: float,
  warm_up: int,
  total: int,
  cycles: int,
) -> Float[Array, ""]:
  r"""A cosine that falls from high to low, again and again, after a rise.

      s_k = high (k + 1) / warm_up                              k < warm_up
      s_k = low + (high - low) (1 + cos(pi j / L)) / 2          else

      L = floor((total - warm_up) / cycles),   j = (k - warm_up) mod L

  Args:
    step: k, from 0. After `total` it goes on.
    high: where it starts.
    low: what it falls to.
    warm_up: steps of the rise from high / warm_up.
    total: steps of the rise and of all cycles.
    cycles: how many falls.

  Returns:
    s_k.

  Raises:
    ValueError: if `warm_up` is negative, or there is not a step for each
      cycle.

  Code of arXiv:2509.23962 (CANON-Dynamic).

  >>> restarting_cosine(
  ...   jnp.array(0), high=1.0, low=0.0, warm_up=2, total=10, cycles=2
  ... ).item()
  0.5
  """
  if warm_up < 0 or cycles < 1 or total - warm_up < cycles:
    raise ValueError(
      "needs warm_up >= 0 and a step for each of at least one cycle, got"
      f" warm_up {warm_up}, total {total}, cycles {cycles}"
    )
  length = (total - warm_up) // cycles
  phase = ((step - warm_up) % length).astype(jnp.float32) / length
  fall = low + (high - low) / 2 * (1.0 + jnp.cos(jnp.pi * phase))
  rise = high * (step + 1).astype(jnp.float32) / max(warm_up, 1)
  return jnp.where(step < warm_up, rise, fall)


def mu_schedule(
  step: Int[Array, ""],
  mean_reward: Float[Array, ""],
  *,
  kind: Literal[
    "cosine_first_intra",
    "cosine_first_inter",
    "accuracy_first_intra",
    "accuracy_first_inter",
  ],
  warm_up: int,
  total: int,
  cycles: int,
) -> Float[Array, ""]:
  r"""The weight mu of the comparison with the other half, by the time.

      cosine_first_intra:    mu = 1 - s_k(high 0.6, low 0)
      cosine_first_inter:    mu = s_k(high 1, low 0.4)
      accuracy_first_intra:  mu = mean reward
      accuracy_first_inter:  mu = 1 - mean reward

  s is `restarting_cosine`.

  Args:
    step: k, from 0; not read by the schedules of accuracy.
    mean_reward: of the whole batch, for rewards of 0 and 1; not read by the
      cosines.
    kind: which.
    warm_up: of the cosine; 30 in the paper.
    total: of the cosine; 150.
    cycles: of the cosine; 3.

  Returns:
    mu; NaN where a mean reward that is asked for is outside of [0, 1], where
    it is no accuracy.

  Raises:
    ValueError: for an unknown kind, or as `restarting_cosine`.

  Code of arXiv:2509.23962 (CANON-Dynamic).

  >>> mu_schedule(
  ...   jnp.array(0),
  ...   jnp.array(0.25),
  ...   kind="accuracy_first_inter",
  ...   warm_up=30,
  ...   total=150,
  ...   cycles=3,
  ... ).item()
  0.75
  """
  if kind in ("cosine_first_intra", "cosine_first_inter"):
    intra = kind == "cosine_first_intra"
    value = restarting_cosine(
      step,
      high=0.6 if intra else 1.0,
      low=0.0 if intra else 0.4,
      warm_up=warm_up,
      total=total,
      cycles=cycles,
    )
    return 1.0 - value if intra else value
  if kind not in ("accuracy_first_intra", "accuracy_first_inter"):
    raise ValueError(
      "kind must be 'cosine_first_intra', 'cosine_first_inter',"
      f" 'accuracy_first_intra' or 'accuracy_first_inter', got {kind!r}"
    )
  accuracy = jax.lax.stop_gradient(widened(mean_reward))
  possible = (accuracy >= 0) & (accuracy <= 1)
  accuracy = jnp.where(possible, accuracy, jnp.nan)
  return accuracy if kind == "accuracy_first_intra" else 1.0 - accuracy


def _known(metric, mask, valid):
  """The metric of valid rows, NaN where they have no token to measure."""
  metric = jnp.where(jnp.any(mask, axis=-1), metric, jnp.nan)
  return keep(metric, valid)


def _check_canon(mu, alpha_side, alpha, divisor):
  if isinstance(mu, int | float) and not 0 <= mu <= 1:
    raise ValueError(f"mu must be in [0, 1], got {mu}")
  if alpha_side not in ("high", "low"):
    raise ValueError(f"alpha_side must be 'high' or 'low', got {alpha_side!r}")
  if not alpha >= 0:
    raise ValueError(f"alpha must not be negative, got {alpha}")
  if not divisor > 0:
    raise ValueError(f"divisor must be positive, got {divisor}")
