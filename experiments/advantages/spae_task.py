"""What the experiments on step potentials share: sums that are checked.

A response writes the partial sums of "3+4+5=", each ended by ";", then any
number of checks "?2;" that write the result again, and the answer after "#":
"7;2;?2;?2;#2". Whoever slips when summing or, less often, when checking goes on
with the wrong number: checks cost tokens, spoil a few results and mend none.
"""

from __future__ import annotations

import numpy as np

from experiments import chains
from rl_jax import data, evaluation, rewards, sampling
from rl_jax.algorithms.estimators.spae import Spae

__all__ = [
  "EVALUATION",
  "MODEL",
  "RESPONSE",
  "REWARD",
  "SPAE",
  "checked",
  "prompts",
  "task",
]

TERMS = 3
CHECKS = 4
SLIPS, CHECK_SLIPS = 0.1, 0.03
PROMPT = chains.prompt_length(TERMS)
RESPONSE = sampling.Autoregressive(length=28, end=(chains.END,))
MODEL = chains.decoder(context=48, width=48)

SPAE = Spae(
  boundary=(chains.ALPHABET.index(";"),),
  forcing=(chains.ALPHABET.index("#"),),
  think_end=chains.ALPHABET.index("#"),
  steps=TERMS - 1 + CHECKS,
  samples=5,
  length=2,
  end=(chains.END,),
)
"""A continuation after "#" is a digit and the end. The arms of the study
change alpha and xi only."""


def checked(
  terms: tuple[int, ...], modulus: int, rng: np.random.Generator
) -> str:
  """A response with up to four checks; any number may be a slip.

  Args:
    terms: of the sum.
    modulus: of the result.
    rng: of the number of checks and of slips.

  Returns:
    The text.
  """

  def written(value: int, slips: float) -> int:
    slip = int(rng.integers(1, modulus)) if rng.random() < slips else 0
    return (value + slip) % modulus

  value, text = terms[0], ""
  for term in terms[1:]:
    value = written((value + term) % modulus, SLIPS)
    text += f"{value};"
  for _ in range(int(rng.integers(CHECKS + 1))):
    value = written(value, CHECK_SLIPS)
    text += f"?{value};"
  return f"{text}#{value}"


def task(*, rows: int, first: int, length: int) -> chains.Chains:
  """Some of the thousand sums; ranges that do not overlap share none."""
  return chains.Chains(
    rows=rows, terms=(TERMS, TERMS), first=first, length=length
  )


def prompts(*, rows: int, first: int, length: int) -> data.Prompts:
  """The same as prompts with their answers."""
  return data.Prompts(
    task=task(rows=rows, first=first, length=length),
    vocabulary=chains.VOCABULARY,
    length=PROMPT,
    answer=1,
  )


def written(prompts: list[str], completions: list[str], **columns) -> list:
  """Characters of the response, without its end."""
  del prompts, columns
  return [float(len(text)) for text in completions]


def checks(prompts: list[str], completions: list[str], **columns) -> list:
  """Checks of the response."""
  del prompts, columns
  return [float(text.count("?")) for text in completions]


RIGHT = rewards.Term(name="right", judge=chains.answered)
REWARD = rewards.TextReward(
  terms=(
    RIGHT,
    rewards.Term(name="written", judge=written, weight=0.0),
    rewards.Term(name="checks", judge=checks, weight=0.0),
  )
)
EVALUATION = evaluation.TextSamples(
  data=prompts(rows=1, first=800, length=200),
  sampler=RESPONSE,
  prompts=200,
  samples=4,
  reward=REWARD,
  every=40,
)
