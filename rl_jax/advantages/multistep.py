r"""Returns and advantages along time, all of them one recursion.

A column is one of three things: counted (`mask`), skipped (not counted and
in the middle of a record, such as what a tool said), or padding. No time
passes in a column that is not counted: the recursion goes through it
unchanged, and the column itself gets 0. Where the mask of a record is
contiguous this is the plain recursion.

How a record ends is said by two arguments. `terminated`: nothing follows, the
future is worth zero. `last`: the next column belongs to something else (a
time limit, the end of the buffer, another record packed in the row); the
future is worth `next_value`, and nothing is carried over. A terminated column
is last, and `last` holds on columns that are not counted too.

No gradient flows through anything here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp

from rl_jax.advantages.recursion import (
  carried_back,
  following,
  swept_back,
)
from rl_jax.masks import keep, widened

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float

__all__ = [
  "VTrace",
  "discounted_returns",
  "generalized_advantage",
  "lambda_returns",
  "length_adaptive_trace",
  "vtrace",
]


class VTrace(NamedTuple):
  """What V-trace gives the critic and the actor.

  Attributes:
    target: v_t, what the value should be, in units of reward.
    advantage: A_t, to weight the gradient of log pi(a_t) with; it already
      holds the importance weight.
  """

  target: Float[Array, "*batch time"]
  advantage: Float[Array, "*batch time"]


def discounted_returns(
  reward: Float[Array, "*batch time"],
  mask: Bool[Array, "*batch time"],
  *,
  last: Bool[Array, "*batch time"],
  discount: float,
) -> Float[Array, "*batch time"]:
  """What a record still earns, discounted: the Monte-Carlo return.

      G_t = r_t + discount (1 - last_t) G_{t+1}

  What lies beyond the end of a record counts nothing, however it ended. To
  continue a record that was cut with a value, use `lambda_returns` with a
  trace of 1.

  Args:
    reward: r_t, any unit.
    mask: true = counts; other columns are skipped without discount.
    last: the record ends in this column.
    discount: in [0, 1]; 1 for language.

  Returns:
    G_t in units of reward, 0 where `mask` is false.

  Raises:
    ValueError: if `discount` is not in [0, 1].

  Sutton and Barto 2018, equation 3.9.

  >>> reward, kept = jnp.array([1.0, 2.0, 4.0]), jnp.ones(3, bool)
  >>> last = jnp.array([False, False, True])
  >>> discounted_returns(reward, kept, last=last, discount=0.5).tolist()
  [3.0, 4.0, 4.0]
  """
  _check_fraction("discount", discount)
  reward = keep(reward, mask)
  decay = jnp.full_like(reward, discount)
  return _of_counted(carried_back(reward, decay, mask, last=last), mask)


def generalized_advantage(
  reward: Float[Array, "*batch time"],
  value: Float[Array, "*batch time"],
  next_value: Float[Array, "*batch time"],
  mask: Bool[Array, "*batch time"],
  *,
  terminated: Bool[Array, "*batch time"],
  last: Bool[Array, "*batch time"],
  discount: float,
  trace: float | Float[Array, "*batch"],
) -> Float[Array, "*batch time"]:
  r"""Generalized advantage: exponentially weighted one-step errors.

      d_t = r_t + discount (1 - terminated_t) v'_t - v_t
      A_t = d_t + discount trace (1 - last_t) A_{t+1}

  trace 0 leaves the one-step error, trace 1 the return minus the value. Not
  whitened; see `whiten`. The other treatment of columns in the middle that do
  not count, where time passes in them with reward and value zero, is this
  function with `keep(reward, mask)`, `keep(value, mask)`, the plain shift of
  that as `next_value` and an all-true mask.

  Args:
    reward: r_t, any unit.
    value: v_t, in units of reward.
    next_value: v'_t, what the critic expects after column t; see
      `next_values`. Ignored, NaN included, where terminated.
    mask: true = counts; other columns are skipped without discount.
    terminated: nothing follows this column.
    last: the record ends in this column.
    discount: in [0, 1]; 1 for language.
    trace: lambda in [0, 1]; a number, or one per row.

  Returns:
    A_t in units of reward, 0 where `mask` is false. Add `value` for the
    critic's target.

  Raises:
    ValueError: if `discount`, or a `trace` that is a number, is not in [0, 1].

  Schulman et al. 2016, arXiv:1506.02438, eq. 16; Pardo et al. 2018,
  arXiv:1712.00378, for the difference between the two endings. Skipped
  columns as in verl; TRL, OpenRLHF and EasyLM let time pass.

  >>> reward, half = jnp.array([1.0, 2.0, 3.0]), jnp.full(3, 0.5)
  >>> after, end = jnp.array([0.5, 0.5, 9.0]), jnp.array([False, False, True])
  >>> generalized_advantage(
  ...   reward,
  ...   half,
  ...   after,
  ...   jnp.ones(3, bool),
  ...   terminated=end,
  ...   last=end,
  ...   discount=0.5,
  ...   trace=1.0,
  ... ).tolist()
  [2.25, 3.0, 2.5]
  """
  after = keep(next_value, mask & ~terminated)
  error = keep(reward, mask) + discount * after - keep(value, mask)
  decay = _decay(discount, trace, error)
  ends = last | terminated
  return _of_counted(carried_back(error, decay, mask, last=ends), mask)


def lambda_returns(
  reward: Float[Array, "*batch time"],
  next_value: Float[Array, "*batch time"],
  mask: Bool[Array, "*batch time"],
  *,
  terminated: Bool[Array, "*batch time"],
  last: Bool[Array, "*batch time"],
  discount: float,
  trace: float | Float[Array, "*batch"],
) -> Float[Array, "*batch time"]:
  """A mixture of the returns that trust the critic after 1, 2, ... columns.

      G_t = r_t + discount (1 - terminated_t) b_t
      b_t = (1 - trace) v'_t + trace G_{t+1},   v'_t in a last column

  trace 0 is the one-step target, trace 1 the return with the critic only
  where a record was cut. With v'_t = v_{t+1} it is `generalized_advantage`
  plus the value.

  Args:
    reward: r_t, any unit.
    next_value: v'_t, what the critic expects after column t; see
      `next_values`. Ignored, NaN included, where terminated.
    mask: true = counts; other columns are skipped without discount.
    terminated: nothing follows this column.
    last: the record ends in this column.
    discount: in [0, 1].
    trace: lambda in [0, 1]; a number, or one per row.

  Returns:
    G_t in units of reward, 0 where `mask` is false.

  Raises:
    ValueError: if `discount`, or a `trace` that is a number, is not in [0, 1].

  Sutton and Barto 2018, equation 12.3 in recursive form.

  >>> reward, cut = jnp.array([1.0, 2.0]), jnp.array([False, True])
  >>> lambda_returns(
  ...   reward,
  ...   jnp.array([4.0, 8.0]),
  ...   jnp.ones(2, bool),
  ...   terminated=jnp.zeros(2, bool),
  ...   last=cut,
  ...   discount=0.5,
  ...   trace=0.5,
  ... ).tolist()
  [3.5, 6.0]
  """
  after = keep(next_value, mask & ~terminated)
  _check_fraction("discount", discount)
  if isinstance(trace, int | float):
    _check_fraction("trace", trace)
  batch = after.shape[:-1]
  share = jnp.broadcast_to(widened(jnp.asarray(trace)), batch)
  start = (
    jnp.asarray(discount, after.dtype),
    share,
    jnp.zeros(batch, after.dtype),
    jnp.zeros(batch, bool),
  )
  columns = keep(reward, mask), after, mask, last | terminated
  return _of_counted(swept_back(_mixed, start, columns), mask)


# Whether a counted column follows is carried too: a record may end in a column
# that does not count, and then the mixture stops at the one before it.
def _mixed(carried, column):
  discount, trace, later, follows = carried
  reward, after, counts, ends = column
  follows &= ~ends
  later = jnp.where(ends, 0.0, later)
  critic = jnp.where(follows, 1.0 - trace, 1.0)
  own = reward + discount * (critic * after + trace * later)
  later = jnp.where(counts, own, later)
  return (discount, trace, later, counts | follows), later


def vtrace(
  reward: Float[Array, "*batch time"],
  value: Float[Array, "*batch time"],
  next_value: Float[Array, "*batch time"],
  ratio: Float[Array, "*batch time"],
  mask: Bool[Array, "*batch time"],
  *,
  terminated: Bool[Array, "*batch time"],
  last: Bool[Array, "*batch time"],
  discount: float,
  trace: float | Float[Array, "*batch"],
  max_ratio: float,
  max_trace: float,
) -> VTrace:
  r"""Values and advantages of a policy, from records of another one.

      w_t = min(max_ratio, ratio_t),   c_t = trace min(max_trace, ratio_t)
      d_t = w_t (r_t + discount (1 - terminated_t) v'_t - v_t)
      e_t = d_t + discount c_t (1 - last_t) e_{t+1},   target_t = v_t + e_t
      A_t = w_t (d'_t + discount trace (1 - last_t) e_{t+1})

  d' is d without its weight. Where every ratio is 1 the target is that of
  `lambda_returns` and A is `generalized_advantage`. A finite max_ratio makes
  the target the value of a policy between the two.

  Args:
    reward: r_t, any unit.
    value: v_t, in units of reward.
    next_value: v'_t, what the critic expects after column t; see
      `next_values`. Ignored, NaN included, where terminated.
    ratio: pi(a_t) / behaviour(a_t), unclipped.
    mask: true = counts; other columns are skipped without discount.
    terminated: nothing follows this column.
    last: the record ends in this column.
    discount: in [0, 1].
    trace: lambda in [0, 1]; a number, or one per row. 1 in the paper.
    max_ratio: rho bar, the cap of the weights; positive, infinity for none.
    max_trace: c bar, the cap of the traces; at most `max_ratio`.

  Returns:
    The critic's target v_t + e_t and the actor's advantage A_t, both 0 where
    `mask` is false.

  Raises:
    ValueError: if `discount`, or a `trace` that is a number, is not in [0, 1],
      or unless 0 < max_trace <= max_ratio.

  Espeholt et al. 2018, arXiv:1802.01561, section 4.1 and remark 2 for trace;
  the advantage with trace below 1 as rlax has it.

  >>> one, end = jnp.ones(1), jnp.array([True])
  >>> found = vtrace(
  ...   one,
  ...   one / 2,
  ...   one,
  ...   4 * one,
  ...   end,
  ...   terminated=end,
  ...   last=end,
  ...   discount=1.0,
  ...   trace=1.0,
  ...   max_ratio=2.0,
  ...   max_trace=1.0,
  ... )
  >>> found.target.tolist(), found.advantage.tolist()
  ([1.5], [1.0])
  """
  if not 0 < max_trace <= max_ratio:
    raise ValueError(
      f"need 0 < max_trace <= max_ratio, got {max_trace} and {max_ratio}"
    )
  after = keep(next_value, mask & ~terminated)
  reward, value, ratio = (keep(x, mask) for x in (reward, value, ratio))
  ends = last | terminated
  weight = jnp.minimum(max_ratio, ratio)
  error = weight * (reward + discount * after - value)
  decay = _decay(discount, trace, error) * jnp.minimum(max_trace, ratio)
  excess = carried_back(error, decay, mask, last=ends)
  later = _traces(trace, error) * following(excess, last=ends)
  advantage = weight * (reward + discount * (after + later) - value)
  return VTrace(_of_counted(value + excess, mask), _of_counted(advantage, mask))


def length_adaptive_trace(
  mask: Bool[Array, "*batch time"], *, alpha: float
) -> Float[Array, "*batch"]:
  """A trace whose horizon grows with the length of the row.

      trace_i = max(0, 1 - 1 / (alpha l_i)),   l_i = sum_t mask_it

  The weights of the mixture, sum_k trace^k, then add up to alpha l. No trace
  has a sum below one, so rows of at most 1 / alpha tokens get 0, where the
  formula of the paper would turn negative.

  Args:
    mask: true = counts.
    alpha: horizon in units of the length; 0.05 in VAPO.

  Returns:
    lambda for `generalized_advantage`, one per row.

  Raises:
    ValueError: if `alpha` is not positive.

  Yue et al. 2025, arXiv:2504.05118 (VAPO), equation for lambda_policy.

  >>> length_adaptive_trace(jnp.ones((1, 8), bool), alpha=0.25).tolist()
  [0.5]
  """
  if not alpha > 0:
    raise ValueError(f"alpha must be positive, got {alpha}")
  length = jnp.sum(mask, axis=-1, dtype=jnp.float32)
  horizon = jnp.maximum(alpha * length, 1.0)
  return 1.0 - 1.0 / horizon


def _of_counted(carried, mask):
  return jax.lax.stop_gradient(keep(carried, mask))


def _decay(discount, trace, like):
  """What a column keeps of the future: discount times lambda."""
  _check_fraction("discount", discount)
  return jnp.full_like(like, discount) * _traces(trace, like)


def _traces(trace, like):
  """lambda, one per column."""
  if isinstance(trace, int | float):
    _check_fraction("trace", trace)
    return jnp.full_like(like, trace)
  return jnp.broadcast_to(widened(trace)[..., None], like.shape)


def _check_fraction(name, value):
  if not 0 <= value <= 1:
    raise ValueError(f"{name} must be in [0, 1], got {value}")
