"""A tiny decoder learns sums of two numbers from examples, not quite.

  rl-jax train experiments/language/chain_sum_sft.py

What it shows: supervised fine-tuning from scratch (0.33 million parameters, a
character at a time) that is stopped where reinforcement learning has
something left to do: the warm start of chain_sum_grpo.py.
Time: about 1 minute on 2 cores.
Expected: held-out sums right about 40 % of the time when sampled.
Variations: --steps 400 gets to about 77 % on examples alone;
--algorithm.optimiser.learning-rate 1e-3 is slower.
"""

from __future__ import annotations

from experiments.language import chain_sums
from rl_jax import algorithms, data
from rl_jax import experiment as e
from rl_jax.training.optimisers import AdamW

experiment = e.Experiment(
  name="chain_sum_sft",
  model=chain_sums.MODEL,
  data=data.Demonstrations(
    task=chain_sums.sums(rows=128, first=0, length=3000),
    vocabulary=chain_sums.VOCABULARY,
    length=16,
    pack=False,
    answer=" {answer}",
  ),
  algorithm=algorithms.FineTuning(optimiser=AdamW(learning_rate=2e-3)),
  evaluation=chain_sums.EVALUATION,
  steps=320,
  checkpoints=e.Checkpoints(every=200),
)
