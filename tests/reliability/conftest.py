from __future__ import annotations

import pytest

from reliability.runs import Runs


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
  server = Runs(tmp_path_factory.mktemp("reliability"))
  yield server
  server.close()
