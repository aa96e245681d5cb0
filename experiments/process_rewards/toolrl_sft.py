"""A tiny decoder learns to call tools from 500 careless examples.

  rl-jax train experiments/process_rewards/toolrl_sft.py

What it shows: the warm start of toolrl.py: responses in ToolRL's grammar by
somebody who gets a third of the names and of the values wrong.
Time: 20 seconds on 2 cores.
Expected: all calls are right in 3 % of the held-out requests.
Variations: --steps 100 does not know the grammar yet;
--algorithm.optimiser.learning-rate 1e-3 is slower.
"""

from __future__ import annotations

from functools import partial

from experiments.process_rewards import toolrl_task as task
from rl_jax import algorithms, data
from rl_jax.experiment import Checkpoints, Experiment
from rl_jax.training.optimisers import AdamW

experiment = Experiment(
  name="toolrl_sft",
  model=task.MODEL,
  data=data.Demonstrations(
    task=data.Texts(
      rows=64,
      origin=partial(task.demonstrations, count=500, noise=0.3, seed=0),
      answer="answer",
    ),
    vocabulary=task.VOCABULARY,
    length=task.PROMPT + task.RESPONSE.length,
    pack=False,
  ),
  algorithm=algorithms.FineTuning(
    optimiser=AdamW(learning_rate=3e-3, cosine_steps=300)
  ),
  evaluation=task.EVALUATION,
  steps=300,
  checkpoints=Checkpoints(every=300),
)
