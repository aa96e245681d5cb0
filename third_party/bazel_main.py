"""Runs one file of tests with pytest, as the main program of a py_test."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

if __name__ == "__main__":
  # Bazel starts a test in the root of its own copy of the sources.
  here = Path.cwd()
  settings = ["-c", str(here / "pyproject.toml"), "--rootdir", str(here)]
  sys.exit(pytest.main([*settings, "-p", "no:cacheprovider", *sys.argv[1:]]))
