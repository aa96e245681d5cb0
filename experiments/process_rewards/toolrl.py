"""ToolRL: calls of tools, rewarded name by name and value by value.

  rl-jax train experiments/process_rewards/toolrl.py

What it shows: GRPO with ToolRL's reward, format and correctness apart, on
requests of one or two calls with four tools. Held-out requests count only if
every call is right. It starts from toolrl_sft.py, which is trained first.
Time: about 1 minute on 2 cores, the warm start included.
Expected: held-out requests right from 3 % to about 27 %. Measured over 2 seeds
(toolrl_study.py) after 100 steps: fine .225, intermediate .228, coarse .160;
after 150: fine .270 ± .043, intermediate .328 ± .072, coarse .228 ± .038. So
coarse is slower, as the paper has it, but two seeds do not separate it from
fine at the end, and intermediate is not below fine. One longer run (250 steps,
seed 0) turned it round: fine .293, coarse .407, whose entropy fell later.
Correctness in [-1, 1] makes no difference (-.002 ± .025): advantages are
standardised. A reward of length makes thoughts four times as long (140 words,
32) and costs .053 ± .010.
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
