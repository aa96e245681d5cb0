import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rl_jax.data import Arrays, ClassPrompts, Cursor, start, take

lengths = st.integers(1, 23)
batches = st.integers(1, 60)
seeds = st.integers(0, 2**40)


def read(length, cursor, count, **kwargs):
  """`count` batches in a row: their indices and the last cursor."""
  batches = []
  for _ in range(count):
    indices, cursor = take(length, cursor, **kwargs)
    batches.append(indices)
  return batches, cursor


@settings(deadline=None)
@given(length=lengths, rows=batches, seed=seeds, shuffle=st.booleans())
def test_every_epoch_holds_every_row_once(length, rows, seed, shuffle):
  epochs = 4
  count = -(-epochs * length // rows)
  batches, cursor = read(
    length, start(), count, rows=rows, seed=seed, shuffle=shuffle
  )
  stream = np.concatenate(batches)
  assert all(len(batch) == rows for batch in batches)
  for epoch in range(epochs):
    passed = stream[epoch * length : (epoch + 1) * length]
    np.testing.assert_array_equal(np.sort(passed), np.arange(length))
  assert int(cursor.epoch) * length + int(cursor.offset) == len(stream)


@settings(deadline=None)
@given(
  length=lengths,
  rows=batches,
  seed=seeds,
  before=st.integers(0, 6),
  after=st.integers(1, 4),
)
def test_resume_from_any_cursor_equals_no_stop(
  length, rows, seed, before, after
):
  kwargs = {"rows": rows, "seed": seed, "shuffle": True}
  whole, end = read(length, start(), before + after, **kwargs)
  _, middle = read(length, start(), before, **kwargs)
  # What a checkpoint gives back: arrays, not the scalars that went in.
  restored = Cursor(*(np.array(field) for field in middle))
  rest, resumed_end = read(length, restored, after, **kwargs)
  np.testing.assert_array_equal(whole[before:], rest)
  assert resumed_end == end


@settings(deadline=None)
@given(length=lengths, seed=seeds, sizes=st.lists(batches, max_size=6))
def test_size_of_batches_does_not_change_the_stream(length, seed, sizes):
  cursor, pieces = start(), []
  for rows in sizes:
    piece, cursor = take(length, cursor, rows=rows, seed=seed, shuffle=True)
    pieces.extend(piece)
  if sizes:
    once, _ = take(length, start(), rows=sum(sizes), seed=seed, shuffle=True)
    np.testing.assert_array_equal(pieces, once)


def test_seeds_and_epochs_have_orders_of_their_own():
  order = {
    (seed, epoch): tuple(
      take(
        50,
        Cursor(np.int32(epoch), np.int32(0)),
        rows=50,
        seed=seed,
        shuffle=True,
      )[0]
    )
    for seed in range(4)
    for epoch in range(4)
  }
  assert len(set(order.values())) == 16
  # (seed, epoch) is a pair and not a sum: (0, 1) is not (1, 0).
  assert order[0, 1] != order[1, 0]


def test_shuffled_rows_stand_anywhere():
  """Over many epochs each row comes first about equally often.

  4000 draws over 5 rows: expectation 800, standard deviation 25.3; the band
  is four of them.
  """
  first = [
    take(5, Cursor(np.int32(epoch), np.int32(0)), rows=1, seed=3, shuffle=True)[
      0
    ][0]
    for epoch in range(4000)
  ]
  counts = np.bincount(first, minlength=5)
  assert np.all(abs(counts - 800) < 4 * 25.3)


def test_unshuffled_rows_keep_their_order_across_epochs():
  indices, cursor = take(
    3, Cursor(np.int32(4), np.int32(2)), rows=8, seed=0, shuffle=False
  )
  assert indices.tolist() == [2, 0, 1, 2, 0, 1, 2, 0]
  assert cursor == Cursor(np.int32(7), np.int32(1))


def test_cursor_stands_at_the_start_of_an_epoch_after_its_last_row():
  _, cursor = take(4, start(), rows=4, seed=0, shuffle=True)
  assert cursor == Cursor(np.int32(1), np.int32(0))
  assert all(field.dtype == np.int32 for field in cursor)


def test_a_batch_may_be_written_to_without_changing_the_next_pass():
  kwargs = {"rows": 6, "seed": 1, "shuffle": True}
  first, _ = take(6, start(), **kwargs)
  kept = first.copy()
  first[:] = 0
  np.testing.assert_array_equal(take(6, start(), **kwargs)[0], kept)


@pytest.mark.parametrize(
  ("length", "rows", "seed", "cursor", "words"),
  [
    (0, 1, 0, (0, 0), "source of 0"),
    (3, 0, 0, (0, 0), "batches of 0"),
    (3, 1, -1, (0, 0), "seed must not be negative, got -1"),
    (3, 1, 0, (0, 3), "offset 3.*source of 3 rows"),
    (3, 1, 0, (0, -1), "offset -1"),
    (3, 1, 0, (-1, 0), "epoch -1"),
  ],
)
def test_bad_input_is_refused_with_the_numbers(
  length, rows, seed, cursor, words
):
  cursor = Cursor(*map(np.int32, cursor))
  with pytest.raises(ValueError, match=words):
    take(length, cursor, rows=rows, seed=seed, shuffle=True)


def test_arrays_give_rows_in_the_order_asked():
  columns = {"a": np.arange(5), "b": np.arange(10).reshape(5, 2)}
  items = Arrays(columns)[np.array([4, 0, 4])]
  assert items["a"].tolist() == [4, 0, 4]
  assert items["b"].tolist() == [[8, 9], [0, 1], [8, 9]]


@pytest.mark.parametrize("columns", [{}, {"a": [1, 2], "b": [1]}])
def test_arrays_of_no_common_length_are_refused(columns):
  with pytest.raises(ValueError, match="one common length"):
    Arrays({name: np.array(value) for name, value in columns.items()})


def test_class_prompts_are_the_ids():
  data = ClassPrompts(classes=4, rows=6)
  source = data.source()
  indices, _ = take(
    len(source), start(), rows=data.rows, seed=0, shuffle=data.shuffle
  )
  condition = source[indices]["condition"]
  assert condition.tolist() == [0, 1, 2, 3, 0, 1]
  assert condition.dtype == np.int32


@pytest.mark.parametrize("sizes", [{"classes": 0}, {"rows": 0}])
def test_class_prompts_need_classes_and_rows(sizes):
  with pytest.raises(ValueError, match="at least 1, got classes="):
    ClassPrompts(**sizes)
