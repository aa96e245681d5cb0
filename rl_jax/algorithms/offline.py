"""Supervised training on stored samples: flow matching, classification."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from rl_jax.algorithms.parts import evaluation_of, fresh_state, params_axes
from rl_jax.flow import interpolate
from rl_jax.losses import flow_matching_loss
from rl_jax.reduce import Total, over_tokens
from rl_jax.training.optimisers import AdamW, Learner, optimise
from rl_jax.training.state import Program, State, step_key
from rl_jax.training.step import merged, split_rows

if TYPE_CHECKING:
  from collections.abc import Callable, Mapping

  from jaxtyping import Array, Float, Int, Key, PyTree

__all__ = ["Classification", "FlowMatching", "Labelled", "supervised"]


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

    return supervised(self, experiment, load, loss, {"matching": 1.0})


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

    return supervised(self, experiment, load, loss, {"cross_entropy": 1.0})


def supervised(
  algorithm: FlowMatching | Classification,
  experiment: Any,
  load: Callable[[Any], PyTree],
  loss: Callable[[PyTree, Labelled], tuple[dict, dict]],
  weights: Mapping[str, float],
) -> Program:
  """A program that minimises a loss over the rows of a data source.

  Args:
    algorithm: has `optimiser`, `updates` and `micro_batches`.
    experiment: has `model`, `data` and `evaluation`.
    load: parameters of an earlier experiment; passed to the evaluation.
    loss: (params, rows) -> (terms, metrics).
    weights: weight of each term.

  Returns:
    The program.

  Raises:
    ValueError: if the rows of a step do not divide into the updates and
      micro-batches.
  """
  model, updates = experiment.model, algorithm.updates
  parts = updates * algorithm.micro_batches
  if updates < 1 or algorithm.micro_batches < 1 or experiment.data.rows % parts:
    raise ValueError(
      f"data.rows = {experiment.data.rows} cannot be split into"
      f" {updates} updates of {algorithm.micro_batches} micro-batches"
    )
  optimiser = algorithm.optimiser()

  def init(key: Key[Array, ""], start: PyTree | None) -> State:
    params = model.init(key) if start is None else start
    return fresh_state(key, params, optimiser, {})

  def collect(state: State, frozen: PyTree, items: Any) -> Labelled:
    del frozen
    rows = items["condition"].shape[0]
    keys = jax.random.split(step_key(state), rows)
    return Labelled(items["sample"], items["condition"], keys)

  def update(state: State, batch: Labelled) -> tuple[State, Any]:
    learner, metrics = optimise(
      loss,
      weights,
      optimiser,
      Learner(state.params, state.optimiser),
      split_rows(batch, updates),
      micro_batches=algorithm.micro_batches,
    )
    state = state._replace(
      step=state.step + 1,
      params=learner.params,
      optimiser=learner.optimiser,
    )
    return state, merged(metrics)

  evaluation = evaluation_of(experiment, load)
  return Program(
    init=init,
    collect=collect,
    update=update,
    params_axes=params_axes(model),
    frozen=evaluation.frozen if evaluation else (),
    evaluate=evaluation.function if evaluation else None,
    evaluate_every=evaluation.every if evaluation else 1,
  )
