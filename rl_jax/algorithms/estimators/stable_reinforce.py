"""StableReinforce: REINFORCE++ with a bounded ratio and no outliers."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import TYPE_CHECKING

import jax.numpy as jnp

from rl_jax.advantages.sigma_filter import Filtered, filtered_whiten
from rl_jax.algorithms.components import Raw, ToGo
from rl_jax.algorithms.recipe import (
  PolicyBatch,
  PolicyRecipe,
  Signals,
  needed,
)
from rl_jax.losses.stable import stable_reinforce_loss
from rl_jax.reduce import Total, over_sequences, over_tokens

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float

__all__ = ["FilteredWhitening", "StableReinforce"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class FilteredWhitening:
  """Whitening that drops what stands out; see `filtered_whiten`.

  It reports `filtered`, the share of tokens that it dropped: late in training
  those are the rare mistakes, and this is the signal that is lost by design.

  Raises:
    ValueError: if the bound is not positive.
  """

  bound: float = 3.0
  """In standard deviations."""
  ddof: int = 0
  """Of the variance."""
  reference_bounds: bool = False
  """Whether the interval is that of the paper's code."""

  def __post_init__(self) -> None:
    if not self.bound > 0:
      raise ValueError(f"bound must be positive, got {self.bound}")

  def __call__(
    self,
    advantage: Float[Array, "row time"],
    mask: Bool[Array, "row time"],
  ) -> Float[Array, "row time"]:
    """The advantages that are used."""
    return self._filtered(advantage, mask).value

  def watch(
    self, batch: PolicyBatch, signals: Signals, *, num_groups: int
  ) -> dict[str, Total]:
    """The share of tokens that were dropped."""
    del batch, num_groups
    credited = needed(signals.credited, "credited")
    dropped = self._filtered(credited, signals.mask).dropped
    return {"filtered": over_tokens(dropped.astype(jnp.float32), signals.mask)}

  def _filtered(self, advantage: Array, mask: Array) -> Filtered:
    return filtered_whiten(
      advantage,
      mask,
      bound=self.bound,
      ddof=self.ddof,
      reference_bounds=self.reference_bounds,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class StableReinforce:
  """The numbers of StableReinforce, and the recipe that they make.

  With `bound` infinite and bounds of the ratio that nothing reaches, it is
  REINFORCE++ with a mean over responses.

  Zhang et al. 2025, arXiv:2505.02835 (R1-Reward).
  """

  clip_low: float = 0.2
  """How far below one a ratio may fall before its gradient stops."""
  clip_high: float = 0.2
  """How far above one it may rise."""
  low: float = 1e-3
  """The smallest ratio there is."""
  high: float = 1e3
  """The largest ratio there is."""
  bound: float = 3.0
  """Standard deviations beyond which an advantage is dropped."""
  reference_bounds: bool = False
  """Whether that interval is the one of the paper's code."""
  kl_weight: float = 0.0
  """Units of reward per nat of k1 at each token; .001 in the code, 0 in the
  paper."""
  discount: float = 1.0
  """Per token."""

  def __post_init__(self) -> None:
    if not 0 < self.low < 1 < self.high:
      raise ValueError(
        f"low and high are ratios, 0 < low < 1 < high, got {self.low} and"
        f" {self.high}"
      )

  @property
  def recipe(self) -> PolicyRecipe:
    """The method; change it with `dataclasses.replace`."""
    return PolicyRecipe(
      reference="Zhang et al. 2025, arXiv:2505.02835, StableReinforce",
      baseline=Raw(),
      credit=ToGo(
        discount=self.discount, kl_weight=self.kl_weight, bound=float("inf")
      ),
      whitening=FilteredWhitening(
        bound=self.bound, reference_bounds=self.reference_bounds
      ),
      loss=partial(
        stable_reinforce_loss,
        clip_low=self.clip_low,
        clip_high=self.clip_high,
        low=self.low,
        high=self.high,
      ),
      reduction=over_sequences,
    )
