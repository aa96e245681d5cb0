"""How numbers and durations are written for a person."""

from __future__ import annotations

import dataclasses
import math
import signal
from collections.abc import Iterator
from typing import Any

__all__ = ["duration", "leaves", "number", "signal_name", "value_text"]


def number(value: float) -> str:
  """Four significant digits.

  Args:
    value: any float, not finite ones included.

  Returns:
    The shorter of its decimal and its exponent form.

  >>> number(0.123456), number(1250.0), number(float("nan"))
  ('0.1235', '1250', 'nan')
  """
  return f"{value:.4g}"


def duration(seconds: float) -> str:
  """Seconds as a person says them.

  Args:
    seconds: a length of time, not negative.

  Returns:
    Its one or two largest units, rounded.

  >>> duration(0.25), duration(42.4), duration(200.0), duration(3900.0)
  ('0.2 s', '42 s', '3 min 20 s', '1 h 05 min')
  """
  if seconds < 10 and round(seconds, 1) < 10:
    return f"{seconds:.1f} s"
  whole = math.floor(seconds + 0.5)
  if whole < 60:
    return f"{whole} s"
  if whole < 3600:
    return f"{whole // 60} min {whole % 60:02d} s"
  return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def signal_name(kind: int) -> str:
  """Name of a signal number, SIGTERM for 15.

  Args:
    kind: the number.

  Returns:
    The name as the manual of signals spells it.
  """
  return signal.Signals(kind).name


def value_text(value: Any) -> str:
  """A field's value in one line.

  Args:
    value: of a field of an experiment.

  Returns:
    Classes and functions by their import path, anything else as Python.
  """
  if callable(value) and hasattr(value, "__qualname__"):
    return f"{value.__module__}.{value.__qualname__}"
  return repr(value)


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, str]]:
  """Every field of a nested configuration.

  A component without fields is a leaf itself; one with fields is named in a
  row of its own, because its kind is a choice too.

  Args:
    value: a component, a tuple of them or plain data.
    path: dotted path that leads to it.

  Yields:
    (dotted path, text of the value) in field order.
  """
  if dataclasses.is_dataclass(value) and not isinstance(value, type):
    yield path, type(value).__qualname__
    for field in dataclasses.fields(value):
      here = f"{path}.{field.name}".lstrip(".")
      yield from leaves(getattr(value, field.name), here)
  elif isinstance(value, tuple) and any(map(dataclasses.is_dataclass, value)):
    for i, item in enumerate(value):
      yield from leaves(item, f"{path}.{i}")
  else:
    yield path, value_text(value)
