"""A decoder of a few numbers, imitating sums for two steps."""

from __future__ import annotations

from rl_jax import algorithms, data, environments, evaluation, models, rewards
from rl_jax.experiment import Experiment
from rl_jax.rewards.verifiers import FirstNumber
from rl_jax.sampling import Autoregressive
from rl_jax.training.optimisers import AdamW

VOCABULARY = models.Characters(alphabet="0123456789+= ")
TASK = environments.Sums(rows=8, digits=1, length=8)

experiment = Experiment(
  name="sums_to_export",
  model=models.Decoder(
    vocabulary=VOCABULARY.size,
    width=8,
    layers=1,
    mlp=8,
    attention=models.Attention(heads=2, features=4),
    context=16,
  ),
  data=data.Demonstrations(
    task=TASK, vocabulary=VOCABULARY, length=12, pack=False
  ),
  algorithm=algorithms.FineTuning(optimiser=AdamW(learning_rate=1e-3)),
  evaluation=evaluation.TextSamples(
    data=data.Prompts(task=TASK, vocabulary=VOCABULARY, length=8),
    sampler=Autoregressive(length=3, end=(13,)),
    prompts=4,
    every=1,
    reward=rewards.TextReward(
      terms=(rewards.Term(name="correct", judge=FirstNumber()),), workers=1
    ),
  ),
  steps=2,
)
