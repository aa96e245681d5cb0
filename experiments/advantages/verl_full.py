"""VERL on Mathstral-7B and harder school mathematics, at full scale.

  rl-jax train experiments/advantages/verl_full.py

What it shows: the script of the paper (arXiv:2509.23808) on a mesh: 48 problems
of levels 3 to 5 a step, four responses to each of up to 1536 tokens, GRPO with
updates of 24 problems, clip .2, k3 with weight .001, ranks of beginnings that
grow by 40 tokens, averages with alpha .3. Weights are ./mathstral-7b, problems
are ./math_train.jsonl. The script's entropy bonus of .001 is left out.
Time: not run at this size here; the paper used 4 accelerators. Its step is
compiled from shapes alone by tests/experiments/test_files.py.
Expected: nothing was measured here. The same program at small scale is
verl.py, with its comparison in verl_study.py.
Variations: --algorithm.recipe.credit.placement last_token is where the paper's
code has the bonus; --algorithm.recipe.credit.signal.history release averages
as it does; --algorithm.recipe.credit.signal.dynamic True shrinks the bonus as
problems are solved.
"""

from __future__ import annotations

import dataclasses

from experiments import recipes
from rl_jax import (
  algorithms,
  data,
  environments,
  models,
  rewards,
  sampling,
)
from rl_jax.algorithms.components import KlInLoss
from rl_jax.algorithms.estimators.verl import Verl
from rl_jax.divergences import k3
from rl_jax.experiment import Checkpoints, Experiment, Mesh
from rl_jax.rewards.verifiers import Math
from rl_jax.training.optimisers import AdamW

MATHSTRAL_7B = models.Decoder(
  vocabulary=32_768,
  width=4096,
  layers=32,
  mlp=14_336,
  attention=models.Attention(
    heads=32, key_value_heads=8, features=128, rope=models.Rope(theta=1e6)
  ),
  context=32_768,
  tied=False,
  norm_epsilon=1e-5,
  remat="all",
  dtype="bfloat16",
)
WEIGHTS = models.Folder(path="mathstral-7b")
END = (2,)

experiment = Experiment(
  name="verl_full",
  model=MATHSTRAL_7B,
  start=models.Pretrained(weights=WEIGHTS, dtype="float32"),
  data=data.Prompts(
    task=environments.MathProblems(
      rows=48, path="math_train.jsonl", levels=(3, 4, 5)
    ),
    vocabulary=WEIGHTS,
    length=512,
    wording=data.Chat(
      ask="{prompt}Reason step by step, and put the answer in \\boxed{}."
    ),
    too_long="drop",
  ),
  reward=rewards.TextReward(
    terms=(rewards.Term(name="correct", judge=Math()),), workers=32
  ),
  algorithm=algorithms.PolicyOptimisation(
    recipe=dataclasses.replace(
      recipes.grpo,
      credit=Verl(),
      penalty=KlInLoss(estimator=k3, weight=0.001),
    ),
    sampler=sampling.Autoregressive(length=1536, end=END),
    group_size=4,
    optimiser=AdamW(learning_rate=5e-7),
    minibatches=2,
    micro_batches=6,
    reference=True,
    scoring=algorithms.Scoring(chunk_tokens=16_384, chunk_vocabulary=16_384),
  ),
  steps=161,
  mesh=Mesh(data=1, fsdp=-1, tensor=1),
  checkpoints=Checkpoints(every=20, keep=2),
)
