"""A tiny decoder learns to sum aloud, to slip, and to check its result.

  rl-jax train experiments/advantages/spae_sft.py

What it shows: the warm start of spae.py: responses with none to four checks,
of which some spoil what they check.
Time: 1 minute on 2 busy cores.
Expected: 40 % right with seed 0; it stops where sums are being understood, and
seeds differ.
Variations: --steps 100 slips more; --algorithm.optimiser.learning-rate 1e-3 is
slower.
"""

from __future__ import annotations

from experiments import chains
from experiments.advantages import spae_task
from rl_jax import algorithms, data
from rl_jax.experiment import Checkpoints, Experiment
from rl_jax.training.optimisers import AdamW

experiment = Experiment(
  name="spae_sft",
  model=spae_task.MODEL,
  data=data.Demonstrations(
    task=chains.Written(
      task=spae_task.task(rows=96, first=0, length=800),
      style=spae_task.checked,
    ),
    vocabulary=chains.VOCABULARY,
    length=spae_task.PROMPT + spae_task.RESPONSE.length,
    pack=False,
  ),
  algorithm=algorithms.FineTuning(
    optimiser=AdamW(learning_rate=5e-3, cosine_steps=250)
  ),
  evaluation=spae_task.EVALUATION,
  steps=250,
  checkpoints=Checkpoints(every=250),
)
