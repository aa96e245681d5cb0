"""Process rewards of an implicit PRM as credit, beside the outcome."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, ClassVar

import jax.numpy as jnp

from rl_jax.advantages import discounted_returns, leave_one_out
from rl_jax.advantages.segments import (
  at_segment_ends,
  segment_index,
  segment_sums,
)
from rl_jax.algorithms.policy_records import (
  PolicyBatch,
  Signals,
  dense_group,
  found,
)
from rl_jax.losses.preference import require_positive
from rl_jax.masks import keep, last_valid, masked_mean
from rl_jax.reduce import Total
from rl_jax.rewards.implicit import token_log_ratio

if TYPE_CHECKING:
  from jaxtyping import Array, Float

  from rl_jax.algorithms.view import View

__all__ = ["ImplicitPRM"]

_NAME = "implicit_reward"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImplicitPRM:
  r"""Credit: the row's number, and the process rewards still to come.

      A_it = compared_i + sum_{s >= t} gamma^(s-t) (r_is - b_i)
      r_t = beta (log prm(y_t | x, y_<t) - log ref(y_t | x, y_<t))
      b_i = mean over the other responses j of the group of mean_t r_jt

  Two frozen models are asked at every token while the host judges; both use
  the policy's tokens. Without steps every token is paid; with `step_end` the
  rewards of a step are paid at its last token. With the others' mean reward
  as `compared` (`leave_one_out`) it is PRIME's advantage, of a PRM that is
  not trained along.

  Raises:
    ValueError: if `beta` is not positive, or `discount` not in [0, 1].

  Yuan et al. 2024, arXiv:2412.01981; Cui et al. 2025, arXiv:2502.01456
  (PRIME), eq. 5.
  """

  prm: Any
  """`Trained(by=...)` of an experiment that trained on outcome labels, such as
  by `LabelOptimisation`."""
  prm_reference: Any
  """What that experiment started from."""
  beta: float
  """Units of reward per nat."""
  discount: float = 1.0
  """Per token, of process rewards."""
  step_end: int | None = None
  """Id of the token that ends a step; None pays every token."""

  compares: ClassVar[bool] = True

  def __post_init__(self) -> None:
    require_positive("beta", self.beta)
    if not 0 <= self.discount <= 1:
      raise ValueError(f"discount must be in [0, 1], got {self.discount}")

  @property
  def networks(self) -> dict[str, Any]:
    """Frozen models that it asks, by name."""
    return {"prm": self.prm, "prm_reference": self.prm_reference}

  def ask(self, view: View) -> dict[str, Array]:
    """The process reward of every token."""
    own, other = (view.network_scores(name).log_prob for name in self.networks)
    responses = view.responses
    reward = self.beta * token_log_ratio(own, other, responses.mask)
    if self.step_end is not None:
      ends = responses.token == self.step_end
      index = segment_index(ends, responses.mask)
      steps = segment_sums(reward, index, num_segments=index.shape[-1])
      reward = at_segment_ends(steps, index)
    return {_NAME: reward}

  def __call__(
    self, batch: PolicyBatch, compared: Float[Array, "row"]
  ) -> tuple[Float[Array, "row time"], None]:
    """Advantages."""
    mask = batch.mask & batch.valid[:, None]
    reward = keep(found(batch, _NAME), mask)
    rows = reward.shape[0]
    group = dense_group(batch)
    mean = masked_mean(reward, mask)
    above = leave_one_out(mean, group, batch.valid, num_groups=rows)
    others = keep(mean - above, batch.valid)
    last = jnp.arange(mask.shape[-1])[None] == last_valid(mask)[:, None]
    to_go = discounted_returns(
      keep(reward - others[:, None], mask),
      mask,
      last=last,
      discount=self.discount,
    )
    return compared[:, None] + to_go, None

  def watch(
    self, batch: PolicyBatch, signals: Signals, *, num_groups: int
  ) -> dict[str, Total]:
    """What the PRM says of whole responses, and whether the judge agrees."""
    del signals, num_groups
    reward = found(batch, _NAME)
    mask = batch.mask & batch.valid[:, None]
    whole = jnp.sum(keep(reward, mask), axis=-1)
    count = jnp.sum(batch.valid, dtype=jnp.float32)

    def mean(value: Array) -> Array:
      total = jnp.sum(keep(value, batch.valid))
      return total / jnp.maximum(count, 1.0)

    x, y = whole - mean(whole), batch.reward - mean(batch.reward)
    spread = jnp.sqrt(mean(x * x) * mean(y * y))
    some = spread > 0
    agreement = jnp.where(some, mean(x * y) / jnp.where(some, spread, 1.0), 0.0)
    return {
      "implicit_reward": Total(mean(whole) * count, count),
      "implicit_agreement": Total(agreement, jnp.ones(())),
    }
