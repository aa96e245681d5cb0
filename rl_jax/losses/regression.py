r"""Pretraining losses of flow and diffusion networks, per element.

The second half is the ablation that tells why the clean target matters: an
EDM denoiser trained towards a target that is computed from a noisy sample.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import jax.numpy as jnp
import numpy as np

from rl_jax.flow import expand_like
from rl_jax.losses.matching import matching_error
from rl_jax.masks import widened

if TYPE_CHECKING:
  from jaxtyping import Array, Float

__all__ = [
  "edm_loss",
  "edm_lower_noise",
  "edm_noisy_target",
  "edm_weight",
  "flow_matching_loss",
  "karras_grid",
]

_DATA_STD = 0.5


def flow_matching_loss(
  velocity: Float[Array, "row time *event"],
  target: Float[Array, "row time *event"],
) -> Float[Array, "row time"]:
  """The pretraining loss of a rectified flow, averaged over the event.

      l = mean_d (v_d - (noise_d - x0_d))^2

  Args:
    velocity: v, the network's velocity at (x_t, t).
    target: noise - x_0, from `rl_jax.flow.interpolate`.

  Returns:
    l per row and time, not reduced.

  Lipman et al. 2023, arXiv:2210.02747, eq. 23.

  >>> v, target = jnp.array([[[1.0, 2.0]]]), jnp.array([[[1.0, 0.0]]])
  >>> flow_matching_loss(v, target).tolist()
  [[2.0]]
  """
  return matching_error(velocity, target)


def karras_grid(
  *, num_steps: int, rho: float, low: float, high: float
) -> Float[np.ndarray, "levels"]:
  """Noise levels of an EDM sampler, followed by zero.

      sigma_i = (high^(1/rho) + i/(n-1) (low^(1/rho) - high^(1/rho)))^rho

  Args:
    num_steps: n, levels before the final zero; at least 2.
    rho: > 0; larger spends more levels near `low`.
    low: smallest level above zero, in the unit of the data.
    high: largest level.

  Returns:
    n + 1 strictly decreasing levels, the last 0, from float64.

  Raises:
    ValueError: if n < 2, rho <= 0 or not 0 < low < high.

  Karras et al. 2022, arXiv:2206.00364, eq. 5; 40, 7, 0.002 and 80 in the
  ablation of arXiv:2509.25050.

  >>> karras_grid(num_steps=3, rho=1.0, low=1.0, high=2.0).tolist()
  [2.0, 1.5, 1.0, 0.0]
  """
  if num_steps < 2:
    raise ValueError(f"num_steps must be at least 2, got {num_steps}")
  if not rho > 0:
    raise ValueError(f"rho must be positive, got {rho}")
  if not 0 < low < high:
    raise ValueError(f"needs 0 < low < high, got low {low} and high {high}")
  root = np.linspace(high ** (1 / rho), low ** (1 / rho), num_steps)
  return np.append(root**rho, 0.0).astype(np.float32)


def edm_lower_noise(
  sigma: Float[Array, "row time"], *, grid: Float[np.ndarray, "levels"]
) -> Float[Array, "row time"]:
  """The second grid level at or below sigma; 0 at the bottom.

  The one after the next lower one, so that sigma^2 - sigma_s^2 stays away
  from zero.

  Args:
    sigma: noise levels, positive.
    grid: decreasing levels that end in 0, from `karras_grid`.

  Returns:
    sigma_s, for `edm_noisy_target`.

  Raises:
    ValueError: if the grid does not strictly decrease to 0.

  Advantage weighted matching, arXiv:2509.25050, code of the EDM ablation.

  >>> grid = np.array([4.0, 2.0, 1.0, 0.0], np.float32)
  >>> edm_lower_noise(jnp.array([[5.0, 3.0, 2.0, 0.5]]), grid=grid).tolist()
  [[2.0, 1.0, 1.0, 0.0]]
  """
  if grid[-1] != 0 or not (np.diff(grid) < 0).all():
    raise ValueError(f"the grid must strictly decrease to 0, got {grid}")
  above = jnp.sum(
    jnp.asarray(grid)[None, None] > widened(sigma)[..., None], axis=-1
  )
  return jnp.asarray(grid)[jnp.minimum(above + 1, grid.size - 1)]


def edm_noisy_target(
  x: Float[Array, "row time *event"],
  noise: Float[Array, "row time *event"],
  sigma: Float[Array, "row time"],
  sigma_s: Float[Array, "row time"],
) -> Float[Array, "row time *event"]:
  """The denoiser's target when x came from a noisy sample, not a clean one.

      x = y_s + sqrt(sigma^2 - sigma_s^2) noise
      D* = x - sigma^2 / sqrt(sigma^2 - sigma_s^2) noise

  sigma_s = 0 gives D* = x - sigma noise = x_0. E[D* | x] is the same for
  every sigma_s.

  Args:
    x: what the denoiser sees, at level sigma.
    noise: standard normal that led from level sigma_s to sigma.
    sigma: noise level of x, in the unit of the data.
    sigma_s: noise level of y_s, smaller than sigma.

  Returns:
    D*, in the unit of the data.

  Advantage weighted matching, arXiv:2509.25050, code of the EDM ablation.

  >>> x, noise = jnp.array([[[3.0]]]), jnp.array([[[1.0]]])
  >>> sigma, none = jnp.array([[2.0]]), jnp.array([[0.0]])
  >>> edm_noisy_target(x, noise, sigma, none).tolist()
  [[[1.0]]]
  """
  sigma, sigma_s = widened(sigma), widened(sigma_s)
  slope = sigma**2 / jnp.sqrt(sigma**2 - sigma_s**2)
  return widened(x) - expand_like(slope, x) * widened(noise)


def edm_weight(sigma: Float[Array, "row time"]) -> Float[Array, "row time"]:
  """The weight that makes EDM's loss of order one at every noise level.

      lambda = (sigma^2 + 0.25) / (0.5 sigma)^2

  Args:
    sigma: noise level, in the unit of data whose standard deviation is 0.5.

  Returns:
    lambda, in inverse squared units of the data.

  Karras et al. 2022, arXiv:2206.00364, table 1.

  >>> edm_weight(jnp.array([[0.5]])).tolist()
  [[8.0]]
  """
  sigma = widened(sigma)
  return (sigma**2 + _DATA_STD**2) / (_DATA_STD * sigma) ** 2


def edm_loss(
  denoised: Float[Array, "row time *event"],
  target: Float[Array, "row time *event"],
  sigma: Float[Array, "row time"],
  sigma_s: Float[Array, "row time"],
) -> Float[Array, "row time"]:
  """EDM's loss towards a clean or a noisy target, on one scale.

      l = lambda(sigma) mean_d (D_d - D*_d)^2
          / (0.25 + sigma^2 sigma_s^2 / (sigma^2 - sigma_s^2))

  The denominator is the variance of data plus that of the target around the
  clean sample: without it the noisy target's loss would be larger merely
  because its target is.

  Args:
    denoised: D, the network's estimate of the clean sample.
    target: D*, from `edm_noisy_target`.
    sigma: noise level that the network saw.
    sigma_s: noise level that the target was computed from; 0 for clean.

  Returns:
    l per row and time, not reduced.

  Advantage weighted matching, arXiv:2509.25050, code of the EDM ablation.

  >>> one, zero = jnp.ones((1, 1, 2)), jnp.zeros((1, 1, 2))
  >>> sigma, none = jnp.array([[0.5]]), jnp.array([[0.0]])
  >>> edm_loss(one, zero, sigma, none).tolist()
  [[32.0]]
  """
  error = matching_error(denoised, target)
  level, lower = widened(sigma) ** 2, widened(sigma_s) ** 2
  scale = _DATA_STD**2 + level * lower / (level - lower)
  return edm_weight(sigma) * error / scale
