"""Every example in a docstring of the library runs and is right.

The examples are taken from the source: a function that the import hook has
wrapped looks foreign to doctest's own finder, which would pass it over.
"""

from __future__ import annotations

import ast
import doctest
import importlib
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rl_jax

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(rl_jax.__file__).parent
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def examples() -> list[tuple[str, str, str]]:
  """Module, name and docstring of everything that shows an example."""
  found = []
  for path in sorted(ROOT.rglob("*.py")):
    parts = path.relative_to(ROOT.parent).with_suffix("").parts
    module = ".".join(part for part in parts if part != "__init__")
    for node in ast.walk(ast.parse(path.read_text())):
      if isinstance(node, DOCUMENTED):
        text = ast.get_docstring(node) or ""
        if ">>>" in text:
          found.append((module, getattr(node, "name", "module"), text))
  return found


@pytest.mark.parametrize(
  ("module", "name", "text"),
  [pytest.param(*e, id=f"{e[0]}.{e[1]}") for e in examples()],
)
def test_example(module: str, name: str, text: str) -> None:
  names = dict(vars(importlib.import_module(module)))
  names |= {"jax": jax, "jnp": jnp, "np": np}
  test = doctest.DocTestParser().get_doctest(text, names, name, module, 0)
  said: list[str] = []
  result = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE).run(
    test, out=said.append
  )
  assert result.attempted > 0
  assert result.failed == 0, "".join(said)
