r"""Log-probabilities of what a policy did, with the reduction in the name.

A denoising step draws a whole latent at once. Whether the log-densities of
its dimensions are summed, which is the density, or averaged, which keeps
ratios near one whatever the resolution, changes what a clip range means by a
factor of the number of dimensions. Hence two functions and no option.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import jax.numpy as jnp

from rl_jax.flow import expand_like
from rl_jax.masks import widened

if TYPE_CHECKING:
  from jaxtyping import Array, Float

__all__ = ["gaussian_log_prob_mean", "gaussian_log_prob_sum"]


def gaussian_log_prob_sum(
  value: Float[Array, "row time *event"],
  mean: Float[Array, "row time *event"],
  std: Float[Array, "row time"],
) -> Float[Array, "row time"]:
  r"""Log-density of an isotropic Gaussian: the sum over the event.

      sum_d [ -(x_d - mu_d)^2 / (2 std^2) - log std - log(2 pi) / 2 ]

  Differentiable in all three arguments: stop the gradient of `value` where
  it is a sample of the policy itself.

  Args:
    value: x, where the density is asked.
    mean: mu, in the unit of `value`.
    std: standard deviation of every dimension, positive.

  Returns:
    The log-density, in nats.

  >>> zero, one = jnp.zeros((1, 1, 2)), jnp.ones((1, 1))
  >>> round(gaussian_log_prob_sum(zero, zero, one).item(), 5)
  -1.83788
  """
  density = _gaussian_log_prob(value, mean, std)
  return jnp.sum(density, axis=event_axes(density))


def gaussian_log_prob_mean(
  value: Float[Array, "row time *event"],
  mean: Float[Array, "row time *event"],
  std: Float[Array, "row time"],
) -> Float[Array, "row time"]:
  r"""Log-density of an isotropic Gaussian, averaged over the event.

      mean_d [ -(x_d - mu_d)^2 / (2 std^2) - log std - log(2 pi) / 2 ]

  The density divided by the number of dimensions, as DDPO and Flow-GRPO use
  it. Differentiable in all three arguments, as `gaussian_log_prob_sum`.

  Args:
    value: x, where the density is asked.
    mean: mu, in the unit of `value`.
    std: standard deviation of every dimension, positive.

  Returns:
    The mean log-density, in nats per dimension.

  Black et al. 2023, arXiv:2305.13301; Liu et al. 2025, arXiv:2505.05470,
  code of both.

  >>> zero, one = jnp.zeros((1, 1, 2)), jnp.ones((1, 1))
  >>> round(gaussian_log_prob_mean(zero, zero, one).item(), 5)
  -0.91894
  """
  density = _gaussian_log_prob(value, mean, std)
  return jnp.mean(density, axis=event_axes(density))


def event_axes(latent: Float[Array, "row time *event"]) -> tuple[int, ...]:
  """The axes of a latent that come after its row and its time."""
  return tuple(range(2, latent.ndim))


def _gaussian_log_prob(value, mean, std):
  std = expand_like(std, value)
  score = (widened(value) - widened(mean)) / std
  return -0.5 * score**2 - jnp.log(std) - 0.5 * math.log(2.0 * math.pi)
