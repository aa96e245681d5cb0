"""The maze with a key and a door, cell by cell."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from rl_jax.environments.key_door import KeyDoor

TASK = KeyDoor(rows=2, length=24)
LETTERS = KeyDoor(rows=2, length=24, style="letters")


def rows(task, *items):
  return task.source()[np.array(items)]


@pytest.mark.parametrize("item", range(12))
def test_the_reference_is_the_shortest_way(item):
  way = rows(TASK, item)["reference"][0]
  assert len(way) == 9
  found = [TASK.observe(item, way[: k + 1]) for k in range(9)]
  assert [one.outcome for one in found] == [0.0] * 8 + [1.0]
  assert [one.ended for one in found] == [False] * 8 + [True]
  # No shorter one: every state that eight actions can reach.
  reached, frontier = set(), [""]
  for _ in range(8):
    following = []
    for path, action in itertools.product(frontier, "nsewu"):
      seen = LETTERS.observe(item, path + action)
      assert not seen.ended
      state = seen.text[:2]
      if state not in reached:
        reached.add(state)
        following.append(path + action)
    frontier = following


def test_there_are_twelve_mazes_and_then_the_same_again():
  mazes = [TASK.maze(item) for item in range(24)]
  assert len({(m.start, m.key, m.door) for m in mazes[:12]}) == 12
  assert mazes[:12] == mazes[12:]
  assert {m.start for m in mazes} == {(0, 0), (0, 4)}
  prompts = rows(TASK, *range(12))["prompt"]
  assert len(set(prompts)) == 12
  assert prompts[1] == (
    "The key is west of the crossing, the door south. You are at e1."
  )


def test_the_corridor_is_forced():
  """Of the five actions one leads on, and one back; the others do nothing."""
  for way, back in (("eess", "wwnn"), ("wwss", "eenn")):
    item = 0 if way[0] == "e" else 1
    for k in range(4):
      here = LETTERS.observe(item, way[:k]).text[0]
      for action in "nsewu":
        seen = LETTERS.observe(item, way[:k] + action).text
        leads = action == way[k] or (k and action == back[k - 1])
        assert (seen[-1] == "!") == (not leads)
        assert (seen[0] == here) == (not leads)


def test_from_the_crossing_there_are_three_branches_of_two_cells():
  for side in "wse":
    texts = [LETTERS.observe(0, "eess" + side * n).text for n in (1, 2, 3)]
    assert [text[-1] for text in texts] == [".", ".", "!"]
    assert texts[1][0] == texts[2][0]


def test_a_door_needs_the_key_and_the_key_is_taken_once():
  # Item 0: the key is west of the crossing, the door south.
  assert not TASK.observe(0, "eesssu").outcome
  assert TASK.observe(0, "eessw").text == "You are at b3."
  taken = TASK.observe(0, "eesswu")
  assert taken.text == "You are at b3. You have the key."
  again = TASK.observe(0, "eesswuu")
  assert again.text == "Nothing happens. You are at b3. You have the key."
  opened = TASK.observe(0, "eesswuesu")
  assert opened == (
    "The door is open. You are at c4. You have the key.",
    True,
    1.0,
    "",
  )
  after = TASK.observe(0, "eesswuesun")
  assert after.outcome == 1.0
  assert after.text.startswith("Nothing happens. The door is open.")


@pytest.mark.parametrize("action", ["", "jump", "ee", "north east", "door"])
def test_what_is_no_action_changes_nothing_and_is_said_to(action):
  assert TASK.observe(0, [action]).text == "Nothing happens. You are at a1."
  assert LETTERS.observe(0, [action]).text == "a-!"


def test_actions_may_be_words():
  words = ["East", " east\n", "SOUTH", "s", "west", "Use", "east", "south", "u"]
  assert TASK.observe(0, words).outcome == 1.0


def test_letters_say_cell_key_and_whether_something_changed():
  assert rows(LETTERS, 0, 1)["prompt"].tolist() == ["wsa-.", "wse-."]
  path = "eesswu"
  texts = [LETTERS.observe(0, path[: k + 1]).text for k in range(6)]
  assert texts == ["b-.", "c-.", "h-.", "m-.", "l-.", "l+."]


def test_without_the_key_shown_different_states_look_the_same():
  hidden = KeyDoor(rows=1, length=12, style="letters", shows_key=False)
  before, after = (hidden.observe(0, path) for path in ("eessw", "eesswu"))
  assert before == after
  on, off = (hidden.observe(0, path + "esu") for path in ("eessw", "eesswu"))
  assert (on.outcome, off.outcome) == (0.0, 1.0)
  sentences = KeyDoor(rows=1, length=12, shows_key=False)
  assert sentences.observe(0, "eesswu").text == "You are at b3."


def test_refuses():
  with pytest.raises(ValueError, match="at least 1"):
    KeyDoor(rows=0, length=12)
  with pytest.raises(ValueError, match="item 24 of 24"):
    TASK.observe(24, "e")
