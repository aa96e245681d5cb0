"""CANON on Qwen2.5-Math-7B and 46 thousand problems, at full scale.

  rl-jax train experiments/advantages/canon_full.py

What it shows: CANON-Inter by entropy, the setting of the paper (arXiv:
2509.23962) that did best at mathematics: 16 responses to a problem of up to
8192 tokens, clip 0.2, no KL, no entropy bonus, sums over tokens divided by the
longest response. Weights are ./qwen2.5-math-7b, whose rotary positions are
stretched to a context of 16384 as in the paper; problems are
./openr1_math_46k.jsonl with "problem" and "answer". 128 problems a step, in two
updates, are a reconstruction.
Time: not run at this size here; the paper used 8 accelerators of 80 GB. Its
step is compiled from shapes alone by tests/experiments/test_files.py.
Expected: nothing was measured here. The paper has 57.6 on six sets, and 55.7
for Dr. GRPO. The same program at small scale is canon.py, with its comparison
in canon_study.py.
Variations: --algorithm.recipe.baseline.metric length with mu 1 is the setting
that shortens; --algorithm.recipe.baseline.mu 0.5 is Dr. GRPO;
--algorithm.recipe.baseline.beta 0.1 pays for entropy.
"""

from __future__ import annotations

import dataclasses
from functools import partial

from experiments import recipes
from rl_jax import algorithms, data, environments, models, rewards, sampling
from rl_jax.algorithms.estimators.canon import Canon
from rl_jax.experiment import Checkpoints, Experiment, Mesh
from rl_jax.losses import dual_clipped_loss
from rl_jax.reduce import over_constant
from rl_jax.rewards.verifiers import Math
from rl_jax.training.optimisers import AdamW

__all__ = ["QWEN25_MATH_7B", "experiment"]

QWEN25_MATH_7B = models.Decoder(
  vocabulary=152_064,
  width=3584,
  layers=28,
  mlp=18_944,
  attention=models.Attention(
    heads=28,
    key_value_heads=4,
    features=128,
    rope=models.Rope(theta=4e4),
    bias=True,
  ),
  context=16_384,
  tied=False,
  norm_epsilon=1e-6,
  remat="all",
  dtype="bfloat16",
)
WEIGHTS = models.Folder(path="qwen2.5-math-7b")
# <|endoftext|> and <|im_end|>
END = (151_643, 151_645)
LONGEST = 8192

experiment = Experiment(
  name="canon_full",
  model=QWEN25_MATH_7B,
  start=models.Pretrained(weights=WEIGHTS, dtype="float32"),
  data=data.Prompts(
    task=environments.MathProblems(rows=128, path="openr1_math_46k.jsonl"),
    vocabulary=WEIGHTS,
    length=1024,
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
      recipes.dr_grpo,
      baseline=Canon(metric="entropy", mu=1.0),
      loss=partial(dual_clipped_loss, clip_low=0.2, clip_high=0.2, bound=3.0),
      reduction=partial(over_constant, divisor=float(LONGEST)),
    ),
    sampler=sampling.Autoregressive(length=LONGEST, end=END),
    group_size=16,
    optimiser=AdamW(learning_rate=1e-6, weight_decay=0.01),
    minibatches=2,
    micro_batches=64,
    scoring=algorithms.Scoring(chunk_tokens=16_384, chunk_vocabulary=16_384),
  ),
  steps=300,
  mesh=Mesh(data=1, fsdp=-1, tensor=1),
  checkpoints=Checkpoints(every=20, keep=2),
)
