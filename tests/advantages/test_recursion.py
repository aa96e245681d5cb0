"""One pass over time, whatever the number of columns and rows.

Columns are moved in blocks of eight: what is worth a test is a length beside a
multiple of that, and arrays without rows or columns.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from advantages import oracles
from advantages.records import SCANNED, by_row
from rl_jax.advantages import (
  discounted_returns,
  generalized_advantage,
  lambda_returns,
  n_step_returns,
  next_values,
  vtrace,
)
from rl_jax.advantages.recursion import carried_back, following, swept_back

LENGTHS = (1, 2, 7, 8, 9, 15, 16, 17)
DISCOUNT, TRACE, STEPS = 0.9, 0.7, 3
LIMITS = {"trace": TRACE, "max_ratio": 1.5, "max_trace": 1.0}


def drawn(rows, time, seed=0):
  """Records with holes, cuts and ends; what does not count may be anything."""
  rng = np.random.default_rng([seed, rows, time])
  shape = (rows, time)
  last = rng.uniform(size=shape) < 0.2
  found = {
    name: rng.normal(size=shape).astype(np.float32)
    for name in ("reward", "value", "next_value")
  }
  return found | {
    "ratio": rng.uniform(0.25, 2.5, shape).astype(np.float32),
    "mask": rng.uniform(size=shape) < 0.7,
    "last": last,
    "terminated": last & (rng.uniform(size=shape) < 0.5),
  }


def discounted(b):
  return discounted_returns(
    b["reward"], b["mask"], last=b["last"], discount=DISCOUNT
  )


def n_step(b):
  return n_step_returns(
    b["reward"],
    b["next_value"],
    b["mask"],
    terminated=b["terminated"],
    last=b["last"],
    discount=DISCOUNT,
    steps=STEPS,
  )


def mixed(b):
  return lambda_returns(
    b["reward"],
    b["next_value"],
    b["mask"],
    terminated=b["terminated"],
    last=b["last"],
    discount=DISCOUNT,
    trace=TRACE,
  )


def advantage(b):
  return generalized_advantage(
    b["reward"],
    b["value"],
    b["next_value"],
    b["mask"],
    terminated=b["terminated"],
    last=b["last"],
    discount=DISCOUNT,
    trace=TRACE,
  )


def off_policy(b):
  return vtrace(
    b["reward"],
    b["value"],
    b["next_value"],
    b["ratio"],
    b["mask"],
    terminated=b["terminated"],
    last=b["last"],
    discount=DISCOUNT,
    **LIMITS,
  ).target


ENDS = ("mask", "terminated", "last")
CASES = {
  "discounted_returns": (
    discounted,
    oracles.returns,
    ("reward", "mask", "last"),
    {},
  ),
  "n_step_returns": (
    n_step,
    oracles.n_step,
    ("reward", "next_value", *ENDS),
    {"steps": STEPS},
  ),
  "lambda_returns": (
    mixed,
    oracles.lambda_return,
    ("reward", "next_value", *ENDS),
    {"trace": TRACE},
  ),
  "generalized_advantage": (
    advantage,
    oracles.advantage,
    ("reward", "value", "next_value", *ENDS),
    {"trace": TRACE},
  ),
  "vtrace": (
    off_policy,
    lambda *columns, **options: oracles.vtrace(*columns, **options)[0],
    ("reward", "value", "next_value", "ratio", *ENDS),
    LIMITS,
  ),
}


@pytest.mark.slow
@pytest.mark.parametrize("time", LENGTHS)
@pytest.mark.parametrize("name", CASES)
def test_every_length_is_what_a_loop_gives(name, time):
  ours, oracle, columns, options = CASES[name]
  batch = drawn(5, time)
  found = jax.jit(ours)({k: jnp.asarray(v) for k, v in batch.items()})
  expected = by_row(oracle, batch, columns, discount=DISCOUNT, **options)
  assert found.shape == (5, time)
  np.testing.assert_allclose(
    found, np.where(batch["mask"], expected, 0.0), **SCANNED
  )


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(0, 5), (3, 0), (0, 0), (2, 0, 9)], ids=str)
@pytest.mark.parametrize("name", CASES)
def test_arrays_without_elements_have_results_without_elements(name, shape):
  empty = {
    key: jnp.zeros(shape, bool if key in ENDS else jnp.float32)
    for key in ("reward", "value", "next_value", "ratio", *ENDS)
  }
  found = CASES[name][0](empty)
  assert found.shape == shape
  assert found.dtype == jnp.float32


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_columns_that_do_not_count_change_nothing(name):
  """A hole put anywhere, with NaN in it, and a longer row."""
  ours = jax.jit(CASES[name][0])
  batch = drawn(4, 10, seed=1)
  expected = np.asarray(ours(batch))
  for place in (0, 3, 10):
    holed = {
      key: np.insert(
        each, place, False if each.dtype == bool else np.nan, axis=1
      )
      for key, each in batch.items()
    }
    found = np.delete(np.asarray(ours(holed)), place, axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


@pytest.mark.slow
def test_a_record_in_a_row_is_the_record_alone():
  """Two records packed in one row, the second of nine columns."""
  batch = drawn(1, 16, seed=2)
  batch["mask"][:] = True
  batch["last"][:] = batch["terminated"][:] = False
  batch["last"][:, 6] = batch["last"][:, 15] = True
  for name, (ours, *_) in CASES.items():
    whole = np.asarray(jax.jit(ours)(batch))
    parts = [
      np.asarray(jax.jit(ours)({k: v[:, own] for k, v in batch.items()}))
      for own in (slice(0, 7), slice(7, 16))
    ]
    np.testing.assert_allclose(
      whole, np.concatenate(parts, axis=1), rtol=1e-6, err_msg=name
    )


def test_no_axis_but_time_is_needed():
  one, ends = jnp.array([1.0, 2.0, 4.0]), jnp.array([False, False, True])
  found = discounted_returns(one, jnp.ones(3, bool), last=ends, discount=0.5)
  assert found.tolist() == [3.0, 4.0, 4.0]


@pytest.mark.slow
def test_what_is_carried_sees_the_columns_from_the_end():
  """A running product, exact in binary, over more than one block."""

  def times(carried, column):
    carried = jnp.where(column == 0, carried, carried * column)
    return carried, carried

  column = jnp.array([[2.0] * 11, [0.5] * 11])
  found = swept_back(times, jnp.ones(2), column)
  place = np.arange(11, 0, -1)
  np.testing.assert_array_equal(found, [2.0**place, 0.5**place])


@pytest.mark.slow
def test_a_tuple_of_columns_keeps_their_dtypes():
  seen = []

  def look(carried, column):
    seen.append(jax.tree.map(lambda x: (x.shape, x.dtype), column))
    return carried, column[0]

  columns = jnp.ones((3, 5)), jnp.zeros((3, 5), bool), jnp.ones((3, 5), int)
  found = swept_back(look, jnp.zeros(3), columns)
  assert seen[0] == tuple(((3,), x.dtype) for x in columns)
  np.testing.assert_array_equal(found, np.ones((3, 5)))


@pytest.mark.slow
def test_carried_back_holds_the_next_counted_column_where_none_counts():
  step = jnp.array([[1.0, jnp.nan, 4.0, jnp.nan]])
  mask = jnp.array([[True, False, True, False]])
  last = jnp.zeros((1, 4), bool)
  found = carried_back(step, jnp.full((1, 4), 0.5), mask, last=last)
  assert found.tolist() == [[3.0, 4.0, 4.0, 0.0]]
  assert following(found, last=last).tolist() == [[4.0, 4.0, 0.0, 0.0]]


@pytest.mark.slow
@pytest.mark.parametrize("time", [7, 8, 9])
def test_next_values_against_a_search(time):
  batch = drawn(6, time, seed=3)
  value, mask, last = (batch[k] for k in ("value", "mask", "last"))
  expected = np.zeros_like(value)
  for row, t in np.argwhere(mask):
    for u in range(t, time - 1):
      if last[row, u]:
        break
      if mask[row, u + 1]:
        expected[row, t] = value[row, u + 1]
        break
  unseen = jnp.where(mask, value, jnp.nan)
  found = next_values(unseen, jnp.asarray(mask), last=jnp.asarray(last))
  np.testing.assert_array_equal(found, expected)
