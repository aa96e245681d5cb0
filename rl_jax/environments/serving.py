"""The other side of a `ProcessWorld`: an environment behind standard input.

This file imports nothing but the standard library, so that it runs in the
environment's own Python, whatever that has installed:

  python serving.py module:make

`make(task)` gets what "task" of a line in tasks.jsonl says and returns an
environment: `reset()` starts an episode, `step(action)` takes a text and
returns (text, outcome so far, whether it is over), `close()` ends it. The
same actions must always come to the same: seed it from the task.

Each request is a line {"id", "task", "actions"}, each answer a line {"id",
"observation", "outcome", "ended"} or {"id", "error"}. What the environment
prints goes to standard error.
"""

from __future__ import annotations

import collections
import contextlib
import importlib
import json
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

__all__ = ["Sessions", "serve"]


class Sessions:
  """Episodes that are under way, so that one more action is one more step.

  Args:
    make: task -> environment.
    kept: how many episodes; the one longest not asked for is closed.
  """

  def __init__(self, make: Callable[[Any], Any], *, kept: int = 32) -> None:
    self._make, self._kept = make, kept
    self._open: collections.OrderedDict[Any, Any] = collections.OrderedDict()

  def observe(
    self, task: Any, actions: Sequence[str]
  ) -> tuple[str, float, bool]:
    """What is seen after these actions.

    Args:
      task: anything JSON has.
      actions: texts, at least one.

    Returns:
      The text, the outcome, and whether the episode is over.

    Raises:
      ValueError: if there is no action.
    """
    if not actions:
      raise ValueError("there is nothing to be seen before the first action")
    name = json.dumps(task, sort_keys=True)
    episode = self._open.pop((name, tuple(actions[:-1])), None)
    left = actions[-1:]
    if episode is None:
      episode, left = self._make(task), actions
      episode.reset()
    try:
      for action in left[:-1]:
        episode.step(action)
      found = episode.step(left[-1])
    except BaseException:
      episode.close()
      raise
    if found[2]:
      episode.close()
      return found
    same = self._open.pop((name, tuple(actions)), None)
    if same is not None:
      same.close()
    self._open[name, tuple(actions)] = episode
    while len(self._open) > self._kept:
      self._open.popitem(last=False)[1].close()
    return found


def serve(make: Callable[[Any], Any], *, kept: int = 32) -> None:
  """Answer requests until standard input ends.

  Args:
    make: task -> environment.
    kept: see `Sessions`.
  """
  sessions = Sessions(make, kept=kept)
  # Environments print; answers have a channel that they do not know.
  answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
  os.dup2(2, 1)
  with contextlib.redirect_stdout(sys.stderr):
    for line in sys.stdin:
      request = json.loads(line)
      try:
        text, outcome, ended = sessions.observe(
          request["task"], request["actions"]
        )
        answer = {
          "observation": text,
          "outcome": float(outcome),
          "ended": bool(ended),
        }
      except Exception as error:  # an environment may raise anything
        answer = {"error": f"{type(error).__name__}: {error}"}
      print(json.dumps({"id": request["id"], **answer}), file=answers)
      answers.flush()


if __name__ == "__main__":
  _module, _, _name = sys.argv[1].partition(":")
  sys.path.insert(0, os.getcwd())
  serve(getattr(importlib.import_module(_module), _name or "make"))
