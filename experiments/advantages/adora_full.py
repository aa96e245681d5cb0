"""ADORA on Qwen2.5-7B and competition problems, at full scale.

  rl-jax train experiments/advantages/adora_full.py

What it shows: the language recipe of ADORA (arXiv:2602.10019) on a mesh. Twice
the weight for groups with a success rate of at most a half whose longest
success is longer than their mean failure; 64 problems a step, 16 responses of
up to 2048 tokens, learning rate 3e-7, k3 with weight 0.001, as the released
script has them (the paper's runs have 5 responses). Weights are ./qwen2.5-7b,
problems are ./math_train.jsonl. The vision-language recipe is the preset
ADORA_VLM, which weighs any policy; there is no vision-language model yet.
Time: not run at this size here; the authors used 8 accelerators of 80 GB for
about a day and a half. Its step is compiled from shapes alone by
tests/experiments/test_files.py.
Expected: nothing was measured here. The paper has about 3.5 points more than
GRPO. The same program at small scale is adora.py, with its comparison in
adora_study.py.
Variations: --algorithm.recipe.baseline.weight.advantageous 1.0 with
--algorithm.recipe.baseline.weight.other 0.1 attenuates instead;
--algorithm.recipe.baseline.weight.criteria any needs one criterion of the two.
"""

from __future__ import annotations

import dataclasses

from experiments import recipes
from experiments.advantages.canon_full import QWEN25_MATH_7B
from rl_jax import algorithms, data, environments, models, rewards, sampling
from rl_jax.algorithms.components import KlInLoss
from rl_jax.algorithms.estimators.adora import ADORA_LLM_PAPER, GroupWeighted
from rl_jax.divergences import k3
from rl_jax.experiment import Checkpoints, Experiment, Mesh
from rl_jax.rewards.verifiers import Math
from rl_jax.training.optimisers import AdamW

__all__ = ["QWEN25_7B", "experiment"]

QWEN25_7B = dataclasses.replace(
  QWEN25_MATH_7B,
  attention=dataclasses.replace(
    QWEN25_MATH_7B.attention, rope=models.Rope(theta=1e6)
  ),
  context=131_072,
)
WEIGHTS = models.Folder(path="qwen2.5-7b")
# <|endoftext|> and <|im_end|>
END = (151_643, 151_645)

experiment = Experiment(
  name="adora_full",
  model=QWEN25_7B,
  start=models.Pretrained(weights=WEIGHTS, dtype="float32"),
  data=data.Prompts(
    task=environments.MathProblems(rows=64, path="math_train.jsonl"),
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
      baseline=GroupWeighted(
        base=recipes.grpo.baseline,
        weight=dataclasses.replace(ADORA_LLM_PAPER, max_reward=1.0),
      ),
      penalty=KlInLoss(estimator=k3, weight=0.001),
    ),
    sampler=sampling.Autoregressive(length=2048, end=END),
    group_size=16,
    optimiser=AdamW(learning_rate=3e-7, weight_decay=0.01),
    micro_batches=16,
    reference=True,
    scoring=algorithms.Scoring(chunk_tokens=16_384, chunk_vocabulary=16_384),
  ),
  steps=585,
  mesh=Mesh(data=1, fsdp=-1, tensor=1),
  checkpoints=Checkpoints(every=20, keep=2),
)
