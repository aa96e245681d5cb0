"""Shape checking, warnings and devices for every test.

Annotations of the library are jaxtyping strings that nothing evaluates at run
time, so that a pure floor needs jax and numpy only. Tests evaluate them: the
package is imported with TYPE_CHECKING true and with jaxtyping's import hook,
and beartype then checks every call's shapes and dtypes.
"""

from __future__ import annotations

import os
import pathlib

# All are read when jax is imported, by the processes that tests start too:
# libtpu is not asked for; most programs here run once, so that LLVM's best
# costs more than it gives; and the CPU pretends to be eight devices, on which
# the results must not depend.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "true"
# Tests spend their time on compiling. What one process has compiled no other
# one compiles again, in this run or the next; `--cache-clear` forgets it.
os.environ["JAX_COMPILATION_CACHE_DIR"] = str(
  pathlib.Path(__file__).parents[1] / ".pytest_cache" / "d" / "compiled"
)
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"
os.environ["XLA_FLAGS"] = " ".join(
  (
    os.environ.get("XLA_FLAGS", ""),
    "--xla_force_host_platform_device_count=8",
  )
).strip()

import gc
import importlib
import pkgutil
import shutil
import typing
from collections.abc import Iterator

# Whatever the checked modules import must be loaded before TYPE_CHECKING is
# changed: other packages keep circular or missing imports under it.
import beartype  # noqa: F401
import flax.linen  # noqa: F401
import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import optax  # noqa: F401
import pytest

import rl_jax

# A shape that broadcasts by accident is a wrong loss that nothing reports.
jax.config.update("jax_numpy_rank_promotion", "raise")

# Bytes of compiled programs that are kept.
LARGEST = 2**30

CHECKED = (
  "types",
  "masks",
  "reduce",
  "flow",
  "log_probs",
  "divergences",
  "ratios",
  "losses",
  "advantages",
  "rewards",
  "controllers",
  "sampling",
  "models",
)


def _import_checked() -> None:
  """Import every module of the checked packages under the import hook."""
  roots = {f"rl_jax.{name}" for name in CHECKED}
  found = [
    module.name
    for module in pkgutil.iter_modules(rl_jax.__path__, "rl_jax.")
    if module.name in roots
  ]
  for name in found:
    module = importlib.import_module(name)
    for child in pkgutil.walk_packages(
      getattr(module, "__path__", ()), f"{name}."
    ):
      importlib.import_module(child.name)


typing.TYPE_CHECKING = True
try:
  with jaxtyping.install_import_hook("rl_jax", "beartype.beartype"):
    _import_checked()
finally:
  typing.TYPE_CHECKING = False


def pytest_sessionstart(session: pytest.Session) -> None:
  """What years of changes have compiled is forgotten at some point."""
  compiled = pathlib.Path(os.environ["JAX_COMPILATION_CACHE_DIR"])
  if hasattr(session.config, "workerinput") or not compiled.exists():
    return
  if sum(each.stat().st_size for each in compiled.iterdir()) > LARGEST:
    shutil.rmtree(compiled)


@pytest.fixture(scope="module", autouse=True)
def _settled() -> None:
  """Collecting garbage looks no further back than the file being run.

  All modules and compiled programs of a session are half a second each time,
  and closing a checkpoint store collects.
  """
  gc.freeze()


@pytest.fixture
def unchecked() -> Iterator[None]:
  """Annotations are not checked, so that the library itself must refuse."""
  jaxtyping.config.update("jaxtyping_disable", True)
  yield
  jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(autouse=True)
def _doctest_names(doctest_namespace: dict[str, object]) -> None:
  """Doctests of the library use these without importing them."""
  doctest_namespace.update(jax=jax, jnp=jnp, np=np)
