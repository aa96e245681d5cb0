"""The public surface: what `__all__` promises is there and documented."""

from __future__ import annotations

import ast
import pathlib

import pytest

import rl_jax

ROOT = pathlib.Path(rl_jax.__file__).parent
FILES = {
  str(path.relative_to(ROOT.parent)): path
  for path in sorted(ROOT.rglob("*.py"))
}
MOST_LINES, MOST_ARGUMENTS = 400, 12

Function = ast.FunctionDef | ast.AsyncFunctionDef


def parse(name: str) -> ast.Module:
  return ast.parse(FILES[name].read_text())


def declared(tree: ast.Module) -> list[str] | None:
  for node in tree.body:
    if isinstance(node, ast.Assign):
      (target, *_) = node.targets
      if isinstance(target, ast.Name) and target.id == "__all__":
        return ast.literal_eval(node.value)
  return None


def defined(tree: ast.Module) -> dict[str, ast.stmt]:
  """Every name that a module binds at its top level."""
  names: dict[str, ast.stmt] = {}
  for node in tree.body:
    match node:
      case ast.FunctionDef() | ast.ClassDef() | ast.AsyncFunctionDef():
        names[node.name] = node
      case ast.Import() | ast.ImportFrom():
        for alias in node.names:
          names[alias.asname or alias.name] = node
      case ast.Assign():
        for target in node.targets:
          if isinstance(target, ast.Name):
            names[target.id] = node
      case ast.AnnAssign(target=ast.Name(id=name)):
        names[name] = node
      case ast.TypeAlias(name=ast.Name(id=name)):
        names[name] = node
  return names


def arguments(function: Function) -> list[ast.arg]:
  found = function.args
  every = [*found.posonlyargs, *found.args, *found.kwonlyargs]
  return [arg for arg in every if arg.arg not in ("self", "cls")]


def functions(tree: ast.Module) -> list[Function]:
  return [n for n in ast.walk(tree) if isinstance(n, Function)]


def exported(name: str) -> list[ast.stmt]:
  tree = parse(name)
  names = defined(tree)
  return [names[x] for x in declared(tree) or [] if x in names]


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_all_names_exist_and_are_sorted_once(name: str) -> None:
  tree = parse(name)
  names = declared(tree)
  if names is None:
    # Nothing but a docstring, so nothing is exported.
    assert len(tree.body) <= 1, f"{name} has no __all__"
    return
  assert len(set(names)) == len(names)
  lazy = {"Experiment", "train"} if name == "rl_jax/__init__.py" else set()
  missing = set(names) - set(defined(tree)) - lazy
  assert not missing, f"{name} exports {sorted(missing)}, which it lacks"


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_every_module_and_export_has_a_docstring(name: str) -> None:
  assert ast.get_docstring(parse(name)), name
  for node in exported(name):
    if isinstance(node, Function | ast.ClassDef):
      assert ast.get_docstring(node), f"{name}: {node.name}"


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_exported_functions_say_what_they_take_and_return(name: str) -> None:
  for node in exported(name):
    if not isinstance(node, Function) or not arguments(node):
      continue
    text = ast.get_docstring(node) or ""
    assert "Args:" in text, f"{name}: {node.name} lacks Args"
    for argument in arguments(node):
      assert f"  {argument.arg}:" in text, (
        f"{name}: {node.name} does not say what {argument.arg} is"
      )
    returns = node.returns
    nothing = isinstance(returns, ast.Constant) and returns.value is None
    if not nothing:
      assert "Returns:" in text or "Yields:" in text, (
        f"{name}: {node.name} lacks Returns"
      )


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_exported_functions_are_annotated(name: str) -> None:
  for node in exported(name):
    members = [node] if isinstance(node, Function) else []
    if isinstance(node, ast.ClassDef):
      members = [
        m
        for m in node.body
        if isinstance(m, Function) and not m.name.startswith("_")
      ]
    for function in members:
      assert function.returns is not None, f"{name}: {function.name} -> ?"
      for argument in arguments(function):
        assert argument.annotation is not None, (
          f"{name}: {function.name}({argument.arg}: ?)"
        )


@pytest.mark.slow
@pytest.mark.parametrize("name", FILES)
def test_signatures_are_small_and_closed(name: str) -> None:
  for function in functions(parse(name)):
    count = len(arguments(function))
    assert count <= MOST_ARGUMENTS, f"{name}: {function.name} takes {count}"
    kwarg = function.args.kwarg
    # A function that judges gets the columns of a task, whatever it has.
    assert kwarg is None or kwarg.arg == "columns", (
      f"{name}: {function.name} takes **{kwarg.arg}"
    )


@pytest.mark.parametrize("name", FILES)
def test_files_are_short(name: str) -> None:
  lines = len(FILES[name].read_text().splitlines())
  assert lines <= MOST_LINES, f"{name} has {lines} lines"
