"""What the experiments on sums with SmolLM2-135M share."""

from __future__ import annotations

import dataclasses

from rl_jax import data, environments, evaluation, models, rewards, sampling
from rl_jax.rewards.verifiers import FirstNumber

__all__ = ["EVALUATION", "MODEL", "REWARD", "START", "VOCABULARY", "sums"]

VOCABULARY = models.SmolLm2()
START = models.Pretrained(weights=VOCABULARY)
# The size of SmolLM2-135M, as `models.SmolLm2().model()` reads it.
MODEL = models.Decoder(
  vocabulary=49_152,
  width=576,
  layers=30,
  mlp=1536,
  attention=models.Attention(
    heads=9,
    key_value_heads=3,
    features=64,
    rope=models.Rope(theta=1e5),
  ),
  context=8192,
  norm_epsilon=1e-5,
  remat="products",
  lora=models.Lora(
    rank=16,
    alpha=32.0,
    targets=("query", "key", "value", "out", "gate", "up", "down"),
  ),
)
RESPONSE = sampling.Autoregressive(length=4, temperature=0.7)
PROMPT = 16


def sums(*, rows: int, first: int, length: int) -> data.Prompts:
  """Sums of two numbers below 100 behind an example of one."""
  return data.Prompts(
    task=environments.Sums(
      rows=rows,
      digits=2,
      first=first,
      length=length,
      template="3 + 4 = 7\n{sum} =",
    ),
    vocabulary=VOCABULARY,
    length=PROMPT,
  )


REWARD = rewards.TextReward(
  terms=(rewards.Term(name="correct", judge=FirstNumber()),)
)
EVALUATION = evaluation.TextSamples(
  data=sums(rows=1, first=9000, length=1000),
  sampler=dataclasses.replace(RESPONSE, greedy=True),
  prompts=200,
  reward=REWARD,
  every=20,
)
