"""Who may import whom, and what a pure floor costs to import."""

from __future__ import annotations

import ast
import os
import pathlib
import subprocess
import sys

import pytest

import rl_jax

ROOT = pathlib.Path(rl_jax.__file__).parent

# Lowest first; a file imports its own floor and those below, without circles.
FLOORS = (
  ("types", "masks", "reduce"),
  ("flow", "log_probs", "divergences", "ratios", "controllers"),
  ("losses", "advantages", "rewards"),
  ("models", "sampling", "environments", "data"),
  ("training", "evaluation"),
  ("algorithms",),
  ("experiment", "launch"),
)
HEIGHT = {name: floor for floor, names in enumerate(FLOORS) for name in names}

PURE = (*FLOORS[0], *FLOORS[1], "losses", "advantages", "rewards.transforms")

# A pure floor sees no file, clock, process, environment or hidden randomness.
PURE_IMPORTS = {
  "__future__",
  "collections",
  "dataclasses",
  "functools",
  "itertools",
  "jax",
  "jaxtyping",
  "math",
  "numpy",
  "rl_jax",
  "typing",
}
IMPURE_CALLS = {"breakpoint", "eval", "exec", "input", "open", "print"}


def module_name(path: pathlib.Path) -> str:
  parts = path.relative_to(ROOT).with_suffix("").parts
  return ".".join(part for part in parts if part != "__init__")


SOURCES = {module_name(path): path for path in sorted(ROOT.rglob("*.py"))}
del SOURCES[""]  # rl_jax itself, which loads the engine when asked for it

PURE_SOURCES = [
  name
  for name in SOURCES
  if any(name == pure or name.startswith(f"{pure}.") for pure in PURE)
]


def imports(name: str, *, at_import: bool = False) -> set[str]:
  """What a module imports, anywhere in it or when it is imported itself."""
  tree = ast.parse(SOURCES[name].read_text())
  found = set()
  for node in tree.body if at_import else ast.walk(tree):
    if isinstance(node, ast.Import):
      found |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f"{name} imports relatively"
      found |= {
        f"{node.module}.{alias.name}"
        if f"{node.module}.{alias.name}".removeprefix("rl_jax.") in SOURCES
        else node.module or ""
        for alias in node.names
      }
  return found


def ours(names: set[str]) -> set[str]:
  return {
    name.removeprefix("rl_jax.") for name in names if name.startswith("rl_jax.")
  }


@pytest.mark.slow
@pytest.mark.parametrize("name", SOURCES)
def test_imports_only_from_below(name: str) -> None:
  top = name.partition(".")[0]
  assert top in HEIGHT, f"rl_jax.{top} stands on no floor of {__file__}"
  for other in ours(imports(name)):
    below = other.partition(".")[0]
    assert HEIGHT[below] <= HEIGHT[top], (
      f"rl_jax.{name} (floor {HEIGHT[top]}) imports rl_jax.{other}"
      f" (floor {HEIGHT[below]})"
    )


@pytest.mark.slow
def test_imports_run_in_no_circle() -> None:
  edges = {n: ours(imports(n, at_import=True)) & set(SOURCES) for n in SOURCES}
  done: set[str] = set()

  def walk(name: str, path: tuple[str, ...]) -> None:
    assert name not in path, " -> ".join((*path, name))
    if name not in done:
      for other in edges[name]:
        walk(other, (*path, name))
      done.add(name)

  for name in SOURCES:
    walk(name, ())


@pytest.mark.slow
@pytest.mark.parametrize("name", PURE_SOURCES)
def test_pure_floor_has_no_effects(name: str) -> None:
  foreign = {i.partition(".")[0] for i in imports(name)} - PURE_IMPORTS
  assert not foreign, f"rl_jax.{name} imports {sorted(foreign)}"
  for node in ast.walk(ast.parse(SOURCES[name].read_text())):
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
      assert node.func.id not in IMPURE_CALLS, f"line {node.lineno}"
    if isinstance(node, ast.Attribute) and node.attr == "random":
      # numpy's global generator; jax.random takes an explicit key.
      owner = node.value.id if isinstance(node.value, ast.Name) else ""
      assert owner == "jax", f"line {node.lineno}"


@pytest.mark.parametrize("name", PURE_SOURCES)
def test_jaxtyping_is_imported_for_type_checkers_only(name: str) -> None:
  assert "jaxtyping" not in imports(name, at_import=True)


def fresh(code: str) -> str:
  environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
  # As installed: what is imported twice is parsed once.
  environment.pop("PYTHONDONTWRITEBYTECODE", None)
  done = subprocess.run(
    [sys.executable, "-c", code],
    env=environment,
    cwd=ROOT.parent,
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  return done.stdout


LOADED = "import sys; print(*{name.partition('.')[0] for name in sys.modules})"


@pytest.mark.slow
def test_pure_floors_load_jax_and_numpy_only() -> None:
  base = set(fresh(f"import jax, jax.numpy; {LOADED}").split())
  pure = ", ".join(f"rl_jax.{name}" for name in PURE)
  loaded = set(fresh(f"import {pure}; {LOADED}").split())
  extra = loaded - base - {"rl_jax"} - set(sys.stdlib_module_names)
  assert not extra, f"importing {pure} loads {sorted(extra)}"
  assert "jaxtyping" not in loaded


@pytest.mark.slow
def test_losses_cost_no_more_to_import_than_jax() -> None:
  """CPU seconds within the process, so that a busy machine does not count."""

  def seconds(module: str) -> float:
    return float(
      fresh(
        "import time; start = time.process_time();"
        f" import {module}; print(time.process_time() - start)"
      )
    )

  jax_alone, losses = [], []
  for _ in range(8):
    jax_alone.append(seconds("jax"))
    losses.append(seconds("rl_jax.losses"))
    if min(losses) <= 1.1 * min(jax_alone):
      return
  raise AssertionError(
    f"import rl_jax.losses takes {min(losses):.2f} s of CPU, import jax"
    f" {min(jax_alone):.2f} s"
  )
