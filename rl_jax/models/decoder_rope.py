"""Rotary positions: how fast each pair of features turns, and the turning."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, ClassVar

import jax.numpy as jnp
import numpy as np

if TYPE_CHECKING:
  from jaxtyping import Array, Float, Int

__all__ = ["Linear", "Llama3", "Rope", "Yarn", "turned"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Linear:
  """All pairs turn `factor` times slower: positions are interpolated.

  Chen et al. 2023, arXiv:2306.15595. Gemma 3's global layers use it.

  Raises:
    ValueError: if `factor` is not positive.
  """

  gain: ClassVar[float] = 1.0
  factor: float
  """How many times the context was stretched."""

  def __post_init__(self):
    _require_positive(self)

  def __call__(self, frequency: np.ndarray, *, theta: float) -> np.ndarray:
    """Frequencies of the stretched context, radians per token."""
    del theta
    return frequency / self.factor


@dataclasses.dataclass(frozen=True, kw_only=True)
class Llama3:
  """Slow pairs turn `factor` times slower, fast ones as before.

      turns = context f / (2 pi)          of a pair in the original context
      keep = clip((turns - low) / (high - low), 0, 1)
      f' = keep f + (1 - keep) f / factor

  The rule of Llama 3.1 and later.

  Raises:
    ValueError: if a field is not positive, or `high` is not above `low`.
  """

  gain: ClassVar[float] = 1.0
  factor: float
  """How many times the slow pairs were slowed."""
  low: float
  """Turns within the context up to which a pair is slow."""
  high: float
  """Turns within the context from which a pair is left alone."""
  context: int
  """Tokens of the context before stretching."""

  def __post_init__(self):
    _require_positive(self)
    if self.high <= self.low:
      raise ValueError(f"high must be above low, got {self.high}, {self.low}")

  def __call__(self, frequency: np.ndarray, *, theta: float) -> np.ndarray:
    """Frequencies of the stretched context, radians per token."""
    del theta
    turns = self.context * frequency / (2 * np.pi)
    keep = np.clip((turns - self.low) / (self.high - self.low), 0, 1)
    return keep * frequency + (1 - keep) * frequency / self.factor


@dataclasses.dataclass(frozen=True, kw_only=True)
class Yarn:
  """As `Llama3`, with a ramp over pairs, and products of attention scaled.

      pair(n) = size log(context / (2 pi n)) / (2 log theta)
      ramp = clip((k - floor pair(fast)) / (ceil pair(slow) - ...), 0, 1)
      f'_k = (1 - ramp) f_k + ramp f_k / factor
      cos, sin are multiplied with 0.1 log(factor) + 1

  Peng et al. 2023, arXiv:2309.00071, as transformers computes it with its
  rounded ends of the ramp. Qwen 2.5 and 3 use it for long contexts.

  Raises:
    ValueError: if a field is not positive, or `fast` is not above `slow`.
  """

  factor: float
  """How many times the context was stretched."""
  context: int
  """Tokens of the context before stretching."""
  fast: float = 32.0
  """Turns within the context from which a pair is left alone."""
  slow: float = 1.0
  """Turns within the context up to which a pair is slowed in full."""

  def __post_init__(self):
    _require_positive(self)
    if self.fast <= self.slow:
      raise ValueError(f"fast must be above slow, got {self.fast}, {self.slow}")

  @property
  def gain(self) -> float:
    """What cosines and sines are multiplied with."""
    return 0.1 * math.log(self.factor) + 1 if self.factor > 1 else 1.0

  def __call__(self, frequency: np.ndarray, *, theta: float) -> np.ndarray:
    """Frequencies of the stretched context, radians per token."""
    pairs = len(frequency)

    def pair(turns: float) -> float:
      scale = math.log(self.context / (2 * math.pi * turns))
      return pairs * scale / math.log(theta)

    start = max(math.floor(pair(self.fast)), 0)
    stop = min(math.ceil(pair(self.slow)), 2 * pairs - 1)
    # A ramp of no width is a step.
    width = max(stop - start, 1e-3)
    ramp = np.clip((np.arange(pairs) - start) / width, 0, 1)
    return (1 - ramp) * frequency + ramp * frequency / self.factor


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rope:
  """Angles of pairs of features at a position.

      f_k = theta^(-2k / size),   angle_k = position f_k

  Su et al. 2021, arXiv:2104.09864.

  Raises:
    ValueError: if `theta` is not above 1.
  """

  theta: float = 10_000.0
  """The slowest pair turns about this many times slower than the fastest."""
  scaling: Linear | Llama3 | Yarn | None = None
  """How the context was stretched after pretraining."""

  def __post_init__(self):
    if not self.theta > 1:
      raise ValueError(f"theta must be above 1, got {self.theta}")

  def __call__(
    self, position: Int[Array, "row time"], *, size: int
  ) -> tuple[Float[Array, "row time pairs"], Float[Array, "row time pairs"]]:
    """Cosines and sines of the angles.

    Args:
      position: of each token within its sequence, from 0.
      size: features of a head; even.

    Returns:
      Both in float32, one for each pair of features.
    """
    # In double precision and rounded once: the angle of a far position
    # multiplies whatever error a frequency has.
    frequency = self.theta ** (-np.arange(0, size, 2) / size)
    gain = 1.0
    if self.scaling is not None:
      frequency = self.scaling(frequency, theta=self.theta)
      gain = self.scaling.gain
    table = jnp.asarray(frequency, jnp.float32)[None, None]
    angle = position.astype(jnp.float32)[..., None] * table
    return gain * jnp.cos(angle), gain * jnp.sin(angle)


def turned(
  h: Float[Array, "row time head features"],
  cos: Float[Array, "row time pairs"],
  sin: Float[Array, "row time pairs"],
) -> Float[Array, "row time head features"]:
  """Pairs of features turned by the angles of their tokens.

      (a, b) -> (a cos - b sin, a sin + b cos)

  The k-th pair is feature k and feature k + features/2, as in checkpoints of
  Hugging Face (GGUF files of Llama hold neighbours instead).

  Args:
    h: queries or keys.
    cos: cosines, one for each pair.
    sin: sines of the same angles.

  Returns:
    The turned vectors in the dtype of h; the products are in float32.

  >>> one, zero = jnp.ones((1, 1, 1)), jnp.zeros((1, 1, 1))
  >>> turned(jnp.array([[[[2.0, 3.0]]]]), zero, one).ravel().tolist()
  [-3.0, 2.0]
  """
  first, second = jnp.split(h.astype(jnp.float32), 2, axis=-1)
  cos, sin = cos[:, :, None], sin[:, :, None]
  both = [first * cos - second * sin, first * sin + second * cos]
  return jnp.concatenate(both, axis=-1).astype(h.dtype)


def _require_positive(scaling: Linear | Llama3 | Yarn) -> None:
  for field in dataclasses.fields(scaling):
    if not getattr(scaling, field.name) > 0:
      raise ValueError(f"{field.name} must be positive, got {scaling}")
