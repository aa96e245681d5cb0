r"""Rectified flow: the straight line between a sample and noise.

Time t runs from 0, the data, to 1, pure noise:

    x_t = (1 - t) x_0 + t noise,      v = dx_t/dt = noise - x_0

A velocity network estimates E[v | x_t]. From x_t and v both ends of the line
follow, so a prediction of the sample, of the noise and of the velocity are
the same prediction.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np

from rl_jax.masks import widened

if TYPE_CHECKING:
  from jaxtyping import Array, Float

__all__ = [
  "clean_from_velocity",
  "interpolate",
  "noise_from_velocity",
  "noisy_velocity_target",
  "renoise",
  "shifted_schedule",
  "velocity_from_clean",
  "velocity_from_noise",
]


def interpolate(
  x0: Float[Array, "row *event"],
  noise: Float[Array, "row time *event"],
  t: Float[Array, "row time"],
) -> tuple[Float[Array, "row time *event"], Float[Array, "row time *event"]]:
  """Points on the lines from each sample to its noises, and their velocity.

      x_t = (1 - t) x_0 + t noise,      v = noise - x_0

  Args:
    x0: clean sample of each row, in the unit of the data.
    noise: standard normal, one draw for each time of each row.
    t: where on the line, in (0, 1]; 1 is pure noise.

  Returns:
    x_t and the velocity target v, both in the unit of the data.

  Raises:
    ValueError: if `t` can be seen (is not traced) and leaves (0, 1].

  Lipman et al. 2023, arXiv:2210.02747; Liu et al. 2023, arXiv:2209.03003.

  >>> x_t, v = interpolate(
  ...   jnp.array([[0.5, -0.5]]),
  ...   jnp.array([[[1.0, 0.5]]]),
  ...   jnp.array([[0.5]]),
  ... )
  >>> x_t.tolist(), v.tolist()
  ([[[0.75, 0.0]]], [[[0.5, 1.0]]])
  """
  _require_times("t", t)
  x0, noise = widened(x0)[:, None], widened(noise)
  t = expand_like(t, noise)
  return (1.0 - t) * x0 + t * noise, noise - x0


def clean_from_velocity(
  x: Float[Array, "row *event"],
  velocity: Float[Array, "row *event"],
  t: Float[Array, "row"],
) -> Float[Array, "row *event"]:
  """The sample at the end of the line that leaves x at this velocity.

      x_0 = x - t v

  Args:
    x: x_t, in the unit of the data.
    velocity: v, estimated or exact.
    t: the time of x, in (0, 1].

  Returns:
    The clean sample: E[x_0 | x_t] if `velocity` is E[v | x_t].

  >>> x, v, t = jnp.array([[0.75]]), jnp.array([[0.5]]), jnp.array([0.5])
  >>> clean_from_velocity(x, v, t).tolist()
  [[0.5]]
  """
  return widened(x) - expand_like(t, x) * widened(velocity)


def noise_from_velocity(
  x: Float[Array, "row *event"],
  velocity: Float[Array, "row *event"],
  t: Float[Array, "row"],
) -> Float[Array, "row *event"]:
  """The noise at the other end of the line through x.

      noise = x + (1 - t) v

  Args:
    x: x_t, in the unit of the data.
    velocity: v, estimated or exact.
    t: the time of x, in (0, 1].

  Returns:
    The noise: E[noise | x_t] if `velocity` is E[v | x_t].

  >>> x, v, t = jnp.array([[0.75]]), jnp.array([[0.5]]), jnp.array([0.5])
  >>> noise_from_velocity(x, v, t).tolist()
  [[1.0]]
  """
  return widened(x) + (1.0 - expand_like(t, x)) * widened(velocity)


def velocity_from_clean(
  x: Float[Array, "row *event"],
  clean: Float[Array, "row *event"],
  t: Float[Array, "row"],
) -> Float[Array, "row *event"]:
  """The velocity of the line from a clean sample through x.

      v = (x - x_0) / t

  Args:
    x: x_t, in the unit of the data.
    clean: x_0, or a prediction of it.
    t: the time of x, in (0, 1]; at 0 the line is not determined.

  Returns:
    The velocity v; inverse of `clean_from_velocity`.

  >>> x, x0, t = jnp.array([[0.75]]), jnp.array([[0.5]]), jnp.array([0.5])
  >>> velocity_from_clean(x, x0, t).tolist()
  [[0.5]]
  """
  return (widened(x) - widened(clean)) / expand_like(t, x)


def velocity_from_noise(
  x: Float[Array, "row *event"],
  noise: Float[Array, "row *event"],
  t: Float[Array, "row"],
) -> Float[Array, "row *event"]:
  """The velocity of the line from x to a noise.

      v = (noise - x) / (1 - t)

  Args:
    x: x_t, in the unit of the data.
    noise: the noise, or a prediction of it.
    t: the time of x, in [0, 1); at 1 the line is not determined.

  Returns:
    The velocity v; inverse of `noise_from_velocity`.

  >>> x, noise, t = jnp.array([[0.75]]), jnp.array([[1.0]]), jnp.array([0.5])
  >>> velocity_from_noise(x, noise, t).tolist()
  [[0.5]]
  """
  return (widened(noise) - widened(x)) / (1.0 - expand_like(t, x))


def renoise(
  x_s: Float[Array, "row time *event"],
  noise: Float[Array, "row time *event"],
  t: Float[Array, "row time"],
  s: Float[Array, "row time"],
) -> Float[Array, "row time *event"]:
  """Carry a point at time s on to the noisier time t.

      x_t = a x_s + b noise,   a = (1 - t)/(1 - s),   b^2 = t^2 - a^2 s^2

  If x_s has the law of the flow at time s, x_t has that of time t.

  Args:
    x_s: a point at time s.
    noise: standard normal, independent of x_s.
    t: the later time, in (s, 1].
    s: the earlier time, in [0, t).

  Returns:
    x_t, in the unit of the data.

  Raises:
    ValueError: if times can be seen and do not obey 0 <= s < t <= 1.

  Advantage weighted matching, arXiv:2509.25050, the noisy-data theory.

  >>> x_s, noise = jnp.array([[[1.0]]]), jnp.array([[[2.0]]])
  >>> renoise(x_s, noise, jnp.array([[0.5]]), jnp.array([[0.0]])).tolist()
  [[[1.5]]]
  """
  _require_order(t, s, highest=1.0)
  keep_s, variance = _transition(t, s)
  return expand_like(keep_s, x_s) * widened(x_s) + expand_like(
    jnp.sqrt(variance), x_s
  ) * widened(noise)


def noisy_velocity_target(
  x_t: Float[Array, "row time *event"],
  x_s: Float[Array, "row time *event"],
  t: Float[Array, "row time"],
  s: Float[Array, "row time"],
) -> Float[Array, "row time *event"]:
  """The velocity target when only a noisy sample x_s is known, not x_0.

      v~ = -(x_t - t (x_t - a x_s) / b^2) / (1 - t)
      a = (1 - t)/(1 - s),   b^2 = t^2 - a^2 s^2

  s = 0 gives noise - x_0. E[v~ | x_t] is the same velocity for every s, but
  the spread around it grows as s approaches t: the regression has the same
  solution and a noisier gradient.

  Args:
    x_t: the point that the network sees.
    x_s: the less noisy point that it came from; see `renoise`.
    t: the time of x_t, in (s, 1).
    s: the time of x_s, in [0, t).

  Returns:
    v~, in the unit of the data.

  Raises:
    ValueError: if times can be seen and do not obey 0 <= s < t < 1.

  Advantage weighted matching, arXiv:2509.25050: what the likelihood of a
  denoising step regresses onto.

  >>> x_t, x_0 = jnp.array([[[0.75]]]), jnp.array([[[0.5]]])
  >>> t, s = jnp.array([[0.5]]), jnp.array([[0.0]])
  >>> noisy_velocity_target(x_t, x_0, t, s).tolist()
  [[[0.5]]]
  """
  _require_order(t, s, highest=np.nextafter(np.float32(1), np.float32(0)))
  keep_s, variance = _transition(t, s)
  x_t, x_s = widened(x_t), widened(x_s)
  noise = (x_t - expand_like(keep_s, x_t) * x_s) / expand_like(variance, x_t)
  t = expand_like(t, x_t)
  return -(x_t - t * noise) / (1.0 - t)


def shifted_schedule(
  *, num_steps: int, shift: float, t_min: float | None
) -> Float[np.ndarray, "times"]:
  """The times that a sampler visits, from pure noise down to the data.

      shift(u) = s u / (1 + (s - 1) u)
      t_min None:  t = shift(linspace(1, 0, N + 1))
      otherwise:   t = shift(linspace(1, shift(t_min), N)), followed by 0

  Computed on the host in float64, so that the number of steps is static.

  Args:
    num_steps: N, how many steps the sampler takes.
    shift: s > 0; more than 1 spends more steps near the noise, 1 is even.
    t_min: None for an even grid down to 0; else the smallest training time of
      the network, which is shifted twice (1/1000 for Stable Diffusion 3).

  Returns:
    N + 1 strictly decreasing times, the first 1, the last 0.

  Raises:
    ValueError: if N < 1, s <= 0 or t_min is not in (0, 1).

  Esser et al. 2024, arXiv:2403.03206, eq. 23, for the shift; the second form
  is that of the published Euler scheduler of Stable Diffusion 3.

  >>> shifted_schedule(num_steps=4, shift=1.0, t_min=None).tolist()
  [1.0, 0.75, 0.5, 0.25, 0.0]
  """
  if num_steps < 1:
    raise ValueError(f"num_steps must be at least 1, got {num_steps}")
  if not shift > 0:
    raise ValueError(f"shift must be positive, got {shift}")
  if t_min is not None and not 0 < t_min < 1:
    raise ValueError(f"t_min must be in (0, 1) or None, got {t_min}")

  def shifted(u):
    return shift * u / (1.0 + (shift - 1.0) * u)

  if t_min is None:
    t = shifted(np.linspace(1.0, 0.0, num_steps + 1))
  else:
    t = np.append(shifted(np.linspace(1.0, shifted(t_min), num_steps)), 0.0)
  return t.astype(np.float32)


def require_schedule(schedule: Float[np.ndarray, "times"]) -> None:
  """Refuse times that a sampler cannot walk down."""
  if schedule.size < 2:
    raise ValueError(f"a schedule needs two times or more, got {schedule}")
  if not (np.diff(schedule) < 0).all():
    raise ValueError(f"a schedule must strictly decrease, got {schedule}")
  if not (schedule[0] <= 1 and schedule[-1] >= 0):
    raise ValueError(f"a schedule must lie within [0, 1], got {schedule}")


def expand_like(per_row: jax.Array, x: jax.Array) -> jax.Array:
  """Trailing axes of one, so that a value per row meets every event axis."""
  missing = (1,) * (x.ndim - per_row.ndim)
  return widened(per_row).reshape(per_row.shape + missing)


def _transition(t, s):
  """Both numbers, a and b^2, of x_t | x_s ~ N(a x_s, b^2 I)."""
  t, s = widened(t), widened(s)
  keep_s = (1.0 - t) / (1.0 - s)
  return keep_s, t**2 - (keep_s * s) ** 2


def _require_times(name, t):
  # Inside jit nothing can be seen; there the doctor of the engine looks.
  if isinstance(t, jax.core.Tracer):
    return
  seen = np.asarray(t, np.float64)
  if not ((seen > 0) & (seen <= 1)).all():
    raise ValueError(
      f"{name} must lie in (0, 1], got values from {seen.min()} to {seen.max()}"
    )


def _require_order(t, s, highest):
  if isinstance(t, jax.core.Tracer) or isinstance(s, jax.core.Tracer):
    return
  late, early = np.asarray(t, np.float64), np.asarray(s, np.float64)
  if not ((early >= 0) & (early < late) & (late <= highest)).all():
    raise ValueError(
      f"times must obey 0 <= s < t <= {float(highest):.8g}, got t = {late} "
      f"and s = {early}"
    )
