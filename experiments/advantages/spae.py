"""SPAE: step potentials make a tiny decoder check its sums less.

  rl-jax train experiments/advantages/spae.py

What it shows: after every step the policy is made to answer, and what it would
say, measured against the true answer, tells which steps solved the problem and
which came after: the latter are pushed less. Monitors show steps, potentials,
tokens spent on checking, and responses that went from right to wrong.
Time: not measured yet.
Expected: not measured yet.
Variations: --algorithm.recipe.credit.alpha 0 does not mind checks;
--algorithm.recipe.credit.xi 0 does not mind which step solved it;
--algorithm.recipe.credit.apply-to positive leaves wrong responses their whole
punishment.
"""

from __future__ import annotations

from experiments.advantages import spae_sft, spae_task
from rl_jax import algorithms
from rl_jax.algorithms.estimators.spae import spae_recipe
from rl_jax.experiment import Checkpoints, Experiment, Trained
from rl_jax.training.optimisers import AdamW

experiment = Experiment(
  name="spae",
  model=spae_task.MODEL,
  data=spae_task.prompts(rows=8, first=0, length=800),
  reward=spae_task.REWARD,
  algorithm=algorithms.PolicyOptimisation(
    recipe=spae_recipe(credit=spae_task.SPAE),
    sampler=spae_task.RESPONSE,
    group_size=8,
    optimiser=AdamW(learning_rate=2e-4, warm_up_steps=10),
  ),
  evaluation=spae_task.EVALUATION,
  start=Trained(by=spae_sft.experiment),
  steps=120,
  checkpoints=Checkpoints(every=120),
)
