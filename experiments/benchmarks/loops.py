"""Estimators as loops over tokens and rows, in the style of TRL and verl.

Each takes its array library as the first argument, numpy or torch, and none
uses this project: they are what `experiments.benchmarks.estimators` compares
with. In an environment that has torch and not jax this file times itself:

    python experiments/benchmarks/loops.py
"""

from __future__ import annotations

import importlib
import statistics
import time
from collections import defaultdict
from collections.abc import Callable
from typing import Any

__all__ = ["LOOPS", "advantage", "group_relative", "leave_one_out", "returns"]


def advantage(xp: Any, batch: dict[str, Any]) -> Any:
  """Generalized advantage, discount 1 and trace 0.95, one token at a time."""
  reward, value, mask = (batch[k] for k in ("reward", "value", "counted"))
  future = carried = 0.0 * reward[:, 0]
  found = []
  for t in reversed(range(reward.shape[1])):
    counts = mask[:, t]
    here = reward[:, t] + future - value[:, t] + 0.95 * carried
    future = value[:, t] * counts + (1 - counts) * future
    carried = here * counts + (1 - counts) * carried
    found.append(carried)
  return xp.stack(found[::-1], 1) * mask


def returns(xp: Any, batch: dict[str, Any]) -> Any:
  """Discounted returns, discount 0.99, one token at a time."""
  reward, mask = batch["reward"], batch["counted"]
  carried = 0.0 * reward[:, 0]
  found = []
  for t in reversed(range(reward.shape[1])):
    carried = reward[:, t] + 0.99 * carried * mask[:, t]
    found.append(carried)
  return xp.stack(found[::-1], 1) * mask


def group_relative(xp: Any, batch: dict[str, Any]) -> Any:
  """Reward minus the mean over the sample spread, a dictionary of groups."""
  score, members = batch["score"], _members(batch)
  mean, spread = {}, {}
  for owner, scores in members.items():
    held = xp.stack(scores)
    mean[owner] = held.mean()
    spread[owner] = (((held - mean[owner]) ** 2).sum() / (len(held) - 1)) ** 0.5
  found = [
    (x - mean[owner]) / (spread[owner] + 1e-6)
    for x, owner in zip(score, batch["owner"], strict=True)
  ]
  return xp.stack(found)[:, None] * batch["counted"]


def leave_one_out(xp: Any, batch: dict[str, Any]) -> Any:
  """Reward minus the mean of the others, a dictionary of groups."""
  score, members = batch["score"], _members(batch)
  total = {owner: xp.stack(scores).sum() for owner, scores in members.items()}
  found = []
  for x, owner in zip(score, batch["owner"], strict=True):
    found.append(x - (total[owner] - x) / (len(members[owner]) - 1))
  return xp.stack(found)[:, None] * batch["counted"]


LOOPS: dict[str, Callable[[Any, dict[str, Any]], Any]] = {
  "generalized_advantage": advantage,
  "discounted_returns": returns,
  "group_relative": group_relative,
  "leave_one_out": leave_one_out,
}


def _members(batch):
  members = defaultdict(list)
  for x, owner in zip(batch["score"], batch["owner"], strict=True):
    members[owner].append(x)
  return members


def _main():
  for name in ("numpy", "torch"):
    try:
      xp = importlib.import_module(name)
    except ImportError:
      print(f"{name} is not installed: skipped")
      continue
    shape = 128, 1024
    batch = {
      "reward": xp.ones(shape),
      "value": xp.ones(shape),
      "counted": xp.ones(shape),
      "score": xp.ones(shape[0]),
      "owner": [row // 16 for row in range(shape[0])],
    }
    for estimator, loop in LOOPS.items():
      seconds = []
      for _ in range(9):
        start = time.perf_counter()
        loop(xp, batch)
        seconds.append(time.perf_counter() - start)
      print(f"{name} {estimator:22}{statistics.median(seconds) * 1e3:9.3f} ms")


if __name__ == "__main__":
  _main()
