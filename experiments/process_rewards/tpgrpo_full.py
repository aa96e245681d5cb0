"""TP-GRPO with R1-Distill-Qwen-1.5B on mathematics, at full scale.

  rl-jax train experiments/process_rewards/tpgrpo_full.py

What it shows: the setting of the paper (arXiv:2507.23317): 5 problems of
DeepScaleR with 8 responses of up to 16k tokens a step, rounds of 50 steps
drawn by one policy, KL .04 to the start, a rate of 1e-6. A model of the size
of Qwen3-32B, served at localhost:8000, says which steps of a response are
taken back or adopted by its answer; 16 responses are with it at one time. The
problems are ./deepscaler.jsonl with "problem" and "answer"; the weights
./r1-distill-qwen-1.5b, a Hugging Face folder, whose chat template opens the
thoughts.
Time: not run at this size here; its step is compiled from shapes alone by
tests/experiments/test_files.py. The paper used 8 GPUs besides the judge's.
Expected: nothing was measured here. The paper reports 33.1 on AIME24 after
5600 solutions, 32.7 with the outcome alone after 34 000. The same recipe at
small scale is tpgrpo.py and tpgrpo_study.py.
Variations: --algorithm.recipe.credit.merge False lets each step be a thought;
--algorithm.refresh 1 draws every step with the policy as it is.
"""

from __future__ import annotations

from experiments.process_rewards.tpgrpo_server import ChatServer
from experiments.process_rewards.tpgrpo_task import recipe
from rl_jax import (
  algorithms,
  data,
  environments,
  models,
  rewards,
  sampling,
)
from rl_jax.algorithms.estimators.tp_grpo import TpGrpo
from rl_jax.experiment import Checkpoints, Experiment, Mesh
from rl_jax.rewards.verifiers import Math
from rl_jax.rewards.verifiers.thought_prompts import Prompted
from rl_jax.rewards.verifiers.thoughts import Thoughts
from rl_jax.training.optimisers import AdamW

WEIGHTS = models.Folder(path="r1-distill-qwen-1.5b")
# End of sentence.
END = (151_643,)
R1_DISTILL_QWEN_1_5B = models.Decoder(
  vocabulary=151_936,
  width=1536,
  layers=28,
  mlp=8960,
  attention=models.Attention(
    heads=12,
    key_value_heads=2,
    features=128,
    rope=models.Rope(theta=1e4),
    bias=True,
  ),
  context=131_072,
  tied=False,
  norm_epsilon=1e-6,
  remat="all",
  dtype="bfloat16",
)
THOUGHTS = Thoughts(
  evaluator=Prompted(
    ask=ChatServer(
      url="http://localhost:8000/v1/chat/completions", model="Qwen3-32B"
    ),
    name="Qwen3-32B",
  ),
  steps=256,
  begin="",
  threads=16,
)

experiment = Experiment(
  name="tpgrpo_full",
  model=R1_DISTILL_QWEN_1_5B,
  start=models.Pretrained(weights=WEIGHTS, dtype="float32"),
  data=data.Prompts(
    task=environments.MathProblems(rows=5, path="deepscaler.jsonl"),
    vocabulary=WEIGHTS,
    length=1024,
    wording=data.Chat(
      ask="{prompt}Reason step by step, and put the answer in \\boxed{}."
    ),
    too_long="drop",
  ),
  reward=rewards.TextReward(
    terms=(rewards.Term(name="correct", judge=Math()),),
    workers=16,
    notes=(THOUGHTS,),
  ),
  algorithm=algorithms.PolicyOptimisation(
    recipe=recipe(TpGrpo()),
    sampler=sampling.Autoregressive(length=16_384, end=END),
    group_size=8,
    optimiser=AdamW(learning_rate=1e-6, weight_decay=0.0),
    micro_batches=10,
    behaviour="sampler",
    refresh=50,
    reference=True,
    scoring=algorithms.Scoring(chunk_tokens=16_384, chunk_vocabulary=16_384),
  ),
  steps=140,
  mesh=Mesh(data=1, fsdp=-1, tensor=1),
  checkpoints=Checkpoints(every=20, keep=2),
)
