from __future__ import annotations

import jaxtyping
import pytest


@pytest.fixture
def unchecked():
  """Annotations are not checked, so that the library itself must refuse."""
  jaxtyping.config.update("jaxtyping_disable", True)
  yield
  jaxtyping.config.update("jaxtyping_disable", False)
