"""An implicit PRM of written sums, from outcome labels alone.

  rl-jax train experiments/process_rewards/implicit_prm.py

What it shows: a tiny decoder learns from 5000 responses that were found right
or wrong as a whole (cross-entropy of beta times the log-ratio to where it
started). No step has a label; implicit_prm_study.py then asks its log-ratios
which step went wrong, and chooses the best of eight responses by them.
Time: about 1 minute on 2 cores, half of it for the decoder it starts from.
Expected: it tells more than 95 % of the responses apart after 16 steps. In the
study (5 seeds, all arms; a generator that is right in 52 % of its responses,
majority of eight 85 %), the best of eight by the weakest step is right in
94.8 % of the chains, and as many from one response to each chain, in 80 % by
DPO and 97 % by KTO; the first wrong step is told from right ones with an area
under the curve of .928 (DPO) to .995 (KTO). Two of three seeds are left out:
their generator, after as many steps, cannot add. See results/implicit_prm.
Variations: --algorithm.beta 0.05 says what the metrics are reported in;
--data.balance dataset takes as many wrong responses as right ones.

A chain of five numbers is added up in four steps, "3+4=7;7+5=2;2+9=1;1+2=3;#3"
modulo 10. Whoever writes here makes a mistake in one of eight steps and goes
on from it, so about 60 % of the responses are right.
"""

from __future__ import annotations

import dataclasses
from functools import partial

import numpy as np

from experiments import chains
from rl_jax import data
from rl_jax.algorithms import FineTuning
from rl_jax.algorithms.implicit_reward import LabelOptimisation
from rl_jax.data.labelled import LabelledResponses
from rl_jax.experiment import Checkpoints, Experiment, Trained
from rl_jax.losses.outcome_reward import implicit_ce_loss
from rl_jax.training.optimisers import AdamW

TERMS = 5
STEPS = TERMS - 1
PROMPT = chains.prompt_length(TERMS)
# Six characters a step, the answer behind "#", and the end.
RESPONSE = 6 * STEPS + 3
# Where a response does not end by itself, its end is one token more.
LENGTH = PROMPT + RESPONSE + 1
ERROR = 0.12
# Chains of the generator's lessons; those of the responses that are labelled;
# and those that are held out.
LESSONS, LABELLED, HELD_OUT = (0, 6000), (10_000, 5000), (90_000, 500)
SAMPLES = 8
BETA = 0.5

MODEL = chains.decoder(context=LENGTH, width=64, layers=2)


def written(
  numbers: tuple[int, ...], modulus: int, rng: np.random.Generator
) -> str:
  """Steps of a sum by somebody who sometimes slips.

  Args:
    numbers: what is added.
    modulus: what sums are taken modulo.
    rng: draws the slips.

  Returns:
    The response.
  """
  total, steps = numbers[0], []
  for number in numbers[1:]:
    after = (total + number) % modulus
    if rng.random() < ERROR:
      after = int(after + rng.integers(1, modulus)) % modulus
    steps.append(f"{total}+{number}={after};")
    total = after
  return f"{''.join(steps)}#{total}"


def problems(span: tuple[int, int], *, rows: int) -> chains.Chains:
  """The chains of a span of the order."""
  first, length = span
  return chains.Chains(
    rows=rows, terms=(TERMS, TERMS), first=first, length=length
  )


def responses(samples: int = SAMPLES) -> list[tuple[str, str, bool]]:
  """As many labelled responses as `LABELLED` says, some to each chain.

  Args:
    samples: responses to each chain.

  Returns:
    Instruction, response and whether its answer is right.
  """
  first, length = LABELLED
  task = problems((first, length // samples), rows=1)
  found = []
  for item in range(task.length):
    numbers = task.numbers(item)
    prompt = "+".join(map(str, numbers)) + "="
    for sample in range(samples):
      rng = np.random.default_rng([1, item, sample])
      text = written(numbers, task.modulus, rng)
      found.append((prompt, text, right(prompt, text)))
  return found


def right(prompt: str, response: str) -> bool:
  """Whether the answer of a response is right; nothing else is looked at."""
  total = sum(map(int, prompt.rstrip("=").split("+"))) % 10
  return chains.answered([prompt], [response], reference=[str(total)]) == [1.0]


def first_error(response: str) -> int | None:
  """The first step that does not add up; -1 if all do, None without form.

  Args:
    response: what was written.

  Returns:
    The number of the step, from 0. Only evaluations look at it.
  """
  *steps, answer = response.split(";")
  try:
    sums = [
      (int(one), int(other), int(total))
      for one, other, total in (
        (*step.split("=")[0].split("+"), step.split("=")[1]) for step in steps
      )
    ]
  except (ValueError, IndexError):
    return None
  if len(sums) != STEPS or not answer.startswith("#"):
    return None
  for number, (one, other, total) in enumerate(sums):
    if (one + other) % 10 != total:
      return number
  return -1


generator = Experiment(
  name="implicit_prm_generator",
  model=MODEL,
  data=data.Demonstrations(
    task=chains.Written(task=problems(LESSONS, rows=128), style=written),
    vocabulary=chains.VOCABULARY,
    length=LENGTH,
    pack=False,
  ),
  algorithm=FineTuning(optimiser=AdamW(learning_rate=3e-3)),
  steps=250,
  checkpoints=Checkpoints(every=250),
)

experiment = Experiment(
  name="implicit_prm",
  model=MODEL,
  start=Trained(by=generator),
  data=LabelledResponses(
    rows=64,
    responses=responses,
    vocabulary=chains.VOCABULARY,
    length=LENGTH,
  ),
  algorithm=LabelOptimisation(
    loss=partial(implicit_ce_loss, beta=BETA),
    beta=BETA,
    optimiser=AdamW(learning_rate=1e-3),
  ),
  steps=LABELLED[1] // 64 * 2,
  checkpoints=Checkpoints(every=200),
)


def variant(**changes: object) -> Experiment:
  """The experiment with another algorithm or other data."""
  return dataclasses.replace(experiment, **changes)
