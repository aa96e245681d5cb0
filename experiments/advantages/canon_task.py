"""What the experiments on CANON share: short sums that may be padded.

A problem is the sum of two numbers below 5, modulo 5. The warm start has seen
four responses to each, which begin with 0 to 12 fillers, which mean nothing,
and end with "#" and the sum. It stops when a part of the sums is known, 28 % to
76 % by the seed. There are 25 sums, which a network this small learns one by
one: no sum is held out, and evaluations draw new responses.
"""

from __future__ import annotations

import dataclasses
from functools import partial

import numpy as np

from experiments import chains, recipes
from rl_jax import algorithms, data, evaluation, rewards, sampling
from rl_jax.algorithms.estimators.canon import Canon
from rl_jax.data.source import Source
from rl_jax.environments import Items
from rl_jax.experiment import Checkpoints, Experiment, Trained
from rl_jax.reduce import over_constant
from rl_jax.training.optimisers import AdamW

__all__ = ["TIME", "WARM_START", "padded", "trained"]

TERMS, MODULUS = 2, 5
SUMS = MODULUS**TERMS
PROMPT = chains.prompt_length(TERMS)
TIME = 16
FILLERS = 12
MODEL = chains.decoder(context=PROMPT + TIME, width=48)


def padded(
  numbers: tuple[int, ...], modulus: int, rng: np.random.Generator
) -> str:
  """Fillers and the sum.

  Args:
    numbers: of the chain.
    modulus: what the sum is taken modulo.
    rng: how many fillers.

  Returns:
    The response.
  """
  fillers = "~" * int(rng.integers(0, FILLERS + 1))
  return f"{fillers}#{sum(numbers) % modulus}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Padded:
  """Every sum with a few responses that differ in their fillers."""

  rows: int
  """Rows of a batch."""
  times: int
  """Responses to each sum."""
  shuffle: bool = True
  """Whether every pass has an order of its own."""

  def source(self) -> Source:
    """The sums with responses."""
    problems = _sums(rows=1)

    def item(index: int) -> tuple[str, str]:
      numbers = problems.numbers(index % SUMS)
      prompt = "+".join(map(str, numbers)) + "="
      return prompt, padded(numbers, MODULUS, np.random.default_rng(index))

    return Items(self.times * SUMS, item)


def _sums(*, rows: int) -> chains.Chains:
  return chains.Chains(
    rows=rows,
    modulus=MODULUS,
    terms=(TERMS, TERMS),
    length=SUMS,
  )


def _prompts(*, rows: int) -> data.Prompts:
  return data.Prompts(
    task=_sums(rows=rows), vocabulary=chains.VOCABULARY, length=PROMPT
  )


RESPONSE = sampling.Autoregressive(length=TIME, end=(chains.END,))
REWARD = rewards.TextReward(
  terms=(rewards.Term(name="correct", judge=chains.answered),)
)
EVALUATION = evaluation.TextSamples(
  data=_prompts(rows=1),
  sampler=RESPONSE,
  prompts=SUMS,
  samples=12,
  reward=REWARD,
  every=50,
)

WARM_START = Experiment(
  name="canon_warm_start",
  model=MODEL,
  data=data.Demonstrations(
    task=Padded(rows=64, times=4),
    vocabulary=chains.VOCABULARY,
    length=PROMPT + TIME,
    pack=False,
  ),
  algorithm=algorithms.FineTuning(
    optimiser=AdamW(learning_rate=3e-3), updates=2
  ),
  steps=90,
  checkpoints=Checkpoints(every=200),
)


def trained(name: str, baseline: Canon, *, steps: int = 150) -> Experiment:
  """From the warm start by Dr. GRPO with another baseline.

  Args:
    name: of the experiment.
    baseline: what rewards are compared with; `mu` 0.5 is Dr. GRPO itself.
    steps: of the loop.

  Returns:
    The experiment.
  """
  return Experiment(
    name=name,
    model=MODEL,
    data=_prompts(rows=8),
    reward=REWARD,
    algorithm=algorithms.PolicyOptimisation(
      recipe=dataclasses.replace(
        recipes.dr_grpo,
        baseline=baseline,
        reduction=partial(over_constant, divisor=float(TIME)),
      ),
      sampler=RESPONSE,
      group_size=16,
      optimiser=AdamW(learning_rate=5e-4, warm_up_steps=5),
    ),
    evaluation=EVALUATION,
    start=Trained(by=WARM_START),
    steps=steps,
    checkpoints=Checkpoints(every=200),
  )
