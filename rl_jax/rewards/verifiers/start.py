"""The program that a pool starts: the warden, without what it does not need.

It is run by its path, because importing it would run `rl_jax.rewards`, whose
device code takes longer to load than all verifiers together.
"""

from __future__ import annotations

import importlib.util
import sys
from typing import Any

__all__ = ["main", "postpone"]


def postpone(package: str) -> None:
  """Put off what a package's `__init__` does until a name of it is asked for.

  Modules inside the package can be imported without running it.

  Args:
    package: its dotted name; must not have been imported.

  Raises:
    ValueError: if it has been imported already, or is not there.
  """
  if package in sys.modules:
    raise ValueError(f"{package} has been imported already")
  spec = importlib.util.find_spec(package)
  if spec is None or spec.loader is None:
    raise ValueError(f"there is no package {package}")
  module, loader = importlib.util.module_from_spec(spec), spec.loader

  def load(name: str) -> Any:
    # First: what it imports may ask the half-loaded package for names.
    del module.__dict__["__getattr__"]
    loader.exec_module(module)
    return getattr(module, name)

  module.__dict__["__getattr__"] = load
  sys.modules[package] = module
  parent, _, name = package.rpartition(".")
  if parent:
    setattr(sys.modules[parent], name, module)


def main() -> None:
  """Serve the socket that the command line names; see `warden.main`."""
  postpone("rl_jax.rewards")
  from rl_jax.rewards.verifiers import warden

  warden.main()


if __name__ == "__main__":
  main()
