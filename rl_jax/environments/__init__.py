"""Environments: tasks in text, each with its data and its verifier."""

from rl_jax.environments.arithmetic import Sums
from rl_jax.environments.datasets import (
  Gsm8k,
  Instructions,
  MathProblems,
  Programs,
)
from rl_jax.environments.gym import GymScore, ReasoningGym
from rl_jax.environments.texts import Items, TextTask, filled, listed

__all__ = [
  "Gsm8k",
  "GymScore",
  "Instructions",
  "Items",
  "MathProblems",
  "Programs",
  "ReasoningGym",
  "Sums",
  "TextTask",
  "filled",
  "listed",
]
