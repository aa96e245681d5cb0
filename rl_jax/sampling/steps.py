r"""Single steps of a flow's samplers, and the noise they draw.

One key per row: what a row becomes does not depend on its neighbours, on
padding or on how rows are sharded.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp

from rl_jax.flow import (
  clean_from_velocity,
  expand_like,
  noise_from_velocity,
)
from rl_jax.log_probs import gaussian_log_prob_mean
from rl_jax.masks import widened

if TYPE_CHECKING:
  from jaxtyping import Array, Float, Int, Key

__all__ = [
  "NoiseKind",
  "Step",
  "euler_step",
  "flow_sde_moments",
  "flow_sde_replay",
  "flow_sde_step",
  "row_keys",
  "row_normal",
]

NoiseKind = Literal["flow_sde", "dance_sde", "cps"]


class Step(NamedTuple):
  """One step of a stochastic sampler, for every row.

  Attributes:
    x_next: the latent that was stepped to, in the unit of the data.
    log_prob: its log-density averaged over the event, nats per dimension. No
      gradient flows through x_next. NaN, without gradient, where the step has
      no noise and therefore no density.
    mean: the mean of x_next.
    sigma: noise per root of time, what Flow-GRPO's KL divides by.
    std: standard deviation of x_next around `mean`: sigma sqrt(-dt).
  """

  x_next: Float[Array, "row *event"]
  log_prob: Float[Array, "row"]
  mean: Float[Array, "row *event"]
  sigma: Float[Array, "row"]
  std: Float[Array, "row"]


def row_keys(key: Key[Array, ""], row: Int[Array, "row"]) -> Key[Array, "row"]:
  """One key per row, from the row's id and not from its place.

  Args:
    key: the key of the whole batch.
    row: an id per row, unique within the batch.

  Returns:
    A key per row; equal ids get equal keys, whatever stands around them.
  """
  return jax.vmap(jax.random.fold_in, (None, 0))(key, row)


def row_normal(
  row_key: Key[Array, "row"], event_shape: tuple[int, ...]
) -> Float[Array, "row *event"]:
  """Standard normal noise, each row from its own key.

  Args:
    row_key: one key per row; see `row_keys`.
    event_shape: shape of one latent.

  Returns:
    Noise of shape [row, *event_shape], float32.
  """
  draw = jax.vmap(lambda key: jax.random.normal(key, event_shape, jnp.float32))
  return draw(row_key)


def fold_rows(
  row_key: Key[Array, "row"], index: int | Int[Array, ""]
) -> Key[Array, "row"]:
  """The keys of one step of every row."""
  return jax.vmap(jax.random.fold_in, (0, None))(row_key, index)


def euler_step(
  x: Float[Array, "row *event"],
  velocity: Float[Array, "row *event"],
  t: Float[Array, "row"],
  t_next: Float[Array, "row"],
) -> Float[Array, "row *event"]:
  """One Euler step along the velocity.

      x' = x + (t' - t) v

  Args:
    x: the latent at time t.
    velocity: v at (x, t).
    t: the time of x, in (0, 1].
    t_next: t', smaller than t on the way to the data.

  Returns:
    The latent at time t'.

  >>> x, v = jnp.array([[1.0]]), jnp.array([[2.0]])
  >>> euler_step(x, v, jnp.array([1.0]), jnp.array([0.75])).tolist()
  [[0.5]]
  """
  dt = expand_like(widened(t_next) - widened(t), x)
  return widened(x) + dt * widened(velocity)


def flow_sde_moments(
  x: Float[Array, "row *event"],
  velocity: Float[Array, "row *event"],
  t: Float[Array, "row"],
  t_next: Float[Array, "row"],
  *,
  t_first: float,
  noise_level: float,
  kind: NoiseKind,
) -> tuple[
  Float[Array, "row *event"], Float[Array, "row"], Float[Array, "row"]
]:
  r"""Mean and noise of one step of an SDE with the flow's marginals.

      flow_sde:   sigma = a sqrt(t / (1 - t)),    dance_sde:  sigma = a
        mu = x (1 + sigma^2/(2t) dt) + v (1 + sigma^2 (1 - t)/(2t)) dt
        std = sigma sqrt(-dt),  dt = t' - t < 0
      cps:  mu = (1 - t') x_0 + t' cos(a pi/2) noise,  std = t' sin(a pi/2)
        with x_0 and noise as predicted from (x, v)

  At t = 1 the t inside (1 - t) of flow_sde's sigma, and only that one, is
  replaced by the first interior time. a = 0 is the Euler step.

  Args:
    x: the latent at time t.
    velocity: v at (x, t).
    t: the time of x, in (0, 1].
    t_next: t' < t.
    t_first: the schedule's time after 1.
    noise_level: a >= 0; at most 1 for "cps".
    kind: which noise.

  Returns:
    mu, sigma and std; for "cps" sigma is std / sqrt(-dt).

  Raises:
    ValueError: for an unknown kind or a noise level out of range.

  Liu et al. 2025, arXiv:2505.05470 (Flow-GRPO), code. Dance-GRPO's constant
  noise and coefficient-preserving sampling after third parties.

  >>> x, v = jnp.array([[1.0]]), jnp.array([[2.0]])
  >>> t, t_next = jnp.array([0.5]), jnp.array([0.25])
  >>> mean, sigma, std = flow_sde_moments(
  ...   x, v, t, t_next, t_first=0.75, noise_level=1.0, kind="flow_sde"
  ... )
  >>> mean.tolist(), sigma.tolist(), std.tolist()
  ([[0.0]], [1.0], [0.5])
  """
  _require_kind(noise_level, kind)
  t, t_next = widened(t), widened(t_next)
  length = t - t_next
  if kind == "cps":
    std = t_next * math.sin(0.5 * math.pi * noise_level)
    clean = clean_from_velocity(x, velocity, t)
    noise = noise_from_velocity(x, velocity, t)
    kept = t_next * math.cos(0.5 * math.pi * noise_level)
    mean = expand_like(1.0 - t_next, x) * clean + expand_like(kept, x) * noise
    return mean, std / jnp.sqrt(length), std
  if kind == "flow_sde":
    finite = jnp.where(t == 1.0, t_first, t)
    sigma = noise_level * jnp.sqrt(t / (1.0 - finite))
  else:
    sigma = jnp.full_like(t, noise_level)
  drift = sigma**2 / (2.0 * t)
  of_x = 1.0 - drift * length
  of_velocity = -(1.0 + drift * (1.0 - t)) * length
  mean = expand_like(of_x, x) * widened(x) + expand_like(
    of_velocity, x
  ) * widened(velocity)
  return mean, sigma, sigma * jnp.sqrt(length)


def flow_sde_step(
  x: Float[Array, "row *event"],
  velocity: Float[Array, "row *event"],
  t: Float[Array, "row"],
  t_next: Float[Array, "row"],
  row_key: Key[Array, "row"],
  *,
  t_first: float,
  noise_level: float,
  kind: NoiseKind,
) -> Step:
  """Draw the next latent, and say how likely it was.

      x' = mu + std z,      z ~ N(0, I)

  Args:
    x: the latent at time t.
    velocity: v at (x, t).
    t: the time of x, in (0, 1].
    t_next: t' < t.
    row_key: one key per row, for this step only.
    t_first: the schedule's time after 1.
    noise_level: a > 0.
    kind: which noise; see `flow_sde_moments`.

  Returns:
    The step; `flow_sde_replay` of its x_next gives the same log-prob.

  Raises:
    ValueError: if `noise_level` is not positive, since a step without noise
      has no log-prob, or out of range for `kind`.
  """
  require_noise(noise_level, kind)
  mean, sigma, std = flow_sde_moments(
    x,
    velocity,
    t,
    t_next,
    t_first=t_first,
    noise_level=noise_level,
    kind=kind,
  )
  x_next = mean + expand_like(std, x) * row_normal(row_key, x.shape[1:])
  return scored_step(x_next, mean, sigma, std)


def flow_sde_replay(
  x: Float[Array, "row *event"],
  velocity: Float[Array, "row *event"],
  t: Float[Array, "row"],
  t_next: Float[Array, "row"],
  x_next: Float[Array, "row *event"],
  *,
  t_first: float,
  noise_level: float,
  kind: NoiseKind,
) -> Step:
  """The log-prob of a step that was already taken, at another velocity.

      log N(x'; mu, std^2 I), averaged over the event

  Args:
    x: the latent at time t, as stored.
    velocity: v at (x, t) of the network being trained.
    t: the time of x, in (0, 1].
    t_next: t' < t.
    x_next: the latent that was drawn. No gradient flows through it.
    t_first: the schedule's time after 1.
    noise_level: a > 0.
    kind: which noise; see `flow_sde_moments`.

  Returns:
    The step, with gradients to the velocity through mean and log-prob.

  Raises:
    ValueError: if `noise_level` is not positive, or out of range for `kind`.
  """
  require_noise(noise_level, kind)
  mean, sigma, std = flow_sde_moments(
    x,
    velocity,
    t,
    t_next,
    t_first=t_first,
    noise_level=noise_level,
    kind=kind,
  )
  return scored_step(widened(x_next), mean, sigma, std)


def scored_step(x_next, mean, sigma, std) -> Step:
  """A Step whose log-prob is that of x_next under the mean and std."""
  noisy = std > 0
  log_prob = gaussian_log_prob_mean(
    jax.lax.stop_gradient(x_next)[:, None],
    mean[:, None],
    jnp.where(noisy, std, 1.0)[:, None],
  )[:, 0]
  return Step(x_next, jnp.where(noisy, log_prob, jnp.nan), mean, sigma, std)


def require_noise(noise_level: float, kind: NoiseKind) -> None:
  """Refuse a noise without a density."""
  _require_kind(noise_level, kind)
  if not noise_level > 0:
    raise ValueError(
      f"noise_level is {noise_level}: log-probs need noise above 0; "
      "use EulerOde to sample without noise"
    )


def _require_kind(noise_level, kind):
  if kind not in get_args(NoiseKind):
    raise ValueError(f"kind must be one of {get_args(NoiseKind)}, got {kind!r}")
  if not noise_level >= 0:
    raise ValueError(f"noise_level must not be negative, got {noise_level}")
  if kind == "cps" and noise_level > 1:
    raise ValueError(f"noise_level of 'cps' is at most 1, got {noise_level}")
