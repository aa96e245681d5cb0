"""What the experiments on TP-GRPO share: sums of three with written steps.

A problem is "3+4+1=". A response writes each partial sum modulo 5 and ends it
with ";", then "#" and the answer: "2;3;#3". A step that begins with "~" takes
back the one before: "4;~2;3;#3". There are 125 problems, which a network this
small learns one by one: none is held out, and evaluations draw new responses.
The warm start has learned from
responses in which steps are wrong and then repaired, or wrong and carried on,
so that rules (`Markers`) know exactly which steps were taken back.
"""

from __future__ import annotations

import dataclasses
from functools import partial

import numpy as np

from experiments import chains, recipes
from rl_jax import algorithms, data, evaluation, rewards, sampling
from rl_jax.advantages import group_relative
from rl_jax.algorithms.components import EveryToken, KlInLoss, WithinGroup
from rl_jax.algorithms.estimators.tp_grpo import TpGrpo
from rl_jax.algorithms.recipe import PolicyRecipe
from rl_jax.data.source import Source
from rl_jax.divergences import k3
from rl_jax.environments import Items
from rl_jax.experiment import Checkpoints, Experiment, Trained
from rl_jax.rewards.verifiers.thought_rules import Markers
from rl_jax.rewards.verifiers.thoughts import Thoughts
from rl_jax.training.optimisers import AdamW

__all__ = [
  "EVALUATION",
  "GROUP",
  "MODULUS",
  "PROMPT",
  "PROMPTS",
  "TERMS",
  "WARM_START",
  "Slips",
  "problems",
  "recipe",
  "sums",
  "trained",
]

TERMS, MODULUS, TIME = 3, 5, 14
PROMPT = chains.prompt_length(TERMS)
MODEL = chains.decoder(context=PROMPT + TIME, width=64)
# The paper's sizes of a step, and its rounds at the scale of the task.
PROMPTS, GROUP, ROUND = 5, 8, 20
WRONG, REPAIRED = 0.4, 0.5


def slips(
  numbers: tuple[int, ...], modulus: int, rng: np.random.Generator
) -> str:
  """Partial sums, of which half are wrong at first and half of those repaired.

  Args:
    numbers: of the chain.
    modulus: what sums are taken modulo.
    rng: what goes wrong.

  Returns:
    The response.
  """
  text, total = "", numbers[0]
  for number in numbers[1:]:
    total = (total + number) % modulus
    if rng.uniform() < WRONG:
      wrong = (total + int(rng.integers(1, modulus))) % modulus
      text += f"{wrong};"
      if rng.uniform() < REPAIRED:
        text += f"~{total};"
      else:
        total = wrong
    else:
      text += f"{total};"
  return f"{text}#{total}"


def right_steps(
  prompts: list[str], completions: list[str], **columns: list
) -> list[float]:
  """Share of written steps that are the partial sum they stand for.

  Args:
    prompts: the problems.
    completions: what was written.
    **columns: not looked at.

  Returns:
    One share for each, 0 without steps.
  """
  del columns
  found = []
  for prompt, text in zip(prompts, completions, strict=True):
    numbers = [int(x) for x in prompt.strip("=").split("+")]
    steps = text.partition("#")[0].split(";")[:-1]
    place, right = 0, 0
    for step in steps:
      place = max(place - 1, 0) if step.startswith("~") else place
      total = sum(numbers[: place + 2]) % MODULUS
      right += step.lstrip("~") == str(total)
      place += 1
    found.append(right / max(len(steps), 1))
  return found


NOTE = Thoughts(
  evaluator=Markers(ends=(";",), markers=("~",), word=r"(\d+);?$"),
  steps=TIME,
  begin="",
  end="#",
)
JUDGE = rewards.TextReward(
  terms=(
    rewards.Term(name="correct", judge=chains.answered),
    rewards.Term(name="right_steps", judge=right_steps, weight=0.0),
  ),
  notes=(NOTE,),
)
RESPONSE = sampling.Autoregressive(length=TIME, end=(chains.END,))


def sums(*, rows: int, modulus: int = MODULUS) -> chains.Chains:
  """All problems."""
  return chains.Chains(
    rows=rows, modulus=modulus, terms=(TERMS, TERMS), length=modulus**TERMS
  )


def problems(*, rows: int, modulus: int = MODULUS) -> data.Prompts:
  """The same as prompts."""
  task = sums(rows=rows, modulus=modulus)
  return data.Prompts(task=task, vocabulary=chains.VOCABULARY, length=PROMPT)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Slips:
  """Every problem with many responses that differ in what goes wrong."""

  rows: int
  """Rows of a batch."""
  style: chains.Style = slips
  """What responses look like."""
  modulus: int = MODULUS
  """What sums are taken modulo."""
  times: int = 200
  """Responses to each problem."""
  shuffle: bool = True
  """Whether every pass has an order of its own."""

  def source(self) -> Source:
    """Problems with responses."""
    task = sums(rows=1, modulus=self.modulus)

    def item(index: int) -> tuple[str, str]:
      numbers = task.numbers(index % task.length)
      rng = np.random.default_rng(index)
      prompt = "+".join(map(str, numbers)) + "="
      return prompt, self.style(numbers, task.modulus, rng)

    return Items(self.times * task.length, item)


EVALUATION = evaluation.TextSamples(
  data=problems(rows=1),
  sampler=RESPONSE,
  prompts=MODULUS**TERMS,
  samples=4,
  every=10,
)
WARM_START = Experiment(
  name="tpgrpo_sft",
  model=MODEL,
  data=data.Demonstrations(
    task=Slips(rows=128),
    vocabulary=chains.VOCABULARY,
    length=PROMPT + TIME,
    pack=False,
  ),
  reward=JUDGE,
  algorithm=algorithms.FineTuning(
    optimiser=AdamW(learning_rate=2e-3, warm_up_steps=50), updates=8
  ),
  evaluation=dataclasses.replace(EVALUATION, every=100),
  steps=200,
  checkpoints=Checkpoints(every=200),
)


def recipe(credit: TpGrpo | EveryToken) -> PolicyRecipe:
  """GRPO as the paper has it, with a credit.

  Args:
    credit: how the tokens of a response share its outcome.

  Returns:
    The recipe.
  """
  return dataclasses.replace(
    recipes.trl_grpo,
    reference="arXiv:2507.23317",
    baseline=WithinGroup(
      estimator=partial(group_relative, scale="group", ddof=1, epsilon=1e-6)
    ),
    credit=credit,
    penalty=KlInLoss(estimator=k3, weight=0.04),
  )


def trained(name: str, credit: TpGrpo | EveryToken) -> Experiment:
  """One arm.

  Args:
    name: of the experiment.
    credit: see `recipe`.

  Returns:
    The experiment: 40 responses a step, rounds of 20 steps.
  """
  return Experiment(
    name=name,
    model=MODEL,
    data=problems(rows=PROMPTS),
    reward=JUDGE,
    algorithm=algorithms.PolicyOptimisation(
      recipe=recipe(credit),
      sampler=RESPONSE,
      group_size=GROUP,
      optimiser=AdamW(learning_rate=1e-3, weight_decay=0.0),
      behaviour="sampler",
      refresh=ROUND,
      reference=True,
    ),
    evaluation=EVALUATION,
    start=Trained(by=WARM_START),
    steps=100,
    checkpoints=Checkpoints(every=100),
  )
