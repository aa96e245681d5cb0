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


# Section 1 of the reference sheet on its worked example: what each mode of
# the frameworks is here, and its number.
ROWS = jnp.ones(3, bool)
MODES = {
  "token-mean": (lambda x, m: reduce.over_tokens(x, m), -0.128009),
  "seq-mean-token-mean": (lambda x, m: reduce.over_sequences(x, m), -0.012230),
  "seq-mean-token-sum": (
    lambda x, m: reduce.over_constant(x, m, divisor=1.0),
    -0.384027,
  ),
  "verl seq-mean-token-sum-norm": (
    lambda x, m: reduce.over_rows(x, m, ROWS, divisor=4.0 / 3.0),
    -0.288020,
  ),
  "TRL dr_grpo": (
    lambda x, m: reduce.over_rows(x, m, ROWS, divisor=4.0),
    -0.096007,
  ),
}


@pytest.mark.parametrize("mode", MODES)
def test_modes_of_the_reference_sheet(mode: str) -> None:
  aggregate, expected = MODES[mode]
  assert aggregate(LOSS, MASK).mean().item() == pytest.approx(
    expected, abs=1e-6
  )


def test_empty_rows_dilute_only_where_they_are_asked_to() -> None:
  loss = jnp.array([[1.0, 3.0], [jnp.nan, jnp.nan], [jnp.nan, jnp.nan]])
  mask = jnp.array([[True, True], [False, False], [False, False]])
  valid = jnp.array([True, True, False])  # an empty response, and padding
  constant = reduce.over_constant(loss, mask, divisor=2.0)
  rows = reduce.over_rows(loss, mask, valid, divisor=2.0)
  assert (constant.mean().item(), constant.weight.item()) == (2.0, 1.0)
  assert (rows.mean().item(), rows.weight.item()) == (1.0, 2.0)


def test_rows_that_are_not_valid_do_not_count_at_all() -> None:
  found = reduce.over_rows(
    jnp.ones((2, 2)),
    jnp.ones((2, 2), bool),
    jnp.array([True, False]),
    divisor=1.0,
  )
  assert (found.value.item(), found.weight.item()) == (2.0, 1.0)


# The same three sequences in two rows, in any order and with any ids.
PACKED = jnp.array(
  [
    [-1.279997, -0.904836, -1.051269, 0.799998, 1.284023, jnp.nan],
    [0.0, jnp.nan, 0.0, 0.0, 0.0, jnp.nan],
  ]
)
SEGMENT = jnp.array([[7, 7, 7, 3, 3, 0], [5, 5, 5, 5, 5, 0]])
PACKED_MASK = ~jnp.isnan(PACKED)


@pytest.mark.slow
@pytest.mark.parametrize(
  ("divisor", "expected"), [(None, -0.012230), (1.0, -0.384027)]
)
def test_packed_rows_give_what_rows_of_their_own_do(divisor, expected) -> None:
  found = reduce.over_segments(PACKED, PACKED_MASK, SEGMENT, divisor=divisor)
  assert found.mean().item() == pytest.approx(expected, abs=1e-6)
  assert found.weight.item() == pytest.approx(3.0, abs=1e-6)


def test_token_mean_of_packed_rows_needs_no_ids() -> None:
  found = reduce.over_tokens(PACKED, PACKED_MASK).mean()
  assert found.item() == pytest.approx(-0.128009, abs=1e-6)


@pytest.mark.slow
def test_packing_against_a_loop() -> None:
  rng = np.random.default_rng(1)
  loss = rng.normal(size=(4, 9)).astype(np.float32)
  mask = rng.uniform(size=(4, 9)) < 0.6
  segment = rng.integers(0, 4, (4, 9))  # interleaved, which packing allows
  found = reduce.over_segments(
    jnp.asarray(loss), jnp.asarray(mask), jnp.asarray(segment), divisor=None
  )
  means = []
  for row in range(4):
    for name in (1, 2, 3):
      kept = mask[row] & (segment[row] == name)
      if kept.any():
        means.append(loss[row][kept].astype(np.float64).mean())
  assert found.mean().item() == pytest.approx(np.mean(means), abs=1e-6)
  assert found.weight.item() == pytest.approx(len(means), abs=1e-5)


@pytest.mark.slow
def test_padding_of_a_packed_row_is_no_sequence() -> None:
  found = reduce.over_segments(
    jnp.ones((1, 3)),
    jnp.ones((1, 3), bool),
    jnp.array([[0, 0, 4]]),
    divisor=2.0,
  )
  assert (found.value.item(), found.weight.item()) == (0.5, 1.0)


@pytest.mark.slow
def test_packed_weight_carries_no_gradient_and_loss_its_share() -> None:
  gradient = jax.grad(
    lambda x: reduce.over_segments(x, PACKED_MASK, SEGMENT, divisor=None).mean()
  )(PACKED)
  third, fourth = 1 / 9, 1 / 12
  expected = [[third] * 3 + [1 / 6] * 2 + [0], [fourth, 0] + [fourth] * 3 + [0]]
  np.testing.assert_allclose(gradient, expected, rtol=1e-6)


@pytest.mark.parametrize("divisor", [0.0, -1.0, float("nan")])
def test_other_divisors_must_be_positive(divisor: float) -> None:
  with pytest.raises(ValueError, match=str(divisor)):
    reduce.over_rows(LOSS, MASK, ROWS, divisor=divisor)
  with pytest.raises(ValueError, match=str(divisor)):
    reduce.over_segments(LOSS, MASK, jnp.ones((3, 4), int), divisor=divisor)
