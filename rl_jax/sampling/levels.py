"""Noise levels of a variance-preserving diffusion, and what networks predict.

x = sqrt(ab) x_0 + sqrt(1 - ab) noise with ab = alpha-bar of a training step.
A rectified flow is the same family of latents up to a scale.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, get_args

import jax.numpy as jnp
import numpy as np

from rl_jax.flow import clean_from_velocity, expand_like, noise_from_velocity
from rl_jax.masks import widened

if TYPE_CHECKING:
  from jaxtyping import Array, Float

__all__ = [
  "Prediction",
  "flow_time",
  "noise_and_clean",
  "scaled_linear_alpha_bar",
]

Prediction = Literal["noise", "clean", "velocity", "flow"]


def scaled_linear_alpha_bar(
  *, training_steps: int, beta_first: float, beta_last: float
) -> Float[np.ndarray, "level"]:
  """Alpha-bar when the square root of beta grows linearly.

      ab_n = prod_{m <= n} (1 - beta_m)
      sqrt(beta) = linspace(sqrt(beta_first), sqrt(beta_last))

  Args:
    training_steps: how many noise levels the network was trained on.
    beta_first: beta of the least noisy level, in (0, 1).
    beta_last: beta of the noisiest level, in [beta_first, 1).

  Returns:
    ab, strictly decreasing, from float64 on the host.

  Raises:
    ValueError: if training_steps < 1 or betas are out of range.

  The schedule of Stable Diffusion 1: 1000, 0.00085, 0.012.
  """
  if training_steps < 1:
    raise ValueError(f"training_steps must be at least 1, got {training_steps}")
  if not 0 < beta_first <= beta_last < 1:
    raise ValueError(
      f"needs 0 < beta_first <= beta_last < 1, got {beta_first}, {beta_last}"
    )
  root = np.linspace(beta_first**0.5, beta_last**0.5, training_steps)
  return np.cumprod(1.0 - root**2).astype(np.float32)


def noise_and_clean(
  x: Float[Array, "row *event"],
  output: Float[Array, "row *event"],
  alpha_bar: Float[Array, "row"],
  *,
  prediction: Prediction,
) -> tuple[Float[Array, "row *event"], Float[Array, "row *event"]]:
  """Noise and clean sample that a network's output stands for.

      noise:     x_0 = (x - sqrt(1 - ab) e) / sqrt(ab)
      clean:     e = (x - sqrt(ab) x_0) / sqrt(1 - ab)
      velocity:  v = sqrt(ab) e - sqrt(1 - ab) x_0
      flow:      v = e - x_0, of the latent scaled to (1 - t) x_0 + t e

  Args:
    x: the latent in the variance-preserving convention.
    output: what the network said.
    alpha_bar: ab of x, in (0, 1).
    prediction: what the network predicts.

  Returns:
    e and x_0.

  Raises:
    ValueError: for an unknown prediction.

  >>> x, output, half = jnp.ones((1, 1)), jnp.zeros((1, 1)), jnp.array([0.25])
  >>> e, x0 = noise_and_clean(x, output, half, prediction="noise")
  >>> e.tolist(), x0.tolist()
  ([[0.0]], [[2.0]])
  """
  x, output = widened(x), widened(output)
  signal = expand_like(jnp.sqrt(widened(alpha_bar)), x)
  spread = expand_like(jnp.sqrt(1.0 - widened(alpha_bar)), x)
  if prediction == "noise":
    return output, (x - spread * output) / signal
  if prediction == "clean":
    return (x - signal * output) / spread, output
  if prediction == "velocity":
    return signal * output + spread * x, signal * x - spread * output
  if prediction == "flow":
    t, scale = flow_time(alpha_bar)
    x = expand_like(scale, x) * x
    noise = noise_from_velocity(x, output, t)
    return noise, clean_from_velocity(x, output, t)
  raise ValueError(
    f"prediction must be one of {get_args(Prediction)}, got {prediction!r}"
  )


def flow_time(
  alpha_bar: Float[Array, "row"],
) -> tuple[Float[Array, "row"], Float[Array, "row"]]:
  """The flow's time with the signal-to-noise of a level, and the scale there.

      t = sqrt(1 - ab) / (sqrt(ab) + sqrt(1 - ab))
      x_flow = x / (sqrt(ab) + sqrt(1 - ab))

  Args:
    alpha_bar: ab, in [0, 1].

  Returns:
    t, and what the latent is multiplied with.
  """
  signal = jnp.sqrt(widened(alpha_bar))
  spread = jnp.sqrt(1.0 - widened(alpha_bar))
  return spread / (signal + spread), 1.0 / (signal + spread)
