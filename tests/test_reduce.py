"""The denominator contract: sums and weights add, one division at the end."""

from __future__ import annotations

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax import reduce
from rl_jax.reduce import Total

# Lengths 3, 2, 4 in one group, from the reference sheet of building blocks
# (section 7): per-token losses of a clipped objective and their four means.
LOSS = jnp.array(
  [
    [-1.279997, -0.904836, -1.051269, jnp.nan],
    [0.799998, 1.284023, jnp.nan, jnp.nan],
    [0.0, 0.0, 0.0, 0.0],
  ]
)
MASK = jnp.array(
  [
    [True, True, True, False],
    [True, True, False, False],
    [True, True, True, True],
  ]
)


def test_token_mean_of_the_reference_sheet() -> None:
  found = reduce.over_tokens(LOSS, MASK)
  assert found.mean().item() == pytest.approx(-0.128009, abs=1e-6)
  assert found.weight.item() == 9


def test_sequence_mean_of_the_reference_sheet() -> None:
  found = reduce.over_sequences(LOSS, MASK)
  assert found.mean().item() == pytest.approx(-0.012230, abs=1e-6)
  assert found.weight.item() == 3


@pytest.mark.parametrize(
  ("divisor", "expected"),
  # Sums of rows; then the same over a longest response of 4 tokens.
  [(1.0, -0.384027), (4.0, -0.096007)],
)
def test_constant_of_the_reference_sheet(
  divisor: float, expected: float
) -> None:
  found = reduce.over_constant(LOSS, MASK, divisor=divisor)
  assert found.mean().item() == pytest.approx(expected, abs=1e-6)


def test_group_mean_against_a_loop() -> None:
  rng = np.random.default_rng(0)
  loss = rng.normal(size=(6, 5)).astype(np.float32)
  mask = rng.uniform(size=(6, 5)) < 0.6
  group = np.array([2, 0, 2, 1, 0, 2])
  mask[3] = False  # the only row of group 1: it does not count
  tokens = reduce.group_tokens(
    jnp.asarray(mask), jnp.asarray(group), num_groups=4
  )
  found = reduce.over_groups(jnp.asarray(loss), jnp.asarray(mask), tokens)
  means = [
    loss[group == g][mask[group == g]].astype(np.float64).mean() for g in (0, 2)
  ]
  assert found.mean().item() == pytest.approx(np.mean(means), abs=1e-6)
  assert found.weight.item() == pytest.approx(2.0, abs=1e-6)


def test_one_group_is_the_token_mean() -> None:
  tokens = reduce.group_tokens(MASK, jnp.zeros(3, int), num_groups=1)
  found = reduce.over_groups(LOSS, MASK, tokens).mean()
  expected = reduce.over_tokens(LOSS, MASK).mean()
  assert found.item() == pytest.approx(expected.item(), abs=1e-6)


def test_equal_lengths_make_token_and_sequence_means_agree() -> None:
  loss, mask = jnp.arange(6.0).reshape(2, 3), jnp.ones((2, 3), bool)
  found = reduce.over_tokens(loss, mask), reduce.over_sequences(loss, mask)
  assert found[0].mean().item() == found[1].mean().item() == 2.5


def test_mean_of_micro_batch_means_would_be_another_number() -> None:
  """The error that Totals are there to prevent, in numbers."""
  parts = [
    reduce.over_tokens(LOSS[i : i + 1], MASK[i : i + 1]) for i in range(3)
  ]
  whole = reduce.over_tokens(LOSS, MASK).mean().item()
  added = parts[0] + parts[1] + parts[2]
  assert added.mean().item() == pytest.approx(whole, abs=1e-6)
  naive = sum(part.mean().item() for part in parts) / 3
  assert abs(naive - whole) > 0.1


def test_empty_total_is_zero_without_gradient() -> None:
  def mean(loss):
    return reduce.over_tokens(loss, jnp.zeros((1, 2), bool)).mean()

  value, gradient = jax.value_and_grad(mean)(jnp.array([[1.0, jnp.nan]]))
  assert value.item() == 0.0
  assert gradient.tolist() == [[0.0, 0.0]]


def test_weight_carries_no_gradient() -> None:
  gradient = jax.grad(lambda w: Total(jnp.array(3.0), w).mean())(jnp.array(2.0))
  assert gradient.item() == 0.0


def test_total_is_a_pytree() -> None:
  stacked = jax.vmap(reduce.over_tokens)(LOSS[:, None], MASK[:, None])
  summed = jax.tree.map(jnp.sum, stacked)
  whole = reduce.over_tokens(LOSS, MASK)
  np.testing.assert_allclose(summed, whole, rtol=1e-6)


def test_total_of_counts_everything() -> None:
  total = Total.of(jnp.full((4, 2), 0.5, jnp.bfloat16))
  assert total.value.dtype == jnp.float32
  assert (total.value.item(), total.weight.item()) == (4.0, 8.0)


def test_junk_in_an_empty_group_does_not_count() -> None:
  mask = jnp.array([[True, True], [False, False]])
  tokens = jnp.array([2.0, jnp.nan])
  found = reduce.over_groups(jnp.ones((2, 2)), mask, tokens)
  assert (found.value.item(), found.weight.item()) == (1.0, 1.0)


@pytest.mark.parametrize("divisor", [0.0, -1.0, float("nan")])
def test_divisor_must_be_positive(divisor: float) -> None:
  with pytest.raises(ValueError, match=str(divisor)):
    reduce.over_constant(LOSS, MASK, divisor=divisor)


def test_groups_must_exist() -> None:
  with pytest.raises(ValueError, match="num_groups"):
    reduce.group_tokens(MASK, jnp.zeros(3, int), num_groups=0)


@pytest.mark.parametrize("name", reduce.__all__)
def test_nothing_reduces_by_a_padded_width(name: str) -> None:
  """A denominator from a shape would change with the padding."""
  source = inspect.getsource(inspect.unwrap(getattr(reduce, name)))
  assert ".shape" not in source
