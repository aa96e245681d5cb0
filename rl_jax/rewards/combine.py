"""One reward out of several named ones."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, NamedTuple

import jax.numpy as jnp

from rl_jax.rewards.transforms import weighted_sum

if TYPE_CHECKING:
  from collections.abc import Mapping

  from jaxtyping import Array, Bool, Float

__all__ = ["Sum", "Verdict"]


class Verdict(NamedTuple):
  """A reward, and for which rows there is one.

  Attributes:
    reward: any unit; 0 where not valid.
    valid: false for rows that could not be judged.
  """

  reward: Float[Array, "row"]
  valid: Bool[Array, "row"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sum:
  """Weighted sum of named rewards; see `transforms.weighted_sum`.

  Raises:
    ValueError: if names repeat, or weights do not match them or are not
      finite.

  >>> total = Sum(terms=("match", "long"), weights=(1.0, -0.5))
  >>> match, long = jnp.array([1.0, 1.0]), jnp.array([2.0, jnp.nan])
  >>> verdict = total({"match": match, "long": long})
  >>> verdict.reward.tolist(), verdict.valid.tolist()
  ([0.0, 0.0], [True, False])
  """

  terms: tuple[str, ...]
  """Names of the rewards to add."""
  weights: tuple[float, ...]
  """Weight of each, in the order of `terms`."""

  def __post_init__(self):
    if not self.terms or len(set(self.terms)) != len(self.terms):
      raise ValueError(f"terms must be one or more names, got {self.terms}")
    if len(self.terms) != len(self.weights):
      raise ValueError(
        f"{len(self.terms)} terms {self.terms} but {len(self.weights)} weights"
        f" {self.weights}"
      )
    if not all(math.isfinite(weight) for weight in self.weights):
      raise ValueError(f"weights must be finite, got {self.weights}")

  def __call__(self, rewards: Mapping[str, Float[Array, "row"]]) -> Verdict:
    """The sum of the named rewards, NaN in one of them being no verdict.

    Args:
      rewards: one array per name in `terms`; exactly those.

    Returns:
      The sum and which rows all terms judged.

    Raises:
      ValueError: if a term is missing or nothing would read one.
    """
    if set(rewards) != set(self.terms):
      raise ValueError(
        f"the sum has terms {sorted(self.terms)} but got {sorted(rewards)}"
      )
    reward = jnp.stack([rewards[name] for name in self.terms], axis=-1)
    weight = jnp.asarray(self.weights, reward.dtype)
    return Verdict(*weighted_sum(reward, ~jnp.isnan(reward), weight))
