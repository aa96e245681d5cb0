from __future__ import annotations

import numpy as np
import pytest

from experiments.benchmarks import estimators
from experiments.benchmarks.loops import LOOPS

pytestmark = pytest.mark.slow

SIZE = estimators.Size(groups=2, group_size=3, tokens=6, doublings=1, repeats=1)


@pytest.fixture(scope="module")
def forms():
  return estimators._forms(SIZE, {"torch": None})


@pytest.mark.parametrize("name", LOOPS)
def test_the_loops_compute_what_ours_does(forms, name):
  ours, loop = forms[name]["ours"](), forms[name]["numpy"]()
  np.testing.assert_allclose(ours, loop, rtol=1e-5, atol=1e-5)


def test_what_is_not_installed_is_skipped_and_said(monkeypatch, forms):
  monkeypatch.setattr(estimators, "_installed", lambda name: None)
  monkeypatch.setattr(estimators, "_forms", lambda size, peers: forms)
  lines = estimators.measure(SIZE)
  assert lines[:2] == [
    "rlax is not installed: skipped",
    "torch is not installed: skipped",
  ]
  measured = {line.split()[0] for line in lines}
  assert measured.issuperset(forms)
