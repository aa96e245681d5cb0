"""An implicit PRM of Llama 3.1 8B from outcome labels, at full scale.

  rl-jax train experiments/process_rewards/implicit_prm_full.py

What it shows: the numbers of the paper (Yuan et al. 2024, arXiv:2412.01981) on
a mesh: beta .05, rate 5e-7, 64 responses a step, one epoch of 33 thousand
instructions with eight responses each, model and reference both from
./llama-3.1-8b-instruct, both split over all chips. Its responses with labels
are ./ultrainteract_rollouts.jsonl, records of instruction, response, label.
Time: not run at this size here; meant for 8 accelerators and more. Its step is
compiled from shapes alone by tests/experiments/test_files.py.
Expected: nothing was measured here. The same program at small scale is
implicit_prm.py, and implicit_prm_study.py measures what it is good for.
Variations: --data.balance instruction takes as many wrong responses to each
instruction as right ones; --algorithm.reference False drops the reference,
the paper's ablation.
"""

from __future__ import annotations

from functools import partial

from experiments.language.public_models import LLAMA_31_8B
from rl_jax import algorithms, data, models
from rl_jax.algorithms.implicit_reward import LabelOptimisation
from rl_jax.data.labelled import LabelledResponses
from rl_jax.experiment import Checkpoints, Experiment, Mesh
from rl_jax.losses.outcome_reward import implicit_ce_loss
from rl_jax.training.optimisers import AdamW

WEIGHTS = models.Folder(path="llama-3.1-8b-instruct")
ROWS = 64
STEPS = 33_000 * 8 // ROWS

experiment = Experiment(
  name="implicit_prm_full",
  model=LLAMA_31_8B,
  start=models.Pretrained(weights=WEIGHTS, dtype="float32"),
  data=LabelledResponses(
    rows=ROWS,
    responses="ultrainteract_rollouts.jsonl",
    vocabulary=WEIGHTS,
    length=8192,
    wording=data.Chat(),
    too_long="drop",
  ),
  algorithm=LabelOptimisation(
    loss=partial(implicit_ce_loss, beta=0.05),
    beta=0.05,
    optimiser=AdamW(
      learning_rate=5e-7,
      weight_decay=0.0,
      warm_up_steps=STEPS // 10,
      cosine_steps=STEPS - STEPS // 10,
    ),
    micro_batches=8,
    scoring=algorithms.Scoring(chunk_tokens=16_384, chunk_vocabulary=16_384),
  ),
  steps=STEPS,
  mesh=Mesh(data=1, fsdp=-1, tensor=1),
  checkpoints=Checkpoints(every=500, keep=2),
)
