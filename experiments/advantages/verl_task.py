"""What the experiments on effective ranks share: sums written step by step.

"3+4+5=" is answered by "3+4=7;7+5=2;#2": long enough for ranks of beginnings
of 5, 9 and 13 tokens.
"""

from __future__ import annotations

import numpy as np

from experiments import chains
from rl_jax import data, evaluation, rewards, sampling
from rl_jax.algorithms.estimators.verl import RankSignal

__all__ = [
  "EVALUATION",
  "MODEL",
  "RESPONSE",
  "REWARD",
  "SIGNAL",
  "prompts",
  "summed",
  "task",
]

TERMS = 3
SLIPS = 0.25
SAMPLES = 8
PROMPT = chains.prompt_length(TERMS)
RESPONSE = sampling.Autoregressive(length=16, end=(chains.END,))
MODEL = chains.decoder(context=24, width=64)
SIGNAL = RankSignal(stride=4)


def summed(
  terms: tuple[int, ...], modulus: int, rng: np.random.Generator
) -> str:
  """A response; one sum in four is a slip that all that follows goes on with.

  Args:
    terms: of the sum.
    modulus: of the result.
    rng: of slips.

  Returns:
    The text.
  """
  value, text = terms[0], ""
  for term in terms[1:]:
    slip = int(rng.integers(1, modulus)) if rng.random() < SLIPS else 0
    after = (value + term + slip) % modulus
    text += f"{value}+{term}={after};"
    value = after
  return f"{text}#{value}"


def task(*, rows: int, first: int, length: int) -> chains.Chains:
  """Some of the thousand sums; ranges that do not overlap share none."""
  return chains.Chains(
    rows=rows, terms=(TERMS, TERMS), first=first, length=length
  )


def prompts(*, rows: int, first: int, length: int) -> data.Prompts:
  """The same as prompts."""
  return data.Prompts(
    task=task(rows=rows, first=first, length=length),
    vocabulary=chains.VOCABULARY,
    length=PROMPT,
  )


def any_right(
  prompts: list[str], completions: list[str], **columns: list
) -> list[float]:
  """1 for every response to a prompt to which one of them is right.

  Of k responses to each prompt the mean is Pass@k.
  """
  own = chains.answered(prompts, completions, **columns)
  solved = {text for text, right in zip(prompts, own, strict=True) if right}
  return [float(text in solved) for text in prompts]


RIGHT = rewards.Term(name="right", judge=chains.answered)
REWARD = rewards.TextReward(terms=(RIGHT,))
EVALUATION = evaluation.TextSamples(
  data=prompts(rows=1, first=800, length=200),
  sampler=RESPONSE,
  prompts=200,
  samples=SAMPLES,
  reward=rewards.TextReward(
    terms=(RIGHT, rewards.Term(name="solved", judge=any_right, weight=0.0))
  ),
  every=50,
)
"""`evaluation/reward` is Pass@1, `evaluation/solved` is Pass@8."""
