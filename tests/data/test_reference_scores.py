"""Stored log-probabilities of a reference: whose they are, and damage."""

from __future__ import annotations

import dataclasses
import io

import numpy as np
import pytest

pytest.importorskip("tokenizers", reason="needs the extra `language`")

from data import preferred
from rl_jax.data import Chat, start, take
from rl_jax.data.reference_scores import (
  ReferenceScores,
  pair_key,
  read_reference,
  write_reference,
)
from rl_jax.experiment import diff, identity

SUMS = (
  ("1+1=", "2", "3"),
  ("2+2=", "4", "22"),
  ("3+3=", "6", "9"),
  ("4+5=", "9", "45"),
)


def preferences(**change):
  return preferred.preferences(**({"pairs": SUMS} | change))


def scores(data, **change):
  """Pair i has chosen = -i - 1/4 and rejected = -i - 1/2."""
  count = len(data.source())
  place = np.arange(count, dtype=np.float32)
  found = ReferenceScores(
    chosen=-place - 0.25,
    rejected=-place - 0.5,
    chosen_tokens=np.full(count, 2, np.int32),
    rejected_tokens=np.full(count, 3, np.int32),
    data=data.source().digest,
    policy="policy",
  )
  return found._replace(**change)


@pytest.fixture
def stored(tmp_path):
  """A file of the sums, and data that take it."""
  path = tmp_path / "reference.npz"
  write_reference(path, scores(preferences()))
  return path


def test_what_was_written_is_read_and_nothing_else_is_left(stored):
  found, expected = read_reference(stored), scores(preferences())
  for name, value in expected._asdict().items():
    np.testing.assert_array_equal(getattr(found, name), value)
  assert [path.name for path in stored.parent.iterdir()] == [stored.name]


def test_pairs_keep_their_own_through_shuffling_epochs_and_padding(stored):
  data = preferences(reference=f"{stored}", length=20, rows=3)
  plain, source, cursor = preferences().source(), data.source(), start()
  seen = set()
  for _ in range(4):
    index, cursor = take(4, cursor, rows=3, seed=2, shuffle=data.shuffle)
    items = source[index]
    assert items["chosen_reference"].tolist() == (-index - 0.25).tolist()
    assert items["rejected_reference"].tolist() == (-index - 0.5).tolist()
    # The pair itself is the one of that index.
    np.testing.assert_array_equal(
      items["chosen"][:, :12], plain[index]["chosen"]
    )
    seen |= {tuple(index.tolist())}
  assert len(seen) == 4


def test_the_layout_is_what_comes(stored):
  data = preferences(reference=f"{stored}", rows=4)
  items = data.source()[np.arange(4)]
  assert data.layout == {
    name: (x.shape, x.dtype.type) for name, x in items.items()
  }
  assert not {n for n in preferences().layout if n.endswith("reference")}


def test_where_the_file_is_does_not_change_what_comes_out():
  one, other = preferences(reference="a.npz"), preferences()
  assert identity(one) == identity(other)
  assert diff(one, other) == [("reference", "a.npz", None)]


@pytest.mark.parametrize(
  ("change", "alike"),
  [
    ({}, True),
    ({"rows": 3, "length": 30, "shuffle": False}, True),
    ({"pairs": (SUMS[1], SUMS[0], *SUMS[2:])}, False),
    ({"pairs": (*SUMS[:3], ("4+5=", "9", "46"))}, False),
    ({"pairs": (*SUMS[:3], ("4+5", "=9", "=45"))}, False),
    ({"pairs": (*SUMS[:3], ("4+5=", "45", "9"))}, False),
    ({"pairs": SUMS[:3]}, False),
    ({"end": "="}, False),
    ({"wording": Chat(), "length": 40}, False),
  ],
)
def test_the_digest_is_of_the_ids_in_their_order(change, alike):
  own = preferences().source().digest
  assert (preferences(**change).source().digest == own) is alike


def test_what_is_dropped_is_in_no_digest():
  long = ("1+1=", "2", "2" * 20)
  pairs = (SUMS[0], long, *SUMS[1:])
  found = preferences(pairs=pairs, too_long="drop").source()
  assert found.digest == preferences().source().digest
  assert len(found.keys) == len(found) == 4


def test_a_key_says_where_parts_end():
  assert len({pair_key([1], [2, 3], [4]), pair_key([1, 2], [3], [4])}) == 2
  assert pair_key([1], [2]) == pair_key((1,), (2,))
  assert len(pair_key([1], [2])) == 32


@pytest.mark.parametrize(
  ("pairs", "message"),
  [
    (SUMS[:3], r"is of pairs 4, and these are pairs 3: remove it, and write"),
    ((*SUMS[:3], ("4+5=", "9", "46")), r"is of data of digest \w{12}, and"),
  ],
)
def test_a_file_of_other_pairs_is_refused(stored, pairs, message):
  data = preferences(pairs=pairs, reference=f"{stored}")
  with pytest.raises(ValueError, match=message):
    data.source()


def test_a_file_that_is_not_there_is_to_be_written(tmp_path):
  data = preferences(reference=f"{tmp_path / 'x.npz'}")
  with pytest.raises(
    ValueError, match=r"there is no .*x\.npz: `rl-jax reference FILE .*` writes"
  ):
    data.source()


@pytest.mark.parametrize("share", [0.0, 0.05, 0.5, 0.97, 0.999])
def test_a_truncated_file_is_refused(stored, share):
  whole = stored.read_bytes()
  stored.write_bytes(whole[: int(len(whole) * share)])
  with pytest.raises(ValueError, match=r"is damaged, or not what .* remove it"):
    read_reference(stored)


def test_changed_bytes_are_refused(stored):
  whole = bytearray(stored.read_bytes())
  place = whole.index(np.float32(-2.25).tobytes())
  whole[place] ^= 1
  stored.write_bytes(bytes(whole))
  with pytest.raises(ValueError, match="is damaged, or not what"):
    read_reference(stored)


def written(save, *values, **named):
  """What one of NumPy's functions writes."""
  file = io.BytesIO()
  save(file, *values, **named)
  return file.getvalue()


@pytest.mark.parametrize(
  "write",
  [
    lambda path: path.write_text("text"),
    lambda path: path.write_bytes(written(np.save, np.zeros(3))),
    lambda path: path.write_bytes(
      written(np.savez, chosen=np.array([{}], object))
    ),
    lambda path: path.unlink() or path.mkdir(),
  ],
  ids=["text", "array", "objects", "directory"],
)
def test_other_files_are_refused(stored, write):
  write(stored)
  with pytest.raises(ValueError, match="is damaged, or not what"):
    read_reference(stored)


@pytest.mark.parametrize("name", ReferenceScores._fields)
def test_a_missing_array_is_named(stored, name):
  found = read_reference(stored)._asdict()
  del found[name]
  with stored.open("wb") as file:
    np.savez(file, **found)
  with pytest.raises(ValueError, match=f"lacks {name}: remove it, and"):
    read_reference(stored)


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (
      {"chosen": np.float32([-1, np.nan, -1, np.nan])},
      "chosen of pair 1 is na",
    ),
    ({"rejected": np.float32([-1, -1, -1, -np.inf])}, "rejected of pair 3 is"),
    ({"chosen": np.zeros(3, np.float32)}, "not one number for each pair"),
    ({"rejected_tokens": np.ones((4, 1), int)}, "not one number for each pair"),
    ({"chosen": np.zeros(4, int)}, "chosen is of type int64"),
    ({"chosen_tokens": np.ones(4)}, "chosen_tokens is of type float64"),
    ({"rejected_tokens": np.int32([1, 0, 1, 1])}, "an answer of 0 tokens"),
    ({"policy": 3}, "policy is no digest"),
  ],
)
def test_numbers_that_are_none_are_refused(stored, change, message):
  write_reference(stored, scores(preferences(), **change))
  with pytest.raises(ValueError, match=message):
    dataclasses.replace(preferences(), reference=f"{stored}").source()
