"""VERL: effective ranks of hidden states around any credit or baseline."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from rl_jax.advantages.effective_rank import (
  effective_rank,
  prefix_effective_ranks,
  rank_acceleration,
  rank_velocity,
)
from rl_jax.advantages.moving_means import (
  MovingMeans,
  init_moving_means,
  update_moving_means,
)
from rl_jax.advantages.rank_shaping import (
  rank_signal,
  shaped_by_signal,
  success_scaled,
)
from rl_jax.algorithms.components import EveryToken
from rl_jax.algorithms.policy_records import (
  PolicyBatch,
  Remembered,
  Signals,
  found,
)
from rl_jax.masks import keep, masked_mean
from rl_jax.reduce import Total

if TYPE_CHECKING:
  from jaxtyping import Array, Float, Int, PyTree

  from rl_jax.algorithms.view import View

__all__ = ["RankMemory", "RankSignal", "Verl", "VerlReward"]

NAMES = ("rank", "rank_velocity", "rank_acceleration")


class RankMemory(NamedTuple):
  """What is known of past batches.

  Attributes:
    past: averages of the three numbers, in the order of the signal.
    waiting: means of the batch before this one, for those who average late.
    score: average of the reward.
    seen: batches so far.
  """

  past: MovingMeans
  waiting: Float[Array, "3"]
  score: MovingMeans
  seen: Int[Array, ""]


@dataclasses.dataclass(frozen=True, kw_only=True)
class RankSignal:
  """Whether a response explores or exploits more than those of past batches.

  See `advantages.rank_signal`, `effective_rank`, `rank_velocity` and
  `rank_acceleration`. The first batch has a signal of zero. Defaults are those
  of the paper's script.

  Raises:
    ValueError: if a number is out of range.
  """

  stride: int = 40
  """Tokens from one beginning of a response to the next."""
  max_length: int = 512
  """Last tokens that beginnings are taken of; the rank is of all."""
  decay: float = 0.7
  """How much of the past a batch keeps: one less the paper's alpha, .3 in its
  script and .7 by default in its code."""
  gain: float = 2.0
  """How sharply the acceleration decides."""
  clip: float = 5.0
  """Of relative deviations."""
  scale: float = 1.0
  """Bound of the signal, units of advantage."""
  dynamic: bool = False
  """Whether the bound shrinks as rewards, which then lie in [-1, 1], rise."""
  gate: Literal["era", "half", "both"] = "era"
  """Who decides between exploring and exploiting."""
  history: Literal["first", "zero", "release"] = "first"
  """The averages start as the first batch; as zero, which the paper writes; or
  as zero and a batch late, as its code has it, where the second batch is still
  compared with zero and saturates the signal."""

  def __post_init__(self) -> None:
    if self.stride < 1 or self.max_length < 2:
      raise ValueError(
        "stride must be at least 1 and max_length at least 2, got"
        f" {self.stride} and {self.max_length}"
      )
    if not 0 <= self.decay < 1:
      raise ValueError(f"decay must be in [0, 1), got {self.decay}")
    if min(self.gain, self.clip, self.scale) < 0:
      raise ValueError(
        "gain, clip and scale must not be negative, got"
        f" {self.gain}, {self.clip} and {self.scale}"
      )

  def init(self, num_groups: int) -> RankMemory:
    """Before the first batch."""
    del num_groups
    return RankMemory(
      past=init_moving_means(num_means=3),
      waiting=jnp.zeros(3),
      score=init_moving_means(num_means=1),
      seen=jnp.zeros((), jnp.int32),
    )

  def ask(self, view: View) -> dict[str, Array]:
    """The three numbers of each response; its features are not kept."""
    mask = view.responses.mask
    prefix, valid = prefix_effective_ranks(
      view.hidden, mask, stride=self.stride, max_length=self.max_length
    )
    return dict(
      zip(
        NAMES,
        (
          effective_rank(view.hidden, mask),
          rank_velocity(prefix, valid),
          rank_acceleration(prefix, valid),
        ),
        strict=True,
      )
    )

  def watch(
    self, batch: PolicyBatch, signals: Signals, *, num_groups: int
  ) -> dict[str, Total]:
    """Means of the three numbers."""
    del signals, num_groups
    count = jnp.sum(batch.valid, dtype=jnp.float32)
    return {
      name: Total(jnp.sum(keep(found(batch, name), batch.valid)), count)
      for name in NAMES
    }

  def follow(
    self, batch: PolicyBatch, memory: RankMemory
  ) -> tuple[Float[Array, "row"], RankMemory]:
    """The signal of a batch, and the memory with it.

    Args:
      batch: all rows; the averages are those of the valid ones.
      memory: of the batches before.

    Returns:
      Phi of each row, 0 where it is not valid, and the memory for the next
      batch.
    """
    value = jnp.stack([found(batch, name) for name in NAMES], axis=-1)
    begun = memory.seen > 0
    bound: Any = self.scale
    if self.dynamic:
      bound = success_scaled(memory.score.mean[0], bound=self.scale)
    phi = rank_signal(
      value[:, 0],
      value[:, 1],
      value[:, 2],
      memory.past.mean,
      gain=self.gain,
      clip=self.clip,
      bound=bound,
      gate=self.gate,
    )
    phi = jnp.where(begun, keep(phi, batch.valid), 0.0)
    mean = masked_mean(value.T, jnp.broadcast_to(batch.valid, value.T.shape))
    late = self.history == "release"
    past = update_moving_means(
      memory.past,
      memory.waiting[None] if late else value,
      begun[None] if late else batch.valid,
      decay=self.decay,
      start="first" if self.history == "first" else "zero",
    )
    score = update_moving_means(
      memory.score,
      batch.reward[:, None],
      batch.valid & begun,
      decay=self.decay,
      start="zero",
    )
    return phi, RankMemory(past, mean, score, memory.seen + 1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verl:
  """Any credit, with a bonus by the signal; see `shaped_by_signal`.

  Where the signal is not positive it is the credit alone, as it is where the
  advantage is zero: a group of equal rewards stays dead.

  Raises:
    ValueError: if `kappa` < 1.
  """

  signal: RankSignal = RankSignal()
  """What is known of each response."""
  base: Callable = EveryToken()
  """A credit of a recipe."""
  kappa: float = 2.0
  """One over the largest relative bonus."""
  placement: Literal["response", "last_token"] = "response"
  """Where the bonus lands: the paper writes one number per response, its code
  stores it at the last token."""

  def __post_init__(self) -> None:
    if not self.kappa >= 1:
      raise ValueError(f"kappa must be at least 1, got {self.kappa}")

  def init(self, num_groups: int) -> dict[str, PyTree]:
    """The memory of the signal and of the base."""
    return _memories(self.signal, self.base, num_groups)

  def __call__(
    self,
    batch: PolicyBatch,
    compared: Float[Array, "row"],
    *,
    memory: dict[str, PyTree],
  ) -> Remembered:
    """Advantages with the bonus, and the base's target for a critic."""
    phi, after = self.signal.follow(batch, memory["signal"])
    (advantage, target), kept = _called(memory, self.base, batch, compared)
    shaped = shaped_by_signal(
      advantage,
      phi,
      batch.mask & batch.valid[:, None],
      kappa=self.kappa,
      placement=self.placement,
    )
    return Remembered((shaped, target), kept | {"signal": after})


@dataclasses.dataclass(frozen=True, kw_only=True)
class VerlReward:
  """Any baseline, of rewards with the signal added: the paper's ablation.

  Here a signal may be negative, turn a sign, and tell rows of a group with
  equal rewards apart.
  """

  base: Callable
  """A baseline of a recipe."""
  signal: RankSignal = RankSignal()
  """What is added."""

  def init(self, num_groups: int) -> dict[str, PyTree]:
    """The memory of the signal and of the base."""
    return _memories(self.signal, self.base, num_groups)

  def __call__(
    self,
    batch: PolicyBatch,
    reward: Float[Array, "row"],
    *,
    num_groups: int,
    memory: dict[str, PyTree],
  ) -> Remembered:
    """What the base says of the changed reward."""
    phi, after = self.signal.follow(batch, memory["signal"])
    base = functools.partial(self.base, num_groups=num_groups)
    value, kept = _called(memory, base, batch, reward + phi)
    return Remembered(value, kept | {"signal": after})


def _memories(signal, base, num_groups):
  memory = {"signal": signal.init(num_groups)}
  if hasattr(base, "init"):
    memory["base"] = base.init(num_groups)
  return memory


def _called(memory, base, *given):
  """What the base returns, and its memory as part of one."""
  if "base" not in memory:
    return base(*given), {}
  value, after = base(*given, memory=memory["base"])
  return value, {"base": jax.lax.stop_gradient(after)}
