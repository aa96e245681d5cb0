"""Relative negatives alone on Qwen2.5-Math-7B, at full scale.

  rl-jax train experiments/advantages/two_stage_rlvr_full.py

What it shows: GRPO-N on competition mathematics: the negative part of the
group advantage, a token ratio, a mean over all tokens, no KL, for longer than
the few hundred steps after which most runs stop. Weights are in
./qwen2.5-math-7b, a Hugging Face folder; problems in ./math/train and
./math500.jsonl. pass@1 to pass@256 of MATH-500 tell what becomes likelier from
what stays within reach. `sequence` is GSPO-N, the same with a sequence ratio.
Time: not run at this size here; meant for 64 chips. Its step is compiled from
shapes alone by tests/experiments/test_files.py.
Expected: nothing was measured here. The same program at small scale is
two_stage_rlvr.py, and two_stage_rlvr_bandit.py shows why.
Variations: --algorithm.recipe.baseline.pos-weight 1 is GRPO;
--algorithm.refill False leaves groups in that teach nothing.
"""

from __future__ import annotations

import dataclasses
from functools import partial

from experiments.advantages.two_stage_rlvr import negative
from rl_jax import (
  algorithms,
  data,
  environments,
  evaluation,
  models,
  rewards,
  sampling,
)
from rl_jax.evaluation.mass import PassAtKSamples
from rl_jax.experiment import Checkpoints, Experiment, Mesh
from rl_jax.losses import sequence_clipped_loss
from rl_jax.reduce import over_sequences
from rl_jax.rewards.verifiers import Math
from rl_jax.training.optimisers import AdamW

__all__ = ["QWEN25_MATH_7B", "experiment", "sequence"]

QWEN25_MATH_7B = models.Decoder(
  vocabulary=152_064,
  width=3584,
  layers=28,
  mlp=18_944,
  attention=models.Attention(
    heads=28,
    key_value_heads=4,
    features=128,
    rope=models.Rope(theta=1e4),
    bias=True,
  ),
  context=4096,
  tied=False,
  norm_epsilon=1e-6,
  remat="all",
  dtype="bfloat16",
)
WEIGHTS = models.Folder(path="qwen2.5-math-7b")
# <|im_end|> and <|endoftext|>
END = (151_645, 151_643)
PROMPT, RESPONSE = 1024, 3072
WORDING = data.Chat(
  ask="{prompt}Reason step by step, and put the answer in \\boxed{}."
)


def problems(*, rows: int, path: str) -> data.Prompts:
  """Problems of a file or folder, those that are too long left out."""
  return data.Prompts(
    task=environments.MathProblems(rows=rows, path=path),
    vocabulary=WEIGHTS,
    length=PROMPT,
    wording=WORDING,
    too_long="drop",
  )


# The ranges of GSPO; a whole row's ratio moves far less than a token's.
sequence = dataclasses.replace(
  negative,
  reference="arXiv:2510.04028, section 4 (GSPO-N)",
  loss=partial(
    sequence_clipped_loss,
    level="geometric",
    clip_low=3e-4,
    clip_high=4e-4,
    clamp=None,
  ),
  reduction=over_sequences,
)

experiment = Experiment(
  name="two_stage_rlvr_full",
  model=QWEN25_MATH_7B,
  start=models.Pretrained(weights=WEIGHTS, dtype="float32"),
  data=problems(rows=1024, path="math/train"),
  reward=rewards.TextReward(
    terms=(rewards.Term(name="correct", judge=Math()),), workers=32
  ),
  algorithm=algorithms.PolicyOptimisation(
    recipe=negative,
    sampler=sampling.Autoregressive(length=RESPONSE, end=END),
    group_size=8,
    optimiser=AdamW(learning_rate=1e-6, weight_decay=0.1),
    minibatches=4,
    micro_batches=16,
    refill=True,
    scoring=algorithms.Scoring(chunk_tokens=16_384, chunk_vocabulary=16_384),
  ),
  evaluation=PassAtKSamples(
    answers=evaluation.TextSamples(
      data=problems(rows=64, path="math500.jsonl"),
      sampler=sampling.Autoregressive(
        length=RESPONSE, end=END, temperature=0.6, top_p=0.95
      ),
      prompts=500,
      samples=256,
      every=50,
    ),
    tries=(1, 2, 4, 8, 16, 32, 64, 128, 256),
  ),
  steps=400,
  mesh=Mesh(data=1, fsdp=-1, tensor=1),
  checkpoints=Checkpoints(every=20, keep=2),
)
