"""Relative negatives alone: what a policy keeps in reach of many tries.

  rl-jax train experiments/advantages/two_stage_rlvr.py

What it shows: group-relative advantages of which only the negative part is
followed, on sums of two numbers that a tiny decoder gets right in some tries.
Held-out sums are answered 64 times each, so that pass@1 and pass@64 tell what
became likelier from what is still within reach.
Time: under 2 minutes of one core, the warm start included.
Expected: what the paper has of large models does not show here. Over 3 seeds
(results/two_stage_rlvr/table.md) pass@1 goes from 0.23 to 0.32, with GRPO to
0.38, and pass@64 from 0.96 to 0.84, with GRPO to 0.91; entropies end alike. It
depends on the start: from pass@1 = 0.36 no sum is lost, from 0.08, where the
mass of a wrong answer goes to other wrong ones, 21 of 64 are (solved.md).
Variations: --algorithm.recipe.baseline.pos-weight 1 is GRPO;
--algorithm.recipe.baseline.renormalize True divides by the tokens of wrong
answers alone, which are larger steps as the policy gets better.
"""

from __future__ import annotations

import dataclasses
from functools import partial

from experiments import chains, recipes
from experiments.language import chain_sums
from rl_jax import algorithms, data, evaluation, rewards, sampling
from rl_jax import experiment as e
from rl_jax.advantages import group_relative
from rl_jax.algorithms.components import WithinGroup
from rl_jax.algorithms.estimators.relative_sign import RelativeSign
from rl_jax.evaluation.mass import PassAtKSamples
from rl_jax.training.optimisers import AdamW

__all__ = ["BASE", "exact", "experiment", "negative", "warm"]


def exact(
  prompts: list[str], completions: list[str], **columns: list
) -> list[float]:
  """1 where the completion is the reference and nothing else."""
  del prompts
  return [
    float(text.strip() == reference)
    for text, reference in zip(completions, columns["reference"], strict=True)
  ]


MODEL = chains.decoder(
  context=16, width=64, vocabulary=chain_sums.VOCABULARY.size
)
REWARD = rewards.TextReward(terms=(rewards.Term(name="correct", judge=exact),))
RESPONSE = sampling.Autoregressive(length=4, end=(chain_sums.END,))
EVALUATION = PassAtKSamples(
  answers=evaluation.TextSamples(
    data=chain_sums.prompts(rows=1, first=9000, length=64),
    sampler=RESPONSE,
    prompts=64,
    samples=64,
    reward=REWARD,
    every=50,
  ),
  tries=(1, 8, 64),
)

warm = e.Experiment(
  name="two_stage_rlvr_sft",
  model=MODEL,
  data=data.Demonstrations(
    task=chain_sums.sums(rows=128, first=0, length=3000),
    vocabulary=chain_sums.VOCABULARY,
    length=14,
    pack=False,
  ),
  algorithm=algorithms.FineTuning(optimiser=AdamW(learning_rate=4e-3)),
  steps=320,
  checkpoints=e.Checkpoints(every=320),
)

# The advantage of GRPO, as the paper's setting has it.
BASE = WithinGroup(
  estimator=partial(group_relative, scale="group", ddof=1, epsilon=1e-6)
)

# Without a KL, and with verl's bound on what a bad token may be pushed down.
negative = dataclasses.replace(
  recipes.verl_grpo,
  reference="arXiv:2510.04028, section 4 (GRPO-N)",
  baseline=RelativeSign(base=BASE, pos_weight=0.0),
  note="all tokens divide, those of positive rows too",
)

experiment = e.Experiment(
  name="two_stage_rlvr",
  model=MODEL,
  data=chain_sums.prompts(rows=16, first=3000, length=6000),
  reward=REWARD,
  algorithm=algorithms.PolicyOptimisation(
    recipe=negative,
    sampler=RESPONSE,
    group_size=8,
    optimiser=AdamW(learning_rate=3e-4, warm_up_steps=10),
  ),
  evaluation=EVALUATION,
  start=e.Trained(by=warm),
  steps=200,
  checkpoints=e.Checkpoints(every=200),
)
