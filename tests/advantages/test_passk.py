from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax import advantages

pass_at_k = jax.jit(advantages.pass_at_k, static_argnames="k")


def ints(*values):
  return jnp.array(values, jnp.int32)


def test_worked_example_of_the_sheet():
  found = pass_at_k(ints(10), ints(3), k=4)
  np.testing.assert_allclose(found.value, [0.833333], atol=1e-6)


@pytest.mark.parametrize("k", [1, 2, 4, 6])
def test_equals_the_share_of_subsets_with_a_right_one(k):
  expected = []
  for c in range(7):
    subsets = list(itertools.combinations([True] * c + [False] * (6 - c), k))
    expected.append(sum(map(any, subsets)) / len(subsets))
  found = pass_at_k(jnp.full(7, 6, jnp.int32), jnp.arange(7), k=k)
  np.testing.assert_allclose(found.value, expected, atol=1e-6)
  assert found.valid.all()


@pytest.mark.parametrize("k", [1, 3])
def test_is_unbiased(k):
  """Averaged over the binomial of n = 5 tries it is 1 - (1 - p)^k."""
  p, n = 0.3, 5
  count = np.arange(n + 1)
  ways = np.array(
    [len(list(itertools.combinations(range(n), c))) for c in count]
  )
  chance = ways * p**count * (1 - p) ** (n - count)
  found = pass_at_k(jnp.full(n + 1, n, jnp.int32), jnp.asarray(count), k=k)
  expected = 1 - (1 - p) ** k
  np.testing.assert_allclose(np.sum(chance * found.value), expected, rtol=1e-6)
  plugged_in = np.sum(chance * (1 - (1 - count / n) ** k))
  assert k == 1 or abs(plugged_in - expected) > 0.01


def test_many_tries_do_not_overflow():
  """C(5000, 1000) is far beyond float64; 1 - (1 - 1/5)^... is near one."""
  found = pass_at_k(ints(5000, 5000), ints(1, 1000), k=1000)
  np.testing.assert_allclose(found.value, [0.2, 1.0], rtol=1e-4)


def test_counts_that_allow_no_estimate_are_not_valid():
  found = pass_at_k(ints(2, 3, 3, 3), ints(1, 4, -1, 3), k=3)
  assert found.valid.tolist() == [False, False, False, True]
  assert found.value.tolist() == [0.0, 0.0, 0.0, 1.0]


def test_no_tries_raise():
  with pytest.raises(ValueError, match="k must be at least 1, got 0"):
    advantages.pass_at_k(ints(1), ints(1), k=0)
