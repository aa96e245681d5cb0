"""SPAE: step potentials make a tiny decoder check its sums less.

  rl-jax train experiments/advantages/spae.py

What it shows: after every step the policy is made to answer, and what it would
say, measured against the true answer, tells which steps solved the problem and
which came after: the latter are pushed less. Monitors show steps, potentials,
tokens spent on checking, and responses that went from right to wrong. Groups of
equal rewards are kept, for what their steps say; the study leaves them out, as
the paper does.
Time: about 1 minute on 2 cores that are busy with other things, the warm start
as long.
Expected: checks per held-out response from 2 to less than 0.4, and accuracy up
from that of the warm start. Measured by spae_study.py, 5 seeds of 200 steps,
against alpha = xi = 0: tokens spent on checking in right responses 0.38 ± 0.11
against 3.03 ± 0.92 (88 % fewer), checks of held-out responses 0.09 against
1.23, characters 6.3 against 9.6, accuracy higher by 0.003 ± 0.005. With
alpha = 0 it is 1.32 ± 0.60 tokens. Right to wrong 3.4 ± 1.0 % against 3.1 ±
0.7 %: inside noise. Warm starts differ much between seeds, final accuracies are
.66, .10, .91, .10 and .09 (chance is .1), so only differences seed by seed say
anything.
Variations: --algorithm.recipe.credit.alpha 0 does not mind checks;
--algorithm.recipe.credit.xi 0 does not mind which step solved it;
--algorithm.recipe.credit.apply-to positive leaves wrong responses their whole
punishment.
"""

from __future__ import annotations

import dataclasses

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
    # A batch in which all groups are of equal rewards still has steps.
    recipe=dataclasses.replace(spae_recipe(credit=spae_task.SPAE), rows=None),
    sampler=spae_task.RESPONSE,
    group_size=8,
    optimiser=AdamW(learning_rate=2e-4, warm_up_steps=10),
  ),
  evaluation=spae_task.EVALUATION,
  start=Trained(by=spae_sft.experiment),
  steps=120,
  checkpoints=Checkpoints(every=120),
)
