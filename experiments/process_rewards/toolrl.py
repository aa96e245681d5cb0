"""ToolRL: calls of tools, rewarded name by name and value by value.

  rl-jax train experiments/process_rewards/toolrl.py

What it shows: GRPO with ToolRL's reward, format and correctness apart, on
requests of one or two calls with four tools. Held-out requests count only if
every call is right. It starts from toolrl_sft.py, which is trained first.
Time: about 1 minute on 2 cores, the warm start included.
Expected: held-out requests right from 3 % to about 30 %. Measured over 5 seeds
of 200 steps (toolrl_study.py): fine .362 ± .035, intermediate .336 ± .033,
coarse .345 ± .042; fine less coarse is .017 ± .032, where .05 was expected.
After 100 steps they are .237, .248 and .205: the order of the paper shows
early, if at all, and not at the end. Correctness in
[-1, 1] makes no difference (+.006 ± .024): advantages are standardised. A
reward of length makes thoughts five times as long (157 words, 32) and gains
nothing (-.066 ± .038).
Variations: --algorithm.group-size 8 compares more responses to a request;
--algorithm.optimiser.learning-rate 3e-4 is slower.
"""

from __future__ import annotations

import dataclasses

from experiments import recipes
from experiments.process_rewards import toolrl_sft
from experiments.process_rewards import toolrl_task as task
from rl_jax import algorithms
from rl_jax.experiment import Checkpoints, Experiment, Trained
from rl_jax.rewards.verifiers.tool_config import ToolRewardConfig
from rl_jax.training.optimisers import AdamW

__all__ = ["RECIPE", "experiment"]

# Standardised within the group, with the sample standard deviation + 1e-6.
RECIPE = dataclasses.replace(
  recipes.grpo,
  reference="ToolRL, arXiv:2504.13958",
  penalty=None,
)

experiment = Experiment(
  name="toolrl",
  model=task.MODEL,
  data=task.prompts(rows=32, first=0, length=task.TRAINED),
  reward=task.reward(ToolRewardConfig()),
  algorithm=algorithms.PolicyOptimisation(
    recipe=RECIPE,
    sampler=task.RESPONSE,
    group_size=4,
    optimiser=AdamW(learning_rate=1e-3, warm_up_steps=5),
  ),
  evaluation=task.EVALUATION,
  start=Trained(by=toolrl_sft.experiment),
  steps=150,
  checkpoints=Checkpoints(every=150),
)
