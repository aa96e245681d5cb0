"""Experiments that nothing trains and rows that nothing measured."""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from rl_jax.experiment import Band, Experiment, Trained
from rl_jax.training.loop import Outcome, Row


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
  """A component with a number."""

  size: int = 4
  """How large."""


@pytest.fixture(scope="session")
def experiment() -> Experiment:
  base = Experiment(name="base", model=Part(), data=1, algorithm=2, steps=3)
  return Experiment(
    name="toy",
    model=Part(),
    data=1,
    algorithm=(Part(size=1), Part(size=2)),
    start=Trained(by=base),
    steps=20,
    expected=(
      Band(metric="evaluation/reward", low=0.9),
      Band(metric="evaluation/spread", low=0.5, high=0.75),
    ),
  )


@pytest.fixture(scope="session")
def finished() -> Outcome:
  return Outcome("finished", 20, None, 8.0, {"evaluation/reward": 0.95})


@pytest.fixture(scope="session")
def row() -> Callable[..., Row]:
  def make(
    step: int, kind: str = "train", pictures: dict | None = None, **metrics
  ) -> Row:
    """Double underscores stand for a slash."""
    named = {name.replace("__", "/"): v for name, v in metrics.items()}
    return Row(step, kind, named, step * 0.5, pictures or {})

  return make


@pytest.fixture(scope="session")
def samples() -> dict[str, np.ndarray]:
  """Three rows of two 4x4 samples; the first column is right."""
  image = np.linspace(-1, 1, 96, dtype=np.float32).reshape(3, 2, 4, 4)
  correct = np.array([[True, False]] * 3)
  return {"samples": image, "samples_correct": correct}


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
  """A directory whose modules are forgotten after the test."""
  path, modules = list(sys.path), set(sys.modules)
  yield tmp_path
  sys.path[:] = path
  for name in set(sys.modules) - modules:
    file = getattr(sys.modules[name], "__file__", None)
    if file and Path(file).is_relative_to(tmp_path):
      del sys.modules[name]
