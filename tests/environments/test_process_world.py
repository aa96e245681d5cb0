"""Worlds behind real child processes, and what may go wrong with them."""

from __future__ import annotations

import json
import pathlib
import sys
import time

import numpy as np
import pytest

from rl_jax.environments import serving
from rl_jax.environments.process_world import ProcessWorld
from rl_jax.sampling.worlds import Observation, observe_all

pytestmark = pytest.mark.slow

HERE = pathlib.Path(__file__).parent
COMMAND = (sys.executable, "-I", serving.__file__, "worlds_to_serve:make")


@pytest.fixture
def folder(tmp_path):
  lines = [{"prompt": f"begin {n}", "task": {"name": f"t{n}"}} for n in (0, 1)]
  text = "".join(json.dumps(line) + "\n" for line in lines)
  (tmp_path / "tasks.jsonl").write_text(text)
  return tmp_path


@pytest.fixture
def start(folder, monkeypatch):
  """Makes worlds, whose processes end with the test."""
  monkeypatch.chdir(HERE)
  made = []

  def start(command=COMMAND, **settings):
    settings = {"rows": 1, "workers": 1, "seconds": 20.0} | settings
    made.append(ProcessWorld(folder=f"{folder}", command=command, **settings))
    return made[-1]

  yield start
  for world in made:
    world.close()


def program(text):
  """A child that does not know the protocol, or does too well."""
  return (sys.executable, "-I", "-u", "-c", text)


def test_prompts_and_tasks_come_from_the_folder(start):
  items = start().source()[np.array([1, 0])]
  assert items["prompt"].tolist() == ["begin 1", "begin 0"]
  assert items["reference"].tolist() == [{"name": "t1"}, {"name": "t0"}]


def test_answers_are_a_function_of_the_item_and_all_actions(start):
  world = start()
  assert world.observe(0, ["a"]) == Observation("t0: a", False, 1.0)
  assert world.observe(0, ["a", "b"]) == Observation("t0: a b", False, 2.0)
  # Another way from a state that has been left, and another item.
  assert world.observe(0, ["a", "c"]).text == "t0: a c"
  assert world.observe(1, ["x", "y", "stop"]) == Observation(
    "t1: x y stop", True, 3.0
  )
  # New processes, which have seen nothing of it.
  world.close()
  assert world.observe(0, ["a", "b", "c"]).text == "t0: a b c"


def test_an_episode_stays_with_its_process(start):
  world = start(workers=2)
  first = [observe_all(world, [0, 1], [["process"]] * 2)]
  first = [one.text for one in first[0]]
  assert len(set(first)) == 2
  again = observe_all(world, [1, 0], [["process", "process"]] * 2)
  assert [one.text for one in again] == first[::-1]


def test_what_is_the_same_is_asked_once():
  asked = []

  class World:
    workers = 1

    def observe(self, item, actions):
      asked.append((item, actions))
      return Observation(f"{item}{actions}", False, 0.0)

  found = observe_all(World(), [0, 1, 0], [["a"], ["a"], ["a"]])
  assert [one.text for one in found] == ["0('a',)", "1('a',)", "0('a',)"]
  assert len(asked) == 2
  with pytest.raises(ValueError, match="longer"):
    observe_all(World(), [0], [["a"], ["b"]])


def test_an_environment_that_raises_is_reported_and_goes_on(start):
  world = start()
  found = world.observe(0, ["raise"])
  assert found.error == "error: RuntimeError: the environment is broken"
  assert world.observe(0, ["a"]).text == "t0: a"
  assert "not finite" not in world.observe(0, ["a"]).error
  assert world.observe(0, ["infinite"]).error == "error: the outcome is inf"


def test_a_process_that_is_late_or_dies_is_replaced(start):
  world = start(seconds=3.0)
  begun = time.monotonic()
  assert world.observe(0, ["hang"]).error == "time limit: 3.0 s"
  assert time.monotonic() - begun < 10
  assert world.observe(0, ["die"]).error == "died: exit status 7"
  assert world.observe(0, ["b"]).text == "t0: b"
  # A reason to have no answer is not kept as if it were one.
  assert world.observe(0, ["die"]).error == "died: exit status 7"


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("print('hello')", "error: Expecting value"),
    ("print('[1]')", "an answer to request"),
    ("print('{\"id\": 9}')", "an answer to request"),
    ("print('{\"id\": 1}')", "an answer without 'observation'"),
    (
      'print(\'{"id": 1, "observation": 3, "ended": true, "outcome": 1}\')',
      "an answer of other types",
    ),
    (
      'print(\'{"id": 1, "observation": "", "ended": true, "outcome": "x"}\')',
      "could not convert",
    ),
    ("raise SystemExit(3)", "died: exit status 3"),
  ],
)
def test_nonsense_is_no_answer(start, text, message):
  script = f"import sys, time; sys.stdin.readline(); {text}; time.sleep(30)"
  found = start(program(script)).observe(0, ["a"])
  assert message in found.error
  assert found.ended
  assert not found.outcome


def test_a_program_that_is_not_there_is_no_answer(start):
  found = start(("./no-such-program",)).observe(0, ["a"])
  assert found.error.startswith("error: ")
  assert "no-such-program" in found.error


def test_a_request_longer_than_a_pipe_holds(start):
  long = "x" * 200_000
  assert start().observe(0, [long]).text == f"t0: {long}"


def test_settings_are_checked(folder):
  settings = {"folder": f"{folder}", "rows": 1}
  with pytest.raises(ValueError, match="the command is empty"):
    ProcessWorld(command=(), **settings)
  with pytest.raises(ValueError, match="not positive"):
    ProcessWorld(command=("x",), seconds=0.0, **settings)
  (folder / "tasks.jsonl").write_text('{"prompt": "p"}\n')
  with pytest.raises(ValueError, match='line 1 lacks "prompt" or "task"'):
    ProcessWorld(command=("x",), **settings).source()


def test_sessions_close_what_they_leave():
  closed = []

  class Environment:
    def __init__(self, task):
      self.task = task

    def reset(self):
      pass

    def step(self, action):
      if action == "raise":
        raise RuntimeError(action)
      return f"{self.task}{action}", 0.0, action == "stop"

    def close(self):
      closed.append(self.task)

  sessions = serving.Sessions(Environment, kept=2)
  for task in range(3):
    sessions.observe(task, ["a"])
  assert closed == [0]
  assert sessions.observe(0, ["a", "b"])[0] == "0b"
  assert closed == [0, 1]
  sessions.observe(2, ["a", "stop"])
  with pytest.raises(RuntimeError):
    sessions.observe(0, ["a", "b", "raise"])
  assert closed == [0, 1, 2, 0]
  for _ in range(2):  # the second is another one in the same place
    sessions.observe(5, ["a"])
  assert closed[4:] == [5]
  with pytest.raises(ValueError, match="before the first action"):
    sessions.observe(0, [])
