"""Programs that several tests run are compiled once a session."""

from __future__ import annotations

import jax
import pytest
from jax.experimental.compilation_cache import compilation_cache

OPTIONS = {
  "jax_persistent_cache_min_compile_time_secs": 0.0,
  "jax_persistent_cache_min_entry_size_bytes": -1,
}


@pytest.fixture(scope="package", autouse=True)
def compiled_once(tmp_path_factory):
  """Keeps compiled programs for the tests of one directory."""
  directory = str(tmp_path_factory.mktemp("compiled"))
  options = OPTIONS | {"jax_compilation_cache_dir": directory}
  before = {name: getattr(jax.config, name) for name in options}
  for name, value in options.items():
    jax.config.update(name, value)
  compilation_cache.reset_cache()
  yield
  for name, value in before.items():
    jax.config.update(name, value)
  compilation_cache.reset_cache()
