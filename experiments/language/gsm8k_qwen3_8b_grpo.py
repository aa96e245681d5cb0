"""GRPO on grade-school mathematics with Qwen3-8B, at full scale.

  rl-jax train experiments/language/gsm8k_qwen3_8b_grpo.py

What it shows: what differs between a laptop and a pod, which is values: the
model and where its weights are (./qwen3-8b, a Hugging Face folder), the mesh,
the sizes of blocks. The recipe is DAPO's without its length penalty:
asymmetric clip, a mean over tokens, groups that teach nothing refilled.
Time: not run at this size here; meant for 64 chips. Its step is compiled from
shapes alone by tests/experiments/test_files.py.
Expected: nothing was measured here. The same program at small scale is
chain_sum_grpo.py.
Variations: --algorithm.group-size 8 halves the responses to a prompt;
--algorithm.refill False leaves dead groups in the batch.
"""

from __future__ import annotations

import dataclasses
from functools import partial

from experiments import recipes
from experiments.language.public_models import QWEN3_8B
from rl_jax import (
  algorithms,
  data,
  environments,
  evaluation,
  models,
  rewards,
  sampling,
)
from rl_jax.experiment import Checkpoints, Experiment, Mesh
from rl_jax.losses import clipped_policy_terms
from rl_jax.rewards.verifiers import Math
from rl_jax.training.optimisers import AdamW

WEIGHTS = models.Folder(path="qwen3-8b")
# <|im_end|> and <|endoftext|>
END = (151_645, 151_643)
WORDING = data.Chat(
  ask="{prompt}Reason step by step, and put the answer in \\boxed{}."
)

experiment = Experiment(
  name="gsm8k_qwen3_8b_grpo",
  model=QWEN3_8B,
  start=models.Pretrained(weights=WEIGHTS, dtype="float32"),
  data=data.Prompts(
    task=environments.Gsm8k(rows=64),
    vocabulary=WEIGHTS,
    length=512,
    wording=WORDING,
    too_long="drop",
  ),
  reward=rewards.TextReward(
    terms=(rewards.Term(name="correct", judge=Math()),), workers=32
  ),
  algorithm=algorithms.PolicyOptimisation(
    recipe=dataclasses.replace(
      recipes.dapo,
      shaping=(),
      loss=partial(clipped_policy_terms, clip_low=0.2, clip_high=0.28),
    ),
    sampler=sampling.Autoregressive(length=2048, end=END),
    group_size=16,
    optimiser=AdamW(learning_rate=1e-6, weight_decay=0.1),
    minibatches=2,
    micro_batches=8,
    refill=True,
    scoring=algorithms.Scoring(chunk_tokens=16_384, chunk_vocabulary=16_384),
  ),
  evaluation=evaluation.TextSamples(
    data=data.Prompts(
      task=environments.Gsm8k(rows=64, split="test"),
      vocabulary=WEIGHTS,
      length=512,
      wording=WORDING,
      too_long="drop",
    ),
    sampler=sampling.Autoregressive(
      length=2048, end=END, temperature=0.6, top_p=0.95, top_k=20
    ),
    prompts=1024,
    every=10,
  ),
  steps=200,
  mesh=Mesh(data=1, fsdp=-1, tensor=1),
  checkpoints=Checkpoints(every=20, keep=2),
)
