"""A tiny decoder learns a stack language, and hardly what to say in it.

  rl-jax train experiments/process_rewards/verpo_sft.py

What it shows: the warm start of verpo.py: programs of somebody who knows the
language, takes the easy way out in two of five cases, and has operator and
constant right by little more than chance.
Time: 10 seconds on 2 cores.
Expected: about 2 % of held-out functions are right.
Variations: --steps 50 does not know the language yet;
--algorithm.optimiser.learning-rate 1e-3 is slower.
"""

from __future__ import annotations

from functools import partial

from experiments.process_rewards import verpo_task as task
from rl_jax import algorithms, data
from rl_jax.experiment import Checkpoints, Experiment
from rl_jax.training.optimisers import AdamW

experiment = Experiment(
  name="verpo_sft",
  model=task.MODEL,
  data=data.Demonstrations(
    task=data.Texts(
      rows=128,
      origin=partial(task.demonstrations, count=4000, seed=0),
      answer="answer",
    ),
    vocabulary=task.VOCABULARY,
    length=task.PROMPT + task.RESPONSE.length,
    pack=False,
  ),
  algorithm=algorithms.FineTuning(
    optimiser=AdamW(learning_rate=3e-3, cosine_steps=200)
  ),
  evaluation=task.EVALUATION,
  steps=200,
  checkpoints=Checkpoints(every=100),
)
