"""Experiment files: found, described and loaded."""

from __future__ import annotations

import ast
import importlib
import inspect
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
  from rl_jax.experiment import Experiment

__all__ = ["FileError", "Found", "find", "load"]


class FileError(ValueError):
  """An experiment file that is not one; the message says which and why."""


class Found(NamedTuple):
  """An experiment file.

  Attributes:
    path: where it is.
    line: first line of its docstring; what is wrong if it cannot be parsed.
  """

  path: Path
  line: str


def find(directory: Path) -> list[Found]:
  """Experiment files below a directory, by path, without running them.

  Args:
    directory: where to look.

  Returns:
    Every Python file that gives `experiment` a value at its top level, and
    every one that cannot be parsed.

  Raises:
    FileError: if the directory is not there.
  """
  if not directory.is_dir():
    raise FileError(f"{directory} is not a directory")
  found = []
  for path in sorted(directory.rglob("*.py")):
    try:
      module = ast.parse(path.read_bytes(), filename=str(path))
    except (SyntaxError, ValueError) as error:
      found.append(Found(path, f"(cannot be parsed: {error})"))
      continue
    if any(_assigns(node) for node in module.body):
      line = (ast.get_docstring(module) or "(no docstring)").splitlines()[0]
      found.append(Found(path, line))
  return found


def load(path: Path) -> tuple[Experiment, str]:
  """The experiment of a file and what the file says about it.

  The file is imported by its dotted name from the directory above its
  outermost package, so that experiment files can import each other.

  Args:
    path: a Python file that gives `experiment` a value.

  Returns:
    The experiment and the docstring.

  Raises:
    FileError: if there is no such file, it raises, or holds no experiment.
  """
  path = Path(path)
  if path.is_dir():
    raise FileError(
      f"{path} is a directory; name one file, `rl-jax list {path}` shows them"
    )
  if not path.is_file():
    raise FileError(f"{path} does not exist{_nearby(path)}")
  if path.suffix != ".py":
    raise FileError(f"{path} is not a Python file")
  module = _imported(path)
  # Imported here, because it is not needed to find and describe files.
  from rl_jax.experiment import Experiment

  value = getattr(module, "experiment", None)
  if not isinstance(value, Experiment):
    what = "no value" if value is None else f"a {type(value).__name__}"
    raise FileError(
      f"{path} must hold `experiment = rl_jax.Experiment(...)` at its top"
      f" level; it has {what} of that name"
    )
  return value, inspect.cleandoc(module.__doc__ or "")


def _imported(path: Path) -> ModuleType:
  path = path.resolve()
  root, name = path.parent, path.stem
  while (root / "__init__.py").exists():
    root, name = root.parent, f"{root.name}.{name}"
  if str(root) not in sys.path:
    sys.path.insert(0, str(root))
  try:
    module = importlib.import_module(name)
  except Exception as error:
    raise FileError(_why(error, path, root)) from error
  file = getattr(module, "__file__", None)
  if file is None or Path(file).resolve() != path:
    raise FileError(
      f"{path} would be imported as {name!r}, a name that"
      f" {file or 'a built-in module'} has taken; rename the file"
    )
  return module


def _why(error: Exception, path: Path, root: Path) -> str:
  """One line: where in the person's own files it went wrong, and what."""
  where = f"{path}"
  if isinstance(error, SyntaxError):
    return f"{error.filename}:{error.lineno}: {error.msg}"
  for frame in traceback.extract_tb(error.__traceback__):
    if Path(frame.filename).is_relative_to(root) and (
      ".venv" not in Path(frame.filename).parts
    ):
      where = f"{frame.filename}:{frame.lineno}"
    elif where != f"{path}":
      break
  return f"{where}: {type(error).__name__}: {error}"


def _assigns(node: ast.stmt) -> bool:
  if isinstance(node, ast.Assign):
    targets = node.targets
  elif isinstance(node, ast.AnnAssign) and node.value is not None:
    targets = [node.target]
  else:
    return False
  return any(isinstance(t, ast.Name) and t.id == "experiment" for t in targets)


def _nearby(path: Path) -> str:
  import difflib

  if not path.parent.is_dir():
    return ""
  names = [p.name for p in path.parent.glob("*.py")]
  close = difflib.get_close_matches(path.name, names, n=1)
  return f"; perhaps {path.parent / close[0]}" if close else ""
