"""SPAE: advantages of steps, from what the policy would answer after each.

After every step of a solution the policy is made to answer: how sure it is
and how much of the true answer it gives are the step's potential. Steps after
the first that settles the question are pushed less, steps that raise the
potential more.

Where a mask is called `valid` it is of steps. Steps come first: a row has
some, in its first columns, and then none.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import jax
import jax.numpy as jnp

from rl_jax.advantages.segments import segment_index, spread_segments
from rl_jax.masks import keep, widened

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float, Int

__all__ = [
  "StepSegments",
  "checking_tokens",
  "difference_shaping",
  "saturation_factor",
  "spae_advantage",
  "step_differences",
  "step_potential",
  "step_segments",
]


class StepSegments(NamedTuple):
  """Which step of its thinking each token of a response is in.

  Attributes:
    index: from 0; -1 in the tail, which is what follows the last boundary,
      and where there is no token.
    count: steps that have an index.
    found: boundaries that there are; more than `count` if a response has more
      steps than there is room for, which then are part of the tail.
    thinking: tokens before the one that ends the thinking.
  """

  index: Int[Array, "row time"]
  count: Int[Array, "row"]
  found: Int[Array, "row"]
  thinking: Int[Array, "row"]


def step_segments(
  token: Int[Array, "row time"],
  mask: Bool[Array, "row time"],
  boundary: Bool[Array, "vocabulary"],
  *,
  think_end: int | None,
  num_segments: int,
) -> StepSegments:
  """Steps of the thinking: each ends with a token that is a boundary.

  Args:
    token: ids of the responses, anything where masked.
    mask: true = counts.
    boundary: for every id whether it ends a step, as its text ends with the
      delimiter. Several ids do, as they merge it with what is before it.
    think_end: id that ends the thinking, from which on no token is a
      boundary; None if all of a response is thinking.
    num_segments: steps that there is room for; static.

  Returns:
    The steps.

  Raises:
    ValueError: if `num_segments` < 1.

  arXiv:2601.03823, section "Step potential", and its code.

  >>> steps = step_segments(
  ...   jnp.array([[5, 1, 5, 1, 5, 2, 1, 5]]),
  ...   jnp.ones((1, 8), bool),
  ...   jnp.arange(6) == 1,
  ...   think_end=2,
  ...   num_segments=4,
  ... )
  >>> steps.index.tolist()
  [[0, 0, 1, 1, -1, -1, -1, -1]]
  """
  if num_segments < 1:
    raise ValueError(f"num_segments must be at least 1, got {num_segments}")
  thinking = mask
  if think_end is not None:
    ended = jnp.cumsum(mask & (token == think_end), axis=-1) > 0
    thinking = mask & ~ended
  end = boundary[jnp.where(thinking, token, 0)] & thinking
  found = jnp.sum(end, axis=-1)
  count = jnp.minimum(found, num_segments)
  index = segment_index(end, mask)
  return StepSegments(
    jnp.where(index < count[:, None], index, -1),
    count,
    found,
    jnp.sum(thinking, axis=-1),
  )


def step_potential(
  correctness: Float[Array, "*batch"], confidence: Float[Array, "*batch"]
) -> Float[Array, "*batch"]:
  """One number of how far a solution has come.

      Phi = 1.5 Acc Conf + 0.5 Acc - Conf

  0 while neither is high, 1 when the answer is there, -1 when a policy is
  sure of something wrong.

  Args:
    correctness: Acc in [0, 1].
    confidence: Conf in [0, 1].

  Returns:
    Phi in [-1, 1].

  arXiv:2601.03823, and its code.

  >>> one, half = jnp.ones(1), jnp.full(1, 0.5)
  >>> step_potential(one, one).item(), step_potential(half, half).item()
  (1.0, 0.125)
  """
  correctness, confidence = widened(correctness), widened(confidence)
  return 1.5 * correctness * confidence + 0.5 * correctness - confidence


def step_differences(
  potential: Float[Array, "row segment"], valid: Bool[Array, "row segment"]
) -> Float[Array, "row segment"]:
  """What each step adds to the potential.

      d_k = Phi_k - Phi_{k-1},   d_1 = 0

  Args:
    potential: Phi_k. No gradient flows through it.
    valid: true = there is such a step.

  Returns:
    d_k, 0 where there is no step.

  arXiv:2601.03823, code (the first difference).

  >>> valid = jnp.ones((1, 3), bool)
  >>> step_differences(jnp.array([[0.5, 1.0, 0.25]]), valid).tolist()
  [[0.0, 0.5, -0.75]]
  """
  potential = jax.lax.stop_gradient(keep(potential, valid))
  follows = jnp.pad(valid[:, :-1], ((0, 0), (1, 0))) & valid
  before = jnp.pad(potential[:, :-1], ((0, 0), (1, 0)))
  return jnp.where(follows, potential - before, 0.0)


def saturation_factor(
  potential: Float[Array, "row segment"],
  valid: Bool[Array, "row segment"],
  *,
  alpha: float,
  threshold: float,
) -> Float[Array, "row segment+1"]:
  r"""What is left of the advantage of steps after the question is settled.

      f_k = 1 - alpha (1 - exp(-C_k)),   C_k = #{j < k: Phi_j > threshold}

  Args:
    potential: Phi_k. No gradient flows through it.
    valid: true = there is such a step.
    alpha: share of the advantage that is lost at the end, in [0, 1]; 0.5 in
      the paper.
    threshold: potential from which the question is settled; 0.9 in the
      paper's code.

  Returns:
    f_k in (1 - alpha, 1], not rising, with that of what follows the last step
    at the end.

  Raises:
    ValueError: if `alpha` is not in [0, 1].

  arXiv:2601.03823, and its code.

  >>> f = saturation_factor(
  ...   jnp.array([[0.0, 1.0]]),
  ...   jnp.ones((1, 2), bool),
  ...   alpha=0.5,
  ...   threshold=0.9,
  ... )
  >>> [round(x, 5) for x in f[0].tolist()]
  [1.0, 1.0, 0.68394]
  """
  if not 0 <= alpha <= 1:
    raise ValueError(f"alpha must be in [0, 1], got {alpha}")
  settled = keep(potential, valid) > threshold
  before = jnp.cumsum((settled & valid).astype(jnp.int32), axis=-1)
  before = jnp.pad(before, ((0, 0), (1, 0))).astype(jnp.float32)
  return 1.0 - alpha * (1.0 - jnp.exp(-before))


def difference_shaping(
  potential: Float[Array, "row segment"],
  valid: Bool[Array, "row segment"],
  *,
  epsilon: float,
) -> Float[Array, "row segment"]:
  r"""What a step adds to the potential, on the scale of the batch.

      s_k = (d_k - min d) / (max d - min d + epsilon)
      g_k = exp(s_k) - mean exp(s)

  Minimum, maximum and mean are over all steps of the batch, first ones
  included. One extreme step presses all others together: watch the range.
  d_k as from `step_differences`.

  Args:
    potential: Phi_k. No gradient flows through it.
    valid: true = there is such a step.
    epsilon: guards the division; 1e-8 in the paper.

  Returns:
    g_k, 0 where there is no step, and everywhere if all differences are
    equal. It sums to 0 over the batch.

  Raises:
    ValueError: if `epsilon` is negative.

  arXiv:2601.03823, and its code.

  >>> difference_shaping(
  ...   jnp.array([[0.5, 0.75]]), jnp.array([[True, False]]), epsilon=1e-8
  ... ).tolist()
  [[0.0, 0.0]]
  """
  if not epsilon >= 0:
    raise ValueError(f"epsilon must not be negative, got {epsilon}")
  difference = step_differences(potential, valid)
  low = jnp.min(jnp.where(valid, difference, jnp.inf), initial=jnp.inf)
  high = jnp.max(jnp.where(valid, difference, -jnp.inf), initial=-jnp.inf)
  # True also of a range that is NaN: a potential that is none must show.
  wide = ~(high <= low)
  low = jnp.where(wide, low, 0.0)
  span = jnp.where(wide, high - low + epsilon, 1.0)
  difference = jnp.where(wide, difference, 0.0)
  raised = jnp.where(valid, jnp.exp((difference - low) / span), 0.0)
  count = jnp.maximum(jnp.sum(valid), 1).astype(raised.dtype)
  return jnp.where(valid & wide, raised - jnp.sum(raised) / count, 0.0)


def spae_advantage(
  compared: Float[Array, "row"],
  shaping: Float[Array, "row segment"],
  factor: Float[Array, "row segment+1"],
  index: Int[Array, "row time"],
  mask: Bool[Array, "row time"],
  *,
  xi: float,
  tail_mode: Literal["outcome", "last_step"],
  apply_to: Literal["all", "positive"],
) -> Float[Array, "row time"]:
  r"""Advantages of tokens, less after the answer and more where it is found.

      A_t = A f_k + xi g_k          for a token of step k
      A_t = A f_tail                for what follows the last step

      tail_mode "outcome":    f_tail = 1
      tail_mode "last_step":  f_tail = f as if one more step followed

      apply_to "all":       f multiplies every A, as in the paper: a wrong
                            response is punished less once it was right
      apply_to "positive":  f multiplies A > 0 only

  The paper whitens the result over all tokens of the batch (`whiten`, ddof 0,
  epsilon 1e-8, guard "outside_root"). With alpha = xi = 0 it is the group's
  comparison at every token: REINFORCE++ with a baseline.

  Args:
    compared: A, reward less the mean of its group, not scaled. No gradient
      flows through any input.
    shaping: g_k over the whole batch; see `difference_shaping`.
    factor: f_k; see `saturation_factor`.
    index: step of each token, -1 in the tail; see `step_segments`.
    mask: true = counts.
    xi: weight of the differences, units of reward; 0.5 in the paper.
    tail_mode: what f is after the last step.
    apply_to: what f multiplies.

  Returns:
    A_t, 0 where the mask is false, NaN where an index has no step.

  Raises:
    ValueError: for an unknown mode.

  arXiv:2601.03823.

  >>> spae_advantage(
  ...   jnp.array([2.0]),
  ...   jnp.array([[0.5, -0.5]]),
  ...   jnp.array([[1.0, 0.5, 0.25]]),
  ...   jnp.array([[0, 1, -1]]),
  ...   jnp.ones((1, 3), bool),
  ...   xi=0.5,
  ...   tail_mode="outcome",
  ...   apply_to="all",
  ... ).tolist()
  [[2.25, 0.75, 2.0]]
  """
  if tail_mode not in ("outcome", "last_step"):
    raise ValueError(
      f"tail_mode must be 'outcome' or 'last_step', got {tail_mode!r}"
    )
  if apply_to not in ("all", "positive"):
    raise ValueError(f"apply_to must be 'all' or 'positive', got {apply_to!r}")
  steps = shaping.shape[-1]
  own = keep(compared, jnp.any(mask, axis=-1))[:, None]
  factor, shaping = widened(factor), widened(shaping)
  if tail_mode == "outcome":
    factor = factor.at[:, -1].set(1.0)
  if apply_to == "positive":
    factor = jnp.where(own > 0, factor, 1.0)
  # The tail is a step behind the last; an index beyond that shows as NaN.
  place = jnp.where(index < 0, steps, index + (index >= steps))
  place = jnp.where(mask, place, -1)
  spread = spread_segments(factor, place)
  added = spread_segments(jnp.pad(shaping, ((0, 0), (0, 1))), place)
  return jax.lax.stop_gradient(keep(own * spread + xi * added, mask))


def checking_tokens(
  potential: Float[Array, "row segment"],
  index: Int[Array, "row time"],
  thinking: Int[Array, "row"],
  mask: Bool[Array, "row time"],
  *,
  threshold: float,
) -> tuple[Int[Array, "row"], Int[Array, "row"], Bool[Array, "row"]]:
  """How long a response thinks until the question is settled, and after.

      solving = tokens up to and with the first boundary with Phi > threshold
      checking = tokens of the thinking - solving

  Meant for responses that are right in the end. One that is wrong in the end
  and was settled has gone from right to wrong.

  Args:
    potential: Phi_k.
    index: step of each token; see `step_segments`.
    thinking: tokens of the thinking.
    mask: true = a token of the response.
    threshold: potential from which the question is settled; 0.9 in the
      paper's code.

  Returns:
    Solving tokens, checking tokens, both 0 without such a boundary, and
    whether there is one.

  arXiv:2601.03823, diagnostics of the code.

  >>> solving, checking, settled = checking_tokens(
  ...   jnp.array([[0.5, 0.95]]),
  ...   jnp.array([[0, 0, 1, -1]]),
  ...   jnp.array([4]),
  ...   jnp.ones((1, 4), bool),
  ...   threshold=0.9,
  ... )
  >>> solving.item(), checking.item(), settled.item()
  (3, 1, True)
  """
  steps = potential.shape[-1]
  high = widened(potential) > threshold
  count = jnp.max(jnp.where(mask, index, -1), axis=-1, initial=-1) + 1
  high &= jnp.arange(steps)[None] < count[:, None]
  settled = jnp.any(high, axis=-1)
  first = jnp.argmax(high, axis=-1)
  through = mask & (index >= 0) & (index <= first[:, None])
  solving = jnp.where(settled, jnp.sum(through, axis=-1), 0)
  return solving, jnp.where(settled, thinking - solving, 0), settled
