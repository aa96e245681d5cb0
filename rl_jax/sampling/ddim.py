r"""DDIM with log-probs: the stochastic sampler of DDPO.

The variance-preserving convention: x = sqrt(ab) x_0 + sqrt(1 - ab) noise with
ab = alpha-bar of a training step, falling from 1 to 0 over 1000 steps. A
rectified flow is the same family of latents up to a scale, so its velocity
network can be sampled here too.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, get_args

import jax.numpy as jnp
import numpy as np

from rl_jax.flow import expand_like
from rl_jax.masks import widened
from rl_jax.sampling.flow import Trajectory, VelocityFn, stochastic_scan
from rl_jax.sampling.levels import (
  Prediction,
  flow_time,
  noise_and_clean,
  scaled_linear_alpha_bar,
)
from rl_jax.sampling.steps import Step, fold_rows, row_normal, scored_step

if TYPE_CHECKING:
  from jaxtyping import Array, Float, Int, Key

__all__ = [
  "Ddim",
  "ddim_moments",
  "ddim_replay",
  "ddim_step",
]


def ddim_moments(
  noise: Float[Array, "row *event"],
  clean: Float[Array, "row *event"],
  alpha_bar: Float[Array, "row"],
  alpha_bar_next: Float[Array, "row"],
  *,
  eta: float,
  clip: float | None,
  least_std: float = 0.0,
) -> tuple[Float[Array, "row *event"], Float[Array, "row"]]:
  r"""Mean and standard deviation of one DDIM step.

      std^2 = eta^2 (1 - ab')/(1 - ab) (1 - ab/ab')
      mu = sqrt(ab') clip(x_0) + sqrt(1 - ab' - std^2) e

  The standard deviation given back is max(std, least_std).

  Args:
    noise: e, predicted.
    clean: x_0, predicted.
    alpha_bar: ab of the level left, in (0, 1).
    alpha_bar_next: ab' of the level stepped to, not smaller than ab.
    eta: 0 is deterministic, 1 as noisy as ancestral sampling.
    clip: bound on the clean sample, or None. The noise is not recomputed.
    least_std: floor of the noise, in the unit of the data; mu does not see
      it. 0.1 in DPPO (Ren et al. 2024, arXiv:2409.00588), for sampling and
      likelihood alike, so that the last steps still explore.

  Returns:
    mu and std.

  Raises:
    ValueError: if `eta` is not in [0, 1] or `clip` is not positive.

  Song et al. 2021, arXiv:2010.02502, eq. 12 and 16; as used in Black et al.
  2023, arXiv:2305.13301 (DDPO), code.

  >>> zero, one = jnp.zeros((1, 1)), jnp.ones((1, 1))
  >>> here, there = jnp.array([0.25]), jnp.array([0.25])
  >>> mean, std = ddim_moments(zero, one, here, there, eta=1.0, clip=None)
  >>> mean.tolist(), std.tolist()
  ([[0.5]], [0.0])
  """
  _require_eta(eta, 0.0)
  if not least_std >= 0:
    raise ValueError(f"least_std must not be negative, got {least_std}")
  if clip is not None and not clip > 0:
    raise ValueError(f"clip must be positive or None, got {clip}")
  here, there = widened(alpha_bar), widened(alpha_bar_next)
  variance = (1.0 - there) / (1.0 - here) * (1.0 - here / there)
  std = eta * jnp.sqrt(variance)
  clean = widened(clean)
  if clip is not None:
    clean = jnp.clip(clean, -clip, clip)
  # Rounding may take what is left for the noise just below zero.
  direction = jnp.sqrt(jnp.maximum(1.0 - there - std**2, 0.0))
  mean = expand_like(jnp.sqrt(there), clean) * clean + expand_like(
    direction, clean
  ) * widened(noise)
  return mean, jnp.maximum(std, least_std)


def ddim_step(
  noise: Float[Array, "row *event"],
  clean: Float[Array, "row *event"],
  alpha_bar: Float[Array, "row"],
  alpha_bar_next: Float[Array, "row"],
  row_key: Key[Array, "row"],
  *,
  eta: float,
  clip: float | None,
  least_std: float = 0.0,
) -> Step:
  """Draw the next latent of a DDIM chain, and say how likely it was.

  Args:
    noise: e, predicted.
    clean: x_0, predicted.
    alpha_bar: ab of the level left, in (0, 1).
    alpha_bar_next: ab' of the level stepped to, larger than ab.
    row_key: one key per row, for this step only.
    eta: in (0, 1].
    clip: bound on the clean sample, or None.
    least_std: floor of the noise; see `ddim_moments`.

  Returns:
    The step; its sigma is its std.

  Raises:
    ValueError: if `eta` is not positive, since a step without noise has no
      log-prob, or out of range.
  """
  _require_eta(eta, np.nextafter(0.0, 1.0))
  mean, std = ddim_moments(
    noise,
    clean,
    alpha_bar,
    alpha_bar_next,
    eta=eta,
    clip=clip,
    least_std=least_std,
  )
  x_next = mean + expand_like(std, mean) * row_normal(row_key, mean.shape[1:])
  return scored_step(x_next, mean, std, std)


def ddim_replay(
  noise: Float[Array, "row *event"],
  clean: Float[Array, "row *event"],
  alpha_bar: Float[Array, "row"],
  alpha_bar_next: Float[Array, "row"],
  x_next: Float[Array, "row *event"],
  *,
  eta: float,
  clip: float | None,
  least_std: float = 0.0,
) -> Step:
  """The log-prob of a DDIM step that was already taken.

  Args:
    noise: e, predicted by the network being trained.
    clean: x_0, predicted by it.
    alpha_bar: ab of the level left, in (0, 1).
    alpha_bar_next: ab' of the level stepped to, larger than ab.
    x_next: the latent that was drawn. No gradient flows through it.
    eta: in (0, 1].
    clip: bound on the clean sample, or None.
    least_std: floor of the noise; see `ddim_moments`.

  Returns:
    The step, with gradients to the predictions through mean and log-prob.

  Raises:
    ValueError: if `eta` is not positive or out of range.
  """
  _require_eta(eta, np.nextafter(0.0, 1.0))
  mean, std = ddim_moments(
    noise,
    clean,
    alpha_bar,
    alpha_bar_next,
    eta=eta,
    clip=clip,
    least_std=least_std,
  )
  return scored_step(widened(x_next), mean, std, std)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ddim:
  """Sampler: DDIM over a scaled-linear noise schedule, with log-probs.

  The network is called with the latent and its training step as a float,
  unless `prediction` is "flow": then with the latent in the convention of
  `rl_jax.flow` and the time of equal signal-to-noise.
  """

  steps: int
  """How many network evaluations a sample costs."""
  prediction: Prediction
  """What the network predicts."""
  eta: float = 1.0
  """Noise put back in each step, in (0, 1]."""
  clip: float | None = None
  """Bound on the predicted clean sample."""
  least_std: float = 0.0
  """Floor of the noise of each step; 0.1 in DPPO."""
  training_steps: int = 1000
  """Noise levels that the network was trained on."""
  offset: int = 1
  """Added to every visited training step; 1 keeps the last step stochastic."""
  beta_first: float = 0.00085
  """Beta of the least noisy level."""
  beta_last: float = 0.012
  """Beta of the noisiest level."""

  def __post_init__(self):
    _require_eta(self.eta, np.nextafter(0.0, 1.0))
    if self.clip is not None and not self.clip > 0:
      raise ValueError(f"clip must be positive or None, got {self.clip}")
    if self.prediction not in get_args(Prediction):
      raise ValueError(
        f"prediction must be one of {get_args(Prediction)}, got "
        f"{self.prediction!r}"
      )
    if not 1 <= self.steps <= self.training_steps:
      raise ValueError(
        f"steps must be in [1, {self.training_steps}], got {self.steps}"
      )
    top = int(self.visited[0])
    if not 0 <= self.offset <= self.training_steps - 1 - (top - self.offset):
      raise ValueError(
        f"offset {self.offset} takes the first step to {top}, outside "
        f"[0, {self.training_steps - 1}]"
      )
    _ = self.alpha_bar

  @property
  def visited(self) -> Int[np.ndarray, "steps"]:
    """Training steps at which the network is called, noisiest first."""
    stride = self.training_steps // self.steps
    grid = np.arange(self.steps, dtype=np.int32) * stride + self.offset
    return grid[::-1].copy()

  @property
  def alpha_bar(self) -> Float[np.ndarray, "level"]:
    """Alpha-bar of every training step."""
    return scaled_linear_alpha_bar(
      training_steps=self.training_steps,
      beta_first=self.beta_first,
      beta_last=self.beta_last,
    )

  @property
  def scored_steps(self) -> int:
    """Steps, from the first, that have noise and so a log-probability."""
    return self.steps - (self.offset == 0 and self.least_std == 0)

  def _levels(self):
    """Per step: the training step, its alpha-bar and the next one's."""
    here = self.visited
    # The step before the first level is the first level, as in DDPO's code.
    there = np.maximum(here - self.training_steps // self.steps, 0)
    return here, self.alpha_bar[here], self.alpha_bar[there]

  def _predict(self, model_fn, x, level, alpha_bar):
    if self.prediction == "flow":
      t, scale = flow_time(alpha_bar)
      output = model_fn(expand_like(scale, x) * x, t)
    else:
      output = model_fn(x, level.astype(jnp.float32))
    return noise_and_clean(x, output, alpha_bar, prediction=self.prediction)

  def __call__(
    self,
    velocity_fn: VelocityFn,
    noise: Float[Array, "row *event"],
    row_key: Key[Array, "row"],
  ) -> Trajectory:
    """Sample each row from its noise and key, with log-probs."""

    def draw(x, level, alpha_bar, alpha_bar_next, index):
      predicted = self._predict(velocity_fn, x, level, alpha_bar)
      return ddim_step(
        *predicted,
        alpha_bar,
        alpha_bar_next,
        fold_rows(row_key, index),
        eta=self.eta,
        clip=self.clip,
        least_std=self.least_std,
      )

    return stochastic_scan(draw, noise, self._levels())

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
    level, here, there = (jnp.asarray(v)[step] for v in self._levels())
    predicted = self._predict(velocity_fn, widened(x), level, here)
    return ddim_replay(
      *predicted,
      here,
      there,
      x_next,
      eta=self.eta,
      clip=self.clip,
      least_std=self.least_std,
    )


def _require_eta(eta, least):
  if not least <= eta <= 1:
    raise ValueError(
      f"eta is {eta}: log-probs need noise above 0, and eta is at most 1"
    )
