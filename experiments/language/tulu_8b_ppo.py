"""PPO of an 8B Tulu model with a reward model, at full scale.

  rl-jax train experiments/language/tulu_8b_ppo.py

What it shows: policy, critic, reward model and reference, each sharded, in one
step at the numbers of "Unpacking DPO and PPO" (Ivison et al. 2024,
arXiv:2406.09279): one response to each of 512 prompts at temperature .7 while
log-probs are those of temperature 1, k1 at .05 in the reward, -10 for what
does not end, eight updates of 64 rows whose ratio is one, advantages whitened
within each, a critic that starts as the reward model. The paper trains Llama 2
of 13B; this is the 8B of its successor, with weights in ./tulu-3-8b-sft and
pairs and prompts in ./ultrafeedback.jsonl. The reward model is trained first.
Time: not run at this size here; meant for 256 chips. Its steps are compiled
from shapes alone by tests/experiments/test_files.py.
Expected: nothing was measured here. The same programs at small scale are in
unpacking_dpo_ppo.py.
Variations: --algorithm.critic.warm-up 20 trains the critic alone at first;
--algorithm.behaviour recomputed takes ratios to the policy that sampled.
"""

from __future__ import annotations

from experiments.language.public_models import TULU_3_8B
from experiments.language_recipes import UNFINISHED, easylm_ppo
from rl_jax import algorithms, data, models, rewards, sampling
from rl_jax.experiment import Checkpoints, Experiment, Mesh, Trained
from rl_jax.training.optimisers import AdamW

WEIGHTS = models.Folder(path="tulu-3-8b-sft")
PAIRS = "ultrafeedback.jsonl"
SCORER = models.ScalarHead(body=TULU_3_8B)
# 61 135 pairs once, 512 a step; 60 908 prompts once, as many a step.
REWARD_STEPS, STEPS = 61_135 // 512, 60_908 // 512
# <|end_of_text|>
END = 128_001

reward_model = Experiment(
  name="tulu_8b_reward_model",
  model=SCORER,
  data=data.Preferences(
    rows=512,
    pairs=PAIRS,
    vocabulary=WEIGHTS,
    length=4096,
    wording=data.Chat(),
    identical="drop",
    too_long="drop",
  ),
  algorithm=algorithms.RewardModelling(
    body=models.Pretrained(weights=WEIGHTS, dtype="float32"),
    optimiser=AdamW(
      learning_rate=1e-5,
      weight_decay=0.0,
      warm_up_steps=REWARD_STEPS * 3 // 100,
      linear_steps=REWARD_STEPS,
    ),
    micro_batches=16,
  ),
  steps=REWARD_STEPS,
  mesh=Mesh(data=1, fsdp=-1, tensor=1),
  checkpoints=Checkpoints(every=50, keep=1),
)

OPTIMISER = AdamW(
  learning_rate=1e-6, weight_decay=0.0, warm_up_steps=STEPS * 8 // 10
)

experiment = Experiment(
  name="tulu_8b_ppo",
  model=TULU_3_8B,
  start=models.Pretrained(weights=WEIGHTS, dtype="float32"),
  data=data.Prompts(
    task=data.Texts(rows=512, origin=PAIRS),
    vocabulary=WEIGHTS,
    length=1024,
    wording=data.Chat(),
    too_long="drop",
  ),
  reward=rewards.LearnedReward(
    judge=Trained(by=reward_model), unfinished=UNFINISHED
  ),
  algorithm=algorithms.PolicyOptimisation(
    recipe=easylm_ppo,
    sampler=sampling.Autoregressive(length=1024, temperature=0.7, end=(END,)),
    temperature=1.0,
    group_size=1,
    optimiser=OPTIMISER,
    minibatches=8,
    micro_batches=2,
    behaviour="interleaved",
    estimated_over="minibatch",
    reference=True,
    critic=algorithms.Critic(
      model=SCORER, optimiser=OPTIMISER, start=Trained(by=reward_model)
    ),
    scoring=algorithms.Scoring(chunk_tokens=16_384, chunk_vocabulary=16_384),
  ),
  steps=STEPS,
  mesh=Mesh(data=1, fsdp=-1, tensor=1),
  checkpoints=Checkpoints(every=20, keep=2),
)
