"""A tiny decoder learns to sum step by step, with slips.

  rl-jax train experiments/advantages/verl_sft.py

What it shows: the warm start of verl.py: one sum in four of its examples is
wrong, so that there is something left to learn.
Time: half a minute on 2 busy cores.
Expected: it stops where sums are being understood, and seeds differ; see
verl.py.
Variations: --steps 100 slips more; --algorithm.optimiser.learning-rate 1e-3 is
slower.
"""

from __future__ import annotations

from experiments import chains
from experiments.advantages import verl_task
from rl_jax import algorithms, data
from rl_jax.experiment import Checkpoints, Experiment
from rl_jax.training.optimisers import AdamW

experiment = Experiment(
  name="verl_sft",
  model=verl_task.MODEL,
  data=data.Demonstrations(
    task=chains.Written(
      task=verl_task.task(rows=64, first=0, length=800), style=verl_task.summed
    ),
    vocabulary=chains.VOCABULARY,
    length=verl_task.PROMPT + verl_task.RESPONSE.length,
    pack=False,
  ),
  algorithm=algorithms.FineTuning(
    optimiser=AdamW(learning_rate=5e-3, cosine_steps=250)
  ),
  evaluation=verl_task.EVALUATION,
  steps=250,
  checkpoints=Checkpoints(every=250),
)
