"""ADORA learns less from prompts whose long answers are no better.

  rl-jax train experiments/advantages/adora.py

What it shows: a tiny decoder sums chains, and may write the running sums
before its answer or guess. GRPO, with a tenth of the weight for groups whose
longest success is no longer than their mean failure; groups without a success
count in full (the attenuation of the paper's vision-language runs). The report
has the share of groups that were weighted down and accuracy by length. Starts
from adora_task.py's warm start, which is trained first; adora_study.py has
GRPO beside it.
Time: under a minute of processor time, the warm start included.
Expected: responses grow from 4.5 to 6.5 tokens and chains of three and four
are right from 36 % to 56 % of the time. GRPO ends at 5.6 tokens and 65 %: the
length grows as the paper says, accuracy did not gain, see adora_study.py.
Variations: --algorithm.recipe.baseline.weight.empty llm weights groups without
a success down and those without a failure not;
--algorithm.recipe.baseline.weight.other 1.0 is GRPO;
--algorithm.recipe.baseline.weight.criteria any also counts difficult chains.
"""

from __future__ import annotations

import dataclasses

from experiments.advantages.adora_task import trained
from rl_jax.algorithms.estimators.adora import ADORA_VLM
from rl_jax.experiment import Band

experiment = dataclasses.replace(
  trained("adora", dataclasses.replace(ADORA_VLM, cap=None, max_reward=1.0)),
  expected=(
    Band(metric="evaluation/length", low=5.0),
    Band(metric="evaluation/long_chains", low=0.4),
  ),
)
