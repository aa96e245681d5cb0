"""x.

  rl-jax train experiments/advantages/salt.py

What it shows:
Time:
Expected:
Variations:
"""

from __future__ import annotations

from experiments.advantages import salt_parts, salt_walks
from rl_jax import algorithms
from rl_jax import experiment as e
from rl_jax.training.optimisers import AdamW

experiment = e.Experiment(
  name="salt",
  model=salt_parts.MODEL,
  data=salt_parts.prompts(rows=12),
  reward=salt_parts.REWARD,
  algorithm=algorithms.PolicyOptimisation(
    recipe=salt_parts.ARMS["salt+grpo"],
    sampler=salt_parts.EPISODES,
    group_size=8,
    optimiser=AdamW(learning_rate=1e-3, weight_decay=0.0),
    behaviour="same",
    reference=True,
  ),
  start=e.Trained(by=salt_walks.experiment),
  steps=100,
  checkpoints=e.Checkpoints(every=200),
)
