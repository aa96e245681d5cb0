"""Running a subject: its result, its gradients, and what counts as equal."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from properties import synthesis
from properties.criteria import differentiable
from properties.subjects import Subject
from properties.synthesis import Case

# Elementwise float32 is 1e-6; whatever sums or scans is 1e-5.
EXACT = {"rtol": 1e-6, "atol": 1e-6}
SUMMED = {"rtol": 1e-5, "atol": 1e-5}


def compare(
  subject: Subject, expected: Any, found: Any, tolerance: dict[str, float]
) -> None:
  """Equal results, where rows and columns that were appended do not count."""
  pairs = zip(subject.outputs(expected), subject.outputs(found), strict=True)
  for (spec, x), (_, y) in pairs:
    if spec.kind == "key":
      continue
    np.testing.assert_allclose(
      synthesis.cropped(spec, in_float64(y)),
      synthesis.cropped(spec, in_float64(x)),
      **tolerance,
    )


def in_float64(value: Any) -> np.ndarray:
  value = np.asarray(value)
  # numpy has no bfloat16 of its own to compare in.
  return value.astype(np.float64) if value.dtype.kind not in "biu" else value


def split_floats(subject: Subject, case: Case) -> tuple[Case, Case]:
  floats = {
    name: jnp.asarray(case[name])
    for name, spec in subject.arrays.items()
    if spec.kind == "float"
  }
  return floats, {k: v for k, v in case.items() if k not in floats}


@functools.cache
def evaluator(subject: Subject) -> Callable[[Case, Case], tuple[Any, Any]]:
  """Jitted: the result, and the gradient of each float output in one number.

  One program serves most promises, because compiling costs more than all
  the arithmetic of this harness.
  """

  def scalars(floats: Case, others: Case) -> tuple[jax.Array, Any]:
    result = subject(others | floats)
    numbers = [
      jnp.sum(value * cosines(value))
      for spec, value in subject.outputs(result)
      if spec.kind == "float"
    ]
    return jnp.stack(numbers or [jnp.zeros(())]), result

  def evaluate(floats: Case, others: Case) -> tuple[Any, Any]:
    if not differentiable(subject):
      return subject(others | floats), None
    numbers, pull, result = jax.vjp(
      lambda floats: scalars(floats, others), floats, has_aux=True
    )
    (slopes,) = jax.vmap(pull)(jnp.eye(numbers.size, dtype=numbers.dtype))
    return result, (numbers, slopes)

  return jax.jit(evaluate)


def cosines(value: jax.Array) -> np.ndarray:
  weight = np.cos(np.arange(value.size)).reshape(value.shape)
  return weight.astype(value.dtype)


def evaluated(
  subject: Subject, case: Case
) -> tuple[Any, dict[str, np.ndarray]]:
  """The result and, by argument, the gradient of each float output."""
  result, slopes = evaluator(subject)(*split_floats(subject, case))
  found = slopes[1] if slopes is not None else {}
  return result, {name: np.asarray(slope) for name, slope in found.items()}


def assert_finite(subject: Subject, case: Case) -> None:
  result, slopes = evaluated(subject, case)
  for spec, value in subject.outputs(result):
    if spec.kind == "float":
      assert np.isfinite(np.asarray(value)).all(), f"value {value}"
  for name, slope in slopes.items():
    assert np.isfinite(slope).all(), f"gradient of {name}: {slope}"


@contextlib.contextmanager
def stops_recorded(held: list[Any]) -> Iterator[None]:
  """Notes what every `stop_gradient` of one evaluation returns."""

  def record(value: Any, stop: Callable) -> Any:
    held.append(stop(value))
    return held[-1]

  with _stops_replaced(record):
    yield


@contextlib.contextmanager
def stops_held(held: list[Any]) -> Iterator[None]:
  """Every `stop_gradient` returns again what it did when it was noted.

  What is stopped is then a constant, as it is for the gradient, and a
  difference quotient measures the slope that the gradient claims.
  """
  left = iter(held)
  with _stops_replaced(lambda value, stop: next(left)):
    yield
  assert not list(left), "evaluated along another path"


@contextlib.contextmanager
def _stops_replaced(by: Callable[[Any, Callable], Any]) -> Iterator[None]:
  stop = jax.lax.stop_gradient

  def replaced(value: Any) -> Any:
    # Inside jit, vmap or scan there is no number to hold.
    leaves = jax.tree.leaves(value)
    traced = any(isinstance(x, jax.core.Tracer) for x in leaves)
    return stop(value) if traced else by(value, stop)

  jax.lax.stop_gradient = replaced
  try:
    yield
  finally:
    jax.lax.stop_gradient = stop
