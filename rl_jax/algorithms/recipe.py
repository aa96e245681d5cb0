"""How a policy-optimisation method is put together from pure functions.

A `PolicyRecipe` is a frozen value with one function for each choice that
methods differ in: a function of the library with its hyper-parameters, as
`functools.partial(losses.clipped_policy_terms, clip_low=0.2, clip_high=0.2)`,
or a component of `algorithms.components` where it needs more of the batch
than all such functions do. Three steps, because some of what they need is a
property of the whole batch and must not depend on how that is split:

    signals = recipe.signals(batch, num_groups=...)   the full batch, once
    totals  = recipe.terms(batch, signals)            any part of its rows
    loss    = totals.objective()                      once, of added totals

`recipe.totals` does the first two for a batch that is not split.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp

from rl_jax.masks import keep
from rl_jax.ratios import clamped_log_prob
from rl_jax.reduce import Total, over_tokens

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float, Int

__all__ = [
  "PolicyBatch",
  "PolicyRecipe",
  "PolicyTotals",
  "Signals",
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


class Signals(NamedTuple):
  """What only the whole batch can say; a part of its rows takes these along.

  Attributes:
    advantage: A, in units of reward, or unitless.
    weight: what each token's policy loss is multiplied with.
    mask: the tokens that count, rows that were filtered out left out.
    target: what the critic should say, or None.
  """

  advantage: Float[Array, "row time"]
  weight: Float[Array, "row time"]
  mask: Bool[Array, "row time"]
  target: Float[Array, "row time"] | None


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


@dataclasses.dataclass(frozen=True, kw_only=True)
class PolicyRecipe:
  """One method: which function stands at each place."""

  reference: str
  """Paper, or package and version, that it is the mathematics of."""
  baseline: Callable
  """`(batch, reward, num_groups=)` to a number for each row."""
  credit: Callable
  """`(batch, number)` to one for each token, and the critic's target."""
  loss: Callable
  """`(log_prob, behaviour_log_prob, advantage, mask)` to a `PolicyLoss`."""
  reduction: Callable
  """`(loss, mask)` to a `Total`: who divides by what."""
  shaping: tuple[Callable, ...] = ()
  """`(batch, reward)` to a reward, in order, before all else."""
  rows: Callable | None = None
  """`(reward, group, valid, num_groups=)` to the rows that count."""
  whitening: Callable | None = None
  """`(advantage, mask)` to the advantages that are used."""
  weight: Callable | None = None
  """`(batch, mask)` to what each token's policy loss is multiplied with."""
  clamp: float | None = None
  """Bound in nats on a token's log-ratio in the loss; None leaves it."""
  penalty: Callable | None = None
  """`(batch, mask, reduction)` to the weighted KL in the loss."""
  value: Callable | None = None
  """`(batch, signals, reduction)` to the critic's weighted loss."""
  imitation: Callable | None = None
  """`(batch, mask)` to the weighted likelihood of good responses."""
  note: str = ""
  """What the table of recipes has no column for."""

  def signals(self, batch: PolicyBatch, *, num_groups: int) -> Signals:
    """Everything that the whole batch decides.

    Args:
      batch: all rows.
      num_groups: how many ids `batch.group` may hold; static.

    Returns:
      Advantages, weights and masks for its rows; no gradient flows.

    Raises:
      ValueError: if the batch lacks what a component needs.
    """
    reward = batch.reward
    for step in self.shaping:
      reward = step(batch, reward)
    mask = batch.mask & batch.valid[:, None]
    if self.rows is not None:
      mask &= self.rows(
        batch.reward, batch.group, batch.valid, num_groups=num_groups
      )[:, None]
    compared = self.baseline(batch, reward, num_groups=num_groups)
    advantage, target = self.credit(batch, compared)
    advantage = keep(advantage, mask)
    if self.whitening is not None:
      advantage = self.whitening(advantage, mask)
    weight = jnp.ones_like(advantage)
    if self.weight is not None:
      weight = self.weight(batch, mask)
    return jax.lax.stop_gradient(Signals(advantage, weight, mask, target))

  def terms(self, batch: PolicyBatch, signals: Signals) -> PolicyTotals:
    """The totals of some rows.

    Args:
      batch: all rows of the batch or some.
      signals: the same rows of what `signals` said.

    Returns:
      Totals; those of the parts of a batch add up to its own.

    Raises:
      ValueError: if the batch lacks what a component needs.
    """
    mask = signals.mask
    log_prob = batch.log_prob
    if self.clamp is not None:
      log_prob = clamped_log_prob(
        log_prob, batch.behaviour_log_prob, mask, clamp=self.clamp
      )
    policy = self.loss(
      log_prob, batch.behaviour_log_prob, signals.advantage, mask
    )
    penalty = value = imitation = Total(jnp.zeros(()), jnp.zeros(()))
    if self.penalty is not None:
      penalty = self.penalty(batch, mask, self.reduction)
    if self.value is not None:
      value = self.value(batch, signals, self.reduction)
    if self.imitation is not None:
      imitation = self.imitation(batch, mask)
    return PolicyTotals(
      self.reduction(policy.loss * signals.weight, mask),
      penalty,
      value,
      imitation,
      over_tokens(policy.clipped.astype(jnp.float32), mask),
    )

  def totals(self, batch: PolicyBatch, *, num_groups: int) -> PolicyTotals:
    """The totals of a batch that is not split.

    Args:
      batch: all rows.
      num_groups: how many ids `batch.group` may hold; static.

    Returns:
      Its totals; minimise `totals.objective()`.

    Raises:
      ValueError: if the batch lacks what a component needs.
    """
    return self.terms(batch, self.signals(batch, num_groups=num_groups))


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
