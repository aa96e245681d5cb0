"""What the experiments on sums with a tiny decoder share."""

from __future__ import annotations

from rl_jax import data, environments, evaluation, models, rewards, sampling
from rl_jax.rewards.verifiers import FirstNumber

__all__ = ["EVALUATION", "MODEL", "REWARD", "VOCABULARY", "sums"]

# All sums of two numbers below 100: 10 000, in one order that a seed gives.
VOCABULARY = models.Characters(alphabet="0123456789+= ")
MODEL = models.Decoder(
  vocabulary=VOCABULARY.size,
  width=96,
  layers=3,
  mlp=256,
  attention=models.Attention(heads=4, features=24),
  context=32,
)
# Special tokens stand behind the alphabet.
END = VOCABULARY.size - 1
RESPONSE = sampling.Autoregressive(length=5, end=(END,))
PROMPT = 9


def sums(*, rows: int, first: int, length: int) -> environments.Sums:
  """Some of the sums; ranges that do not overlap share none."""
  return environments.Sums(rows=rows, digits=2, first=first, length=length)


def prompts(*, rows: int, first: int, length: int) -> data.Prompts:
  """The same as prompts."""
  return data.Prompts(
    task=sums(rows=rows, first=first, length=length),
    vocabulary=VOCABULARY,
    length=PROMPT,
  )


REWARD = rewards.TextReward(
  terms=(rewards.Term(name="correct", judge=FirstNumber()),)
)
HELD_OUT = prompts(rows=1, first=9000, length=1000)
EVALUATION = evaluation.TextSamples(
  data=HELD_OUT, sampler=RESPONSE, prompts=500, reward=REWARD, every=20
)
