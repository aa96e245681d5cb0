"""The whole run as one pytree, and the program that moves it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import jax

if TYPE_CHECKING:
  from jaxtyping import Array, Int, PyTree, UInt32

  from rl_jax.data import Cursor
  from rl_jax.reduce import Total

  Metrics = Mapping[str, Total]
  Pictures = Mapping[str, Array]
  Texts = tuple[dict[str, Any], ...]
  Inspected = tuple[Metrics, Pictures, Texts]

__all__ = ["Program", "State", "step_key"]


class State(NamedTuple):
  """Everything that a resume needs.

  Attributes:
    step: steps of the loop already taken.
    cursor: where the data source stands.
    key: key data of the run; constant, each step folds its number in, so a
      step's randomness is a function of (seed, step) and nothing else.
    params: what is being trained; a dict of several where several are.
    optimiser: state of the optimiser of `params`.
    memory: whatever else the algorithm carries from step to step, by name:
      reference parameters, averages, running statistics, buffers.
  """

  step: Int[Array, ""]
  cursor: Cursor
  key: UInt32[Array, "words"]
  params: PyTree
  optimiser: PyTree
  memory: dict[str, PyTree]


class Program(NamedTuple):
  """What an algorithm makes of an experiment: functions for the one loop.

  All are pure and are jitted and sharded by the loop, except `score`.

  Attributes:
    init: (key, start parameters or None) -> State.
    start: (start parameters or None) -> what `init` is given in their place,
      where it needs the parameters of several; None where it does not.
    collect: (state, frozen, items) -> batch, a pytree whose arrays all have
      rows first. Rollouts for online algorithms, the items for offline ones.
    signals: (state, frozen, batch) -> whatever else of the batch's rows the
      update needs, rows first, computed on the devices while `score` works on
      the host: log-probabilities of references, values. The update is then
      given the pair (batch, signals). None where it needs nothing else.
    score: (batch) -> batch on the host, between `collect` and `update`, for
      rewards that run processes or call services; None when nothing does.
    update: (state, frozen, batch) -> (state, metrics). The state is donated.
    evaluate: (state, frozen) -> (metrics, pictures); None for nothing.
    inspect: (metrics, pictures) -> (metrics, pictures, texts) on the host, of
      what `evaluate` gave, for judges that run there; None when none does.
    frozen: parameters that are used and never trained (reward models,
      judges); passed to every call and not stored in checkpoints.
    params_axes: `State.params` with the logical names of each array's axes.
    frozen_axes: the same of `frozen`; None where all of it is kept whole.
    first_step: what metrics of the very first update must be, as metric ->
      (value, tolerance); checked by the doctor.
    evaluate_every: steps between two evaluations.
  """

  init: Callable[[jax.Array, Any], State]
  collect: Callable[[State, Any, Any], Any]
  update: Callable[[State, Any, Any], tuple[State, Metrics]]
  params_axes: Any
  frozen: Any = ()
  frozen_axes: Any = None
  signals: Callable[[State, Any, Any], Any] | None = None
  score: Callable[[Any], Any] | None = None
  evaluate: Callable[[State, Any], tuple[Metrics, Pictures]] | None = None
  inspect: Callable[[Metrics, Pictures], Inspected] | None = None
  start: Callable[[Any], Any] | None = None
  evaluate_every: int = 1
  first_step: Mapping[str, tuple[float, float]] = {}


def step_key(state: State, salt: int = 0) -> jax.Array:
  """The key of this step; each use within a step has its own salt.

  Args:
    state: its root key and its step are used.
    salt: number of the use within the step.

  Returns:
    A typed key, another one for every step and salt.
  """
  key = jax.random.wrap_key_data(state.key)
  return jax.random.fold_in(jax.random.fold_in(key, state.step), salt)
