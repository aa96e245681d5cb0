"""An experiment as one frozen value: declare, compare, hash, store, reload.

An experiment file holds such a value; the command line changes fields of it;
the run stores it beside its results. Components are frozen dataclasses
imported by name, so a new method is a new dataclass and no edit here.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import importlib
import json
import math
from collections.abc import Iterator
from typing import Any

__all__ = [
  "Band",
  "Checkpoint",
  "Checkpoints",
  "Experiment",
  "Mesh",
  "Scratch",
  "Trained",
  "diff",
  "from_dict",
  "identity",
  "stages",
  "to_dict",
]

# A field with this metadata says how or where to run, not what comes out.
_RUN_ONLY = {"identity": False}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mesh:
  """Devices along each axis of the mesh; -1 takes all that are left."""

  data: int = -1
  """Copies that see different rows."""
  fsdp: int = 1
  """Shards of parameters and optimiser state; rows are split over it too."""
  tensor: int = 1
  """Shards of the hidden width."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checkpoints:
  """When to save and what to keep."""

  every: int = 20
  """Steps between two saves; the last step is always saved."""
  keep: int = 3
  """How many of the newest to keep."""
  keep_every: int | None = None
  """Besides, keep every checkpoint whose step is a multiple of this."""

  def __post_init__(self) -> None:
    every = 1 if self.keep_every is None else self.keep_every
    if min(self.every, self.keep, every) < 1:
      raise ValueError(
        f"checkpoints: every={self.every}, keep={self.keep} and"
        f" keep_every={self.keep_every} must be at least 1"
      )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Band:
  """Where a metric should be."""

  metric: str
  """Its name in the records, such as `evaluation/reward`."""
  low: float = -math.inf
  """Smallest value inside the band."""
  high: float = math.inf
  """Largest value inside the band."""

  def __post_init__(self) -> None:
    if not self.low <= self.high:
      raise ValueError(
        f"band of {self.metric}: low = {self.low} is above high = {self.high}"
      )

  def holds(self, value: float) -> bool:
    """Whether the value is inside; NaN never is."""
    return self.low <= value <= self.high


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scratch:
  """Start from the model's own random initialisation."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Checkpoint:
  """Start from the parameters that another run saved.

  Where it trained a low-rank change (`lora`), from the weights with that added.
  """

  path: str
  """Work directory of that run."""
  step: int | None = None
  """Which of its checkpoints; None = the newest."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trained:
  """Start from the result of another experiment.

  It is run first if its result, found by its hash, is not there yet. Where it
  trained a low-rank change (`lora`), from the weights with that added.
  """

  by: Experiment
  """The experiment whose final parameters are used."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
  """What is trained, on what, for which reward, by which algorithm."""

  name: str = dataclasses.field(metadata=_RUN_ONLY)
  """Short name, used for directories and titles."""
  model: Any
  """The model being trained; see `rl_jax.models`."""
  data: Any
  """Where items come from; see `rl_jax.data`."""
  algorithm: Any
  """How a step is made; see `rl_jax.algorithms`."""
  reward: Any = None
  """What is rewarded; see `rl_jax.rewards`. None for supervised training."""
  evaluation: Any = None
  """What is measured besides training; None for nothing."""
  start: Any = Scratch()
  """Where the parameters come from: `Scratch`, `Checkpoint`, `Trained`, or a
  value with `params(model)` that reads public weights."""
  steps: int
  """Steps of the loop: collect, update."""
  seed: int = 0
  """Seed of everything random in the run."""
  mesh: Mesh = dataclasses.field(default=Mesh(), metadata=_RUN_ONLY)
  """Devices."""
  checkpoints: Checkpoints = dataclasses.field(
    default=Checkpoints(), metadata=_RUN_ONLY
  )
  """Saving."""
  guard: tuple[Band, ...] = dataclasses.field(default=(), metadata=_RUN_ONLY)
  """Bands that, once left, stop the run as collapsed."""
  expected: tuple[Band, ...] = dataclasses.field(default=(), metadata=_RUN_ONLY)
  """Bands that the last evaluation is held against in the report."""

  def __post_init__(self) -> None:
    if self.steps < 1:
      raise ValueError(f"steps must be at least 1, got {self.steps}")
    if self.seed < 0:
      raise ValueError(f"seed must not be negative, got {self.seed}")
    if not self.name or "/" in self.name:
      raise ValueError(f"name must be a plain word, got {self.name!r}")

  @property
  def hash(self) -> str:
    """Twelve hex digits of what determines the result.

    Name, mesh, checkpointing, guard and expected bands do not enter: they say
    how or where to run, and a run may be resumed with others.
    """
    text = json.dumps(identity(self), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def to_dict(value: Any) -> Any:
  """A JSON value from which `from_dict` makes an equal one.

  Args:
    value: an experiment, a component or plain data.

  Returns:
    Dictionaries, lists, text and numbers; classes by their import path.

  Raises:
    ValueError: for something that is neither a dataclass nor plain data nor
      importable by name.
  """
  return _encode(value, everything=True)


def identity(value: Any) -> Any:
  """Like `to_dict`, without the fields that do not change the result.

  Args:
    value: an experiment, a component or plain data.

  Returns:
    A JSON value, the same for experiments with the same result.
  """
  return _encode(value, everything=False)


def from_dict(value: Any) -> Any:
  """The inverse of `to_dict`.

  Args:
    value: what `to_dict` returned, also after a round trip through JSON.

  Returns:
    An equal of what `to_dict` was given.

  Raises:
    ValueError: if a class or function named in it cannot be imported, or a
      field is unknown or missing; the message names it.
  """
  if isinstance(value, list):
    return tuple(from_dict(item) for item in value)
  if not isinstance(value, dict):
    return value
  if "float" in value:
    return float(value["float"])
  if "name" in value:
    return _imported(value["name"])
  if "partial" in value:
    given = {k: from_dict(v) for k, v in value["given"].items()}
    return functools.partial(from_dict(value["partial"]), **given)
  if "mapping" in value:
    return {key: from_dict(item) for key, item in value["mapping"].items()}
  cls = _imported(value["type"])
  known = {field.name for field in dataclasses.fields(cls)}
  unknown = sorted(set(value["fields"]) - known)
  if unknown:
    raise ValueError(
      f"{value['type']} has no field {', '.join(unknown)}; it has"
      f" {', '.join(sorted(known))}"
    )
  try:
    return cls(**{k: from_dict(v) for k, v in value["fields"].items()})
  except TypeError as error:
    raise ValueError(f"{value['type']}: {error}") from error


def diff(old: Any, new: Any, path: str = "") -> list[tuple[str, Any, Any]]:
  """Every place where two experiments differ.

  Args:
    old: the value to compare with.
    new: the value that may have changed.
    path: dotted path of both within what is compared.

  Returns:
    (dotted path, old value, new value) in field order; none for equals.
  """
  if (
    dataclasses.is_dataclass(old)
    and not isinstance(old, type)
    and type(old) is type(new)
  ):
    found = []
    for field in dataclasses.fields(old):
      before, after = getattr(old, field.name), getattr(new, field.name)
      found += diff(before, after, f"{path}.{field.name}".lstrip("."))
    return found
  if isinstance(old, tuple) and isinstance(new, tuple) and len(old) == len(new):
    return [
      item
      for i, (before, after) in enumerate(zip(old, new, strict=True))
      for item in diff(before, after, f"{path}.{i}")
    ]
  # Partials of one function with equal keywords are not equal themselves.
  if (
    isinstance(old, functools.partial)
    and isinstance(new, functools.partial)
    and old.func is new.func
    and old.keywords.keys() == new.keywords.keys()
  ):
    return [
      item
      for name in old.keywords
      for item in diff(old.keywords[name], new.keywords[name], f"{path}.{name}")
    ]
  return [] if old == new else [(path, old, new)]


def stages(experiment: Experiment) -> Iterator[Trained]:
  """The experiments that this one directly builds on, in field order.

  Args:
    experiment: whose fields are searched, components inside them included.

  Yields:
    Each `Trained` once, by the hash of its experiment.
  """
  seen = set()

  def walk(value: Any) -> Iterator[Trained]:
    if isinstance(value, Trained):
      if value.by.hash not in seen:
        seen.add(value.by.hash)
        yield value
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
      for field in dataclasses.fields(value):
        yield from walk(getattr(value, field.name))
    elif isinstance(value, tuple):
      for item in value:
        yield from walk(item)

  yield from walk(experiment)


def _encode(value: Any, *, everything: bool) -> Any:
  if dataclasses.is_dataclass(value) and not isinstance(value, type):
    fields = {
      field.name: _encode(getattr(value, field.name), everything=everything)
      for field in dataclasses.fields(value)
      if everything or field.metadata.get("identity", True)
    }
    return {"type": _name_of(type(value)), "fields": fields}
  if isinstance(value, tuple):
    return [_encode(item, everything=everything) for item in value]
  if isinstance(value, dict) and all(isinstance(k, str) for k in value):
    items = {k: _encode(v, everything=everything) for k, v in value.items()}
    return {"mapping": items}
  if isinstance(value, float) and not math.isfinite(value):
    return {"float": repr(float(value))}
  if isinstance(value, float) and not everything and value.is_integer():
    return int(value)  # 1 and 1.0 are equal, so they hash alike.
  if value is None or isinstance(value, (bool, int, float, str)):
    return value
  if isinstance(value, functools.partial) and not value.args:
    encode = functools.partial(_encode, everything=everything)
    given = {name: encode(value.keywords[name]) for name in value.keywords}
    return {"partial": encode(value.func), "given": given}
  if callable(value) and hasattr(value, "__qualname__"):
    return {"name": _name_of(value)}
  raise ValueError(
    f"{value!r} of type {type(value).__name__} cannot stand in an experiment:"
    " use frozen dataclasses, numbers, strings, tuples, functions or partials"
    " of functions with keywords"
  )


def _name_of(value: Any) -> str:
  name = f"{value.__module__}:{value.__qualname__}"
  if "<" in name:
    raise ValueError(
      f"{name} cannot be found again by name: define it at the top level of"
      " a module"
    )
  return name


def _imported(name: str) -> Any:
  module, _, path = name.partition(":")
  try:
    value = importlib.import_module(module)
    for part in path.split("."):
      value = getattr(value, part)
  except (ImportError, AttributeError) as error:
    raise ValueError(
      f"cannot import {name!r}, which this experiment names: {error}"
    ) from error
  return value
