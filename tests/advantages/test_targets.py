from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from advantages import oracles
from advantages.records import (
  SCANNED,
  arrays,
  by_row,
  consistent,
  flags,
  make_batch,
)
from rl_jax.advantages import (
  generalized_advantage,
  lambda_returns,
  n_step_returns,
  vtrace,
)

TRUE3, END = jnp.ones(3, bool), jnp.array([False, False, True])


@pytest.fixture(scope="module")
def batch():
  return make_batch()


NEXT = ("reward", "next_value", "mask", "terminated", "last")


@pytest.mark.slow
@pytest.mark.parametrize("steps", [1, 2, 3, 20])
def test_n_step_equals_the_window_sum(batch, steps):
  found = n_step_returns(
    *arrays(batch, "reward", "next_value"),
    jnp.asarray(batch["mask"]),
    **flags(batch, "terminated", "last"),
    discount=0.9,
    steps=steps,
  )
  expected = by_row(oracles.n_step, batch, NEXT, discount=0.9, steps=steps)
  np.testing.assert_allclose(found, expected, **SCANNED)


@pytest.mark.parametrize("trace", [0.0, 0.6, 1.0])
def test_lambda_return_is_the_mixture_of_n_step_returns(batch, trace):
  found = lambda_returns(
    *arrays(batch, "reward", "next_value"),
    jnp.asarray(batch["mask"]),
    **flags(batch, "terminated", "last"),
    discount=0.9,
    trace=trace,
  )
  expected = by_row(
    oracles.lambda_return, batch, NEXT, discount=0.9, trace=trace
  )
  np.testing.assert_allclose(found, expected, **SCANNED)


@pytest.mark.parametrize(
  ("trace", "max_ratio", "max_trace"),
  [(1.0, 1.0, 1.0), (0.8, 1.5, 1.0), (0.0, 2.0, 0.5), (1.0, np.inf, np.inf)],
)
def test_vtrace_equals_the_sum_of_products(batch, trace, max_ratio, max_trace):
  limits = {"trace": trace, "max_ratio": max_ratio, "max_trace": max_trace}
  found = vtrace(
    *arrays(batch, "reward", "value", "next_value", "ratio"),
    jnp.asarray(batch["mask"]),
    **flags(batch, "terminated", "last"),
    discount=0.9,
    **limits,
  )
  names = (
    *("reward", "value", "next_value", "ratio"),
    *("mask", "terminated", "last"),
  )
  expected = by_row(oracles.vtrace, batch, names, discount=0.9, **limits)
  np.testing.assert_allclose(found.target, expected[:, 0], rtol=1e-5, atol=2e-5)
  np.testing.assert_allclose(
    found.advantage, expected[:, 1], rtol=1e-5, atol=2e-5
  )


def test_vtrace_on_policy_is_the_lambda_return_and_the_advantage(batch):
  after, mask = consistent(batch), jnp.asarray(batch["mask"])
  reward, value = arrays(batch, "reward", "value")
  both = {"discount": 0.9, "trace": 0.7, **flags(batch, "terminated", "last")}
  found = vtrace(
    reward,
    value,
    after,
    jnp.ones_like(reward),
    mask,
    max_ratio=1.0,
    max_trace=1.0,
    **both,
  )
  np.testing.assert_allclose(
    found.target, lambda_returns(reward, after, mask, **both), **SCANNED
  )
  np.testing.assert_allclose(
    found.advantage,
    generalized_advantage(reward, value, after, mask, **both),
    **SCANNED,
  )


def test_other_bad_options_raise():
  with pytest.raises(
    ValueError, match=r"max_trace <= max_ratio, got 2\.0 and 1"
  ):
    vtrace(
      *[jnp.ones(3)] * 4,
      TRUE3,
      terminated=END,
      last=END,
      discount=1.0,
      trace=1.0,
      max_ratio=1.0,
      max_trace=2.0,
    )
  with pytest.raises(ValueError, match="steps must be at least 1, got 0"):
    n_step_returns(
      jnp.ones(3),
      jnp.ones(3),
      TRUE3,
      terminated=END,
      last=END,
      discount=1.0,
      steps=0,
    )
  with pytest.raises(ValueError, match=r"discount must be in .*got 2"):
    n_step_returns(
      jnp.ones(3),
      jnp.ones(3),
      TRUE3,
      terminated=END,
      last=END,
      discount=2.0,
      steps=1,
    )
