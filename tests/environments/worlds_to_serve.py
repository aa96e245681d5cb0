"""Environments that a child process plays, well or badly."""

from __future__ import annotations

import os
import sys
import time


class Counter:
  """Says what was done and in how many steps; made to fail on request."""

  def __init__(self, task):
    self.task, self.done = task, []

  def reset(self):
    print("an environment that prints")

  def step(self, action):
    self.done.append(action)
    if action == "raise":
      raise RuntimeError("the environment is broken")
    if action == "hang":
      time.sleep(60)
    if action == "die":
      os._exit(7)
    if action == "infinite":
      return "", float("inf"), False
    if action == "process":
      return f"{os.getpid()}", 0.0, False
    text = f"{self.task['name']}: {' '.join(self.done)}"
    return text, float(len(self.done)), action == "stop"

  def close(self):
    print("closed", file=sys.stderr)


def make(task):
  return Counter(task)
