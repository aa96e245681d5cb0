"""Checks that fail loudly: of the first step, and of every metric."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Protocol

__all__ = [
  "Collapse",
  "Limit",
  "Unhealthy",
  "check_first_step",
  "check_metrics",
]


class Unhealthy(ValueError):
  """The first step is not what the mathematics says it must be."""


class Collapse(RuntimeError):
  """A metric left the numbers, or the band that it must stay in."""


class Limit(Protocol):
  """A band of one metric."""

  @property
  def metric(self) -> str:
    """Name of the metric."""
    ...

  @property
  def low(self) -> float:
    """Smallest allowed value."""
    ...

  @property
  def high(self) -> float:
    """Largest allowed value."""
    ...


def check_first_step(
  metrics: Mapping[str, float],
  weights: Mapping[str, float],
  expected: Mapping[str, tuple[float, float]],
) -> None:
  """Refuses a run whose first update cannot be right.

  Args:
    metrics: means of the first update.
    weights: what each mean was divided by.
    expected: metric -> (value, tolerance).

  Raises:
    Unhealthy: if a loss term counted nothing, or an expected value is missed,
      such as an importance ratio that is not 1 on policy; it lists all.
  """
  faults = [
    f"{name} counts nothing: every element of it is masked"
    for name, weight in weights.items()
    if name.startswith("loss") and weight == 0
  ]
  for name, (value, tolerance) in expected.items():
    if name not in metrics:
      faults.append(f"{name} is not among the metrics {sorted(metrics)}")
    elif not abs(metrics[name] - value) <= tolerance:
      faults.append(
        f"{name} is {metrics[name]:.6g}, must be {value:g} within {tolerance:g}"
      )
  if faults:
    raise Unhealthy("the first step is wrong: " + "; ".join(faults))


def check_metrics(
  step: int, metrics: Mapping[str, float], guard: tuple[Limit, ...]
) -> None:
  """Stops a run that has gone wrong.

  Args:
    step: which step the metrics are of.
    metrics: means, by name.
    guard: bands; a metric that is absent this time is not checked.

  Raises:
    Collapse: for NaN or infinity, or a value outside of its band.
  """
  broken = [name for name, x in metrics.items() if not math.isfinite(x)]
  if broken:
    # The reward comes first: whatever is built on it follows.
    broken.sort(key=lambda name: ("reward" not in name, name))
    values = ", ".join(f"{name} = {metrics[name]}" for name in broken[:4])
    raise Collapse(f"step {step}: {values} is not a finite number")
  for limit in guard:
    value = metrics.get(limit.metric)
    if value is not None and not limit.low <= value <= limit.high:
      raise Collapse(
        f"step {step}: {limit.metric} = {value:.4g} left the band"
        f" [{limit.low:g}, {limit.high:g}]"
      )
