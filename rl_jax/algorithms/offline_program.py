"""A program that minimises a loss over the rows of a data source."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from rl_jax.algorithms.parts import fresh_state, whole_axes
from rl_jax.training.optimisers import Learner, optimise
from rl_jax.training.state import Program, State
from rl_jax.training.step import merged, split_rows

if TYPE_CHECKING:
  from jaxtyping import Array, Key, PyTree

  from rl_jax.algorithms.parts import Evaluation

__all__ = ["Offline", "offline_program"]


def _as_it_is(trained: PyTree, frozen: PyTree) -> PyTree:
  del frozen
  return trained


class Offline(NamedTuple):
  """The parts that such a program is made of.

  Attributes:
    algorithm: has `optimiser`, `updates` and `micro_batches`.
    init: (key, start parameters or None) -> what is trained.
    axes: names of its axes.
    rows: (state, items) -> rows.
    loss: (trained, frozen, rows) -> (terms, metrics). Rows are the pair of
      rows and signals where there are signals.
    weights: weight of each term.
    signals: see `Program.signals`.
    frozen: arrays that are used and never trained, by name.
    frozen_axes: names of their axes.
    evaluated: (trained, frozen) -> what the evaluation takes for parameters.
    first_step: see `Program.first_step`.
    start: see `Program.start`.
  """

  algorithm: Any
  init: Callable[[Any, Any], Any]
  axes: Any
  rows: Callable[[State, Any], Any]
  loss: Callable[[Any, Any, Any], tuple[dict, dict]]
  weights: Mapping[str, float]
  signals: Callable[[State, Any, Any], Any] | None = None
  frozen: Mapping[str, Any] = {}
  frozen_axes: Mapping[str, Any] | None = None
  evaluated: Callable[[Any, Any], Any] = _as_it_is
  first_step: Mapping[str, tuple[float, float]] = {}
  start: Callable[[Any], Any] | None = None


def offline_program(
  parts: Offline, experiment: Any, evaluation: Evaluation | None
) -> Program:
  """The program.

  Args:
    parts: what it is made of.
    experiment: has `data`.
    evaluation: what is measured besides, or None.

  Returns:
    The program.

  Raises:
    ValueError: if the rows of a step do not divide into the updates and
      micro-batches.
  """
  algorithm, updates = parts.algorithm, parts.algorithm.updates
  split = updates * algorithm.micro_batches
  if updates < 1 or algorithm.micro_batches < 1 or experiment.data.rows % split:
    raise ValueError(
      f"data.rows = {experiment.data.rows} cannot be split into"
      f" {updates} updates of {algorithm.micro_batches} micro-batches"
    )
  optimiser = algorithm.optimiser()
  frozen, axes = dict(parts.frozen), parts.frozen_axes
  if evaluation is not None:
    frozen["evaluation"] = evaluation.frozen
    if axes is not None:
      axes = dict(axes) | {"evaluation": whole_axes(evaluation.frozen)}

  def init(key: Key[Array, ""], start: PyTree | None) -> State:
    return fresh_state(key, parts.init(key, start), optimiser, {})

  def collect(state: State, frozen: PyTree, items: Any) -> Any:
    del frozen
    return parts.rows(state, items)

  def update(state: State, frozen: PyTree, batch: Any) -> tuple[State, Any]:
    learner, metrics = optimise(
      lambda trained, rows: parts.loss(trained, frozen, rows),
      parts.weights,
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

  def evaluate(state: State, frozen: PyTree) -> tuple[Any, Any]:
    assert evaluation is not None
    shown = state._replace(params=parts.evaluated(state.params, frozen))
    return evaluation.function(shown, frozen["evaluation"])

  return Program(
    init=init,
    collect=collect,
    signals=parts.signals,
    update=update,
    params_axes=parts.axes,
    frozen=frozen,
    frozen_axes=axes,
    evaluate=evaluate if evaluation else None,
    evaluate_every=evaluation.every if evaluation else 1,
    inspect=evaluation.inspect if evaluation else None,
    first_step=parts.first_step,
    start=parts.start,
  )
