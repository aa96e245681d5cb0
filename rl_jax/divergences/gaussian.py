"""KL between Gaussians, in closed form: value and gradient are exact."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import jax
import jax.numpy as jnp

from rl_jax.masks import widened

if TYPE_CHECKING:
  from jaxtyping import Array, Float

__all__ = [
  "Normalisation",
  "gaussian_kl_mean",
  "gaussian_kl_sum",
  "gaussian_mean_kl",
]

Normalisation = Literal["reference", "exact"]


def gaussian_kl_sum(
  mean: Float[Array, "row time *event"],
  reference_mean: Float[Array, "row time *event"],
  std: Float[Array, "row time"],
) -> Float[Array, "row time"]:
  """KL between Gaussians of one isotropic variance, summed over the event.

      KL_it = sum_d (mu_itd - mu'_itd)^2 / (2 std_it^2)

  The KL of the whole latent: both directions agree, value and gradient are
  exact.

  Args:
    mean: mu, in the unit of the latent.
    reference_mean: mu', same unit. No gradient flows through it.
    std: the common standard deviation, same unit, positive.

  Returns:
    KL in nats.

  >>> mean = jnp.array([[[1.0, 3.0]]])
  >>> gaussian_kl_sum(mean, jnp.zeros((1, 1, 2)), jnp.array([[1.0]])).tolist()
  [[5.0]]
  """
  square = _squared_distance(mean, reference_mean)
  return jnp.sum(square, axis=_event(square)) / _twice_variance(std)


def gaussian_kl_mean(
  mean: Float[Array, "row time *event"],
  reference_mean: Float[Array, "row time *event"],
  std: Float[Array, "row time"],
) -> Float[Array, "row time"]:
  """KL between Gaussians of one isotropic variance, averaged over the event.

      KL_it = (1/D) sum_d (mu_itd - mu'_itd)^2 / (2 std_it^2)

  The KL per dimension: `gaussian_kl_sum` divided by the number D of entries
  of the event, so that a weight carries over between resolutions.

  Args:
    mean: mu, in the unit of the latent.
    reference_mean: mu', same unit. No gradient flows through it.
    std: the common standard deviation, same unit, positive.

  Returns:
    KL in nats per dimension.

  >>> mean = jnp.array([[[1.0, 3.0]]])
  >>> gaussian_kl_mean(mean, jnp.zeros((1, 1, 2)), jnp.array([[1.0]])).tolist()
  [[2.5]]
  """
  square = _squared_distance(mean, reference_mean)
  return jnp.mean(square, axis=_event(square)) / _twice_variance(std)


def gaussian_mean_kl(
  mean: Float[Array, "row time *event"],
  reference_mean: Float[Array, "row time *event"],
  sigma: Float[Array, "row time"],
  dt: Float[Array, "row time"],
  *,
  normalisation: Normalisation,
) -> Float[Array, "row time"]:
  """KL of one stochastic denoising step to the reference's, over its event.

      KL_it = (1/D) sum_d (mu_itd - mu'_itd)^2 / (2 s_it^2)

      "exact":      s = sigma sqrt(-dt), the standard deviation of the step
      "reference":  s = sigma, as the reference code of Flow-GRPO divides

  "exact" is "reference" divided by -dt, hence the larger; a weight tuned for
  one does not fit the other.

  Args:
    mean: mu, mean of the step's next latent.
    reference_mean: mu', the same under the reference. No gradient flows
      through it.
    sigma: diffusion coefficient at the step, positive.
    dt: t_next - t, negative because time runs from noise to data; a positive
      one gives NaN with "exact".
    normalisation: which standard deviation divides.

  Returns:
    KL in nats per dimension.

  Raises:
    ValueError: for an unknown normalisation.

  Liu et al. 2025, arXiv:2505.05470 (Flow-GRPO); its code is "reference", its
  equation "exact".

  >>> mean, zero = jnp.full((1, 1, 2), 0.5), jnp.zeros((1, 1, 2))
  >>> sigma, dt = jnp.ones((1, 1)), jnp.full((1, 1), -0.25)
  >>> gaussian_mean_kl(mean, zero, sigma, dt, normalisation="exact").tolist()
  [[0.5]]
  """
  if normalisation not in ("reference", "exact"):
    raise ValueError(
      f"normalisation must be 'reference' or 'exact', got {normalisation!r}"
    )
  std = widened(sigma)
  if normalisation == "exact":
    std = std * jnp.sqrt(-widened(dt))
  return gaussian_kl_mean(mean, reference_mean, std)


def _squared_distance(mean, reference_mean):
  reference = jax.lax.stop_gradient(widened(reference_mean))
  return jnp.square(widened(mean) - reference)


def _event(value):
  """The axes after row and time."""
  return tuple(range(2, value.ndim))


def _twice_variance(std):
  return 2.0 * jnp.square(widened(std))
