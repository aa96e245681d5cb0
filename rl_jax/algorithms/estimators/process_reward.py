"""Rewards of steps beside that of the outcome, for a `PolicyRecipe`."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from rl_jax import advantages
from rl_jax.advantages.segments import at_segment_ends
from rl_jax.algorithms.components import Generalized, ToGo
from rl_jax.algorithms.policy_records import PolicyBatch, Signals, found
from rl_jax.masks import last_valid, widened
from rl_jax.reduce import Total
from rl_jax.rewards.process import Refine, refined_process_reward

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float

__all__ = ["ProcessReward", "reached_by"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProcessReward:
  """Returns, or generalized advantages, of outcomes and scores of steps.

      R_k = alpha r'_k + 1[k = K] success_coef outcome

  paid on the last token of each step; r' is `refined_process_reward` of the
  scores. The outcome is what the recipe's baseline leaves of the reward, at
  the response's last token. Returns and generalized advantages are linear in
  rewards: those of the outcome, which `returns` gives, and those of the steps
  are added, so that either works, with its critic and its KL or without.

  Scores of steps in [0, 1], "step_score", and which step each token is in,
  "step", come from the data, from a note of the judge, or from `scores`. A
  response has as many steps as its last token with a step says. One that was
  cut should have none for its unfinished step; its outcome is 0.

  Raises:
    ValueError: if `alpha` or `success_coef` is negative, `eta` or `reached`
      not in [0, 1].
  """

  returns: ToGo | Generalized
  """What is made of rewards; its `bound` and KL are for the outcome."""
  refine: Refine
  """What is done to scores; the method of the paper is "clip_delta"."""
  alpha: float
  """Units of reward for a score of one; 0.02 to 1 in the paper."""
  eta: float = 0.8
  """Score that is good enough, for a clip."""
  reached: float | None = None
  """If given, `eta` is instead read from each batch: what this share of the
  steps of responses with a positive reward reach. Without any it is 0."""
  success_coef: float = 1.0
  """Units of reward for one of the outcome."""
  scores: Any = None
  """A component whose `ask(view)` gives "step" and "step_score", such as a
  process reward model; None: the data or the judge do."""

  def __post_init__(self) -> None:
    for name in ("alpha", "success_coef"):
      value = getattr(self, name)
      if not 0 <= value < math.inf:
        raise ValueError(f"{name} must be finite and not negative, got {value}")
    for name in ("eta", "reached"):
      value = getattr(self, name)
      if value is not None and not 0 <= value <= 1:
        raise ValueError(f"{name} must be in [0, 1], got {value}")

  @property
  def wants(self) -> tuple[str, ...]:
    """What the data or the judge must give."""
    return () if self.scores is not None else ("step", "step_score")

  def __call__(
    self, batch: PolicyBatch, compared: Float[Array, "row"]
  ) -> tuple[Float[Array, "row time"], Float[Array, "row time"] | None]:
    """Advantages, and the target of a critic if there is one."""
    refined = refined_process_reward(
      self._score(batch),
      self._there(batch),
      refine=self.refine,
      eta=self._eta(batch),
    )
    reward = self.alpha * at_segment_ends(refined, found(batch, "step"))
    advantage, target = self.returns(batch, self.success_coef * compared)
    last = (
      jnp.arange(batch.mask.shape[-1])[None] == last_valid(batch.mask)[:, None]
    )

    def added(trace):
      nothing = jnp.zeros_like(reward)
      return advantages.generalized_advantage(
        reward,
        nothing,
        nothing,
        batch.mask,
        terminated=last,
        last=last,
        discount=self.returns.discount,
        trace=trace,
      )

    # A return is a generalized advantage without values, of trace one.
    trace = getattr(self.returns, "trace", 1.0)
    advantage += added(trace(batch.mask) if callable(trace) else trace)
    if isinstance(self.returns, Generalized) and target is not None:
      target += added(self.returns.target_trace)
    return advantage, target

  def watch(
    self, batch: PolicyBatch, signals: Signals, *, num_groups: int
  ) -> dict[str, Total]:
    """Steps of a response, their score, and the share that falls short."""
    del signals, num_groups
    there = self._there(batch) & batch.valid[:, None]
    score = self._score(batch)
    count = jnp.sum(there, dtype=jnp.float32)
    short = there & (score < self._eta(batch))
    return {
      "steps": Total(count, jnp.sum(batch.valid, dtype=jnp.float32)),
      "step_score": Total(jnp.sum(jnp.where(there, score, 0.0)), count),
      "step_short": Total(jnp.sum(short, dtype=jnp.float32), count),
    }

  def _score(self, batch: PolicyBatch) -> Float[Array, "row step"]:
    """Scores; NaN outside of [0, 1], as logits would be."""
    score = widened(found(batch, "step_score"))
    return jnp.where((score >= 0) & (score <= 1), score, jnp.nan)

  def _there(self, batch: PolicyBatch) -> Bool[Array, "row step"]:
    step = found(batch, "step")
    count = jnp.max(step, axis=-1, initial=-1) + 1
    place = jnp.arange(found(batch, "step_score").shape[-1])
    return place[None] < count[:, None]

  def _eta(self, batch: PolicyBatch) -> float | Float[Array, ""]:
    if self.reached is None:
      return self.eta
    right = (batch.reward > 0) & batch.valid
    return reached_by(
      self._score(batch),
      self._there(batch) & right[:, None],
      fraction=self.reached,
    )


def reached_by(
  reward: Float[Array, "row step"],
  mask: Bool[Array, "row step"],
  *,
  fraction: float,
) -> Float[Array, ""]:
  """The score that a share of steps reaches: an `eta` read from the data.

      eta = the (1 - fraction) quantile of {r_k: mask_k}

  interpolated between the two nearest scores. With a mask of the steps of
  correct responses this is the rule "most of their steps are above it".

  Args:
    reward: r_k; anything where the mask is false.
    mask: true = counts.
    fraction: share of steps that score at least eta, in [0, 1].

  Returns:
    eta, 0 where nothing counts: then no score is below it. No gradient flows.

  Raises:
    ValueError: if `fraction` is not in [0, 1].

  Clip and Delta, arXiv:2410.15115; the rule was reconstructed.

  >>> reward = jnp.array([[0.0, 0.25, 0.5, 0.75, 1.0]])
  >>> float(reached_by(reward, jnp.ones((1, 5), bool), fraction=0.75))
  0.25
  """
  if not 0 <= fraction <= 1:
    raise ValueError(f"fraction must be in [0, 1], got {fraction}")
  reward = jax.lax.stop_gradient(widened(reward))
  ordered = jnp.sort(jnp.where(mask, reward, jnp.inf), axis=None)
  ordered = jnp.concatenate([ordered, jnp.full(2, jnp.inf)])
  count = jnp.sum(mask)
  place = (1.0 - fraction) * jnp.maximum(count - 1, 0).astype(reward.dtype)
  low = jnp.floor(place).astype(jnp.int32)
  high = jnp.minimum(low + 1, jnp.maximum(count - 1, 0))
  first = jnp.where(count > 0, ordered[low], 0.0)
  second = jnp.where(count > 0, ordered[high], 0.0)
  return first + (place - low) * (second - first)
