"""Bazel targets, derived from what each source file imports.

A package of the library is one target with the packages inside it, so that
importing any module of it (it runs the `__init__` of all packages above) has
what it needs; the modules that stand at the top of `rl_jax` are a target each.
Imports inside functions are dependencies. Imports under `TYPE_CHECKING` are
none for a library; a test that depends on it, which evaluates annotations, has
them instead.
"""

from __future__ import annotations

import ast
import dataclasses
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

__all__ = [
  "DISTRIBUTIONS",
  "UNDECLARED",
  "Imports",
  "Target",
  "closure",
  "find_cycle",
  "imports_of",
  "targets",
]

ROOT = Path(__file__).resolve().parent.parent
TREES = ("rl_jax", "experiments", "tests", "third_party")
LIBRARY = "rl_jax"

# Where the name to import is not the distribution's.
DISTRIBUTIONS = {"orbax": "orbax_checkpoint", "sklearn": "scikit_learn"}
# What a distribution imports and does not declare (array_record: optional
# there, and the file format of our builders).
UNDECLARED = {
  "tensorflow_datasets": ("array_record", "importlib_resources"),
}
# Files that import by names put together at run time, and the tuple of modules
# of the library that they do so for. The root conftest does it too, and takes
# only what it finds: it gives no test a dependency of its own.
DYNAMIC = {"tests/properties/subjects.py": "PURE"}
# Tests of the repository itself: they read it, git and the network, which
# Bazel's sandbox keeps from them. pytest runs them.
UNBOXED = "tests/mechanics"
# Tests that may take longer than the five minutes of a medium one.
LARGE = "tests/properties"
RUNNER = "bazel_main.py"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Imports:
  """Dotted names that a file imports, by when it does."""

  run: frozenset[str]
  """When the file is imported."""
  later: frozenset[str]
  """Inside functions."""
  typing: frozenset[str]
  """Under `TYPE_CHECKING` only."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Target:
  """One rule of a BUILD file."""

  package: str
  name: str
  kind: str = "py_library"
  srcs: tuple[str, ...] = ()
  data: tuple[str, ...] = ()
  deps: frozenset[str] = frozenset()
  """Absolute labels, and `@pypi//...`."""
  typing: frozenset[str] = frozenset()
  """Labels that only annotations need."""
  size: str | None = None
  tags: tuple[str, ...] = ()

  @property
  def label(self) -> str:
    """The absolute label, as `deps` spell it."""
    return f"//{self.package}:{self.name}"


def _is_type_checking(node: ast.AST) -> bool:
  return isinstance(node, ast.If) and ast.unparse(node.test) in (
    "TYPE_CHECKING",
    "typing.TYPE_CHECKING",
  )


def _import_nodes(
  node: ast.AST, when: str = "run"
) -> Iterator[tuple[ast.Import | ast.ImportFrom, str]]:
  """Import statements below a node, each with its field of `Imports`."""
  for child in ast.iter_child_nodes(node):
    if isinstance(child, ast.Import | ast.ImportFrom):
      yield child, when
    elif _is_type_checking(child):
      for inner in child.body:
        yield from _import_nodes(ast.Module([inner], []), "typing")
      for inner in child.orelse:
        yield from _import_nodes(ast.Module([inner], []), when)
    elif isinstance(child, ast.FunctionDef) and when == "run":
      yield from _import_nodes(child, "later")
    else:
      yield from _import_nodes(child, when)


def imports_of(source: str) -> Imports:
  r"""What a file imports.

  Args:
    source: its text.

  Returns:
    Dotted names; `from a import b` is `a.b`. `import rl_jax` is what the file
    takes from it: `rl_jax.train` where that is written.

  Raises:
    ValueError: a relative import, which the house style has none of.

  >>> sorted(imports_of("import jax.numpy\nfrom a import b").run)
  ['a.b', 'jax.numpy']
  """
  tree = ast.parse(source)
  found: dict[str, set[str]] = {"run": set(), "later": set(), "typing": set()}
  for node, when in _import_nodes(tree):
    if isinstance(node, ast.ImportFrom):
      if node.module is None or node.level:
        raise ValueError(
          f"line {node.lineno}: a relative import; write the whole name"
        )
      found[when].update(f"{node.module}.{name.name}" for name in node.names)
    else:
      found[when].update(name.name for name in node.names)
  taken = {
    f"{LIBRARY}.{node.attr}"
    for node in ast.walk(tree)
    if isinstance(node, ast.Attribute)
    and isinstance(node.value, ast.Name)
    and node.value.id == LIBRARY
    and not node.attr.startswith("__")
  }
  for names in found.values():
    if LIBRARY in names:
      names |= taken
  return Imports(**{when: frozenset(names) for when, names in found.items()})


def _assigned(source: str, name: str) -> tuple[str, ...]:
  """The literal that a module binds to a name."""
  for node in ast.parse(source).body:
    if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == name:
      return ast.literal_eval(node.value)
  raise ValueError(f"no {name} = (...) at the top of the file")


def _bindings(source: str) -> set[str]:
  """Names that a module has as soon as it is imported."""
  names = set()
  for node in ast.parse(source).body:
    if isinstance(node, ast.Assign):
      names |= {ast.unparse(target) for target in node.targets}
    elif isinstance(node, ast.Import | ast.ImportFrom):
      names |= {alias.asname or alias.name for alias in node.names}
    elif isinstance(node, ast.FunctionDef | ast.ClassDef):
      names.add(node.name)
  return names


def _is_script(source: str) -> bool:
  return any(
    isinstance(node, ast.If)
    and ast.unparse(node.test) == "__name__ == '__main__'"
    for node in ast.parse(source).body
  )


class _Tree:
  """The source files below a root, and which target each belongs to."""

  def __init__(self, root: Path):
    self.root = root
    self.source = {
      path.relative_to(root).as_posix(): path.read_text()
      for tree in TREES
      for path in sorted((root / tree).rglob("*.py"))
    }
    self.imports = {}
    for path, text in self.source.items():
      try:
        self.imports[path] = imports_of(text)
      except (SyntaxError, ValueError) as error:
        raise ValueError(f"{path}: {error}") from error

  def owner(self, path: str) -> str:
    """The label of the target that a file is a source of."""
    directory, _, file = path.rpartition("/")
    if directory == LIBRARY:
      name = "init" if file == "__init__.py" else file[:-3]
    elif directory.startswith(f"{LIBRARY}/"):
      name = directory.split("/")[1]
      directory = f"{LIBRARY}/{name}"
    elif directory.split("/")[0] == "experiments":
      name = directory.rpartition("/")[2]
    else:
      name = file[:-3]
    return f"//{directory}:{name}"

  def resolve(self, name: str) -> str | None:
    """The label for a dotted name; none for the standard library."""
    parts = name.split(".")
    # pytest's path holds the last two, so their files need no prefix.
    for base in ("", "tests/", "third_party/"):
      for length in range(len(parts), 0, -1):
        stem = base + "/".join(parts[:length])
        for path in (f"{stem}.py", f"{stem}/__init__.py"):
          if path in self.source:
            return self._served(path, parts[length:])
    if parts[0] in sys.stdlib_module_names:
      return None
    return f"@pypi//{DISTRIBUTIONS.get(parts[0], parts[0]).lower()}"

  def _served(self, path: str, rest: list[str]) -> str:
    # What the library's own __init__ hands out on demand is a target of its
    # own, so that the pure floors do not depend on the engine.
    own = path != f"{LIBRARY}/__init__.py" or not rest
    if not own and rest[0] not in _bindings(self.source[path]):
      return f"//{LIBRARY}:{LIBRARY}"
    return self.owner(path)

  def labels(self, names: Collection[str]) -> set[str]:
    """Labels for dotted names, with what distributions do not declare."""
    found = {self.resolve(name) for name in names} - {None}
    for name in names:
      for extra in UNDECLARED.get(name.split(".")[0], ()):
        found.add(f"@pypi//{extra}")
    return found


def _data(root: Path, directory: str) -> tuple[str, ...]:
  """Files of a package of the library that are not Python."""
  if not directory.startswith(f"{LIBRARY}/"):
    return ()
  return tuple(
    path.relative_to(root / directory).as_posix()
    for path in sorted((root / directory).rglob("*"))
    if path.is_file() and path.suffix not in (".py", ".pyc")
    if path.name != "BUILD" and path.name[0] != "."
  )


def _library_target(tree: _Tree, label: str, paths: list[str]) -> Target:
  """The target of some files, before what its place in tests adds."""
  package, _, name = label[2:].partition(":")
  run: set[str] = set()
  typed: set[str] = set()
  for path in paths:
    imports = tree.imports[path]
    # See `_served`: the umbrella target has these.
    lazy = path == f"{LIBRARY}/__init__.py"
    run |= tree.labels(imports.run | (set() if lazy else imports.later))
    typed |= set() if lazy else tree.labels(imports.typing)
    if path in DYNAMIC:
      modules = _assigned(tree.source[path], DYNAMIC[path])
      run |= tree.labels([f"{LIBRARY}.{module}" for module in modules])
    # Importing a module runs the __init__ of every package above it.
    for parent in list(Path(path).parents)[:-1]:
      init = f"{parent.as_posix()}/__init__.py"
      if init in tree.source:
        run.add(tree.owner(init))
  return Target(
    package=package,
    name=name,
    srcs=tuple(sorted(path.removeprefix(f"{package}/") for path in paths)),
    deps=frozenset(run - {label}),
    typing=frozenset(typed - run - {label}),
    data=_data(tree.root, package) if package != LIBRARY else (),
  )


def closure(
  labels: Iterable[str], table: Mapping[str, Target], typing: bool
) -> set[str]:
  """Everything that some labels depend on, themselves included.

  Args:
    labels: where to start.
    table: targets by label; other labels have no dependencies.
    typing: whether what annotations need counts.

  Returns:
    Labels.
  """
  seen: set[str] = set()
  waiting = list(labels)
  while waiting:
    label = waiting.pop()
    if label in seen:
      continue
    seen.add(label)
    if label in table:
      target = table[label]
      waiting += target.deps | (target.typing if typing else frozenset())
  return seen


def find_cycle(table: Mapping[str, Target]) -> list[str]:
  """One cycle of dependencies.

  Args:
    table: targets by label.

  Returns:
    Its labels, the first one also last; empty where there is none.
  """
  done: set[str] = set()

  def walk(label: str, path: list[str]) -> list[str]:
    if label in path:
      return [*path[path.index(label) :], label]
    if label in done or label not in table:
      return []
    for dependency in sorted(table[label].deps):
      if cycle := walk(dependency, [*path, label]):
        return cycle
    done.add(label)
    return []

  return next((c for label in sorted(table) if (c := walk(label, []))), [])


def _as_test(
  target: Target, tree: _Tree, table: Mapping[str, Target]
) -> Target:
  """The target as a test, with the conftests and types it runs under."""
  path = f"{target.package}/{target.srcs[0]}"
  conftests = {
    f"//{parent.as_posix()}:conftest"
    for parent in Path(path).parents
    if f"{parent.as_posix()}/conftest.py" in tree.source
  }
  deps = target.deps | conftests
  typed = set(target.typing)
  for label in closure(deps | typed, table, typing=True):
    typed |= table[label].typing if label in table else set()
  missing = typed - closure(deps, table, typing=False)
  return dataclasses.replace(
    target,
    kind="py_test",
    deps=deps | missing,
    size="large" if target.package == LARGE else "medium",
    tags=("manual",) if target.package == UNBOXED else (),
  )


def targets(root: Path = ROOT) -> dict[str, Target]:
  """Every target of the repository.

  Args:
    root: its folder.

  Returns:
    Targets by label.

  Raises:
    ValueError: a file that cannot be read as Python, a relative import, or
      dependencies in a circle.
  """
  tree = _Tree(root)
  files: dict[str, list[str]] = {}
  for path in tree.source:
    if path != f"third_party/{RUNNER}":
      files.setdefault(tree.owner(path), []).append(path)
  table = {
    label: _library_target(tree, label, paths) for label, paths in files.items()
  }
  init = f"{LIBRARY}/__init__.py"
  if init in tree.source:
    served = tree.labels(tree.imports[init].later)
    table[f"//{LIBRARY}:{LIBRARY}"] = Target(
      package=LIBRARY,
      name=LIBRARY,
      deps=frozenset(served | {tree.owner(init)}),
    )
  for label, target in list(table.items()):
    if target.name.startswith("test_") and target.package.startswith("tests"):
      table[label] = _as_test(target, tree, table)
    elif (
      '__name__ == "__main__"'
      in "".join(tree.source[f"{target.package}/{s}"] for s in target.srcs)
      and target.package.split("/")[0] == "third_party"
    ):
      table[label] = dataclasses.replace(target, kind="py_binary")
  if cycle := find_cycle(table):
    raise ValueError(f"dependencies in a circle: {' -> '.join(cycle)}")
  return table
