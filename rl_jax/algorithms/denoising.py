"""Policy gradients through the denoising chain: Flow-GRPO and DDPO."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from rl_jax.advantages import clip_and_rescale
from rl_jax.algorithms.online import Online, online_program, rollout_metrics
from rl_jax.divergences import gaussian_kl_mean
from rl_jax.losses import denoising_policy_loss
from rl_jax.reduce import Total, over_tokens
from rl_jax.training.averages import ema_update, warmup_ema_decay
from rl_jax.training.optimisers import AdamW, Learner, optimise
from rl_jax.training.state import Program, State, step_key
from rl_jax.training.step import merged, split_rows

if TYPE_CHECKING:
  from collections.abc import Callable

  from jaxtyping import Array, Bool, Float, Int, PyTree

  from rl_jax.sampling import Step
  from rl_jax.types import Rollouts

__all__ = ["Average", "DenoisingPolicyGradient"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Average:
  """Average of the parameters, kept for evaluation only.

  decay = min((1 + n) / (10 + n), maximum), n optimiser steps taken.
  """

  maximum: float
  """Largest decay."""
  every: int = 1
  """Loop steps between two updates of the average."""


class _Chain(NamedTuple):
  """Stored denoising chains as the loss sees them."""

  x: Float[Array, "row time *event"]
  x_next: Float[Array, "row time *event"]
  behaviour_log_prob: Float[Array, "row time"]
  condition: PyTree
  advantage: Float[Array, "row"]
  valid: Bool[Array, "row"]
  index: Int[Array, "row time"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class DenoisingPolicyGradient:
  """PPO over denoising steps.

  DDPO (arXiv:2305.13301) with a DDIM sampler and a per-prompt history;
  Flow-GRPO (arXiv:2505.05470) with an SDE sampler and group-relative
  advantages.
  """

  group_size: int
  """Rows that answer each prompt."""
  sampler: Any
  """A stochastic sampler with log-probabilities."""
  advantage: Any
  """The advantage estimator."""
  optimiser: AdamW
  """The optimiser."""
  advantage_clip: float = 5.0
  """Advantages are clipped to this."""
  clip_range: float = 1e-4
  """Clip range of the ratio of event-averaged log-probabilities."""
  base_weight: float = 0.0
  """Weight of the Gaussian KL to the frozen base; 0 costs nothing."""
  kl_normalisation: Literal["reference", "exact"] = "reference"
  """`reference` divides by sigma^2 as the published code does, `exact` by the
  variance of the step."""
  fraction: float = 0.99
  """Share of the chain that is trained, from the noise: .99 leaves out the
  last step."""
  updates: int = 2
  """Optimiser steps per rollout; each sees its part of the rows."""
  micro_batches: int = 1
  """Parts that the rows of an update are split into."""
  average: Average | None = None
  """Average of the parameters kept for evaluation."""

  def __post_init__(self) -> None:
    if not 0 < self.fraction <= 1:
      raise ValueError(f"fraction must be in (0, 1], got {self.fraction}")
    if self.updates < 1 or self.micro_batches < 1:
      raise ValueError(
        f"updates = {self.updates} and micro_batches ="
        f" {self.micro_batches} must be at least 1"
      )
    if self.base_weight < 0:
      raise ValueError(
        f"base_weight must not be negative, got {self.base_weight}"
      )

  def build(self, experiment: Any, load: Callable[[Any], PyTree]) -> Program:
    """The program of an experiment; see `rl_jax.training.state.Program`."""
    data = experiment.data
    rows, parts = data.rows * self.group_size, self.updates * self.micro_batches
    if rows % parts:
      raise ValueError(
        f"{data.rows} prompts x {self.group_size} rows = {rows} cannot be"
        f" split into {self.updates} updates of {self.micro_batches}"
        " micro-batches"
      )
    if not hasattr(self.sampler, "replay"):
      raise ValueError(
        f"{type(self.sampler).__name__} has no log-probabilities; use a"
        " stochastic sampler such as FlowSde or Ddim"
      )
    trained = int(self.sampler.steps * self.fraction)
    if trained < 1:
      raise ValueError(
        f"fraction = {self.fraction} of {self.sampler.steps} steps leaves"
        " none to train"
      )
    if trained > self.sampler.scored_steps:
      raise ValueError(
        f"fraction = {self.fraction} trains {trained} of"
        f" {self.sampler.steps} steps, but only the first"
        f" {self.sampler.scored_steps} of this sampler have noise and so a"
        " log-probability"
      )
    self.advantage.check(data)
    optimiser = self.optimiser()

    def memory(params: PyTree) -> dict[str, PyTree]:
      kept = {"advantage": self.advantage.init(data.rows)}
      if self.base_weight > 0:
        kept["base"] = params
      if self.average is not None:
        kept["average"] = params
      return jax.tree.map(jnp.copy, kept)

    def update(
      state: State, frozen: PyTree, batch: Rollouts
    ) -> tuple[State, dict]:
      del frozen
      estimate = self.advantage(
        state.memory["advantage"],
        batch.reward,
        batch.group,
        batch.valid,
        num_groups=data.rows,
      )
      chain = self._chain(batch, estimate.advantage, trained)
      order = jax.random.permutation(step_key(state, 1), rows)
      chain = jax.tree.map(lambda x: x[order], chain)
      terms = {"policy": 1.0}
      terms |= {"kl_base": self.base_weight} if self.base_weight else {}
      learner, metrics = optimise(
        lambda params, part: self._loss(experiment.model, state, params, part),
        terms,
        optimiser,
        Learner(state.params, state.optimiser),
        split_rows(chain, self.updates),
        micro_batches=self.micro_batches,
      )
      first = jax.tree.map(lambda x: x[0], metrics["ratio"])
      metrics = merged(metrics) | rollout_metrics(batch, estimate)
      metrics["first_ratio"] = first
      kept = dict(state.memory) | {"advantage": estimate.memory}
      if self.average is not None:
        kept["average"] = _averaged(
          self.average,
          kept["average"],
          learner.params,
          step=state.step + 1,
          taken=(state.step + 1) * self.updates,
        )
      state = state._replace(
        step=state.step + 1,
        params=learner.params,
        optimiser=learner.optimiser,
        memory=kept,
      )
      return state, metrics

    return online_program(
      Online(
        sampler=self.sampler,
        group_size=self.group_size,
        behaviour=None,
        optimiser=optimiser,
        memory=memory,
        update=update,
        first_step={"first_ratio": (1.0, 1e-4)},
      ),
      experiment,
      load,
    )

  def _chain(self, batch: Rollouts, advantage: Any, trained: int) -> _Chain:
    x = batch.trajectory.x
    rows = x.shape[0]
    return _Chain(
      x=x[:, :trained],
      x_next=x[:, 1 : trained + 1],
      behaviour_log_prob=batch.trajectory.log_prob[:, :trained],
      condition=batch.condition,
      advantage=clip_and_rescale(
        advantage, clip=self.advantage_clip, maximum=None
      ),
      valid=batch.valid,
      index=jnp.broadcast_to(jnp.arange(trained), (rows, trained)),
    )

  def _loss(
    self, model: Any, state: State, params: PyTree, part: _Chain
  ) -> tuple[dict[str, Total], dict[str, Total]]:
    def replay(params: PyTree) -> Step:
      def velocity(x: jax.Array, t: jax.Array) -> jax.Array:
        return model.apply(params, x, t, part.condition)

      def one(x: Any, x_next: Any, index: Any) -> Step:
        return self.sampler.replay(velocity, x, x_next, index)

      return jax.vmap(one, in_axes=1, out_axes=1)(
        part.x, part.x_next, part.index
      )

    step = replay(params)
    mask = jnp.broadcast_to(part.valid[:, None], part.index.shape)
    policy = denoising_policy_loss(
      step.log_prob,
      part.behaviour_log_prob,
      part.advantage,
      mask,
      clip_low=self.clip_range,
      clip_high=self.clip_range,
    )
    terms = {"policy": over_tokens(policy.loss, mask)}
    if self.base_weight:
      base = replay(state.memory["base"])
      exact = self.kl_normalisation == "exact"
      kl = gaussian_kl_mean(
        step.mean, base.mean, step.std if exact else step.sigma
      )
      terms["kl_base"] = over_tokens(kl, mask)
    metrics = {
      "ratio": over_tokens(policy.ratio, mask),
      "clipped": over_tokens(policy.clipped.astype(jnp.float32), mask),
    }
    return terms, metrics


def _averaged(
  average: Average,
  before: PyTree,
  params: PyTree,
  *,
  step: Int[Array, ""],
  taken: Int[Array, ""],
) -> PyTree:
  """The average after a loop step, `taken` optimiser steps having been made."""
  decay = warmup_ema_decay(taken, maximum=average.maximum)
  # A decay of one leaves the average alone.
  now = step % average.every == 0
  return ema_update(before, params, jnp.where(now, decay, 1.0))
