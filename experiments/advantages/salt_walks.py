"""A tiny decoder learns the rules of a maze from aimless walks.

  rl-jax train experiments/advantages/salt_walks.py

What it shows: the warm start of salt.py. It imitates episodes, actions and
observations alike, of someone who knows how doors and keys work and cannot
read the sign that says where they are.
Time: 15 seconds on 2 cores.
Expected: nothing is evaluated here; salt.py begins at what it came to.
Variations: --data.task.noise 0.3 makes the walks aimless in the corridor too;
--steps 400 imitates them better.
"""

from __future__ import annotations

from experiments.advantages import salt_parts
from rl_jax import algorithms, data
from rl_jax import experiment as e
from rl_jax.training.optimisers import AdamW

experiment = e.Experiment(
  name="salt_walks",
  model=salt_parts.MODEL,
  data=data.Demonstrations(
    task=salt_parts.Walks(rows=64),
    vocabulary=salt_parts.VOCABULARY,
    length=52,
    pack=False,
  ),
  algorithm=algorithms.FineTuning(optimiser=AdamW(learning_rate=3e-3)),
  steps=150,
  checkpoints=e.Checkpoints(every=200),
)
