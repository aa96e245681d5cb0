"""Advantage weighted matching: the pretraining loss, weighed by advantage."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from rl_jax.advantages import clip_and_rescale
from rl_jax.algorithms.advantages import GroupRelative
from rl_jax.algorithms.online import Online, online_program, rollout_metrics
from rl_jax.flow import interpolate
from rl_jax.losses import (
  awm_loss,
  matching_error,
  matching_log_prob,
  velocity_kl,
)
from rl_jax.reduce import Total, over_tokens
from rl_jax.training.averages import (
  ema_update,
  linear_ema_decay,
  warmup_ema_decay,
)
from rl_jax.training.optimisers import AdamW, Learner, optimise
from rl_jax.training.state import Program, State, step_key
from rl_jax.training.step import merged

if TYPE_CHECKING:
  from collections.abc import Callable

  from jaxtyping import Array, Bool, Float, Key, PyTree

  from rl_jax.types import Rollouts

__all__ = ["AdvantageWeightedMatching", "SlowCopy"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SlowCopy:
  """The slow copy of the policy: decay min(maximum, slope * step) per step.

  A small decay makes it nearly the previous iterate, so that the distance to
  it is a proximal penalty on one update.
  """

  slope: float = 0.001
  """Growth of the decay per step; infinity makes it constant."""
  maximum: float = 0.3
  """Largest decay."""


class _Elements(NamedTuple):
  """Rows as the loss sees them, at the training times of one update."""

  sample: Float[Array, "row *event"]
  condition: PyTree
  advantage: Float[Array, "row"]
  valid: Bool[Array, "row"]
  t: Float[Array, "row time"]
  key: Key[Array, "row"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdvantageWeightedMatching:
  """AWM (arXiv:2509.25050): flow matching on rollouts, weighed by advantage.

  Any sampler may draw the rollouts; no log-probability of it is needed.
  """

  group_size: int
  """Rows that answer each prompt."""
  sampler: Any
  """Draws the rollouts."""
  times: Any
  """Draws the K training times of each row; see `rl_jax.sampling.times`."""
  optimiser: AdamW
  """The optimiser."""
  advantage: Any = GroupRelative(scale="global", ddof=0, epsilon=1e-4)
  """The advantage estimator."""
  advantage_clip: float = 5.0
  """Advantages are clipped to this."""
  advantage_maximum: float | None = 1.0
  """What the clip bound is then scaled to; None leaves the scale alone."""
  weighting: Literal["uniform", "t", "t**2", "huber", "ghuber"] = "ghuber"
  """How a matching error becomes a log-probability."""
  power: float = 0.25
  """Exponent of the weighting `ghuber`."""
  ratio_level: Literal["element", "sample"] = "element"
  """Where the importance ratio is taken."""
  clip_range: float = 1.0
  """Clip range of the importance ratio."""
  base_weight: float = 0.0
  """Weight of the velocity KL to the frozen base; 0 costs nothing."""
  slow_weight: float = 1.0
  """Weight of the velocity KL to the slow copy; 0 costs nothing."""
  kl_weighting: Literal["uniform", "elbo"] = "uniform"
  """Weight over time of both velocity KLs."""
  slow: SlowCopy = SlowCopy()
  """How the slow copy follows."""
  behaviour: Literal["current", "slow"] = "current"
  """Whose rollouts and old log-probabilities: the off-policy variant takes
  both from the slow copy."""
  average_maximum: float | None = 0.99
  """Largest decay of the average kept for evaluation; None keeps none."""
  updates: int = 1
  """Optimiser steps per rollout, each with fresh times and noise; old
  log-probabilities are those of the parameters that the step started from."""
  micro_batches: int = 1
  """Parts that the rows of an update are split into."""

  def __post_init__(self) -> None:
    if self.updates < 1 or self.micro_batches < 1:
      raise ValueError(
        f"updates = {self.updates} and micro_batches ="
        f" {self.micro_batches} must be at least 1"
      )
    if self.base_weight < 0 or self.slow_weight < 0:
      raise ValueError(
        f"KL weights must not be negative, got base {self.base_weight}, slow"
        f" {self.slow_weight}"
      )

  def build(self, experiment: Any, load: Callable[[Any], PyTree]) -> Program:
    """The program of an experiment; see `rl_jax.training.state.Program`."""
    data, rows = experiment.data, experiment.data.rows * self.group_size
    if rows % self.micro_batches:
      raise ValueError(
        f"{data.rows} prompts x {self.group_size} rows = {rows} cannot be"
        f" split into {self.micro_batches} micro-batches"
      )
    if not hasattr(self.sampler, "schedule"):
      raise ValueError(
        f"{type(self.sampler).__name__} has no schedule of flow times to"
        " train at; use EulerOde, FlowSde or SaSolver"
      )
    # More times than the schedule has are refused here, before compiling.
    jax.eval_shape(
      lambda key: self.times(key, self.sampler.schedule, rows),
      jax.random.key(0),
    )
    self.advantage.check(data)
    keeps_slow = self.slow_weight > 0 or self.behaviour == "slow"

    def memory(params: PyTree) -> dict[str, PyTree]:
      kept = {"advantage": self.advantage.init(data.rows)}
      if self.base_weight > 0:
        kept["base"] = params
      if keeps_slow:
        kept["slow"] = params
      if self.average_maximum is not None:
        kept["average"] = params
      # Copies, because a donated state must not hold one buffer twice.
      return jax.tree.map(jnp.copy, kept)

    optimiser = self.optimiser()

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
      elements = [
        self._elements(state, batch, estimate.advantage, i)
        for i in range(self.updates)
      ]
      terms = {"policy": 1.0}
      terms |= {"kl_base": self.base_weight} if self.base_weight else {}
      terms |= {"kl_slow": self.slow_weight} if self.slow_weight else {}
      learner, metrics = optimise(
        lambda params, part: self._loss(experiment.model, state, params, part),
        terms,
        optimiser,
        Learner(state.params, state.optimiser),
        jax.tree.map(lambda *x: jnp.stack(x), *elements),
        micro_batches=self.micro_batches,
      )
      first = jax.tree.map(lambda x: x[0], metrics["ratio"])
      metrics = merged(metrics) | rollout_metrics(batch, estimate)
      metrics["first_ratio"] = first
      state = state._replace(
        step=state.step + 1,
        params=learner.params,
        optimiser=learner.optimiser,
        memory=self._remembered(state, learner.params, estimate.memory),
      )
      return state, metrics

    return online_program(
      Online(
        sampler=self.sampler,
        group_size=self.group_size,
        behaviour="slow" if self.behaviour == "slow" else None,
        optimiser=optimiser,
        memory=memory,
        update=update,
        first_step={"first_ratio": (1.0, 1e-5)},
      ),
      experiment,
      load,
    )

  def _elements(
    self, state: State, batch: Rollouts, advantage: Any, update: int
  ) -> _Elements:
    key = step_key(state, 1 + update)
    rows = batch.reward.shape[0]
    return _Elements(
      sample=batch.sample,
      condition=batch.condition,
      advantage=clip_and_rescale(
        advantage,
        clip=self.advantage_clip,
        maximum=self.advantage_maximum,
      ),
      valid=batch.valid,
      t=self.times(jax.random.fold_in(key, 0), self.sampler.schedule, rows),
      key=jax.random.split(jax.random.fold_in(key, 1), rows),
    )

  def _loss(
    self, model: Any, state: State, params: PyTree, part: _Elements
  ) -> tuple[dict[str, Total], dict[str, Total]]:
    shape = (part.t.shape[1], *model.event_shape)
    noise = jax.vmap(lambda key: jax.random.normal(key, shape))(part.key)
    x_t, target = interpolate(part.sample, noise, part.t)

    def log_prob(velocity: Any) -> Any:
      return matching_log_prob(
        velocity,
        target,
        part.t,
        weighting=self.weighting,
        power=self.power,
      )

    def velocity_of(name: str) -> Any:
      return model.apply(state.memory[name], x_t, part.t, part.condition)

    velocity = model.apply(params, x_t, part.t, part.condition)
    now = log_prob(velocity)
    slow = velocity_of("slow") if "slow" in state.memory else None
    if self.behaviour == "slow":
      old = log_prob(slow)
    elif self.updates == 1:
      old = now  # On policy: the ratio is one and only its gradient counts.
    else:
      start = model.apply(state.params, x_t, part.t, part.condition)
      old = log_prob(start)
    mask = jnp.broadcast_to(part.valid[:, None], part.t.shape)
    policy = awm_loss(
      now,
      jax.lax.stop_gradient(old),
      part.advantage,
      mask,
      clip_low=self.clip_range,
      clip_high=self.clip_range,
      ratio_level=self.ratio_level,
    )

    def kl(reference: Any) -> Total:
      value = velocity_kl(
        velocity, reference, part.t, weighting=self.kl_weighting
      )
      return over_tokens(value, mask)

    terms = {"policy": over_tokens(policy.loss, mask)}
    if self.base_weight:
      terms["kl_base"] = kl(velocity_of("base"))
    if self.slow_weight:
      terms["kl_slow"] = kl(slow)
    metrics = {
      "ratio": over_tokens(policy.ratio, mask),
      "clipped": over_tokens(policy.clipped.astype(jnp.float32), mask),
      "matching_error": over_tokens(matching_error(velocity, target), mask),
    }
    return terms, metrics

  def _remembered(
    self, state: State, params: PyTree, advantage: PyTree
  ) -> dict[str, PyTree]:
    memory = dict(state.memory) | {"advantage": advantage}
    taken = (state.step + 1) * self.updates
    if "slow" in memory:
      decay = linear_ema_decay(
        taken, slope=self.slow.slope, maximum=self.slow.maximum
      )
      memory["slow"] = ema_update(memory["slow"], params, decay)
    if self.average_maximum is not None:
      decay = warmup_ema_decay(taken, maximum=self.average_maximum)
      memory["average"] = ema_update(memory["average"], params, decay)
    return memory
