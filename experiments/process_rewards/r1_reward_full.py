"""R1-Reward's recipe on a decoder of the size of its own, at full scale.

  rl-jax train experiments/process_rewards/r1_reward_full.py

What it shows: StableReinforce with the numbers of the paper's script (Zhang et
al. 2025, arXiv:2505.02835): 256 pairs a rollout with one judgement each, 128
an update, rate 3e-7, k1 of .001 in the reward, prompts of up to 20480 tokens
and judgements of up to 1024. The model has the shape of the language part of
Qwen2.5-VL-7B, with weights in ./r1-reward-sft; there is no vision tower here
yet, so its pairs (./r1_reward_pairs.jsonl: prompt, as `judge_prompt` writes
it, and answer, "1" or "2") are of texts.
Time: not run at this size here; meant for 32 chips. Its step is compiled from
shapes alone by tests/experiments/test_files.py.
Expected: nothing was measured here. The same program at small scale is
r1_reward.py; what its parts are for is shown by r1_reward_faults.py.
Variations: --algorithm.optimiser.learning-rate 1e-6 is the rate of the
paper's text; --algorithm.epochs 5 its number of passes.
"""

from __future__ import annotations

from rl_jax import (
  algorithms,
  data,
  evaluation,
  models,
  rewards,
  sampling,
)
from rl_jax.algorithms.estimators.stable_reinforce import StableReinforce
from rl_jax.experiment import Checkpoints, Experiment, Mesh
from rl_jax.rewards.verifiers.pairwise_judge import PairwiseJudge
from rl_jax.training.optimisers import AdamW

WEIGHTS = models.Folder(path="r1-reward-sft")
# <|im_end|> and <|endoftext|>
END = (151_645, 151_643)

MODEL = models.Decoder(
  vocabulary=152_064,
  width=3584,
  layers=28,
  mlp=18_944,
  attention=models.Attention(
    heads=28,
    key_value_heads=4,
    features=128,
    rope=models.Rope(theta=1e6),
    bias=True,
  ),
  context=32_768,
  tied=False,
  norm_epsilon=1e-6,
  remat="all",
  dtype="bfloat16",
)


def prompts(path: str) -> data.Prompts:
  """Pairs to judge, and their labels."""
  return data.Prompts(
    task=data.Texts(rows=256, origin=path, answer="answer"),
    vocabulary=WEIGHTS,
    length=20_480,
    wording=data.Chat(),
    too_long="drop",
  )


experiment = Experiment(
  name="r1_reward_full",
  model=MODEL,
  start=models.Pretrained(weights=WEIGHTS, dtype="float32"),
  data=prompts("r1_reward_pairs.jsonl"),
  reward=rewards.TextReward(
    terms=(rewards.Term(name="judge", judge=PairwiseJudge()),), workers=32
  ),
  algorithm=algorithms.PolicyOptimisation(
    recipe=StableReinforce(kl_weight=1e-3).recipe,
    sampler=sampling.Autoregressive(length=1024, end=END),
    group_size=1,
    optimiser=AdamW(learning_rate=3e-7, weight_decay=0.0),
    minibatches=2,
    micro_batches=16,
    reference=True,
    scoring=algorithms.Scoring(chunk_tokens=16_384, chunk_vocabulary=16_384),
  ),
  evaluation=evaluation.TextSamples(
    data=prompts("r1_reward_held_out.jsonl"),
    sampler=sampling.Autoregressive(length=1024, end=END, temperature=0.7),
    prompts=256,
    every=20,
  ),
  steps=500,
  mesh=Mesh(data=1, fsdp=-1, tensor=1),
  checkpoints=Checkpoints(every=50, keep=2),
)
