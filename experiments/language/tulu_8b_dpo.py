"""DPO of an 8B Tulu model on UltraFeedback, at full scale.

  rl-jax train experiments/language/tulu_8b_dpo.py

What it shows: offline preference optimisation at the numbers of "Unpacking DPO
and PPO" (Ivison et al. 2024, arXiv:2406.09279): beta .1, summed log-probs,
rate 5e-7, 32 pairs a step, three epochs, pairs that are too long removed. The
paper trains Llama 2 of 13B; this is the 8B of its successor, with weights in
./tulu-3-8b-sft and pairs in ./ultrafeedback.jsonl.
Time: not run at this size here; meant for 32 chips. Its step is compiled from
shapes alone by tests/experiments/test_files.py.
Expected: nothing was measured here. The same program at small scale is
unpacking_dpo_ppo.py.
Variations: --algorithm.averaged True for length-normalised log-ratios;
--algorithm.imitation 0.1 with the likelihood of chosen answers beside it.
"""

from __future__ import annotations

from functools import partial

from experiments.language.public_models import TULU_3_8B
from rl_jax import algorithms, data, models
from rl_jax.experiment import Checkpoints, Experiment, Mesh
from rl_jax.losses import logistic_preference_loss
from rl_jax.training.optimisers import AdamW

WEIGHTS = models.Folder(path="tulu-3-8b-sft")
# 61 135 pairs, three times, 32 a step.
STEPS = 61_135 * 3 // 32

experiment = Experiment(
  name="tulu_8b_dpo",
  model=TULU_3_8B,
  start=models.Pretrained(weights=WEIGHTS, dtype="float32"),
  data=data.Preferences(
    rows=32,
    pairs="ultrafeedback.jsonl",
    vocabulary=WEIGHTS,
    length=4096,
    wording=data.Chat(),
    identical="drop",
    too_long="drop",
  ),
  algorithm=algorithms.PreferenceOptimisation(
    loss=partial(logistic_preference_loss, beta=0.1),
    beta=0.1,
    optimiser=AdamW(
      learning_rate=5e-7,
      weight_decay=0.0,
      warm_up_steps=STEPS // 10,
      linear_steps=STEPS - STEPS // 10,
    ),
    micro_batches=4,
    scoring=algorithms.Scoring(chunk_tokens=16_384, chunk_vocabulary=16_384),
  ),
  steps=STEPS,
  mesh=Mesh(data=1, fsdp=-1, tensor=1),
  checkpoints=Checkpoints(every=500, keep=2),
)
