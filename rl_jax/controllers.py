"""Coefficients that follow what they control, as pure functions of state.

The state of a controller is its coefficient, one number to keep in the run's
pytree. A component is a frozen value with `init` and a call; `Fixed` has the
shape of the others, so that an experiment exchanges one for the other.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp

from rl_jax.masks import widened

if TYPE_CHECKING:
  from jaxtyping import Array, Float

__all__ = [
  "AdaptiveEntropy",
  "AdaptiveKl",
  "Controlled",
  "Fixed",
  "adapted_entropy_coefficient",
  "adapted_kl_coefficient",
]


class Controlled(NamedTuple):
  """A coefficient for this step and the state for the next.

  Attributes:
    applied: what to multiply with in this step.
    following: the coefficient to hand to the next call.
  """

  applied: Float[Array, ""]
  following: Float[Array, ""]


def adapted_kl_coefficient(
  coefficient: Float[Array, ""],
  kl: Float[Array, ""],
  sequences: Float[Array, ""],
  *,
  target: float,
  horizon: float,
  max_error: float = 0.2,
) -> Controlled:
  r"""Raise the weight of a KL penalty where the KL is above its target.

      e = clip(kl / target - 1, -max_error, max_error)
      following = coefficient (1 + e sequences / horizon)

  The measured batch was made under `coefficient`, which is what is applied.

  Args:
    coefficient: units of reward per nat.
    kl: mean KL to the reference of the batch, nats per sequence.
    sequences: how many sequences the step consumed.
    target: nats per sequence, in the unit of `kl`; 6 classic, 0.1 in verl.
    horizon: sequences in which a full error would double the coefficient,
      were it not clipped; 10000.
    max_error: bound of the relative error.

  Returns:
    The coefficient, unchanged, and the next one. No gradient flows.

  Raises:
    ValueError: if `target` or `horizon` is not positive, or `max_error` is
      negative.

  Ziegler et al. 2019, arXiv:1909.08593, section 2.2.

  >>> adapted_kl_coefficient(
  ...   jnp.array(0.5),
  ...   jnp.array(12.0),
  ...   jnp.array(8.0),
  ...   target=8.0,
  ...   horizon=32.0,
  ...   max_error=0.5,
  ... ).following.item()
  0.5625
  """
  if not target > 0:
    raise ValueError(f"target must be positive, got {target}")
  if not horizon > 0:
    raise ValueError(f"horizon must be positive, got {horizon}")
  if not max_error >= 0:
    raise ValueError(f"max_error must not be negative, got {max_error}")
  coefficient, kl, sequences = (
    jax.lax.stop_gradient(widened(x)) for x in (coefficient, kl, sequences)
  )
  error = jnp.clip(kl / target - 1.0, -max_error, max_error)
  return Controlled(
    coefficient, coefficient * (1.0 + error * sequences / horizon)
  )


def adapted_entropy_coefficient(
  coefficient: Float[Array, ""],
  entropy: Float[Array, ""],
  *,
  target: float,
  step: float,
  high: float,
) -> Controlled:
  r"""Raise the weight of an entropy bonus while the entropy is too low.

      applied   = coefficient if entropy <= target, else 0
      following = clip(coefficient + step, 0, high)   if entropy <= target
      following = clip(coefficient - step, 0, high)   else

  Args:
    coefficient: units of loss per nat.
    entropy: mean entropy of a token in the batch, nats.
    target: nats; 0.2 in TRL and in the paper.
    step: by how much the coefficient moves; 0.005.
    high: largest coefficient; 1 in TRL.

  Returns:
    The coefficient of this step, and the next one. No gradient flows.

  Raises:
    ValueError: if `target` is negative, or `step` or `high` not positive.

  He et al. 2025, arXiv:2505.22312 (Skywork-OR1), section on adaptive entropy
  control, with the bounds of TRL.

  >>> found = adapted_entropy_coefficient(
  ...   jnp.array(0.5), jnp.array(0.75), target=0.25, step=0.125, high=1.0
  ... )
  >>> found.applied.item(), found.following.item()
  (0.0, 0.375)
  """
  if not target >= 0:
    raise ValueError(f"target must not be negative, got {target}")
  if not (step > 0 and high > 0):
    raise ValueError(f"step and high must be positive, got {step} and {high}")
  coefficient = jax.lax.stop_gradient(widened(coefficient))
  low_entropy = jax.lax.stop_gradient(widened(entropy)) <= target
  applied = jnp.where(low_entropy, coefficient, 0.0)
  moved = coefficient + jnp.where(low_entropy, step, -step)
  return Controlled(applied, jnp.clip(moved, 0.0, high))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fixed:
  """The same coefficient at every step.

  Raises:
    ValueError: if the value is negative.

  >>> Fixed(value=0.5).init().item()
  0.5
  """

  value: float
  """The coefficient."""

  def __post_init__(self):
    _check_start("value", self.value)

  def init(self) -> Float[Array, ""]:
    """The coefficient of the first step."""
    return jnp.asarray(self.value, jnp.float32)

  def __call__(
    self,
    coefficient: Float[Array, ""],
    measured: Float[Array, ""],  # noqa: ARG002
    sequences: Float[Array, ""],  # noqa: ARG002
  ) -> Controlled:
    """The coefficient, whatever was measured."""
    return Controlled(coefficient, coefficient)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdaptiveKl:
  """A KL coefficient that holds the KL near a target.

  Calls `adapted_kl_coefficient`.

  Raises:
    ValueError: for a negative start, or a target or horizon not positive.
  """

  start: float
  """The first coefficient, units of reward per nat."""
  target: float
  """Nats per sequence, in the unit of the KL that is measured."""
  horizon: float
  """Sequences in which the coefficient may change by a fifth."""

  def __post_init__(self):
    _check_start("start", self.start)
    if not (self.target > 0 and self.horizon > 0):
      raise ValueError(
        "target and horizon must be positive, got"
        f" {self.target} and {self.horizon}"
      )

  def init(self) -> Float[Array, ""]:
    """The coefficient of the first step."""
    return jnp.asarray(self.start, jnp.float32)

  def __call__(
    self,
    coefficient: Float[Array, ""],
    measured: Float[Array, ""],
    sequences: Float[Array, ""],
  ) -> Controlled:
    """Apply the coefficient and adapt it to the measured KL."""
    return adapted_kl_coefficient(
      coefficient,
      measured,
      sequences,
      target=self.target,
      horizon=self.horizon,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdaptiveEntropy:
  """An entropy coefficient that keeps the entropy from falling further.

  Calls `adapted_entropy_coefficient`.

  Raises:
    ValueError: for a negative start or target, or step or high not positive.
  """

  start: float
  """The first coefficient, units of loss per nat."""
  target: float
  """Nats per token below which the bonus is paid."""
  step: float
  """By how much the coefficient moves in one step."""
  high: float
  """Largest coefficient."""

  def __post_init__(self):
    _check_start("start", self.start)
    if not (self.target >= 0 and self.step > 0 and self.high > 0):
      raise ValueError(
        "target must not be negative and step and high positive, got"
        f" {self.target}, {self.step} and {self.high}"
      )

  def init(self) -> Float[Array, ""]:
    """The coefficient of the first step."""
    return jnp.asarray(self.start, jnp.float32)

  def __call__(
    self,
    coefficient: Float[Array, ""],
    measured: Float[Array, ""],
    sequences: Float[Array, ""],  # noqa: ARG002
  ) -> Controlled:
    """Apply the coefficient and adapt it to the measured entropy."""
    return adapted_entropy_coefficient(
      coefficient,
      measured,
      target=self.target,
      step=self.step,
      high=self.high,
    )


def _check_start(name, value):
  if not value >= 0:
    raise ValueError(f"{name} must not be negative, got {value}")
