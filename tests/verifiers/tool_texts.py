"""Responses that call tools, for the tests of their reward."""

from __future__ import annotations

import dataclasses
import json

import pytest

from rl_jax.rewards.verifiers.tool_config import ToolRewardConfig
from rl_jax.rewards.verifiers.tools import tool_reward

DEFAULT = ToolRewardConfig()
SEARCH = {"name": "search", "parameters": {"q": "x", "k": 3}}
CALC = {"name": "calc", "parameters": {"expr": "1+1"}}


def call(name, **parameters):
  return {"name": name, "parameters": parameters}


def block(*calls):
  lines = [c if isinstance(c, str) else json.dumps(c) for c in calls]
  return "\n".join(["<tool_call>", *lines, "</tool_call>"])


def response(*calls, think="t", answer=None):
  parts = [f"<think>{think}</think>"]
  parts += [block(*calls)] if calls else []
  parts += [f"<response>{answer}</response>"] if answer is not None else []
  return "\n".join(parts)


TRUTH = response(SEARCH, CALC)


def scored(text, truth=TRUTH, step=0, **changes):
  found = tool_reward(
    text, truth, step, dataclasses.replace(DEFAULT, **changes)
  )
  assert found["total"] == pytest.approx(
    found["format"] + found["correctness"] + found["length"]
  )
  return found
