r"""Which times of a flow a sample is trained at.

Every strategy is stratified: one draw from each of K strata. The discrete
ones draw from the schedule that the sampler walked; give them that schedule
itself, not the edited copy that some solvers use inside.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import ndtri

if TYPE_CHECKING:
  from jaxtyping import Array, Float, Key

__all__ = [
  "DiscreteStrategy",
  "DiscreteTimes",
  "LogitNormalTimes",
  "UniformTimes",
]

DiscreteStrategy = Literal["discrete", "discrete_wo_init", "discrete_with_init"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class DiscreteTimes:
  r"""Training times taken from the sampler's schedule, shared by all rows.

      M = int(N fraction), N steps in the schedule; b_0 .. b_K boundaries
      discrete:            b = linspace(0, M, K + 1)
      discrete_wo_init:    b = linspace(1, M, K + 1), so never pure noise
      discrete_with_init:  pure noise always, and K - 1 strata of [1, M)
      index_k = lo_k + int(U_k (up_k - lo_k)),  lo_k = int(b_k),
      up_k = int(b_(k+1)),  U_k ~ U[0, 1)

  Boundaries are computed on the host in float64, so that one that is an
  integer stays it. Advantage weighted matching, arXiv:2509.25050, code.
  """

  count: int
  """K, training times per sample."""
  fraction: float
  """Share of the schedule, from the noisy end, that may be drawn."""
  strategy: DiscreteStrategy
  """How the first step of the schedule, pure noise, is treated."""

  def __post_init__(self):
    _require_count(self.count)
    if not 0 < self.fraction <= 1:
      raise ValueError(f"fraction must be in (0, 1], got {self.fraction}")
    if self.strategy not in get_args(DiscreteStrategy):
      raise ValueError(
        f"strategy must be one of {get_args(DiscreteStrategy)}, got "
        f"{self.strategy!r}"
      )

  def strata(self, num_steps: int) -> tuple[np.ndarray, np.ndarray]:
    """First and one-past-last schedule index of each stratum.

    Args:
      num_steps: N, steps of the schedule.

    Returns:
      Two int32 arrays of length K.

    Raises:
      ValueError: if the schedule offers fewer than K times.
    """
    usable = int(num_steps * self.fraction)
    offered = usable - (self.strategy == "discrete_wo_init")
    if self.count > offered:
      raise ValueError(
        f"{self.count} training times asked, but {num_steps} steps at "
        f"fraction {self.fraction} with strategy {self.strategy!r} offer "
        f"only {max(offered, 0)}"
      )
    if self.strategy == "discrete":
      boundary = np.linspace(0.0, usable, self.count + 1)
    elif self.strategy == "discrete_wo_init":
      boundary = np.linspace(1.0, usable, self.count + 1)
    else:
      inner = np.linspace(1.0, usable, self.count)
      boundary = np.concatenate([[0.0], inner])
    boundary = boundary.astype(np.int32)
    return boundary[:-1], boundary[1:]

  def __call__(
    self,
    key: Key[Array, ""],
    schedule: Float[np.ndarray, "times"],
    rows: int,
  ) -> Float[Array, "row time"]:
    """Draw K times, the same for all rows, from noisy to clean."""
    lower, upper = self.strata(schedule.size - 1)
    share = jax.random.uniform(key, (self.count,))
    index = lower + (share * (upper - lower)).astype(np.int32)
    t = jnp.asarray(schedule)[index]
    return jnp.broadcast_to(t[None], (rows, self.count))


@dataclasses.dataclass(frozen=True, kw_only=True)
class UniformTimes:
  r"""Stratified uniform times, each row with its own draws and order.

      u = low + (1 - low) (k + U_ik) / K,   t = s u / (1 + (s - 1) u)

  Strata k = 0 .. K-1 are permuted independently per row. The schedule is not
  used. Advantage weighted matching, arXiv:2509.25050, code.
  """

  count: int
  """K, training times per sample."""
  shift: float
  """s > 0; more than 1 moves times towards the noise. 3 in the paper."""
  low: float = 0.2
  """Smallest u before the shift."""

  def __post_init__(self):
    _require_count(self.count)
    _require_shift(self.shift)
    if not 0 < self.low < 1:
      raise ValueError(f"low must be in (0, 1), got {self.low}")

  def __call__(
    self,
    key: Key[Array, ""],
    schedule: Float[np.ndarray, "times"],
    rows: int,
  ) -> Float[Array, "row time"]:
    """Draw K times for each row."""
    del schedule

    def one_row(row):
      # Folding the row in keeps a row's draws when others are appended.
      draw, order = jax.random.split(jax.random.fold_in(key, row))
      stratum = _shuffled(order, self.count)
      return (stratum + jax.random.uniform(draw, (self.count,))) / self.count

    u = self.low + (1.0 - self.low) * jax.vmap(one_row)(jnp.arange(rows))
    return _shifted(u, self.shift)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LogitNormalTimes:
  r"""Stratified logit-normal times, shared by all rows.

      z = Phi^-1((k + U_k) / K),   u = sigmoid(z)
      t = max(low, s u / (1 + (s - 1) u))

  in random order. The schedule is not used. Esser et al. 2024,
  arXiv:2403.03206, for the density; stratified as in the code of advantage
  weighted matching, arXiv:2509.25050.
  """

  count: int
  """K, training times per sample."""
  shift: float
  """s > 0; more than 1 moves times towards the noise. 3 in the paper."""
  low: float = 0.01
  """Smallest time."""

  def __post_init__(self):
    _require_count(self.count)
    _require_shift(self.shift)
    if not 0 < self.low < 1:
      raise ValueError(f"low must be in (0, 1), got {self.low}")

  def __call__(
    self,
    key: Key[Array, ""],
    schedule: Float[np.ndarray, "times"],
    rows: int,
  ) -> Float[Array, "row time"]:
    """Draw K times, the same for all rows."""
    del schedule
    draw, order = jax.random.split(key)
    stratum = _shuffled(order, self.count)
    share = (stratum + jax.random.uniform(draw, (self.count,))) / self.count
    t = _shifted(jax.nn.sigmoid(ndtri(share)), self.shift)
    t = jnp.maximum(t, self.low)
    return jnp.broadcast_to(t[None], (rows, self.count))


def _shuffled(key, count):
  """The numbers 0 .. count - 1 in random order."""
  # One small sort; jax.random.permutation compiles several.
  return jnp.argsort(jax.random.uniform(key, (count,)))


def _shifted(u, shift):
  return shift * u / (1.0 + (shift - 1.0) * u)


def _require_count(count):
  if count < 1:
    raise ValueError(f"count must be at least 1 training time, got {count}")


def _require_shift(shift):
  if not shift > 0:
    raise ValueError(f"shift must be positive, got {shift}")
