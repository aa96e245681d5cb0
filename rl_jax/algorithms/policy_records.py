"""What flows between the components of a `PolicyRecipe`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import jax.numpy as jnp

from rl_jax.reduce import Total

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float, Int, PyTree

__all__ = [
  "Estimated",
  "PolicyBatch",
  "PolicyTotals",
  "Remembered",
  "Signals",
  "dense_group",
  "found",
  "needed",
]


class PolicyBatch(NamedTuple):
  """Sampled responses and what was measured on them; the row axis is first.

  Attributes:
    log_prob: of the policy being trained, nats; the gradient's way in.
    behaviour_log_prob: of the policy before these updates, as the trainer
      computes it.
    mask: true = the policy chose this token.
    reward: one number for each response.
    group: which prompt it answers, an id in [0, num_groups).
    valid: false for rows that do not count.
    sampler_log_prob: as the engine that sampled reported it.
    reference_log_prob: of the policy that a KL is measured to.
    greedy_reward: reward of the greedy response to the same prompt.
    value: of the critic being trained, in units of reward.
    behaviour_value: of the critic before these updates.
    step: step of the loop, from 0, in which each row was drawn.
    extra: arrays by name that the data gave, the judge found or a component
      asked for.
  """

  log_prob: Float[Array, "row time"]
  behaviour_log_prob: Float[Array, "row time"]
  mask: Bool[Array, "row time"]
  reward: Float[Array, "row"]
  group: Int[Array, "row"]
  valid: Bool[Array, "row"]
  sampler_log_prob: Float[Array, "row time"] | None = None
  reference_log_prob: Float[Array, "row time"] | None = None
  greedy_reward: Float[Array, "row"] | None = None
  value: Float[Array, "row time"] | None = None
  behaviour_value: Float[Array, "row time"] | None = None
  step: Int[Array, "row"] | None = None
  extra: dict[str, Array] | None = None


class Signals(NamedTuple):
  """What only the whole batch can say; a part of its rows takes these along.

  Attributes:
    advantage: A, in units of reward, or unitless.
    weight: what each token's policy loss is multiplied with.
    mask: the tokens that count, rows that were filtered out left out.
    target: what the critic should say, or None.
    credited: the advantages before whitening, to watch.
  """

  advantage: Float[Array, "row time"]
  weight: Float[Array, "row time"]
  mask: Bool[Array, "row time"]
  target: Float[Array, "row time"] | None
  credited: Float[Array, "row time"] | None = None


class Remembered(NamedTuple):
  """What a component with a memory returns.

  Attributes:
    value: what it would return without one.
    memory: for the next rollout.
  """

  value: Any
  memory: PyTree


class Estimated(NamedTuple):
  """What a recipe makes of a whole batch.

  Attributes:
    signals: for its rows.
    memory: of its components, by slot, for the next rollout.
    metric: what its components report.
  """

  signals: Signals
  memory: dict[str, PyTree]
  metric: dict[str, Total]


class PolicyTotals(NamedTuple):
  """Sums that add over parts of a batch; the objective is made of their means.

  Attributes:
    policy: the policy loss.
    penalty: the KL in the loss, times its weight.
    value: the critic's loss, times its weight.
    imitation: negative log-likelihood of good responses, times its weight.
    clipped: fraction of tokens whose ratio left its range; to watch.
  """

  policy: Total
  penalty: Total
  value: Total
  imitation: Total
  clipped: Total

  def __add__(self, other: PolicyTotals) -> PolicyTotals:  # type: ignore[override]
    return PolicyTotals(*(a + b for a, b in zip(self, other, strict=True)))

  def objective(self) -> Float[Array, ""]:
    """The number to minimise: each term divided once, then added."""
    return (
      self.policy.mean()
      + self.penalty.mean()
      + self.value.mean()
      + self.imitation.mean()
    )


def dense_group(batch: PolicyBatch) -> Int[Array, "row"]:
  """Ids of groups below the number of rows, for parts that get no number.

  Ids of a minibatch may be greater than its rows are many.

  Args:
    batch: all rows.

  Returns:
    Equal where `batch.group` is, in [0, rows).
  """
  rows = batch.group.shape[0]
  return jnp.unique(batch.group, return_inverse=True, size=rows)[1]


def needed[Value](value: Value | None, name: str) -> Value:
  """What a component cannot do without.

  Args:
    value: the field of the batch.
    name: what it is called.

  Returns:
    The field.

  Raises:
    ValueError: if the batch has none.
  """
  if value is None:
    raise ValueError(f"this recipe needs `{name}`, and the batch has none")
  return value


def found(batch: PolicyBatch, name: str) -> Array:
  """An array that the data gave, the judge found or a component asked for.

  Args:
    batch: all rows.
    name: what it is called in `batch.extra`.

  Returns:
    The array, rows first.

  Raises:
    ValueError: if the batch has none of that name.
  """
  extra = batch.extra or {}
  if name not in extra:
    raise ValueError(
      f"this recipe needs `{name}`, and the batch has {sorted(extra)}"
    )
  return extra[name]
