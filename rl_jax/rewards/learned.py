"""A reward model as the reward of what a language policy wrote."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np

from rl_jax.rewards.text import TextReward

if TYPE_CHECKING:
  from collections.abc import Callable

  from jaxtyping import Array, Float

  from rl_jax.types import TextRollouts

__all__ = ["LearnedReward"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class LearnedReward:
  """The score of a reward model at the last token of a response.

      r = gain * score + bias   where the response came to its end,
      r = unfinished            elsewhere, if that is given

  The model runs on the devices. A verifier beside it is not trained on: it
  shows whether the model is exploited.
  """

  judge: Any
  """`Trained(by=...)` of an experiment whose model is a `ScalarHead`."""
  gain: float = 1.0
  """Units of reward per unit of the score."""
  bias: float = 0.0
  """Added, in units of reward."""
  unfinished: float | None = None
  """Reward of a response that did not come to its end; None: its score."""
  gold: TextReward | None = None
  """What is measured besides, as `gold` and by the names of its terms."""

  @property
  def metrics(self) -> tuple[str, ...]:
    """Names of all metrics, the same at every step."""
    own = ("score", "gold") if self.gold is not None else ("score",)
    return own + (self.gold.metrics if self.gold is not None else ())

  def bind(self, data: Any) -> Callable[[TextRollouts], TextRollouts] | None:
    """What runs on the host: the verifier, if there is one.

    Args:
      data: where the prompts come from.

    Returns:
      rollouts -> rollouts with the verifier's metrics; rows on which it has
      no verdict still count.
    """
    if self.gold is None:
      return None
    score = self.gold.bind(data)

    def measure(rollouts: TextRollouts) -> TextRollouts:
      judged = score(rollouts)
      gold: Any = np.asarray(judged.reward, np.float32)
      every: Any = np.ones_like(judged.valid)
      metric = judged.metric | {"gold": gold}
      return judged._replace(valid=every, metric=metric)

    return measure

  def settled(
    self, rollouts: TextRollouts, score: Float[Array, "row"]
  ) -> TextRollouts:
    """The rollouts with their reward.

    Args:
      rollouts: as collected and measured.
      score: what the model says of each.

    Returns:
      The same with `reward` and the metric `score`.
    """
    reward = self.gain * score + self.bias
    if self.unfinished is not None:
      reward = jnp.where(rollouts.ended, reward, self.unfinished)
    metric = rollouts.metric | {"score": score}
    return rollouts._replace(reward=reward, metric=metric)
