"""What estimators have the host do for a batch, on made-up texts.

Graphs of episodes, labels of thoughts, parsed calls and items, and checks of
the results of tests. Running tests and asking judges over a network is left
out: it takes what the programs and the judges take.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from experiments.advantages.cases import Shape, written
from rl_jax.rewards.trajectory_graph import (
  AgentStep,
  GraphSettings,
  Trajectory,
  build_edges,
)
from rl_jax.rewards.verifiers.items import ItemAnswer
from rl_jax.rewards.verifiers.per_test import check_passes
from rl_jax.rewards.verifiers.suite_notes import turn_numbers
from rl_jax.rewards.verifiers.thought_rules import Markers
from rl_jax.rewards.verifiers.thoughts import split_response
from rl_jax.rewards.verifiers.tool_config import ToolRewardConfig
from rl_jax.rewards.verifiers.tools import tool_rewards

__all__ = ["host_work"]


def host_work(shape: Shape) -> dict[str, Callable[[], Any]]:
  """Functions to time, by the name of the estimator.

  Args:
    shape: of the batch.

  Returns:
    What each does for one batch.
  """
  return {
    "SALT": _graphs(shape),
    "TP-GRPO": _labels(shape),
    "VeRPO": _suites(shape),
    "GREAM": _items(shape),
    "ToolRL": _calls(shape),
  }


def _graphs(shape: Shape) -> Callable[[], Any]:
  rng = np.random.default_rng(0)
  whole = {
    task: [
      Trajectory(
        task_id=task,
        steps=tuple(
          AgentStep(f"room {a} after {turn} turns", f"take door {b}")
          for turn, (a, b) in enumerate(rng.integers(0, 2, (shape.steps, 2)))
        ),
        final_observation="the end",
        outcome=float(rng.integers(0, 2)),
      )
      for _ in range(shape.samples)
    ]
    for task in range(shape.prompts)
  }
  settings = GraphSettings()
  return lambda: [build_edges(each, settings) for each in whole.values()]


def _labels(shape: Shape) -> Callable[[], Any]:
  rows, evaluate = shape.prompts * shape.samples, Markers()
  thoughts = "".join(
    f"{'wait, ' if step % 3 == 2 else ''}{step} plus {step} is {2 * step}\n"
    for step in range(shape.steps)
  )

  def label() -> list[Any]:
    found = []
    for row in range(rows):
      response = split_response(
        f"{thoughts}#{row}",
        begin="",
        end="#",
        ended=True,
        correct=row % 2 == 0,
        name=f"{row}",
      )
      found.append(evaluate("", response))
    return found

  return label


def _suites(shape: Shape) -> Callable[[], Any]:
  batch = written(shape)
  assert batch.extra is not None
  # As of trajectories that stop once they have passed all.
  passed = np.asarray(batch.extra["passed"])
  mask = np.asarray(batch.extra["turn_mask"])
  passed = np.where(mask[..., None], passed & (np.arange(4) < 3), 0)
  tests, tokens = np.asarray(batch.extra["test_mask"]), np.asarray(batch.mask)

  def check() -> Any:
    check_passes(passed, mask, tests)
    return turn_numbers(tokens)

  return check


def _items(shape: Shape) -> Callable[[], Any]:
  right = "<|a_1|><|b_2|><|c_3|><|d_4|>"
  text = f"<think>{'because ' * shape.steps}</think><answer>{right}</answer>"
  answer = ItemAnswer(mode="reasoning")
  rows = shape.prompts * shape.samples
  return lambda: [answer(text, right) for _ in range(rows)]


def _calls(shape: Shape) -> Callable[[], Any]:
  call = '{"name": "find", "parameters": {"what": "door", "number": 1}}'
  text = f"<think>{'so ' * shape.steps}</think>\n<tool_call>\n{call}\n"
  text += "</tool_call>"
  rows = shape.prompts * shape.samples
  given = [text] * rows, [text] * rows, [0] * rows, ToolRewardConfig()
  return lambda: tool_rewards(*given)
