"""SPAE on R1-Distill-Qwen-7B and competition mathematics, at full scale.

  rl-jax train experiments/advantages/spae_full.py

What it shows: the numbers of the paper (arXiv:2601.03823) on a mesh: 640
responses of up to 32 thousand tokens a step, updates of 32 of them, DAPO's
asymmetric clip and filter of groups, alpha = xi = .5, five continuations of
ten tokens after each of the first 64 steps of a response. Weights are
./r1-distill-qwen-7b; problems with short answers are ./dapo_math_17k.jsonl,
records of prompt and answer. The ids below are those of its vocabulary that
end with a full stop and an empty line (`boundary_ids` finds them) and of the
heading with an opened box. Responses to a problem, the rate, and how many
steps are probed are not from the paper.
Time: not run at this size here; the paper used 32 accelerators. Its step is
compiled from shapes alone by tests/experiments/test_files.py.
Expected: nothing was measured here. The same program at small scale is
spae.py, with its comparison in spae_study.py.
Variations: --algorithm.recipe.credit.alpha 0 keeps what follows the solution;
--algorithm.recipe.credit.steps 16 probes less and costs less.
"""

from __future__ import annotations

from rl_jax import algorithms, data, models, rewards, sampling
from rl_jax.algorithms.estimators.spae import Spae, spae_recipe
from rl_jax.experiment import Checkpoints, Experiment, Mesh
from rl_jax.rewards.verifiers import Math
from rl_jax.training.optimisers import AdamW

R1_DISTILL_QWEN_7B = models.Decoder(
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
  context=131_072,
  tied=False,
  norm_epsilon=1e-6,
  remat="all",
  dtype="bfloat16",
)
WEIGHTS = models.Folder(path="r1-distill-qwen-7b")
END, THINK_END = 151_643, 151_649
# ".\n\n", "...\n\n", ").\n\n", " ...\n\n", " .\n\n", and so on.
BOUNDARY = (
  *(382, 2146, 3593, 5468, 6762, 11_436, 15_047, 15_514, 20_225, 29_562),
  *(29_636, 34_332, 38_225, 40_254, 44_993, 49_270, 51_278, 59_482, 62_338),
  *(69_178, 70_031, 74_203, 80_634, 80_984, 83_900, 86_779, 94_081, 94_367),
  *(94_799, 98_527),
)
# "**Final Answer**\n\\boxed{"
FORCING = (334, 19_357, 21_806, 1019, 59, 79_075, 90)

experiment = Experiment(
  name="spae_full",
  model=R1_DISTILL_QWEN_7B,
  start=models.Pretrained(weights=WEIGHTS, dtype="float32"),
  data=data.Prompts(
    task=data.Texts(rows=40, origin="dapo_math_17k.jsonl", answer="answer"),
    vocabulary=WEIGHTS,
    length=1024,
    wording=data.Chat(
      ask="{prompt}\nReason step by step, and put the answer in \\boxed{}."
    ),
    too_long="drop",
    answer=16,
  ),
  reward=rewards.TextReward(
    terms=(rewards.Term(name="correct", judge=Math()),), workers=32
  ),
  algorithm=algorithms.PolicyOptimisation(
    recipe=spae_recipe(
      credit=Spae(
        boundary=BOUNDARY,
        forcing=FORCING,
        think_end=THINK_END,
        steps=64,
        samples=5,
        length=10,
        end=(END,),
      )
    ),
    sampler=sampling.Autoregressive(length=32_768, end=(END,), temperature=0.6),
    group_size=16,
    optimiser=AdamW(learning_rate=1e-6, weight_decay=0.1),
    minibatches=20,
    micro_batches=4,
    refill=True,
    scoring=algorithms.Scoring(chunk_tokens=16_384, chunk_vocabulary=16_384),
  ),
  steps=200,
  mesh=Mesh(data=1, fsdp=-1, tensor=1),
  checkpoints=Checkpoints(every=20, keep=2),
)
