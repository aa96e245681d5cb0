"""VeRPO: which tests a program passed, weighted by how hard and rare they are.

  rl-jax train experiments/process_rewards/verpo.py

What it shows: rewards from unit tests when hardly any program passes them
all. Twenty of the 23 tests of a function are passed by returning the input or
0; three are hard, one less than the other. With the outcome alone, most
groups of 16 programs have nobody who passes, and teach nothing.
Time: under 1 minute on 2 cores, the warm start (verpo_sft.py) included.
Expected: held-out functions right from 2 % to about 50 %. Measured over 5 seeds
(verpo_study.py): .520 ± .022; with the outcome alone .460 ± .043, which is
.060 ± .055 less, and in two of the seeds more; with the share of
tests passed .003 ± .003, because "x" and "0" pass most tests and everybody
settles there. In the first 150 steps 1 % of groups teach nothing, 39 % with
the outcome alone (58 % in the first 50), 56 % with the share.
Variations: --algorithm.recipe.credit.density False lets the number of easy
tests count; --algorithm.recipe.credit.beta 0 is the outcome alone.
"""

from __future__ import annotations

from functools import partial

from experiments.process_rewards import verpo_sft
from experiments.process_rewards import verpo_task as task
from rl_jax import algorithms
from rl_jax.algorithms.estimators.verpo import Verpo
from rl_jax.algorithms.recipe import PolicyRecipe
from rl_jax.experiment import Checkpoints, Experiment, Trained
from rl_jax.losses import clipped_policy_terms
from rl_jax.reduce import over_tokens
from rl_jax.training.optimisers import AdamW

__all__ = ["experiment", "recipe"]


def recipe(verpo: Verpo) -> PolicyRecipe:
  """The method of the paper, with some numbers.

  Args:
    verpo: its numbers.

  Returns:
    The recipe.
  """
  return PolicyRecipe(
    reference="VeRPO, arXiv:2601.03525",
    shaping=(verpo.outcome,),
    baseline=verpo.trajectory,
    credit=verpo,
    loss=partial(clipped_policy_terms, clip_low=0.2, clip_high=0.2),
    reduction=over_tokens,
  )


experiment = Experiment(
  name="verpo",
  model=task.MODEL,
  data=task.prompts(rows=8, first=0, length=task.TRAINED),
  reward=task.REWARD,
  algorithm=algorithms.PolicyOptimisation(
    recipe=recipe(Verpo()),
    sampler=task.RESPONSE,
    group_size=16,
    optimiser=AdamW(learning_rate=1e-3, warm_up_steps=5),
  ),
  evaluation=task.EVALUATION,
  start=Trained(by=verpo_sft.experiment),
  steps=300,
  checkpoints=Checkpoints(every=300),
)
