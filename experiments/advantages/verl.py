"""VERL: ranks of hidden states shape the advantages of a tiny decoder.

  rl-jax train experiments/advantages/verl.py

What it shows: the effective rank of a response's features, its velocity and
its acceleration, compared with averages of past batches, decide how much
larger the advantage of each response becomes; monitors show the three means.
Time: half a minute on 2 busy cores, the warm start as long.
Expected: Pass@1 rises from that of the warm start. Measured by verl_study.py, 5
seeds of 300 steps, against GRPO alone: Pass@1 +0.017 ± 0.015, Pass@8 +0.073 ±
0.049, entropy at the end +0.047 ± 0.031: in the direction that was stated, at
one and a half standard errors. With the bonus at the last token only: +0.000 ±
0.017, +0.034 ± 0.048, +0.037 ± 0.025. Warm starts differ much between seeds,
final Pass@1 of GRPO is .76, .29, .84, .12 and .09 (chance is .1).
Synthetic walks (verl_metrics.py): rank goes with log length (correlations .65
to .86), and with velocity too (.80 to .93), which is not what the paper saw on
real responses.
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
