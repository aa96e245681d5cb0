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
from that of the warm start. Measured by spae_study.py, 3 seeds, against alpha =
xi = 0: tokens spent on checking in right responses 0.78 ± 0.11 against 4.07 ±
0.38 (81 % fewer), checks of held-out responses 0.17 against 1.38, characters
6.5 against 10.1, accuracy lower by 0.003 ± 0.010. With alpha = 0 it is 1.41 ±
0.49 tokens. Right to wrong 2.8 ± 1.1 % against 3.3 ± 0.6 %: inside noise. Warm
starts differ much between seeds, final accuracies are .57, .10 and .87, so only
differences seed by seed say anything.
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
