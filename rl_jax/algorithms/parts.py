"""What every program is put together from, whatever it trains."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from rl_jax.data.source import start as cursor_start
from rl_jax.training.state import State

if TYPE_CHECKING:
  import optax
  from jaxtyping import Array, Key, PyTree

__all__ = [
  "Evaluation",
  "evaluation_of",
  "fresh_state",
  "params_axes",
  "whole_axes",
]


class Evaluation(NamedTuple):
  """How a program is evaluated.

  Attributes:
    function: (state, frozen) -> (metrics, pictures).
    frozen: arrays that it needs and nothing trains.
    every: steps between two evaluations.
    inspect: (metrics, pictures) -> (metrics, pictures, texts) on the host;
      None where nothing is judged there.
  """

  function: Callable[[State, Any], tuple[Any, Any]]
  frozen: PyTree
  every: int
  inspect: Callable[[Any, Any], Any] | None = None


def evaluation_of(
  experiment: Any, load: Callable[[Any], PyTree]
) -> Evaluation | None:
  """The experiment's evaluation, or None where it wants none.

  Args:
    experiment: has `evaluation`, a component or None.
    load: parameters of an earlier experiment, for judges.

  Returns:
    The evaluation as a pure function with what it needs.
  """
  evaluation = experiment.evaluation
  if evaluation is None:
    return None
  function, frozen = evaluation.build(experiment, load)
  inspect = None
  if hasattr(evaluation, "inspection"):
    inspect = evaluation.inspection(experiment)
  return Evaluation(function, frozen, evaluation.every, inspect)


def fresh_state(
  key: Key[Array, ""],
  params: PyTree,
  optimiser: optax.GradientTransformation,
  memory: dict[str, PyTree],
) -> State:
  """The state of a run that has done nothing yet.

  Args:
    key: the root of the run's randomness.
    params: of the model, as initialised or as another run left them.
    optimiser: makes its own state from the parameters.
    memory: what the algorithm keeps between steps, by name.

  Returns:
    Step 0, at the start of the data.
  """
  return State(
    step=jnp.zeros((), jnp.int32),
    cursor=jax.tree.map(jnp.asarray, cursor_start()),
    key=jax.random.key_data(key),
    params=params,
    optimiser=optimiser.init(params),
    memory=memory,
  )


def params_axes(model: Any) -> PyTree:
  """Logical names of the axes of a model's parameters.

  Args:
    model: a component with `init` and `logical_axes`.

  Returns:
    A tree like the parameters, with a tuple of names for each array.
  """
  return model.logical_axes(jax.eval_shape(model.init, jax.random.key(0)))


def whole_axes(arrays: PyTree) -> PyTree:
  """Names of axes that keep every array whole on every device.

  Args:
    arrays: or their shapes.

  Returns:
    A tree like it with a tuple of None for each array.
  """
  return jax.tree.map(lambda x: (None,) * x.ndim, arrays)
