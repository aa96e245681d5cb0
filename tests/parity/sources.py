"""Running a framework's own lines without the rest of the framework.

Most of the peers import engines, accelerators and clusters beside the few
lines of mathematics that are compared here. Those lines are cut out of the
installed package, or of a working copy of its repository, by their syntax
tree, and run unchanged with names that the caller gives. Nothing of a peer is
stored here: only the numbers that came out, and this way to get them again.
"""

from __future__ import annotations
import __future__

import ast
import importlib
import json
import math
import pathlib
import platform
from collections.abc import Callable, Mapping

import numpy as np

__all__ = [
  "definitions",
  "inputs",
  "load",
  "method",
  "module",
  "plain",
  "save",
  "statements",
]

FIXTURES = pathlib.Path(__file__).parent / "fixtures"
DIGITS = 12


def module(name: str):
  """A package of the peer's environment, which ours lacks."""
  return importlib.import_module(name)


def definitions(
  path: pathlib.Path, names: tuple[str, ...], given: Mapping
) -> dict:
  """Functions, classes and constants of a file, in a namespace of their own.

  Args:
    path: the file.
    names: which of its top-level definitions.
    given: what they use from elsewhere.

  Returns:
    The namespace.
  """
  tree = ast.parse(path.read_text())
  kept = [node for node in tree.body if set(_bound(node)) & set(names)]
  missing = set(names) - {name for node in kept for name in _bound(node)}
  if missing:
    raise ValueError(f"{path} has no {sorted(missing)}")
  return _run(kept, path, given)


def method(
  path: pathlib.Path, owner: str, name: str, given: Mapping
) -> Callable:
  """One method of a class as a function of its `self`."""
  for node in ast.parse(path.read_text()).body:
    if isinstance(node, ast.ClassDef) and node.name == owner:
      for child in node.body:
        if isinstance(child, ast.FunctionDef) and child.name == name:
          return _run([child], path, given)[name]
  raise ValueError(f"{path} has no {owner}.{name}")


def statements(path: pathlib.Path, first: str, last: str, given: Mapping):
  """Run the neighbouring statements from one that begins so to another.

  Args:
    path: the file.
    first: how the first of them begins, as `ast.unparse` writes it.
    last: how the last begins.
    given: the local names they read.

  Returns:
    All names afterwards.
  """
  for node in ast.walk(ast.parse(path.read_text())):
    body = getattr(node, "body", None)
    if not isinstance(body, list):
      continue
    text = [ast.unparse(child) for child in body]
    begins = [i for i, line in enumerate(text) if line.startswith(first)]
    ends = [i for i, line in enumerate(text) if line.startswith(last)]
    if begins and ends and begins[0] <= ends[-1]:
      return _run(body[begins[0] : ends[-1] + 1], path, given)
  raise ValueError(f"{path} has no statements {first!r} ... {last!r}")


def _bound(node: ast.stmt) -> list[str]:
  if isinstance(node, ast.FunctionDef | ast.ClassDef):
    return [node.name]
  if isinstance(node, ast.Assign):
    return [ast.unparse(target) for target in node.targets]
  return []


def _run(body: list[ast.stmt], path: pathlib.Path, given: Mapping) -> dict:
  code = compile(
    ast.Module(body, []),
    str(path),
    "exec",
    flags=__future__.annotations.compiler_flag,
    dont_inherit=True,
  )
  names = dict(given)
  exec(code, names)
  return names


def plain(value):
  """Numbers as JSON has them, at twelve digits; arrays as lists."""
  if isinstance(value, Mapping):
    return {key: plain(item) for key, item in value.items()}
  if isinstance(value, list | tuple):
    return [plain(item) for item in value]
  if isinstance(value, str | bool | int) or value is None:
    return value
  if hasattr(value, "detach"):
    value = value.detach().numpy()
  array = np.asarray(value)
  if array.ndim:
    return [plain(item) for item in array]
  if array.dtype.kind in "biu":
    return array.item()
  number = float(array)
  if not math.isfinite(number):
    return str(number)
  return float(f"{number:.{DIGITS}g}")


def save(peer: str, provenance: Mapping, numbers: Mapping) -> None:
  """Write a peer's numbers, with where they come from.

  Args:
    peer: the name of the file.
    provenance: package or repository, version or commit, licence.
    numbers: what it computed, by name.
  """
  record = {
    "provenance": {**provenance, "python": platform.python_version()},
    "numbers": plain(numbers),
  }
  lines = [
    '{"provenance": ' + json.dumps(record["provenance"]) + ",",
    '"numbers": {',
    ",\n".join(
      f"{json.dumps(name)}: {json.dumps(value)}"
      for name, value in record["numbers"].items()
    ),
    "}}",
  ]
  FIXTURES.mkdir(exist_ok=True)
  (FIXTURES / f"{peer}.json").write_text("\n".join(lines) + "\n")
  print(f"{peer}: {len(numbers)} results, {record['provenance']}")


def load(peer: str) -> dict:
  """What `save` wrote; arrays and numbers as numpy has them."""
  record = json.loads((FIXTURES / f"{peer}.json").read_text())
  return {name: _numpy(value) for name, value in record["numbers"].items()}


def inputs() -> dict:
  """What every peer was given, as arrays of float64, integers and booleans."""
  record = json.loads((FIXTURES / "inputs.json").read_text())
  return {name: np.array(value) for name, value in record["numbers"].items()}


def _numpy(value):
  if isinstance(value, dict):
    return {name: _numpy(item) for name, item in value.items()}
  if isinstance(value, list | str):
    try:
      return np.array(value, float)
    except ValueError:
      return value
  return value
