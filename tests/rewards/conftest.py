"""A pool that all tests on text share; starting one takes a second."""

from __future__ import annotations

import pytest

from rl_jax.rewards.verifiers import Pool


@pytest.fixture(scope="module")
def pool():
  with Pool(workers=2, seconds=30.0, memory=1 << 28) as pool:
    yield pool


@pytest.fixture
def bind(pool):
  """Binds to the pool that all tests share; starting one takes a second."""

  def bind(rewards, data):
    score = rewards.bind(data)
    score._pool = pool
    return score

  return bind
