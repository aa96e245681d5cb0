r"""Samplers of a rectified flow: the Euler ODE, and SDEs with log-probs.

A sampler walks a schedule of times from noise to data; its single steps are
in `rl_jax.sampling.steps`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rl_jax.flow import require_schedule, shifted_schedule
from rl_jax.masks import widened
from rl_jax.sampling.steps import (
  NoiseKind,
  Step,
  euler_step,
  flow_sde_replay,
  flow_sde_step,
  fold_rows,
  require_noise,
)

if TYPE_CHECKING:
  from jaxtyping import Array, Float, Int, Key

__all__ = [
  "EulerOde",
  "FlowSde",
  "Trajectory",
  "VelocityFn",
  "flow_sde",
  "guided",
  "ode_euler",
]

VelocityFn = Callable[[jax.Array, jax.Array], jax.Array]
"""velocity_fn(x "row *event", t "row") -> velocity "row *event"."""


class Trajectory(NamedTuple):
  """What a sampler returns.

  Attributes:
    x0: the sample of each row, in the unit of the data.
    x: every latent from the initial noise to the sample, or None from
      samplers without log-probs.
    log_prob: log-density of each step averaged over the event, nats per
      dimension, or None.
  """

  x0: Float[Array, "row *event"]
  x: Float[Array, "row times *event"] | None
  log_prob: Float[Array, "row time"] | None


def ode_euler(
  velocity_fn: VelocityFn,
  noise: Float[Array, "row *event"],
  schedule: Float[np.ndarray, "times"],
) -> Trajectory:
  """Integrate the flow from noise to data with Euler steps.

  Args:
    velocity_fn: (x "row *event", t "row") -> velocity "row *event".
    noise: the latents at the first time.
    schedule: strictly decreasing times within [0, 1], on the host.

  Returns:
    The samples; no latents on the way and no log-probs.

  Raises:
    ValueError: if the schedule does not decrease or leaves [0, 1].

  >>> towards_two = lambda x, t: (x - 2.0) / t[:, None]
  >>> schedule = np.array([1.0, 0.5, 0.0], np.float32)
  >>> ode_euler(towards_two, jnp.array([[7.0]]), schedule).x0.tolist()
  [[2.0]]
  """
  require_schedule(schedule)

  def step(x, times):
    t, t_next = (jnp.broadcast_to(time, x.shape[:1]) for time in times)
    return euler_step(x, velocity_fn(x, t), t, t_next), None

  x0, _ = jax.lax.scan(step, widened(noise), (schedule[:-1], schedule[1:]))
  return Trajectory(x0, None, None)


def flow_sde(
  velocity_fn: VelocityFn,
  noise: Float[Array, "row *event"],
  row_key: Key[Array, "row"],
  schedule: Float[np.ndarray, "times"],
  *,
  noise_level: float,
  kind: NoiseKind,
) -> Trajectory:
  """Walk from noise to data with an SDE, keeping every latent and log-prob.

  Step i of a row draws from the row's key folded with i.

  Args:
    velocity_fn: (x "row *event", t "row") -> velocity "row *event".
    noise: the latents at the first time.
    row_key: one key per row.
    schedule: strictly decreasing times within [0, 1], on the host.
    noise_level: a > 0.
    kind: which noise; see `flow_sde_moments`.

  Returns:
    The samples, all N + 1 latents and N log-probs. The last step of "cps" has
    no noise: its log-prob is NaN and must be masked.

  Raises:
    ValueError: if the schedule does not decrease or leaves [0, 1], or if
      `noise_level` is not positive.

  Liu et al. 2025, arXiv:2505.05470 (Flow-GRPO), code.
  """
  require_schedule(schedule)

  def draw(x, t, t_next, index):
    return flow_sde_step(
      x,
      velocity_fn(x, t),
      t,
      t_next,
      fold_rows(row_key, index),
      t_first=float(schedule[1]),
      noise_level=noise_level,
      kind=kind,
    )

  return stochastic_scan(draw, noise, (schedule[:-1], schedule[1:]))


def stochastic_scan(draw, noise, per_step) -> Trajectory:
  """Scan draw(x, *values "row", index) -> Step over the steps of a chain."""

  def step(x, inputs):
    index, *values = inputs
    rows = (jnp.broadcast_to(value, x.shape[:1]) for value in values)
    taken = draw(x, *rows, index)
    return taken.x_next, (taken.x_next, taken.log_prob)

  first = widened(noise)
  index = np.arange(len(per_step[0]), dtype=np.int32)
  x0, (x, log_prob) = jax.lax.scan(step, first, (index, *per_step))
  x = jnp.concatenate([first[None], x])
  return Trajectory(x0, jnp.moveaxis(x, 0, 1), log_prob.T)


def guided(
  conditional: VelocityFn, unconditional: VelocityFn, *, weight: float
) -> VelocityFn:
  """Classifier-free guidance as a velocity function of its own.

      v = v_unc + weight (v_cond - v_unc)

  Args:
    conditional: the velocity given the condition; receives the gradient.
    unconditional: without it; no gradient flows through it.
    weight: 1 is the conditional velocity alone.

  Returns:
    A velocity function with the same signature.

  Ho and Salimans 2022, arXiv:2207.12598; the stopped branch as in Flow-GRPO.
  """

  def velocity_fn(x, t):
    base = jax.lax.stop_gradient(unconditional(x, t))
    return base + weight * (conditional(x, t) - base)

  return velocity_fn


@dataclasses.dataclass(frozen=True, kw_only=True)
class EulerOde:
  """Sampler: Euler steps of the flow's ODE; deterministic, no log-probs."""

  steps: int
  """How many network evaluations a sample costs."""
  shift: float
  """More than 1 spends more steps near the noise; 1 is even."""
  t_min: float | None = None
  """None for an even grid down to 0; 1/1000 for Stable Diffusion 3."""

  def __post_init__(self):
    _ = self.schedule

  @property
  def schedule(self) -> Float[np.ndarray, "times"]:
    """The times that are visited, from 1 down to 0."""
    return shifted_schedule(
      num_steps=self.steps, shift=self.shift, t_min=self.t_min
    )

  def __call__(
    self,
    velocity_fn: VelocityFn,
    noise: Float[Array, "row *event"],
    row_key: Key[Array, "row"],
  ) -> Trajectory:
    """Sample each row from its noise; the keys are not used."""
    del row_key
    return ode_euler(velocity_fn, noise, self.schedule)


@dataclasses.dataclass(frozen=True, kw_only=True)
class FlowSde:
  """Sampler: an SDE with the flow's marginals, and its log-probs."""

  steps: int
  """How many network evaluations a sample costs."""
  shift: float
  """More than 1 spends more steps near the noise; 1 is even."""
  noise_level: float
  """How much noise is put back in each step; 0.7 in Flow-GRPO."""
  kind: NoiseKind = "flow_sde"
  """Shape of the noise over time."""
  t_min: float | None = None
  """None for an even grid down to 0; 1/1000 for Stable Diffusion 3."""

  def __post_init__(self):
    _ = self.schedule
    require_noise(self.noise_level, self.kind)

  @property
  def schedule(self) -> Float[np.ndarray, "times"]:
    """The times that are visited, from 1 down to 0."""
    return shifted_schedule(
      num_steps=self.steps, shift=self.shift, t_min=self.t_min
    )

  @property
  def scored_steps(self) -> int:
    """Steps, from the first, that have noise and so a log-probability."""
    return self.steps - (self.kind == "cps")

  def __call__(
    self,
    velocity_fn: VelocityFn,
    noise: Float[Array, "row *event"],
    row_key: Key[Array, "row"],
  ) -> Trajectory:
    """Sample each row from its noise and key, with log-probs."""
    return flow_sde(
      velocity_fn,
      noise,
      row_key,
      self.schedule,
      noise_level=self.noise_level,
      kind=self.kind,
    )

  def replay(
    self,
    velocity_fn: VelocityFn,
    x: Float[Array, "row *event"],
    x_next: Float[Array, "row *event"],
    step: Int[Array, "row"],
  ) -> Step:
    """Score stored steps, each row's own, under another network.

    Args:
      velocity_fn: the network being trained.
      x: the latent that step number `step` started from.
      x_next: the latent that it drew.
      step: 0 for the step that leaves the initial noise.

    Returns:
      The step, differentiable in the network.
    """
    schedule = jnp.asarray(self.schedule)
    t, t_next = schedule[step], schedule[step + 1]
    return flow_sde_replay(
      x,
      velocity_fn(x, t),
      t,
      t_next,
      x_next,
      t_first=float(self.schedule[1]),
      noise_level=self.noise_level,
      kind=self.kind,
    )
