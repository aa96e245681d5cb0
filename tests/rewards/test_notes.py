"""What notes find, joined and put beside what is known."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from rl_jax.rewards.notes import Note, joined, noted
from rl_jax.types import TextRollouts

ONE, TWO = ((3,), np.int32), ((), np.float32)


def judged(**extra):
  """Two rows, of which nothing but what was found matters."""
  empty = np.zeros((2, 1), np.int32)
  fields = dict.fromkeys(TextRollouts._fields, empty)
  return TextRollouts(**fields | {"extra": extra, "metric": {}})


def test_all_shapes_are_there_in_their_order():
  found = joined([{"step": ONE}, {}, {"score": TWO, "turn": ONE}])
  assert list(found) == ["step", "score", "turn"]
  assert found["score"] == TWO


def test_nothing_joined_is_nothing():
  assert joined([]) == {}


@pytest.mark.parametrize(
  ("shapes", "named"),
  [
    ([{"step": ONE}, {"step": ONE}], r"\['step'\]"),
    ([{"step": ONE}, {"other": TWO}, {"step": TWO}], r"\['step'\]"),
    ([{"b": ONE, "a": ONE}, {"a": TWO, "b": TWO}], r"\['a', 'b'\]"),
  ],
)
def test_a_name_that_is_found_twice_is_refused_and_said(shapes, named):
  with pytest.raises(ValueError, match=f"{named} found twice"):
    joined(shapes)


def test_joining_leaves_what_was_given_alone():
  first = {"step": ONE}
  joined([first, {"turn": ONE}])
  assert first == {"step": ONE}


def test_what_is_found_stands_beside_what_was_known():
  before = judged(answer=np.array([7, 8]))
  after = noted(before, [lambda _: {"step": np.array([1, 2])}])
  assert set(after.extra) == {"answer", "step"}
  assert after.extra["step"].tolist() == [1, 2]
  assert set(before.extra) == {"answer"}


def test_a_later_note_sees_what_an_earlier_one_found():
  def twice(rollouts):
    return {"twice": 2 * rollouts.extra["step"]}

  after = noted(judged(), [lambda _: {"step": np.array([1, 2])}, twice])
  assert after.extra["twice"].tolist() == [2, 4]


def test_without_notes_the_rollouts_are_the_same():
  before = judged(answer=np.array([7, 8]))
  assert noted(before, []) is before


def test_a_note_that_fails_is_heard():
  def fails(rollouts):
    raise RuntimeError(f"no {sorted(rollouts.extra)}")

  with pytest.raises(RuntimeError, match=r"no \['answer'\]"):
    noted(judged(answer=np.zeros(2)), [fails])


def test_rollouts_stay_a_tree_of_arrays():
  after = noted(judged(), [lambda _: {"step": np.zeros((2, 3))}])
  assert all(isinstance(x, np.ndarray) for x in jax.tree.leaves(after))


def test_what_has_shapes_and_binds_is_a_note():
  class Steps:
    def shapes(self, time):
      return {"step": ((time,), np.int32)}

    def bind(self, data):
      del data
      return lambda rollouts: {"step": np.zeros_like(rollouts.token)}

  assert isinstance(Steps(), Note)
  assert not isinstance(object(), Note)
