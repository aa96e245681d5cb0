r"""The log-ratio core that every preference loss is made of.

A response has a log-ratio to its reference, h = log pi(y|x) - log ref(y|x);
without a reference its log-prob takes that place. A link may bend it, a
length may divide it, and a loss of the margin between the chosen and the
rejected one (`preference_logistic`, `preference_margin`), of both responses
on their own (`preference_absolute`) or of one labelled response
(`preference_unpaired`) does the rest. Papers are compositions; with
h = `log_ratio(...)`, a = `per_token(log_prob, ...)`, w chosen, l rejected:

    DPO, cDPO           logistic(h_w, h_l), smoothing 0 or more
    R-DPO               logistic(h_w, h_l), offset = alpha (len_w - len_l)
    f-DPO               logistic of `power_link(h)`, `jensen_shannon_link(h)`
    TDPO, TDPO2         logistic of `sequential_kl_log_ratio`
    LD-DPO              logistic, on `length_desensitised_log_prob`
    AOT                 logistic, one side `matched_by_rank`
    length-normalised   any of them on `per_token(h)`
    WPO                 any of them times `on_policy_weight`
    IPO                 squared(h_w, h_l), of sums or `per_token`
    SLiC-HF             hinge(log_prob_w, log_prob_l) - lambda log_prob_w
    CPO                 logistic, hinge (log_prob) or squared (a), no
                        reference, - alpha log_prob_w
    SimPO               logistic(a_w, a_l), offset = -gamma
    AlphaPO             logistic of `power_link(a, power=-alpha)`
    ORPO                -a_w + beta logistic(log_odds(a_w), log_odds(a_l))
    GPO                 logistic, exponential, hinge (degree 1 and 2),
                        squared, sigmoid (degree 2)
    BCO-pair            bco(h_w, true) + bco(h_l, false)

Losses with different masks (pairs, tokens) are added as weighted means of
their Totals, each with its own denominator.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rl_jax.masks import keep, widened

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float, Int

__all__ = [
  "ImplicitReward",
  "implicit_reward",
  "jensen_shannon_link",
  "log_odds",
  "log_ratio",
  "matched_by_rank",
  "per_token",
  "power_link",
]


class ImplicitReward(NamedTuple):
  """What is worth watching about a batch of pairs; carries no gradient.

  Attributes:
    chosen: beta h_w per pair, zero where the pair does not count.
    rejected: beta h_l.
    margin: beta (h_w - h_l).
    correct: true where the margin is positive; a tie is not correct.
  """

  chosen: Float[Array, "*batch"]
  rejected: Float[Array, "*batch"]
  margin: Float[Array, "*batch"]
  correct: Bool[Array, "*batch"]


def implicit_reward(
  chosen: Float[Array, "*batch"],
  rejected: Float[Array, "*batch"],
  valid: Bool[Array, "*batch"],
  *,
  beta: float,
) -> ImplicitReward:
  """The rewards that a preference loss believes in, to report.

      r_w = beta h_w,   r_l = beta h_l,   margin = r_w - r_l

  Args:
    chosen: h_w, nats: log-ratio or log-prob of the preferred response.
    rejected: h_l of the other one.
    valid: true = the pair counts.
    beta: reward per nat; positive.

  Returns:
    Rewards, margin and whether the preferred response has the larger one.

  Raises:
    ValueError: if `beta` is not positive and finite, or shapes disagree.

  Rafailov et al. 2023, arXiv:2305.18290, eq. 5.

  >>> reward = implicit_reward(
  ...   jnp.array([1.0]), jnp.array([-0.5]), jnp.array([True]), beta=0.5
  ... )
  >>> reward.margin.item(), reward.correct.item()
  (0.75, True)
  """
  require_batch(valid, {"chosen": chosen, "rejected": rejected})
  require_positive("beta", beta)
  r_w = beta * jax.lax.stop_gradient(keep(chosen, valid))
  r_l = beta * jax.lax.stop_gradient(keep(rejected, valid))
  return ImplicitReward(r_w, r_l, r_w - r_l, r_w > r_l)


def log_ratio(
  log_prob: Float[Array, "*batch"],
  reference_log_prob: Float[Array, "*batch"],
  valid: Bool[Array, "*batch"],
) -> Float[Array, "*batch"]:
  """How much likelier a response is than under the reference, in nats.

      h = log pi(y|x) - log ref(y|x)

  Args:
    log_prob: log pi(y|x), summed over the tokens of the response.
    reference_log_prob: log ref(y|x). No gradient flows through it.
    valid: true = the response counts; elsewhere anything may stand.

  Returns:
    h, zero with zero gradient where `valid` is false.

  Raises:
    ValueError: if shapes disagree.

  >>> log_ratio(
  ...   jnp.array([-12.0]), jnp.array([-13.0]), jnp.array([True])
  ... ).tolist()
  [1.0]
  """
  arrays = {"log_prob": log_prob, "reference_log_prob": reference_log_prob}
  require_batch(valid, arrays)
  reference = jax.lax.stop_gradient(keep(reference_log_prob, valid))
  return keep(log_prob, valid) - reference


def per_token(
  value: Float[Array, "*batch"],
  length: Int[Array, "*batch"],
  valid: Bool[Array, "*batch"],
) -> Float[Array, "*batch"]:
  """A response's log-prob or log-ratio divided by its length.

      a = value / length

  Args:
    value: a sum over the tokens of the response, nats.
    length: how many tokens were summed; at least 1 where `valid`.
    valid: true = the response counts.

  Returns:
    Nats per token, zero where `valid` is false.

  Raises:
    ValueError: if a counted length is below 1 (outside jit; inside, the
      result is infinite or NaN), or shapes disagree.

  >>> per_token(jnp.array([-12.0]), jnp.array([8]), jnp.array([True])).tolist()
  [-1.5]
  """
  require_batch(valid, {"value": value, "length": length})
  require_values("length", length, valid, length >= 1, "be at least 1 token")
  value = keep(value, valid)
  return value / jnp.where(valid, length, 1).astype(value.dtype)


def power_link(
  log_ratio: Float[Array, "*batch"],
  valid: Bool[Array, "*batch"],
  *,
  power: float,
) -> Float[Array, "*batch"]:
  r"""Reward of a response under another divergence than the reverse KL.

      g(h) = (exp(p h) - 1) / p,      g(h) = h for p = 0

      p = 0        reverse KL, the one of DPO
      p = -1       forward KL:  1 - exp(-h)
      p = a - 1    the alpha family of f-DPO, exp((a-1) h) / (a-1)
      p = -alpha   AlphaPO, on length-averaged log-probs

  The constant differs from f-DPO's, so that the reference itself has reward 0
  and p -> 0 is the limit; in a margin it cancels. Nothing is clipped: where
  p h > 88, float32 overflows.

  Args:
    log_ratio: h, nats.
    valid: true = the response counts.
    power: p, any real number.

  Returns:
    g(h), with slope exp(p h); zero where `valid` is false.

  Raises:
    ValueError: if `power` is not finite, or shapes disagree.

  Wang et al. 2023, arXiv:2309.16240, table 1; Gupta et al. 2025,
  arXiv:2501.03884 (AlphaPO).

  >>> h = jnp.log(jnp.array([2.0, 0.5]))
  >>> power_link(h, jnp.ones(2, bool), power=-1.0).round(5).tolist()
  [0.5, -1.0]
  """
  require_batch(valid, {"log_ratio": log_ratio})
  if not math.isfinite(power):
    raise ValueError(f"power must be finite, got {power}")
  h = keep(log_ratio, valid)
  return h if power == 0 else jnp.expm1(power * h) / power


def jensen_shannon_link(
  log_ratio: Float[Array, "*batch"], valid: Bool[Array, "*batch"]
) -> Float[Array, "*batch"]:
  r"""Reward of a response under the Jensen-Shannon divergence; bounded above.

      g(h) = log 2 + log sigmoid(h)

  The log 2, which cancels in a margin, gives the reference reward 0.

  Args:
    log_ratio: h, nats.
    valid: true = the response counts.

  Returns:
    g(h) <= log 2, with slope sigmoid(-h); zero where `valid` is false.

  Raises:
    ValueError: if shapes disagree.

  Wang et al. 2023, arXiv:2309.16240, table 1.

  >>> jensen_shannon_link(jnp.zeros(1), jnp.ones(1, bool)).tolist()
  [0.0]
  """
  require_batch(valid, {"log_ratio": log_ratio})
  g = math.log(2.0) + jax.nn.log_sigmoid(keep(log_ratio, valid))
  return keep(g, valid)


def log_odds(
  mean_log_prob: Float[Array, "*batch"], valid: Bool[Array, "*batch"]
) -> Float[Array, "*batch"]:
  """Log-odds of a response at its average probability per token.

      g(a) = log(p / (1 - p)) = a - log(1 - exp(a)),   p = exp(a)

  Args:
    mean_log_prob: a, nats per token; below 0.
    valid: true = the response counts.

  Returns:
    g(a), zero where `valid` is false.

  Raises:
    ValueError: if a counted `mean_log_prob` is not below 0 (outside jit;
      inside, the result is infinite or NaN), or shapes disagree.

  Hong et al. 2024, arXiv:2403.07691 (ORPO), eq. 4.

  >>> log_prob = jnp.log(jnp.array([0.75]))
  >>> odds = jnp.exp(log_odds(log_prob, jnp.array([True])))
  >>> odds.round(4).tolist()
  [3.0]
  """
  require_batch(valid, {"mean_log_prob": mean_log_prob})
  require_values(
    "mean_log_prob",
    mean_log_prob,
    valid,
    mean_log_prob < 0,
    "be below 0 (odds need a probability below 1)",
  )
  # One half is a probability whose odds are 1: masked rows come out as zero.
  a = jnp.where(valid, widened(mean_log_prob), -math.log(2.0))
  return keep(a - jnp.log(-jnp.expm1(a)), valid)


def matched_by_rank(
  value: Float[Array, "full"],
  other: Float[Array, "full"],
  valid: Bool[Array, "full"],
) -> Float[Array, "full"]:
  r"""The other side's element of the same rank: optimal transport on a line.

      m_i = other_(k),   k = rank of value_i among the counted values

  Alignment by optimal transport compares quantiles instead of pairs:

      paired     logistic(u, matched_by_rank(u, v))   with u the policy's and
                 v the reference's log_prob_w - log_prob_l
      unpaired   logistic(h_w, matched_by_rank(h_w, h_l))

  Ranks are a property of the full batch (axis `full`). For the paired form
  compute m before rows are split into micro-batches, as a constant: only u
  carries a gradient, and every split then gives that of the whole batch. In
  the unpaired form both sides carry one: order the rows of each side by their
  log-ratio before the split, and pair them as they then stand.

  Args:
    value: what to rank, any unit. No gradient flows through it.
    other: where the element of equal rank is taken from. The gradient flows
      through it. Ties keep the order of rows.
    valid: true = row i of both sides counts.

  Returns:
    m, in the order of `value`; zero where `valid` is false.

  Raises:
    ValueError: if shapes disagree.

  Melnyk et al. 2024, arXiv:2406.05882 (AOT); TRL returns the
  same losses in sorted order.

  >>> matched_by_rank(
  ...   jnp.array([3.0, 1.0, 2.0]),
  ...   jnp.array([8.0, 4.0, 6.0]),
  ...   jnp.ones(3, bool),
  ... ).tolist()
  [8.0, 4.0, 6.0]
  """
  require_batch(valid, {"value": value, "other": other})
  value, other = jax.lax.stop_gradient(keep(value, valid)), keep(other, valid)
  # The last key is the first criterion: what does not count is ranked last.
  by_value = jnp.lexsort((value, ~valid))
  by_other = jnp.lexsort((other, ~valid))
  partner = jnp.zeros_like(by_value).at[by_value].set(by_other)
  return other[partner]


def scaled_margin(
  chosen: Float[Array, "*batch"],
  rejected: Float[Array, "*batch"],
  valid: Bool[Array, "*batch"],
  beta: float,
) -> Float[Array, "*batch"]:
  """The margin beta (chosen - rejected), zero where not valid."""
  require_batch(valid, {"chosen": chosen, "rejected": rejected})
  require_positive("beta", beta)
  return beta * (keep(chosen, valid) - keep(rejected, valid))


def require_batch(
  valid: Bool[Array, "..."], arrays: dict[str, Float[Array, "..."]]
) -> None:
  """Refuse what would broadcast or count by accident."""
  if valid.dtype != jnp.bool_:
    raise ValueError(f"valid must be boolean, got {valid.dtype}")
  for name, value in arrays.items():
    if value.shape != valid.shape:
      raise ValueError(
        f"{name} and valid must have one shape, got {value.shape} and"
        f" {valid.shape}"
      )


def require_positive(name: str, value: float) -> None:
  """Refuse a scale that is not one."""
  if not 0 < value < math.inf:
    raise ValueError(f"{name} must be positive and finite, got {value}")


def require_values(
  name: str,
  value: Float[Array, "..."] | Int[Array, "..."],
  valid: Bool[Array, "..."],
  good: Bool[Array, "..."],
  rule: str,
) -> None:
  """Refuse counted values that break a rule; inside jit nothing is seen."""
  if any(isinstance(x, jax.core.Tracer) for x in (value, valid, good)):
    return
  bad = np.asarray(valid) & ~np.asarray(good)
  if bad.any():
    found = np.asarray(value)[bad]
    raise ValueError(
      f"{name} must {rule}, got {found[:4].tolist()} among the {found.size} of"
      f" {np.asarray(valid).sum()} counted rows that are not"
    )
