"""Sample from a flow model and hold the samples against their prompts."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from rl_jax.evaluation.judges import bound
from rl_jax.reduce import Total
from rl_jax.sampling.draw import draw
from rl_jax.training.sharding import over_rows
from rl_jax.training.state import step_key

if TYPE_CHECKING:
  from collections.abc import Callable

  from jaxtyping import PyTree

  from rl_jax.training.state import State

__all__ = ["Samples"]

# A salt that no training step uses, so that evaluating changes no training.
_SALT = 1_000_003


@dataclasses.dataclass(frozen=True, kw_only=True)
class Samples:
  """Rewards and spread of samples drawn for every class alike.

  Measures `evaluation/reward`, `evaluation/held_out` (a second judge that
  training never sees, against reward hacking) and `evaluation/sample_std`,
  the standard deviation of all sampled numbers, and shows a grid of samples.
  """

  sampler: Any
  """How samples are drawn; see `rl_jax.sampling`."""
  classes: int
  """Conditions are 0 .. classes - 1."""
  rows_per_class: int = 100
  """Samples drawn for each class."""
  reward: Any = None
  """The judge of the reward; None = the one of the experiment."""
  held_out: Any = None
  """A judge that is not trained against; None = none."""
  average: str | None = None
  """Name in the state's memory of averaged parameters to evaluate instead."""
  picture: tuple[int, int] | None = None
  """Height and width to show a sample as; None = show none."""
  shown: int = 8
  """Samples shown per class."""
  every: int = 5
  """Steps between two evaluations."""

  def build(
    self, experiment: Any, load: Callable[[Any], PyTree]
  ) -> tuple[Callable[[State, PyTree], tuple[dict, dict]], PyTree]:
    """The evaluation as a pure function, and the parameters it needs."""
    model = experiment.model
    judges = {
      "reward": self.reward or experiment.reward,
      "held_out": self.held_out,
    }
    judges = {
      name: bound(judge, load)
      for name, judge in judges.items()
      if judge is not None
    }
    scores = {name: score for name, (score, _) in judges.items()}
    frozen = {name: params for name, (_, params) in judges.items()}

    def evaluate(state: State, frozen: PyTree) -> tuple[dict, dict]:
      params = state.memory[self.average] if self.average else state.params
      condition = jnp.repeat(jnp.arange(self.classes), self.rows_per_class)
      keys = jax.random.split(step_key(state, _SALT), condition.size)
      condition, keys = over_rows((condition, keys))
      sample = draw(self.sampler, model, params, condition, keys).x0
      metrics = {"evaluation/sample_std": Total(jnp.std(sample), jnp.ones(()))}
      pictures = {}
      if self.picture is not None:
        grid = sample.reshape(self.classes, self.rows_per_class, -1)
        grid = grid[:, : self.shown]
        pictures["samples"] = grid.reshape(*grid.shape[:2], *self.picture)
      for name, score in scores.items():
        value = score(frozen[name], sample, condition)
        metrics[f"evaluation/{name}"] = Total.of(value)
        if name == "reward" and pictures:
          right = value.reshape(self.classes, -1)[:, : self.shown] > 0.5
          pictures["samples_correct"] = right
      return metrics, pictures

    return evaluate, frozen
