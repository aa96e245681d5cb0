from __future__ import annotations

import pytest

from reliability.runs import Runs
from training.caching import compiled_once  # noqa: F401


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
  server = Runs(tmp_path_factory.mktemp("reliability"))
  yield server
  server.close()
