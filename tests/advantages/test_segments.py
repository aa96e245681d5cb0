"""Segments of tokens, against loops over the tokens."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.advantages.segments import (
  at_segment_ends,
  check_segments,
  segment_index,
  segment_sums,
  spread_segments,
  suffix_sums,
)

RNG = np.random.default_rng(3)
ROWS, TIME, SEGMENTS = 24, 9, 6
END = RNG.uniform(size=(ROWS, TIME)) < 0.4
MASK = RNG.uniform(size=(ROWS, TIME)) < 0.8  # gaps, as of tools' answers
MASK[0] = False
VALUE = RNG.normal(size=(ROWS, SEGMENTS)).astype(np.float32)
TOKEN = RNG.normal(size=(ROWS, TIME)).astype(np.float32)


def counted(end, mask):
  index = np.full(mask.shape, -1)
  for row in range(len(mask)):
    number = 0
    for t in range(mask.shape[1]):
      if mask[row, t]:
        index[row, t] = number
        number += end[row, t]
  return index


INDEX = counted(END, MASK).clip(max=SEGMENTS - 1)


def test_index_counts_ends_at_earlier_positions():
  found = segment_index(jnp.asarray(END), jnp.asarray(MASK))
  np.testing.assert_array_equal(found, counted(END, MASK))
  # An end on a masked token ends nothing.
  found = segment_index(jnp.asarray(END | ~MASK), jnp.asarray(MASK))
  np.testing.assert_array_equal(found, counted(END, MASK))


def test_spread_is_a_lookup():
  found = spread_segments(jnp.asarray(VALUE), jnp.asarray(INDEX))
  expected = [
    [VALUE[row, k] if k >= 0 else 0.0 for k in INDEX[row]]
    for row in range(ROWS)
  ]
  np.testing.assert_array_equal(found, np.array(expected, np.float32))


def test_sums_are_over_the_tokens_of_each_segment():
  value = np.where(INDEX < 0, np.nan, TOKEN)
  found = segment_sums(
    jnp.asarray(value), jnp.asarray(INDEX), num_segments=SEGMENTS
  )
  expected = [
    [TOKEN[row][INDEX[row] == k].sum() for k in range(SEGMENTS)]
    for row in range(ROWS)
  ]
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_each_segment_is_paid_once_at_its_last_token():
  value, index = jnp.asarray(VALUE), jnp.asarray(INDEX)
  found = np.asarray(at_segment_ends(value, index))
  expected = np.zeros((ROWS, TIME), np.float32)
  for row in range(ROWS):
    for k in set(INDEX[row]) - {-1}:
      expected[row, np.flatnonzero(INDEX[row] == k)[-1]] = VALUE[row, k]
  np.testing.assert_array_equal(found, expected)
  # What is paid at the ends sums to what each segment had.
  sums = segment_sums(jnp.asarray(found), index, num_segments=SEGMENTS)
  there = (INDEX[:, :, None] == np.arange(SEGMENTS)).any(axis=1)
  np.testing.assert_array_equal(sums, np.where(there, VALUE, 0.0))


def test_suffix_sums_are_what_is_still_to_come():
  mask = RNG.uniform(size=VALUE.shape) < 0.7
  found = suffix_sums(
    jnp.asarray(np.where(mask, VALUE, np.nan)), jnp.asarray(mask)
  )
  kept = np.where(mask, VALUE, 0.0)
  expected = [
    [kept[row, k:].sum() if mask[row, k] else 0.0 for k in range(SEGMENTS)]
    for row in range(ROWS)
  ]
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_a_segment_that_is_not_there_is_not_dropped():
  value = jnp.array([[1.0, 2.0]])
  index = jnp.array([[0, 1, 2, 3, -1]])
  for function in (spread_segments, at_segment_ends):
    found = np.asarray(function(value, index))
    np.testing.assert_array_equal(found, [[1.0, 2.0, np.nan, np.nan, 0.0]])


@pytest.mark.slow
@pytest.mark.parametrize("function", [spread_segments, at_segment_ends])
def test_gradients_reach_the_segments_that_have_tokens(function):
  def total(value):
    return function(value, jnp.asarray(INDEX)).sum()

  slope = np.asarray(jax.grad(total)(jnp.asarray(VALUE)))
  count = (INDEX[:, :, None] == np.arange(SEGMENTS)).sum(axis=1)
  if function is at_segment_ends:
    count = count > 0
  np.testing.assert_array_equal(slope, count)


def test_no_segments_are_refused():
  with pytest.raises(ValueError, match="at least 1, got 0"):
    segment_sums(jnp.asarray(TOKEN), jnp.asarray(INDEX), num_segments=0)


@pytest.mark.parametrize(
  ("row", "said"),
  [
    ([0, 1, 3], "row 1: segments must be in"),
    ([-2, 0, 1], "row 1: segments must be in"),
    ([0, 2, 2], "row 1: segments must follow"),
    ([1, 1, 2], "row 1: segments must follow"),
    ([0, 1, 0], "row 1: segments must follow"),
    ([0, 1, 1, 1], "row 1: position 3 is in segment 1 and outside"),
  ],
)
def test_bad_segments_are_refused_with_their_row(row, said):
  row = [*row, -1][:4]
  index = np.array([[0, 0, 1, -1], row])
  mask = np.array([[True, True, True, False]] * 2)
  with pytest.raises(ValueError, match=said):
    check_segments(index, mask, num_segments=3)


def test_good_segments_pass():
  index = counted(END, MASK)
  check_segments(index, MASK, num_segments=int(index.max()) + 1)
  # A token of the response may be in none.
  check_segments(np.array([[-1, 0, -1]]), np.ones((1, 3), bool), num_segments=1)
