r"""SA-Solver: a multistep stochastic solver with a data prediction.

In the variable lambda = log((1 - t)/t) the exact solution between two times
is a decay of the latent, an integral of the data prediction against an
exponential, and noise. The solver replaces the prediction by a polynomial
through stored values and integrates that exactly. All coefficients follow
from the times alone, so they are computed on the host in float64.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rl_jax.flow import (
  clean_from_velocity,
  require_schedule,
  shifted_schedule,
)
from rl_jax.masks import widened
from rl_jax.sampling.flow import Trajectory, VelocityFn
from rl_jax.sampling.steps import fold_rows, row_normal

if TYPE_CHECKING:
  from jaxtyping import Array, Float, Key

__all__ = ["SaSolver", "SolverOrder", "sa_solver", "sa_times"]

SolverOrder = Literal[1, 2]


class _Coefficients(NamedTuple):
  """What multiplies what, one number per transition between times."""

  keep: np.ndarray
  """The latent."""
  predict_here: np.ndarray
  """The data prediction at the time left, in the predictor."""
  predict_before: np.ndarray
  """The one before it, in the predictor."""
  correct_there: np.ndarray
  """The data prediction at the predicted latent, in the corrector."""
  correct_here: np.ndarray
  """The data prediction at the time left, in the corrector."""
  noise: np.ndarray
  """Standard normal noise, the same draw in both."""


def sa_times(
  schedule: Float[np.ndarray, "times"],
) -> Float[np.ndarray, "evaluations"]:
  """The times at which SA-Solver evaluates the network.

      t_0 = 0.999,   t_(N-1) = t_(N-2) / 2,   the final 0 dropped

  lambda is infinite at 1 and at 0, hence the two edits. The schedule itself
  is left as it is: training times are drawn from that one.

  Args:
    schedule: N + 1 strictly decreasing times from 1 to 0, on the host.

  Returns:
    N times, a new array.

  Raises:
    ValueError: if the schedule does not decrease from 1 to 0, or is so fine
      that the edits would reverse it.

  Advantage weighted matching, arXiv:2509.25050, code.

  >>> schedule = np.array([1.0, 0.5, 0.125, 0.0], np.float32)
  >>> [round(t, 3) for t in sa_times(schedule).tolist()]
  [0.999, 0.5, 0.25]
  """
  require_schedule(schedule)
  if schedule[0] != 1 or schedule[-1] != 0:
    raise ValueError(f"the schedule must run from 1 to 0, got {schedule}")
  times = schedule[:-1].astype(np.float64)
  times[0] = 0.999
  if times.size > 1:
    times[-1] = times[-2] / 2.0
  if not (np.diff(times) < 0).all():
    raise ValueError(
      f"SA-Solver starts at 0.999, above the second time {schedule[1]}; "
      "use fewer steps or a smaller shift"
    )
  return times


def sa_solver(
  velocity_fn: VelocityFn,
  noise: Float[Array, "row *event"],
  row_key: Key[Array, "row"],
  times: Float[np.ndarray, "evaluations"],
  *,
  order: SolverOrder,
  noise_level: float,
  window: tuple[float, float],
) -> Trajectory:
  r"""Walk the times with a predictor, an evaluation and a corrector each.

      tau(t') = noise_level if window_low <= t' <= window_high else 0
      order 1:  x' = exp(-tau^2 h)(t'/t) x + (1 - t')(1 - exp(-(1 + tau^2) h)) D
                     + t' sqrt(1 - exp(-2 tau^2 h)) z,    h = lambda' - lambda
      order 2:  D replaced by the line through two data predictions D = x - t v
                with the few-step correction; predicted from the last two,
                corrected (same z) from the new one and the last

  The first transition is of order 1 without corrector. Predictions are kept
  as evaluated at the predicted latent (PEC), one evaluation per time. Order 1
  is the predictor alone. The sample is the last data prediction.

  Args:
    velocity_fn: (x "row *event", t "row") -> velocity "row *event".
    noise: the latents at the first time.
    row_key: one key per row.
    times: strictly decreasing, inside (0, 1), on the host; see `sa_times`.
    order: 1 or 2.
    noise_level: tau inside the window; 0 solves the flow's ODE.
    window: the times stepped to that receive noise.

  Returns:
    The samples; no latents on the way and no log-probs.

  Raises:
    ValueError: if times leave (0, 1) or do not decrease, `order` is not 1 or
      2, or `noise_level` is negative.

  Xue et al. 2023, arXiv:2309.05019 (SA-Solver); order 2 with the correction
  for few steps as in the code of advantage weighted matching,
  arXiv:2509.25050.
  """
  _require(order, noise_level, window)
  if not (
    times.size and (np.diff(times) < 0).all() and times[0] < 1 and times[-1] > 0
  ):
    raise ValueError(f"times must strictly decrease inside (0, 1), got {times}")
  tau = np.where(
    (times[1:] >= window[0]) & (times[1:] <= window[1]), noise_level, 0.0
  )
  coefficients = _coefficients(np.asarray(times, np.float64), tau, order)

  def predicted_data(x, time):
    t = jnp.broadcast_to(jnp.asarray(time, jnp.float32), x.shape[:1])
    return clean_from_velocity(x, velocity_fn(x, t), t)

  def transition(carry, inputs):
    x, here, before = carry
    index, time, c = inputs
    z = row_normal(fold_rows(row_key, index), x.shape[1:])
    moved = c.keep * x + c.noise * z
    predicted = moved + c.predict_here * here + c.predict_before * before
    there = predicted_data(predicted, time)
    corrected = moved + c.correct_there * there + c.correct_here * here
    return (corrected, there, here), None

  x = widened(noise)
  data = predicted_data(x, times[0])
  steps = np.arange(times.size - 1, dtype=np.int32)
  inputs = (steps, times[1:].astype(np.float32), coefficients)
  (_, x0, _), _ = jax.lax.scan(transition, (x, data, data), inputs)
  return Trajectory(x0, None, None)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SaSolver:
  """Sampler: SA-Solver of order 1 or 2; no log-probs."""

  steps: int
  """How many network evaluations a sample costs."""
  shift: float
  """More than 1 spends more steps near the noise; 1 is even."""
  order: SolverOrder
  """1: the predictor alone; 2: predictor and corrector through two values."""
  noise_level: float
  """How much noise is put back inside the window; 0 is the ODE."""
  window: tuple[float, float] = (0.3, 0.9)
  """Lowest and highest time stepped to that receives noise."""
  t_min: float | None = None
  """None for an even grid down to 0; 1/1000 for Stable Diffusion 3."""

  def __post_init__(self):
    _require(self.order, self.noise_level, self.window)
    sa_times(self.schedule)

  @property
  def schedule(self) -> Float[np.ndarray, "times"]:
    """The unedited times from 1 to 0, for training times to be drawn from."""
    return shifted_schedule(
      num_steps=self.steps, shift=self.shift, t_min=self.t_min
    )

  def __call__(
    self,
    velocity_fn: VelocityFn,
    noise: Float[Array, "row *event"],
    row_key: Key[Array, "row"],
  ) -> Trajectory:
    """Sample each row from its noise and key."""
    return sa_solver(
      velocity_fn,
      noise,
      row_key,
      sa_times(self.schedule),
      order=self.order,
      noise_level=self.noise_level,
      window=self.window,
    )


def _coefficients(times, tau, order) -> _Coefficients:
  """All transitions at once, s -> t; notation of the docstring above."""
  level = np.log((1.0 - times) / times)
  s, t = times[:-1], times[1:]
  start, end = level[:-1], level[1:]
  h = end - start
  rate = 1.0 + tau**2
  keep = np.exp(-(tau**2) * h) * t / s
  noise = t * np.sqrt(-np.expm1(-2.0 * tau**2 * h))
  first = (1.0 - t) * -np.expm1(-rate * h)
  zero = np.zeros_like(h)
  columns = _Coefficients(keep, first, zero, zero, first, noise)
  if order == 2:
    outer = rate * t * np.exp(-(tau**2) * end)
    # The first transition has no value before it; what is computed there
    # with this stand-in is overwritten below.
    before = np.concatenate([[start[0] - 1.0], start[:-1]]) if h.size else start
    rest = (rate * h + np.expm1(-rate * h)) / rate**2
    peak = np.exp(rate * end)
    here, earlier = _line(start, end, rate, start, before)
    correction = peak * (h**2 / 2.0 - rest) / (start - before)
    there, back = _line(start, end, rate, end, start)
    mended = peak * (h / 2.0 - rest / h)
    columns = columns._replace(
      predict_here=outer * (here + correction),
      predict_before=outer * (earlier - correction),
      correct_there=outer * (there + mended),
      correct_here=outer * (back - mended),
    )
    plain = (first, zero, zero, first)
    for column, simple in zip(columns[1:5], plain, strict=True):
      column[:1] = simple[:1]
  return _Coefficients(*(column.astype(np.float32) for column in columns))


def _line(start, end, rate, a, b):
  """Integrals of the two Lagrange lines through a and b against exp(rate l)."""

  def power0(level):
    return np.exp(rate * level) / rate

  def power1(level):
    return np.exp(rate * level) * (level / rate - 1.0 / rate**2)

  total, moment = power0(end) - power0(start), power1(end) - power1(start)
  return (moment - b * total) / (a - b), (moment - a * total) / (b - a)


def _require(order, noise_level, window):
  if order not in (1, 2):
    raise ValueError(f"order must be 1 or 2, got {order}")
  if not noise_level >= 0:
    raise ValueError(f"noise_level must not be negative, got {noise_level}")
  if not window[0] <= window[1]:
    raise ValueError(f"window must be (low, high), got {window}")
