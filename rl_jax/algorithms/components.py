"""Parts of a `PolicyRecipe` that need more of a batch than functions take."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, ClassVar, Literal

import jax
import jax.numpy as jnp

from rl_jax import advantages
from rl_jax.algorithms.recipe import PolicyBatch, Signals, needed
from rl_jax.divergences import k1
from rl_jax.masks import keep, last_valid
from rl_jax.reduce import Total, over_tokens
from rl_jax.rewards.shaping import (
  at_last_token,
  clipped_reward,
  kl_shaped,
  overlong_penalty,
)

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float

__all__ = [
  "Critic",
  "EveryToken",
  "Generalized",
  "Greedy",
  "KlInLoss",
  "KlSubtracted",
  "LengthWeighted",
  "Overlong",
  "PerRow",
  "PositiveImitation",
  "Raw",
  "ToGo",
  "TrainerOverSampler",
  "WithinGroup",
]


# What is done to a reward, and what it is compared with.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Overlong:
  """A penalty that grows as a response nears the longest one allowed."""

  soft: float
  """Tokens from which it costs."""
  hard: float
  """Tokens at which it costs all of `factor`."""
  factor: float
  """Units of reward."""

  def __call__(
    self, batch: PolicyBatch, reward: Float[Array, "row"]
  ) -> Float[Array, "row"]:
    """The reward with the penalty."""
    return reward + overlong_penalty(
      _tokens(batch), soft=self.soft, hard=self.hard, factor=self.factor
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class KlSubtracted:
  """The k1 of the whole response, taken from its reward."""

  weight: float
  """Units of reward per nat."""

  def __call__(
    self, batch: PolicyBatch, reward: Float[Array, "row"]
  ) -> Float[Array, "row"]:
    """The reward less the KL."""
    return reward - self.weight * jnp.sum(_nats(batch), axis=-1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Raw:
  """The reward as it is."""

  def __call__(
    self, batch: PolicyBatch, reward: Float[Array, "row"], *, num_groups: int
  ) -> Float[Array, "row"]:
    """The reward, 0 for rows that do not count."""
    del num_groups
    return keep(reward, batch.valid)


@dataclasses.dataclass(frozen=True, kw_only=True)
class WithinGroup:
  """The reward compared with those of its group."""

  compares: ClassVar[bool] = True

  estimator: Callable
  """A function of `rl_jax.advantages` of reward, group and valid."""

  def __call__(
    self, batch: PolicyBatch, reward: Float[Array, "row"], *, num_groups: int
  ) -> Float[Array, "row"]:
    """The relative reward."""
    return self.estimator(
      reward, batch.group, batch.valid, num_groups=num_groups
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class LengthWeighted:
  """The reward less the mean of its group weighted by length."""

  compares: ClassVar[bool] = True

  def __call__(
    self, batch: PolicyBatch, reward: Float[Array, "row"], *, num_groups: int
  ) -> Float[Array, "row"]:
    """The relative reward."""
    return advantages.length_weighted_relative(
      reward, _tokens(batch), batch.group, batch.valid, num_groups=num_groups
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Greedy:
  """The reward less that of the greedy response to the same prompt."""

  def __call__(
    self, batch: PolicyBatch, reward: Float[Array, "row"], *, num_groups: int
  ) -> Float[Array, "row"]:
    """What sampling gained."""
    del num_groups
    greedy = needed(batch.greedy_reward, "greedy_reward")
    return keep(reward - greedy, batch.valid)


# How a row's number becomes one for each token; with the critic's target.


@dataclasses.dataclass(frozen=True, kw_only=True)
class EveryToken:
  """Every token has the number of its row."""

  def __call__(
    self, batch: PolicyBatch, compared: Float[Array, "row"]
  ) -> tuple[Float[Array, "row time"], None]:
    """Advantages."""
    return jnp.broadcast_to(compared[:, None], batch.mask.shape), None


@dataclasses.dataclass(frozen=True, kw_only=True)
class ToGo:
  """What is still to come: the row's number at its end, less KL on the way."""

  discount: float
  """Per token."""
  kl_weight: float
  """Units of reward per nat of k1 at each token."""
  bound: float
  """The row's number is clipped to this before; infinity leaves it."""

  def __call__(
    self, batch: PolicyBatch, compared: Float[Array, "row"]
  ) -> tuple[Float[Array, "row time"], None]:
    """Advantages."""
    compared = clipped_reward(compared, low=-self.bound, high=self.bound)
    return advantages.discounted_returns(
      _shaped(batch, compared, self.kl_weight),
      batch.mask,
      last=_last(batch.mask),
      discount=self.discount,
    ), None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Generalized:
  """Generalized advantages of a critic, less KL on the way."""

  discount: float
  """Per token."""
  trace: float | Callable
  """Lambda of the policy, or a function of the mask to one for each row."""
  target_trace: float
  """Lambda of the critic's target."""
  kl_weight: float
  """Units of reward per nat of k1 at each token."""

  def __call__(
    self, batch: PolicyBatch, compared: Float[Array, "row"]
  ) -> tuple[Float[Array, "row time"], Float[Array, "row time"]]:
    """Advantages and the critic's target."""
    value = needed(batch.behaviour_value, "behaviour_value")
    reward = _shaped(batch, compared, self.kl_weight)
    last = _last(batch.mask)
    following = advantages.next_values(value, batch.mask, last=last)

    def estimate(trace):
      return advantages.generalized_advantage(
        reward,
        value,
        following,
        batch.mask,
        terminated=last,
        last=last,
        discount=self.discount,
        trace=trace,
      )

    trace = self.trace(batch.mask) if callable(self.trace) else self.trace
    target = estimate(self.target_trace) + keep(value, batch.mask)
    return estimate(trace), target


# What a policy loss is multiplied with.


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainerOverSampler:
  """Correction for a sampler whose log-probs differ from the trainer's."""

  ratio: Callable
  """Of `rl_jax.ratios`: of the tokens."""
  weight: Callable
  """Of `rl_jax.ratios`: what a ratio weighs."""
  kept: Callable | None = None
  """Of `rl_jax.ratios`: which tokens weigh anything; None is all."""

  def __call__(
    self, batch: PolicyBatch, mask: Bool[Array, "row time"]
  ) -> Float[Array, "row time"]:
    """The weights."""
    sampler = needed(batch.sampler_log_prob, "sampler_log_prob")
    pair = batch.behaviour_log_prob, sampler, mask
    weight = self.weight(self.ratio(*pair))
    if self.kept is None:
      return weight
    return jnp.where(self.kept(*pair), weight, 0.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PerRow:
  """One over the number of rows that are not empty, whatever else divides."""

  def __call__(
    self, batch: PolicyBatch, mask: Bool[Array, "row time"]
  ) -> Float[Array, "row time"]:
    """The weights."""
    rows = jnp.sum(jnp.any(mask, axis=-1)).astype(batch.log_prob.dtype)
    return jnp.full(mask.shape, 1.0 / jnp.maximum(rows, 1.0))


# Losses, reductions, and what is added to the policy loss.


@dataclasses.dataclass(frozen=True, kw_only=True)
class KlInLoss:
  """An estimate of the KL to the reference, differentiated."""

  estimator: Callable
  """Of `rl_jax.divergences`."""
  weight: float
  """Units of loss per nat."""
  ratio_to: Literal["behaviour", "itself"] | None = None
  """Of an estimator that takes an importance ratio: to which policy. To
  itself it has the value one, and a gradient. None for the others."""
  clamp: float | None = None
  """The estimate is cut to this, which stops its gradient; None leaves it."""
  reduction: Callable | None = None
  """Who divides by what; None as for the policy loss."""

  def __call__(
    self, batch: PolicyBatch, mask: Bool[Array, "row time"], reduction: Callable
  ) -> Total:
    """The weighted KL."""
    acted = {
      None: (),
      "behaviour": (batch.behaviour_log_prob,),
      "itself": (jax.lax.stop_gradient(batch.log_prob),),
    }[self.ratio_to]
    reference = needed(batch.reference_log_prob, "reference_log_prob")
    nats = self.estimator(batch.log_prob, *acted, reference, mask)
    if self.clamp is not None:
      nats = jnp.clip(nats, -self.clamp, self.clamp)
    return _weighted((self.reduction or reduction)(nats, mask), self.weight)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Critic:
  """The loss of a critic that shares the update."""

  loss: Callable
  """Value, value before, target and mask to a `ValueLoss`."""
  weight: float
  """Beside the policy loss."""

  def __call__(
    self, batch: PolicyBatch, signals: Signals, reduction: Callable
  ) -> Total:
    """The weighted loss."""
    terms = self.loss(
      needed(batch.value, "value"),
      needed(batch.behaviour_value, "behaviour_value"),
      needed(signals.target, "credit with a target for the critic"),
      signals.mask,
    )
    return _weighted(reduction(terms.loss, signals.mask), self.weight)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PositiveImitation:
  """Negative log-likelihood of the responses with a positive reward."""

  weight: float
  """Units of loss per nat."""

  def __call__(
    self, batch: PolicyBatch, mask: Bool[Array, "row time"]
  ) -> Total:
    """The weighted likelihood, a mean over the tokens of those responses."""
    good = mask & (batch.reward > 0)[:, None]
    return _weighted(over_tokens(-batch.log_prob, good), self.weight)


def _tokens(batch):
  return jnp.sum(batch.mask, axis=-1).astype(batch.log_prob.dtype)


def _nats(batch):
  reference = needed(batch.reference_log_prob, "reference_log_prob")
  return k1(batch.behaviour_log_prob, reference, batch.mask)


def _shaped(batch, compared, kl_weight):
  """The row's number on its last token, less the KL at each."""
  reward = at_last_token(compared, batch.mask)
  if kl_weight == 0:
    return reward
  return kl_shaped(reward, _nats(batch), batch.mask, weight=kl_weight)


def _last(mask):
  return jnp.arange(mask.shape[-1])[None] == last_valid(mask)[:, None]


def _weighted(total, weight):
  return total._replace(value=weight * total.value)
