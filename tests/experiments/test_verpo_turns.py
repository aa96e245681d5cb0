"""The world of programs with a second try, and who is imitated in it."""

from __future__ import annotations

import pytest

pytest.importorskip(
  "tokenizers", reason="needs the extra `language` (tokenizers)"
)

from experiments.process_rewards import verpo_task as task
from experiments.process_rewards import verpo_turns_task as turns

WORLD = turns.EPISODES.world


def item_of(operator, constant):
  numbers = map(WORLD.programs.numbers, range(task.TRAINED))
  return [found[:2] for found in numbers].index((operator, constant))


@pytest.mark.parametrize(
  ("program", "seen"),
  [
    ("xc-", "23"),  # right
    ("xd-", "22"),  # the other one of the pair c, d
    ("xa-", "21"),  # another pair
    ("xc/", "20"),  # another operator that returns its input
    ("x", "20"),
    ("xc+", "01"),  # returns 0, which is right for the input 0
    ("0", "01"),
    ("x-", "00"),
    ("", "00"),
  ],
)
def test_the_number_of_passes_says_what_is_wrong(program, seen):
  found = WORLD.observe(item_of(1, 2), ["x", program])
  assert found.text == seen
  assert turns.EPISODES.shown(seen)
  assert (found.ended, found.outcome) == (seen == "23", float(seen == "23"))


def test_demonstrations_are_episodes_of_the_world():
  items = {WORLD.programs.prompt(i): i for i in range(task.TRAINED)}
  lengths = {1: 0, 2: 0}
  for prompt, text in turns.demonstrations(count=2000, seed=1):
    first, *rest = text.split(task.VOCABULARY.eos)
    seen = WORLD.observe(items[prompt], [first])
    assert seen.ended == (not rest)
    assert all(second[:2] == seen.text for second in rest)
    lengths[1 + len(rest)] += 1
  assert lengths[2] > 20 * lengths[1] > 0
