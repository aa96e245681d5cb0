"""Parity is tested in float64, where the peers could be run in it too."""

from __future__ import annotations

import jax
import pytest


@pytest.fixture(autouse=True)
def float64():
  with jax.enable_x64(True):
    yield
