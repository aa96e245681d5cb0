"""The one loop: collect, score, update, evaluate, save, for every family."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import jax
import numpy as np

from rl_jax.data.source import Cursor, take
from rl_jax.training import doctor
from rl_jax.training.compiled import Compiled
from rl_jax.training.state import State

if TYPE_CHECKING:
  from rl_jax.data.source import Data
  from rl_jax.reduce import Total
  from rl_jax.training.checkpoints import Store

__all__ = ["Observer", "Outcome", "Plan", "Row", "run_loop"]


class Row(NamedTuple):
  """What one step, or one evaluation, measured.

  Attributes:
    step: steps taken when it was measured.
    kind: "train" or "evaluation".
    metrics: means by name; names of evaluations start with `evaluation/`.
    seconds: since the loop started, this process.
    pictures: arrays to look at, by name; evaluations only.
    texts: what was written, one record each; evaluations of language only.
  """

  step: int
  kind: str
  metrics: dict[str, float]
  seconds: float
  pictures: dict[str, np.ndarray]
  texts: tuple[dict[str, Any], ...] = ()


class Observer(Protocol):
  """Somebody who watches a run: a display, a file, a test."""

  def started(self, *, step: int, steps: int) -> None:
    """The loop begins at `step` of `steps`."""
    ...

  def measured(self, row: Row) -> None:
    """Numbers arrived."""
    ...

  def saved(self, step: int) -> None:
    """A checkpoint of this step is being written."""
    ...

  def ended(self, outcome: Outcome) -> None:
    """The loop is over, also by an error; nothing follows."""
    ...


class Outcome(NamedTuple):
  """How a run ended.

  Attributes:
    status: "finished", "stopped" by a signal with everything saved, or
      "failed".
    step: steps taken.
    signal: number of the signal that stopped it, or None.
    seconds: time in the loop, this process.
    evaluation: the last evaluation's metrics.
    error: what went wrong, or None.
  """

  status: str
  step: int
  signal: int | None
  seconds: float
  evaluation: dict[str, float]
  error: str | None = None


class Plan(NamedTuple):
  """What the loop needs to know besides the program.

  Attributes:
    steps: how many steps in all.
    seed: of the data order.
    save_every: steps between saves.
    guard: bands whose leaving stops the run.
    about: JSON value stored with every checkpoint.
  """

  steps: int
  seed: int
  save_every: int
  guard: tuple[doctor.Limit, ...]
  about: dict[str, Any]


def run_loop(
  compiled: Compiled,
  state: State,
  data: Data,
  store: Store,
  plan: Plan,
  observers: Sequence[Observer],
) -> tuple[State, Outcome]:
  """Runs from where `state` stands to the last step.

  Numbers of a step are read while the next one computes, so the devices never
  wait for the host; before a save they are read first, so that only states
  with healthy numbers are saved.

  Args:
    compiled: the program, compiled for its mesh.
    state: fresh or restored; donated.
    data: where items come from.
    store: where checkpoints go.
    plan: how long, how often.
    observers: told of everything, in order.

  Returns:
    The last state and how the run ended.

  Raises:
    Unhealthy: if the first step is wrong.
    Collapse: if a metric is not finite or leaves its band; the message names
      the last good checkpoint. Nothing after that is saved.
    CheckpointError: if a save fails.
  """
  source = data.source()
  cursor = Cursor(*(np.int32(x) for x in jax.device_get(state.cursor)))
  step = int(jax.device_get(state.step))
  watch = _Watch(plan, compiled, observers, first=step)
  with _signals() as caught:
    try:
      for observer in observers:
        observer.started(step=step, steps=plan.steps)
      if step == 0:
        if not store.steps():
          _save(store, 0, state, plan, watch, observers)
        watch.evaluated(0, compiled.evaluate(state))
      elif step >= plan.steps:
        watch.recalled(compiled.evaluate(state))
      saved = step
      with jax.transfer_guard("disallow"):
        while step < plan.steps and not caught:
          indices, cursor = take(
            len(source),
            cursor,
            rows=data.rows,
            seed=plan.seed,
            shuffle=data.shuffle,
          )
          items = compiled.put(source[indices])
          batch = compiled.collect(state, items)
          state, metrics = compiled.update(state, batch)
          state = state._replace(cursor=compiled.put_scalars(cursor))
          step += 1
          watch.trained(step, metrics)
          if _due(step, compiled.evaluate_every, plan.steps):
            watch.evaluated(step, compiled.evaluate(state))
          if _due(step, plan.save_every, plan.steps):
            _save(store, step, state, plan, watch, observers)
            saved = step
        if saved != step:  # A signal came between two saves.
          _save(store, step, state, plan, watch, observers)
      watch.flush()
      store.wait()
      store.prune()
    except BaseException as error:
      collapsed = isinstance(error, doctor.Collapse)
      told = _with_last_good(error, store) if collapsed else error
      said = f"{told}" or type(told).__name__
      last = watch.last_evaluation
      outcome = Outcome("failed", step, None, watch.seconds(), last, said)
      _tell_failed(observers, outcome, told)
      if told is error:
        raise
      raise told from None
  stopped = step < plan.steps
  outcome = Outcome(
    status="stopped" if stopped else "finished",
    step=step,
    signal=caught[0] if stopped else None,
    seconds=watch.seconds(),
    evaluation=watch.last_evaluation,
  )
  for observer in observers:
    observer.ended(outcome)
  return state, outcome


class _Watch:
  """Reads numbers one step late, checks them, passes them on."""

  def __init__(
    self,
    plan: Plan,
    compiled: Compiled,
    observers: Sequence[Observer],
    *,
    first: int,
  ) -> None:
    self._plan, self._observers = plan, observers
    self._expected, self._inspect = compiled.first_step, compiled.inspect
    self._unchecked, self._start = first == 0, time.monotonic()
    self._waiting: list[tuple[int, str, Any, Any]] = []
    self.last_evaluation: dict[str, float] = {}

  def seconds(self) -> float:
    return time.monotonic() - self._start

  def trained(self, step: int, metrics: Mapping[str, Total]) -> None:
    self.flush()
    self._waiting.append((step, "train", metrics, {}))

  def evaluated(self, step: int, result: Any) -> None:
    if result is not None:
      self._waiting.append((step, "evaluation", *result))

  def recalled(self, result: Any) -> None:
    """The evaluation of a run that had ended; told to observers back then."""
    if result is not None:
      self.last_evaluation, *_ = self._read("evaluation", *result)

  def flush(self) -> None:
    while self._waiting:
      step, kind, totals, pictures = self._waiting.pop(0)
      metrics, weights, pictures, texts = self._read(kind, totals, pictures)
      row = Row(step, kind, metrics, self.seconds(), pictures, texts)
      if kind == "evaluation":
        self.last_evaluation = metrics
      for observer in self._observers:
        observer.measured(row)
      doctor.check_metrics(step, metrics, self._plan.guard)
      # A program may sample for some steps before its first update.
      updated = kind == "train" and metrics.get("updated", 1.0) > 0
      if updated and self._unchecked:
        doctor.check_first_step(metrics, weights, self._expected)
        self._unchecked = False

  def _read(self, kind: str, totals: Any, pictures: Any) -> Any:
    """Means, their weights, pictures and texts, on the host."""
    totals, pictures = jax.device_get((dict(totals), dict(pictures)))
    texts = ()
    if kind == "evaluation" and self._inspect is not None:
      totals, pictures, texts = self._inspect(totals, pictures)
    return *_means(totals), pictures, texts


@contextmanager
def _signals() -> Iterator[list[int]]:
  """Collects SIGTERM and SIGINT, so that a step is finished and saved.

  Whoever asks twice by SIGINT does not want to wait: that interrupts.
  """
  caught: list[int] = []
  kinds = (signal.SIGTERM, signal.SIGINT)

  def catch(number: int, _: object) -> None:
    if number == signal.SIGINT and signal.SIGINT in caught:
      raise KeyboardInterrupt
    caught.append(number)

  try:
    before = [signal.signal(kind, catch) for kind in kinds]
  except ValueError:  # Not the main thread: leave signals to whoever owns it.
    yield caught
    return
  try:
    yield caught
  finally:
    for kind, handler in zip(kinds, before, strict=True):
      signal.signal(kind, handler)


def _with_last_good(error: doctor.Collapse, store: Store) -> doctor.Collapse:
  # The save that may be under way is of an earlier, healthy step.
  store.wait()
  good = store.steps()
  where = store.directory / str(good[-1]) if good else "none"
  return doctor.Collapse(f"{error}; last good checkpoint: {where}")


def _tell_failed(
  observers: Sequence[Observer], outcome: Outcome, error: BaseException
) -> None:
  """Ends every observer; one that cannot must not hide the error itself."""
  for observer in observers:
    try:
      observer.ended(outcome)
    except Exception as second:
      error.add_note(f"{type(observer).__name__} could not end: {second}")


def _due(step: int, every: int, steps: int) -> bool:
  return step % every == 0 or step == steps


def _means(
  totals: Mapping[str, Total],
) -> tuple[dict[str, float], dict[str, float]]:
  weights = {k: float(t.weight) for k, t in totals.items()}
  means = {k: float(t.value) / (weights[k] or 1.0) for k, t in totals.items()}
  return means, weights


def _save(
  store: Store,
  step: int,
  state: State,
  plan: Plan,
  watch: _Watch,
  observers: Sequence[Observer],
) -> None:
  watch.flush()  # Only a state whose numbers are healthy is saved.
  store.save(step, state, plan.about)
  for observer in observers:
    observer.saved(step)
