"""Advantages by their sign: relative negatives, and outcomes without a group.

In a group of binary rewards with success rate p the relative negative of a
wrong answer is -sqrt(p / (1 - p)): large on prompts that are nearly solved, 0
on prompts that never are. The sign of the outcome alone weighs every wrong
answer with -1, also on prompts that nobody solves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import jax
import jax.numpy as jnp

from rl_jax.advantages.groups import Scale, group_relative
from rl_jax.masks import keep, widened
from rl_jax.reduce import Total, over_tokens

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float, Int

__all__ = [
  "active_tokens",
  "psr_nsr",
  "relative_negative",
  "split_relative_advantage",
  "weighted_relative",
]


def split_relative_advantage(
  advantage: Float[Array, "*batch"],
) -> tuple[Float[Array, "*batch"], Float[Array, "*batch"]]:
  """The part of an advantage above zero, and the part below.

      A+ = max(A, 0),   A- = min(A, 0),   A+ + A- = A

  Args:
    advantage: A, any unit.

  Returns:
    A+ and A-.

  arXiv:2510.04028, section 4.

  >>> split_relative_advantage(jnp.array([0.5, -2.0]))[1].tolist()
  [0.0, -2.0]
  """
  advantage = widened(advantage)
  return jnp.maximum(advantage, 0.0), jnp.minimum(advantage, 0.0)


def weighted_relative(
  advantage: Float[Array, "*batch"],
  *,
  pos_weight: float | Float[Array, ""],
) -> Float[Array, "*batch"]:
  """The part of an advantage above zero scaled, the part below as it is.

      A' = pos_weight A+ + A-

  With 1 it is the advantage itself, with 0 its negative part alone.

  Args:
    advantage: A, any unit.
    pos_weight: not negative. A number, or an array where it follows a
      schedule; an array's sign is not checked.

  Returns:
    A'.

  Raises:
    ValueError: if `pos_weight` is a negative number.

  arXiv:2510.04028, section 4; the weights in between are ours.

  >>> weighted_relative(jnp.array([0.5, -2.0]), pos_weight=0.5).tolist()
  [0.25, -2.0]
  """
  _check_weight(pos_weight)
  positive, negative = split_relative_advantage(advantage)
  return pos_weight * positive + negative


def relative_negative(
  reward: Float[Array, "row"],
  group: Int[Array, "row"],
  valid: Bool[Array, "row"],
  *,
  num_groups: int,
  scale: Scale,
  ddof: int,
  epsilon: float,
) -> Float[Array, "row"]:
  """What is worse than its group, by how much; 0 for what is better.

      A_i = min((r_i - m_g(i)) / (s + epsilon), 0)

  Args:
    reward: r_i, any unit. No gradient flows through it.
    group: which prompt each row answers, in [0, num_groups).
    valid: false for rows that do not count.
    num_groups: how many ids there are; static.
    scale: see `group_relative`.
    ddof: see there; 1 in the paper's setting.
    epsilon: see there; 1e-6.

  Returns:
    A_i, exactly 0 in groups that are all right or all wrong.

  Raises:
    ValueError: see `group_relative`.

  arXiv:2510.04028, section 4 (GRPO-N and GSPO-N, by the loss's ratio).
  """
  advantage = group_relative(
    reward,
    group,
    valid,
    num_groups=num_groups,
    scale=scale,
    ddof=ddof,
    epsilon=epsilon,
  )
  return split_relative_advantage(advantage)[1]


def psr_nsr(
  correct: Bool[Array, "row"],
  valid: Bool[Array, "row"],
  *,
  mode: Literal["positive", "negative", "weighted"],
  pos_weight: float,
) -> Float[Array, "row"]:
  """The sign of the outcome as advantage, without any group.

      "positive":  1 where right, 0 where wrong             (PSR)
      "negative":  0 where right, -1 where wrong            (NSR)
      "weighted":  pos_weight where right, -1 where wrong   (W-REINFORCE)

  The published code leaves rows of 0 out of the batch. Here they stay and
  add nothing; divided by the share of `active_tokens` it is as if they were
  gone.

  Args:
    correct: the outcome, which has two values only.
    valid: false for rows that do not count: they get 0.
    mode: which rows teach.
    pos_weight: of right answers, in "weighted" alone; 0.1 in the code.

  Returns:
    A_i.

  Raises:
    ValueError: for an unknown mode or a negative weight.

  RLVR-Decomposed, arXiv:2506.01347, code.

  >>> psr_nsr(
  ...   jnp.array([True, False]),
  ...   jnp.ones(2, bool),
  ...   mode="weighted",
  ...   pos_weight=0.125,
  ... ).tolist()
  [0.125, -1.0]
  """
  _check_weight(pos_weight)
  weights = {
    "positive": (1.0, 0.0),
    "negative": (0.0, -1.0),
    "weighted": (pos_weight, -1.0),
  }
  if mode not in weights:
    raise ValueError(f"mode must be one of {sorted(weights)}, got {mode!r}")
  right, wrong = weights[mode]
  return keep(jnp.where(correct, right, wrong), valid)


def active_tokens(
  advantage: Float[Array, "row"], mask: Bool[Array, "row time"]
) -> Total:
  """The share of tokens that teach: those of rows whose advantage is not 0.

      value = sum_it mask_it [A_i != 0],   weight = sum_it mask_it

  Rows whose advantage is 0 add nothing to a loss and yet dilute its mean over
  tokens. Dropping them instead changes the size of a batch, and with it the
  step, in silence; to divide the advantages by this share does so aloud.

  Args:
    advantage: A_i.
    mask: true = a token of the response that counts.

  Returns:
    The Total; those of the parts of a batch add up to its own.

  >>> active_tokens(
  ...   jnp.array([0.0, -1.0]), jnp.ones((2, 3), bool)
  ... ).mean().item()
  0.5
  """
  active = (advantage != 0).astype(jnp.float32)
  return over_tokens(jnp.broadcast_to(active[:, None], mask.shape), mask)


def _check_weight(pos_weight):
  if not isinstance(pos_weight, jax.Array) and not pos_weight >= 0:
    raise ValueError(f"pos_weight must not be negative, got {pos_weight}")
