"""Accuracy of a classifier on held-out data."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np

from rl_jax.reduce import Total

if TYPE_CHECKING:
  from collections.abc import Callable

  from jaxtyping import PyTree

  from rl_jax.training.state import State

__all__ = ["Accuracy"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Accuracy:
  """Share of held-out samples whose class the model finds."""

  data: Any
  """Where the samples come from; all of its rows are used."""
  every: int = 1
  """Steps between two evaluations."""

  def build(
    self, experiment: Any, load: Callable[[Any], PyTree]
  ) -> tuple[Callable[[State, PyTree], tuple[dict, dict]], PyTree]:
    """The evaluation as a pure function, and the arrays it needs."""
    del load
    source = self.data.source()
    rows = source[np.arange(len(source))]

    def evaluate(state: State, frozen: PyTree) -> tuple[dict, dict]:
      held = frozen["held_out"]
      logits = experiment.model.apply(state.params, held["sample"])
      right = jnp.argmax(logits, axis=-1) == held["condition"]
      total = Total.of(right.astype(jnp.float32))
      return {"evaluation/accuracy": total}, {}

    return evaluate, {"held_out": rows}
