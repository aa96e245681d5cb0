"""VERL: ranks of hidden states shape the advantages of a tiny decoder.

  rl-jax train experiments/advantages/verl.py

What it shows: the effective rank of a response's features, its velocity and
its acceleration, compared with averages of past batches, decide how much
larger the advantage of each response becomes; monitors show the three means.
Time: not measured yet.
Expected: not measured yet.
Variations: --algorithm.recipe.credit.placement last_token is where the paper's
code has the bonus; --algorithm.recipe.credit.signal.history release compares
the second batch with zero; --algorithm.recipe.credit.signal.gate half does not
ask the acceleration.
"""

from __future__ import annotations

import dataclasses

from experiments import recipes
from experiments.advantages import verl_sft, verl_task
from rl_jax import algorithms
from rl_jax.algorithms.estimators.verl import Verl
from rl_jax.experiment import Checkpoints, Experiment, Trained
from rl_jax.training.optimisers import AdamW

GRPO = dataclasses.replace(recipes.grpo, penalty=None)

experiment = Experiment(
  name="verl",
  model=verl_task.MODEL,
  data=verl_task.prompts(rows=8, first=0, length=800),
  reward=verl_task.REWARD,
  algorithm=algorithms.PolicyOptimisation(
    recipe=dataclasses.replace(GRPO, credit=Verl(signal=verl_task.SIGNAL)),
    sampler=verl_task.RESPONSE,
    group_size=8,
    optimiser=AdamW(learning_rate=4e-4, warm_up_steps=10),
  ),
  evaluation=verl_task.EVALUATION,
  start=Trained(by=verl_sft.experiment),
  steps=150,
  checkpoints=Checkpoints(every=150),
)
