"""ADORA: a weight for each group, by what its rollouts say is to be learnt.

One number for a prompt and a step, which multiplies whatever advantages its
responses have. It is recomputed from every batch and remembers nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import jax
import jax.numpy as jnp

from rl_jax.advantages.groups import group_mean
from rl_jax.masks import keep, widened

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float, Int

__all__ = [
  "AdoraCriteria",
  "AdoraEmpty",
  "adora_weight",
  "difficulty_advantage",
  "length_advantage",
]

AdoraCriteria = Literal["length", "difficulty", "all", "any"]
AdoraEmpty = Literal["llm", "vlm"]


def length_advantage(
  reward: Float[Array, "row"],
  tokens: Float[Array, "row"],
  group: Int[Array, "row"],
  valid: Bool[Array, "row"],
  *,
  num_groups: int,
  threshold: float,
  cap: float,
  empty: AdoraEmpty,
) -> Bool[Array, "row"]:
  r"""Whether a group's longest success is longer than its mean failure.

      max {len_j: r_j > threshold} > mean {len_j: r_j <= threshold,
                                           len_j < cap}

  Failures that reached the cap were cut and say nothing of length. What is
  said of a group where a side is empty is a choice, and the two released
  programs choose the opposite:

      empty   no success   a success, and no failure below the cap
      "llm"   False        True    (also the reading of the paper's text)
      "vlm"   True         False

  Args:
    reward: r_j, the raw reward of the task, without a KL in it.
    tokens: len_j, tokens of the response.
    group: which prompt each row answers, in [0, num_groups).
    valid: false for rows that do not count.
    num_groups: how many ids there are; static.
    threshold: a reward above it is a success.
    cap: tokens at which a failure counts as cut; the longest response that
      the sampler writes.
    empty: the choice.

  Returns:
    The same for every row of a group, valid or not. The rewards are not
    differentiated.

  Raises:
    ValueError: for an unknown `empty`, or `num_groups` < 1.

  arXiv:2602.10019 (ADORA); the choices are those of its language and of its
  vision-language code.

  >>> length_advantage(
  ...   jnp.array([1.0, 0.0, 0.0, 1.0]),
  ...   jnp.array([4.0, 3.0, 7.0, 6.0]),
  ...   jnp.zeros(4, jnp.int32),
  ...   jnp.ones(4, bool),
  ...   num_groups=1,
  ...   threshold=0.5,
  ...   cap=100.0,
  ...   empty="vlm",
  ... ).tolist()
  [True, True, True, True]
  """
  if empty not in ("llm", "vlm"):
    raise ValueError(f"empty must be 'llm' or 'vlm', got {empty!r}")
  right = _right(reward, valid, threshold)
  tokens = keep(jax.lax.stop_gradient(tokens), valid)
  wrong = valid & ~right & (tokens < cap)
  mean = group_mean(tokens, group, wrong, num_groups=num_groups)

  def longest(rows: jax.Array) -> jax.Array:
    """-inf where a group has none of the rows."""
    own = jnp.where(rows, tokens, -jnp.inf)
    return jax.ops.segment_max(own, group, num_groups)[group]

  best = longest(right)
  no_success, no_failure = jnp.isneginf(best), jnp.isneginf(longest(wrong))
  longer = jnp.where(no_failure, empty == "llm", best > mean)
  return jnp.where(no_success, empty == "vlm", longer)


def difficulty_advantage(
  reward: Float[Array, "row"],
  group: Int[Array, "row"],
  valid: Bool[Array, "row"],
  *,
  num_groups: int,
  threshold: float,
  tau: float,
) -> Bool[Array, "row"]:
  """Whether a group is solved by no more than a fraction of its responses.

      mean_j [r_j > threshold] <= tau

  Args:
    reward: r_j, the raw reward of the task.
    group: which prompt each row answers, in [0, num_groups).
    valid: false for rows that do not count; responses that were cut do.
    num_groups: how many ids there are; static.
    threshold: a reward above it is a success.
    tau: the fraction, in [0, 1]; 0.5 in the paper.

  Returns:
    The same for every row of a group, valid or not.

  Raises:
    ValueError: if `tau` is outside of [0, 1], or `num_groups` < 1.

  arXiv:2602.10019 (ADORA).

  >>> difficulty_advantage(
  ...   jnp.array([1.0, 0.0, 1.0, 1.0]),
  ...   jnp.array([0, 0, 1, 1]),
  ...   jnp.ones(4, bool),
  ...   num_groups=2,
  ...   threshold=0.5,
  ...   tau=0.5,
  ... ).tolist()
  [True, True, False, False]
  """
  if not 0 <= tau <= 1:
    raise ValueError(f"tau must be in [0, 1], got {tau}")
  right = _right(reward, valid, threshold).astype(jnp.float32)
  return group_mean(right, group, valid, num_groups=num_groups) <= tau


def adora_weight(
  reward: Float[Array, "row"],
  tokens: Float[Array, "row"],
  group: Int[Array, "row"],
  valid: Bool[Array, "row"],
  *,
  num_groups: int,
  threshold: float,
  cap: float,
  tau: float,
  criteria: AdoraCriteria,
  empty: AdoraEmpty,
  advantageous: float,
  other: float,
) -> Float[Array, "row"]:
  """What the advantages of a group are multiplied with.

      w_i = advantageous   where the criteria hold for g(i)
      w_i = other          elsewhere

  Args:
    reward: r_j, the raw reward of the task, without a KL in it.
    tokens: tokens of the response.
    group: which prompt each row answers, in [0, num_groups).
    valid: false for rows that do not count.
    num_groups: how many ids there are; static.
    threshold: a reward above it is a success.
    cap: see `length_advantage`.
    tau: see `difficulty_advantage`; not read by the criterion of length.
    criteria: "length", "difficulty", both at once ("all") or either ("any").
    empty: see `length_advantage`; not read by the criterion of difficulty.
    advantageous: weight of groups to learn from; 1 to attenuate the others, 2
      to amplify these.
    other: weight of the others; 0.1 to attenuate, 1 to amplify.

  Returns:
    w_i, the same for every row of a group, valid or not.

  Raises:
    ValueError: if a weight is negative, which would learn the opposite, for an
      unknown choice, `tau` outside of [0, 1], or `num_groups` < 1.

  arXiv:2602.10019 (ADORA) and its code. That the two criteria of the language
  runs must both hold is a reconstruction.

  >>> adora_weight(
  ...   jnp.array([1.0, 0.0, 0.0, 0.0]),
  ...   jnp.array([9.0, 4.0, 5.0, 6.0]),
  ...   jnp.zeros(4, jnp.int32),
  ...   jnp.ones(4, bool),
  ...   num_groups=1,
  ...   threshold=0.5,
  ...   cap=100.0,
  ...   tau=0.5,
  ...   criteria="all",
  ...   empty="llm",
  ...   advantageous=2.0,
  ...   other=1.0,
  ... ).tolist()
  [2.0, 2.0, 2.0, 2.0]
  """
  if not (advantageous >= 0 and other >= 0):
    raise ValueError(
      f"weights must not be negative, got {advantageous} and {other}"
    )
  if criteria not in ("length", "difficulty", "all", "any"):
    raise ValueError(
      "criteria must be 'length', 'difficulty', 'all' or 'any', got"
      f" {criteria!r}"
    )
  held = []
  if criteria != "difficulty":
    held.append(
      length_advantage(
        reward,
        tokens,
        group,
        valid,
        num_groups=num_groups,
        threshold=threshold,
        cap=cap,
        empty=empty,
      )
    )
  if criteria != "length":
    held.append(
      difficulty_advantage(
        reward,
        group,
        valid,
        num_groups=num_groups,
        threshold=threshold,
        tau=tau,
      )
    )
  join = jnp.any if criteria == "any" else jnp.all
  return jnp.where(join(jnp.stack(held), axis=0), advantageous, other)


def _right(reward, valid, threshold):
  """Which rows are successes."""
  reward = widened(jax.lax.stop_gradient(reward))
  return valid & (reward > threshold)
