"""Supervised training on stored samples: flow matching, classification."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from rl_jax.algorithms.offline_program import Offline, offline_program
from rl_jax.algorithms.parts import evaluation_of, params_axes
from rl_jax.flow import interpolate
from rl_jax.losses import flow_matching_loss
from rl_jax.reduce import Total, over_tokens
from rl_jax.training.optimisers import AdamW
from rl_jax.training.state import Program, State, step_key

if TYPE_CHECKING:
  from collections.abc import Callable, Mapping

  from jaxtyping import Array, Float, Int, Key, PyTree

__all__ = ["Classification", "FlowMatching", "Labelled"]


class Labelled(NamedTuple):
  """Samples and what they are of.

  Attributes:
    sample: `row *event`, in the unit of the data.
    condition: class of each, `row`.
    key: the row's own randomness in this step.
  """

  sample: Float[Array, "row *event"]
  condition: Int[Array, "row"]
  key: Key[Array, "row"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class FlowMatching:
  """Pretraining of a rectified flow: regress the velocity of straight paths.

  t = sigmoid(n), n ~ N(0, 1); x_t = (1 - t) x_0 + t e; target e - x_0.
  """

  optimiser: AdamW
  """The optimiser."""
  updates: int = 1
  """Optimiser steps for each step of the loop; the rows are split over them."""
  micro_batches: int = 1
  """Parts that each update's rows are split into."""
  condition_noise: float = 0.0
  """Probability that a row's class is drawn uniformly anew."""

  def __post_init__(self) -> None:
    if not 0 <= self.condition_noise <= 1:
      raise ValueError(
        "condition_noise is a probability in [0, 1], got"
        f" {self.condition_noise}"
      )

  def build(self, experiment: Any, load: Callable[[Any], PyTree]) -> Program:
    """The program of an experiment; see `rl_jax.training.state.Program`."""
    model = experiment.model

    def loss(params: PyTree, rows: Labelled) -> tuple[dict, dict]:
      def draw(key: Key[Array, ""], label: Int[Array, ""]):
        wrong, which, time, noise = jax.random.split(key, 4)
        other = jax.random.randint(which, (), 0, model.classes, label.dtype)
        swap = jax.random.bernoulli(wrong, self.condition_noise)
        t = jax.nn.sigmoid(jax.random.normal(time, (1,)))
        e = jax.random.normal(noise, (1, *model.event_shape))
        return jnp.where(swap, other, label), t, e

      condition, t, noise = jax.vmap(draw)(rows.key, rows.condition)
      x_t, target = interpolate(rows.sample, noise, t)
      velocity = model.apply(params, x_t, t, condition)
      value = flow_matching_loss(velocity, target)
      return {"matching": over_tokens(value, jnp.ones_like(t, bool))}, {}

    return _supervised(self, experiment, load, loss, {"matching": 1.0})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Classification:
  """Cross-entropy of a classifier on samples with added Gaussian noise."""

  optimiser: AdamW
  """The optimiser."""
  updates: int = 1
  """Optimiser steps for each step of the loop; the rows are split over them."""
  micro_batches: int = 1
  """Parts that each update's rows are split into."""
  sample_noise: float = 0.0
  """Standard deviation of the noise, in the unit of the data."""

  def __post_init__(self) -> None:
    if not self.sample_noise >= 0:
      raise ValueError(f"sample_noise must be >= 0, got {self.sample_noise}")

  def build(self, experiment: Any, load: Callable[[Any], PyTree]) -> Program:
    """The program of an experiment; see `rl_jax.training.state.Program`."""
    model = experiment.model

    def loss(params: PyTree, rows: Labelled) -> tuple[dict, dict]:
      shape = rows.sample.shape[1:]
      noise = jax.vmap(lambda key: jax.random.normal(key, shape))(rows.key)
      sample = rows.sample + self.sample_noise * noise
      logits = model.apply(params, sample)
      value = optax.softmax_cross_entropy_with_integer_labels(
        logits, rows.condition
      )
      right = jnp.argmax(logits, axis=-1) == rows.condition
      return (
        {"cross_entropy": Total.of(value)},
        {"accuracy": Total.of(right.astype(jnp.float32))},
      )

    return _supervised(self, experiment, load, loss, {"cross_entropy": 1.0})


def _supervised(
  algorithm: FlowMatching | Classification,
  experiment: Any,
  load: Callable[[Any], PyTree],
  loss: Callable[[PyTree, Labelled], tuple[dict, dict]],
  weights: Mapping[str, float],
) -> Program:
  """A program that minimises a loss of labelled samples."""
  model = experiment.model

  def init(key: Key[Array, ""], start: PyTree | None) -> PyTree:
    return model.init(key) if start is None else start

  def rows(state: State, items: Any) -> Labelled:
    count = items["condition"].shape[0]
    keys = jax.random.split(step_key(state), count)
    return Labelled(items["sample"], items["condition"], keys)

  def of_rows(params: PyTree, frozen: PyTree, rows: Labelled):
    del frozen
    return loss(params, rows)

  return offline_program(
    Offline(
      algorithm=algorithm,
      init=init,
      axes=params_axes(model),
      rows=rows,
      loss=of_rows,
      weights=weights,
    ),
    experiment,
    evaluation_of(experiment, load),
  )
