"""Every exported pure function, read from its annotations.

A subject is one function with one choice of its options. What its arguments
mean is read from the annotation strings (shape, dtype) and from their names
(`mask` excludes, `group` identifies); nothing here lists functions.
"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import itertools
import pkgutil
import types
import typing
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import rl_jax
from properties.hyperparameters import HYPERPARAMETERS

PURE = (
  "masks",
  "reduce",
  "flow",
  "log_probs",
  "divergences",
  "ratios",
  "losses",
  "advantages",
  "rewards.implicit",
  "rewards.process",
  "rewards.shaping",
  "rewards.transforms",
  "controllers",
)

MASKS = ("mask", "valid")


class UnknownError(Exception):
  """The harness was not told how to make an argument."""


@dataclasses.dataclass(frozen=True)
class Spec:
  """What an annotation such as `Float[Array, "*batch time"]` says."""

  kind: str
  dims: tuple[str, ...]
  static: bool = False  # a numpy array: part of the program, never traced

  @property
  def rowwise(self) -> bool:
    return bool(self.dims) and _is_row(self.dims[0])

  @property
  def shape_names(self) -> tuple[str, ...]:
    """One name per axis: variadic rows are one axis, events are two."""
    names: list[str] = []
    for dim in self.dims:
      if dim.startswith("*") and not _is_row(dim):
        names += [f"{dim}0", f"{dim}1"]
      else:
        names.append("row" if _is_row(dim) else dim)
    return tuple(names)

  def axes(self, name: str) -> tuple[int, ...]:
    return tuple(i for i, x in enumerate(self.shape_names) if x == name)


def _is_row(dim: str) -> bool:
  return dim == "row" or (dim.startswith("*") and dim != "*event")


@dataclasses.dataclass(frozen=True, eq=False)
class Subject:
  """A function, its arrays, and one choice of everything else."""

  name: str
  function: Callable[..., Any]
  arrays: dict[str, Spec]
  records: dict[str, Callable[[], Any]]
  options: dict[str, Any]
  returns: Any

  def __call__(self, case: dict[str, Any], **changed: Any) -> Any:
    case = {k: jax.tree.map(jnp.asarray, v) for k, v in case.items()}
    positional, keyword = [], {**self.options, **changed}
    for name, parameter in inspect.signature(self.function).parameters.items():
      if parameter.kind == parameter.KEYWORD_ONLY:
        keyword |= {name: case[name]} if name in case else {}
      else:
        positional.append(case[name] if name in case else keyword.pop(name))
    return self.function(*positional, **keyword)

  def outputs(self, value: Any) -> list[tuple[Spec, Any]]:
    """The arrays of a result with what the annotation says of each."""
    return list(_leaves(self.returns, value))

  @property
  def masks(self) -> dict[str, Spec]:
    return {k: v for k, v in self.arrays.items() if k in MASKS}

  @property
  def identifiers(self) -> tuple[str, ...]:
    """Arguments that say which rows belong together."""
    counted = any(name.startswith("num_") for name in self.options)
    return tuple(
      name
      for name, spec in self.arrays.items()
      if spec.kind == "int" and spec.dims == ("row",)
      if counted or self.records
    )

  @property
  def rowwise(self) -> bool:
    return any(spec.rowwise for spec in self.arrays.values())

  @property
  def return_specs(self) -> tuple[Spec, ...]:
    return tuple(_flat_specs(self.returns))


def _leaves(annotation: Any, value: Any) -> Iterator[tuple[Spec, Any]]:
  if value is None:
    return
  for option in _options_of(annotation):
    if spec := _spec(option):
      yield spec, value
      return
    if _is_record(option):
      for name, hint in _hints(option).items():
        yield from _leaves(hint, getattr(value, name))
      return
    if typing.get_origin(option) is tuple:
      for hint, part in zip(typing.get_args(option), value, strict=True):
        yield from _leaves(hint, part)
      return
    if option in (float, int, bool):
      yield Spec("python", ()), value
      return
  raise UnknownError(f"cannot read the return annotation {annotation}")


def _flat_specs(annotation: Any) -> Iterator[Spec]:
  for option in _options_of(annotation):
    if spec := _spec(option):
      yield spec
    elif _is_record(option):
      for hint in _hints(option).values():
        yield from _flat_specs(hint)
    elif typing.get_origin(option) is tuple:
      for hint in typing.get_args(option):
        yield from _flat_specs(hint)


def _options_of(annotation: Any) -> tuple[Any, ...]:
  if isinstance(annotation, typing.TypeAliasType):
    annotation = annotation.__value__
  if typing.get_origin(annotation) in (typing.Union, types.UnionType):
    return typing.get_args(annotation)
  return (annotation,)


KINDS = {
  "Float": "float",
  "Bool": "bool",
  "Int": "int",
  "Int32": "int",
  "Integer": "int",
  "Key": "key",
}


def _spec(annotation: Any) -> Spec | None:
  dims = getattr(annotation, "dim_str", None)
  if dims is None:
    return None
  kind = annotation.__name__.partition("[")[0]
  if kind not in KINDS:
    raise UnknownError(f"no way to make {annotation}: add it to KINDS")
  static = annotation.array_type is np.ndarray
  return Spec(KINDS[kind], tuple(dims.split()), static)


def _is_record(annotation: Any) -> bool:
  return isinstance(annotation, type) and hasattr(annotation, "_fields")


def _hints(thing: Any) -> dict[str, Any]:
  return typing.get_type_hints(inspect.unwrap(thing))


def subjects_of(function: Callable[..., Any]) -> list[Subject]:
  """One subject for every combination of the function's options."""
  hints = _hints(function)
  module = function.__module__.removeprefix("rl_jax.")
  name = f"{module}.{function.__name__}"
  arrays: dict[str, Spec] = {}
  records: dict[str, Callable[[], Any]] = {}
  choices: dict[str, tuple[Any, ...]] = {}
  for key, parameter in inspect.signature(function).parameters.items():
    if key not in hints:
      raise UnknownError(f"{name}: argument {key} has no annotation")
    options = _options_of(hints[key])
    specs = [spec for spec in map(_spec, options) if spec]
    if specs and not specs[0].static:
      arrays[key] = specs[0]
    elif _is_record(options[0]):
      records[key] = _constructor(function, options[0])
    if key not in records and (key not in arrays or len(options) > 1):
      choices[key] = _choices(name, parameter, options)
  # An argument that may be an array or something else is tried as both, all
  # such arguments together.
  either = [key for key in arrays if key in choices]
  found = []
  for left_out in ([], either) if either else ([],):
    open_choices = {
      k: v for k, v in choices.items() if k in left_out or k not in either
    }
    for values in itertools.product(*open_choices.values()):
      chosen = dict(zip(open_choices, values, strict=True))
      swept = [
        f"{k}={v}"
        for k, v in chosen.items()
        if k in left_out or len(choices[k]) > 1
      ]
      found.append(
        Subject(
          name=name + (f"[{','.join(swept)}]" if swept else ""),
          function=function,
          arrays={k: v for k, v in arrays.items() if k not in left_out},
          records=records,
          options=chosen,
          returns=hints["return"],
        )
      )
  return found


def _choices(
  name: str, parameter: inspect.Parameter, options: tuple[Any, ...]
) -> tuple[Any, ...]:
  for option in options:
    if typing.get_origin(option) is typing.Literal:
      return typing.get_args(option)
  if bool in options:
    return (False, True)
  if type(None) in options and any(map(_spec, options)):
    return (None,)
  if parameter.name in HYPERPARAMETERS:
    value = HYPERPARAMETERS[parameter.name]
    values = value if isinstance(value, tuple) else (value,)
    return values + ((None,) if type(None) in options else ())
  if parameter.default is not parameter.empty:
    return (parameter.default,)
  raise UnknownError(
    f"{name} needs {parameter.name}: {parameter.annotation}, which the"
    " property harness cannot make. Add a typical value to HYPERPARAMETERS"
    " in tests/properties/hyperparameters.py."
  )


def _constructor(function: Callable[..., Any], record: type) -> Callable:
  """The exported sibling that makes a record from hyper-parameters only."""
  module = importlib.import_module(function.__module__)
  for name in module.__all__:
    sibling = getattr(module, name)
    if not inspect.isfunction(sibling) or sibling is function:
      continue
    if _hints(sibling).get("return") is record:
      (subject, *_) = subjects_of(sibling)
      if not subject.arrays and not subject.records:
        return lambda: subject({})
  raise UnknownError(
    f"{function.__name__} takes a {record.__name__} and no function of"
    f" {module.__name__}.__all__ makes one from hyper-parameters alone"
  )


def exported() -> list[Callable[..., Any]]:
  """Every function in `__all__` of a pure module, where it is defined.

  Those that return nothing check what the host has, before it is traced.
  """
  found: dict[str, Callable[..., Any]] = {}
  for module in _modules():
    for name in module.__all__:
      thing = getattr(module, name)
      if not inspect.isfunction(thing) or thing.__module__ != module.__name__:
        continue
      if thing.__annotations__.get("return") not in (None, "None"):
        found[f"{module.__name__}.{name}"] = thing
  return [found[name] for name in sorted(found)]


def _modules() -> Iterator[types.ModuleType]:
  for root in PURE:
    # A floor that does not exist yet has nothing to prove.
    parent, _, child = f"rl_jax.{root}".rpartition(".")
    package = rl_jax if parent == "rl_jax" else importlib.import_module(parent)
    names = {m.name for m in pkgutil.iter_modules(package.__path__)}
    if child not in names:
      continue
    module = importlib.import_module(f"rl_jax.{root}")
    yield module
    path = getattr(module, "__path__", ())
    for inner in pkgutil.walk_packages(path, f"{module.__name__}."):
      yield importlib.import_module(inner.name)


def all_subjects() -> tuple[list[Subject], list[UnknownError]]:
  """The subjects, and what the harness was not told how to make."""
  found, unknown = [], []
  for function in exported():
    try:
      found += subjects_of(function)
    except UnknownError as error:
      unknown.append(error)
  return found, unknown


def reductions() -> list[Subject]:
  """What turns a loss per element into a Total, from `reduce.__all__`."""
  total = rl_jax.reduce.Total
  return [
    subject
    for function in exported()
    if function.__module__ == "rl_jax.reduce"
    for subject in subjects_of(function)
    if subject.returns is total
  ]
