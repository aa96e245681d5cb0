"""Environments: tasks in text, each with its data and its verifier."""

from rl_jax.environments.arithmetic import Sums
from rl_jax.environments.bandit import (
  Course,
  TwoStageBandit,
  expected_logit_update,
  softmax_policy_step,
)
from rl_jax.environments.datasets import (
  Gsm8k,
  Instructions,
  MathProblems,
  Programs,
)
from rl_jax.environments.gym import GymScore, ReasoningGym
from rl_jax.environments.key_door import (
  KeyDoor,
)
from rl_jax.environments.process_world import (
  ProcessWorld,
)
from rl_jax.environments.texts import Items, TextTask, filled, listed

__all__ = [
  "Course",
  "Gsm8k",
  "GymScore",
  "Instructions",
  "Items",
  "KeyDoor",
  "MathProblems",
  "ProcessWorld",
  "Programs",
  "ReasoningGym",
  "Sums",
  "TextTask",
  "TwoStageBandit",
  "expected_logit_update",
  "filled",
  "listed",
  "softmax_policy_step",
]
