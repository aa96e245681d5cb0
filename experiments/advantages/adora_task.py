"""What the experiments on ADORA share: chains that written work helps with.

A problem is a chain of one to four numbers below 5, each length as often, to
be summed modulo 5. The warm start has seen two kinds of responses: the sum
alone ("#3"), and as often the running sums before it ("1;4;3;#3").
Guesses do for short chains; of the long ones there are too many to know.
"""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np

from experiments import chains, recipes
from rl_jax import algorithms, data, evaluation, rewards, sampling
from rl_jax.algorithms.estimators.adora import Adora, GroupWeighted
from rl_jax.experiment import Checkpoints, Experiment, Trained
from rl_jax.training.optimisers import AdamW

__all__ = ["GRPO", "TIME", "WARM_START", "mixed", "on_long_chains", "trained"]

MODULUS, LONGEST = 5, 4
SHARE = 0.5
PROMPT = chains.prompt_length(LONGEST)
TIME = 12
MODEL = chains.decoder(context=PROMPT + TIME, width=48)
GRPO = recipes.trl_grpo


def mixed(
  numbers: tuple[int, ...], modulus: int, rng: np.random.Generator
) -> str:
  """The sum alone, or after the running sums.

  Args:
    numbers: of the chain.
    modulus: what sums are taken modulo.
    rng: which of the two.

  Returns:
    The response.
  """
  running = [s % modulus for s in itertools.accumulate(numbers)]
  work = "".join(f"{s};" for s in running[1:]) if rng.random() < SHARE else ""
  return f"{work}#{running[-1]}"


def on_long_chains(
  prompts: list[str], completions: list[str], **columns: list
) -> list[float]:
  """Its mean is the accuracy on chains of three and four.

  Args:
    prompts: the chains, half of them long.
    completions: what was written.
    **columns: "reference" and others of the task.

  Returns:
    2 for the right answer to a long chain, else 0.
  """
  right = chains.answered(prompts, completions, **columns)
  pairs = zip(prompts, right, strict=True)
  return [2.0 * x if text.count("+") >= 2 else 0.0 for text, x in pairs]


def _chains(*, rows: int, first: int, length: int) -> chains.Chains:
  return chains.Chains(
    rows=rows,
    modulus=MODULUS,
    terms=(1, LONGEST),
    first=first,
    length=length,
    even=True,
  )


def _prompts(*, rows: int, first: int, length: int) -> data.Prompts:
  return data.Prompts(
    task=_chains(rows=rows, first=first, length=length),
    vocabulary=chains.VOCABULARY,
    length=PROMPT,
  )


RESPONSE = sampling.Autoregressive(length=TIME, end=(chains.END,))
CORRECT = rewards.Term(name="correct", judge=chains.answered)
EVALUATION = evaluation.TextSamples(
  data=_prompts(rows=1, first=2000, length=500),
  sampler=RESPONSE,
  prompts=400,
  reward=rewards.TextReward(
    terms=(
      CORRECT,
      rewards.Term(name="long_chains", judge=on_long_chains, weight=0.0),
    )
  ),
  every=50,
)

WARM_START = Experiment(
  name="adora_warm_start",
  model=MODEL,
  data=data.Demonstrations(
    task=chains.Written(
      task=_chains(rows=256, first=0, length=2000), style=mixed
    ),
    vocabulary=chains.VOCABULARY,
    length=PROMPT + TIME,
    pack=False,
  ),
  algorithm=algorithms.FineTuning(
    optimiser=AdamW(learning_rate=4e-3), updates=4
  ),
  steps=100,
  checkpoints=Checkpoints(every=200),
)


def trained(name: str, weight: Adora | None, *, steps: int = 300) -> Experiment:
  """From the warm start by GRPO, its groups weighted or not.

  Args:
    name: of the experiment.
    weight: of groups; None is GRPO itself.
    steps: of the loop.

  Returns:
    The experiment.
  """
  recipe = GRPO
  if weight is not None:
    weighted = GroupWeighted(base=GRPO.baseline, weight=weight)
    recipe = dataclasses.replace(GRPO, baseline=weighted)
  return Experiment(
    name=name,
    model=MODEL,
    data=_prompts(rows=8, first=0, length=2000),
    reward=rewards.TextReward(terms=(CORRECT,)),
    algorithm=algorithms.PolicyOptimisation(
      recipe=recipe,
      sampler=RESPONSE,
      group_size=8,
      optimiser=AdamW(learning_rate=3e-4, warm_up_steps=5),
    ),
    evaluation=EVALUATION,
    start=Trained(by=WARM_START),
    steps=steps,
    checkpoints=Checkpoints(every=300),
  )
