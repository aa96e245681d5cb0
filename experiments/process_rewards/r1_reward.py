"""A judge that thinks is rewarded for answers that follow from its reasons.

  rl-jax train experiments/process_rewards/r1_reward.py

What it shows: R1-Reward's reward and StableReinforce's recipe on a tiny
decoder. It is shown two digits and writes which is larger, after reasons that
name one: "<think>r2</think><answer>2</answer>". It was taught by somebody
whose answers are right in seven of ten cases and whose reasons say anything.
Time: about 1 minute on 2 cores.
Expected: consistency (`evaluation/consistent`) rises from about .4 to .92 in 80
steps (5 seeds), and stays at .50 without the consistency reward. It is not
free: the pupil begins with answers that are right in half of the cases, and in
as many steps they stay there (.48), while without it they get to .63 ± .06.
See results/r1_reward.
Variations: --reward.terms.0.judge.consistency-weight 0.0 pays for being right
and for the form alone; --algorithm.optimiser.learning-rate 1e-3 is faster.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from rl_jax import data, environments, evaluation, models, rewards, sampling
from rl_jax.algorithms import FineTuning, PolicyOptimisation
from rl_jax.algorithms.estimators.stable_reinforce import StableReinforce
from rl_jax.experiment import Checkpoints, Experiment, Trained
from rl_jax.rewards.verifiers.pairwise_judge import (
  MentionConsistency,
  PairwiseJudge,
  parse_think_answer,
)
from rl_jax.training.optimisers import AdamW

VOCABULARY = models.Characters(alphabet="0123456789?=<>/thinkaswer")
END = VOCABULARY.size - 1
PROMPT = len("3?7=")
RESPONSE = len("<think>r2</think><answer>2</answer>") + 1
SKILL = 0.7
CONSISTENCY = MentionConsistency(mention="r([12])")
MODEL = models.Decoder(
  vocabulary=VOCABULARY.size,
  width=64,
  layers=2,
  mlp=128,
  attention=models.Attention(heads=4, features=16),
  context=PROMPT + RESPONSE,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparisons:
  """Two different digits; the reference is which is larger.

  There are 90 pairs, which come again and again.
  """

  rows: int
  """Prompts of a batch."""
  length: int
  """Prompts of the task."""
  taught: bool = False
  """Whether the reference is what the teacher writes."""
  shuffle: bool = True
  """Whether every pass has an order of its own."""

  def source(self) -> environments.Items:
    """The prompts with their references."""
    return environments.Items(self.length, self._item)

  def _item(self, index: int) -> tuple[str, str]:
    one, other = divmod(index % 90, 9)
    other += other >= one
    label = 1 if one > other else 2
    prompt = f"{one}?{other}="
    if not self.taught:
      return prompt, str(label)
    rng = np.random.default_rng([2, index])
    answer = label if rng.random() < SKILL else 3 - label
    named = rng.integers(1, 3)
    return prompt, f"<think>r{named}</think><answer>{answer}</answer>"


def consistent(
  prompts: Sequence[str], completions: Sequence[str], **columns: Any
) -> list[float]:
  """1 where the answer is what the reasons name last; to watch."""
  del prompts, columns
  parts = map(parse_think_answer, completions)
  return [
    float(
      one.answer is not None
      and CONSISTENCY(one.reasoning, one.answer).value == 1
    )
    for one in parts
  ]


def right(
  prompts: Sequence[str], completions: Sequence[str], **columns: Any
) -> list[float]:
  """1 where the answer is the label; to watch."""
  del prompts
  return [
    float(parse_think_answer(text).answer == label)
    for text, label in zip(completions, columns["reference"], strict=True)
  ]


def prompts(*, rows: int, length: int) -> data.Prompts:
  """Comparisons as prompts."""
  return data.Prompts(
    task=Comparisons(rows=rows, length=length),
    vocabulary=VOCABULARY,
    length=PROMPT,
  )


REWARD = rewards.TextReward(
  terms=(
    rewards.Term(name="judge", judge=PairwiseJudge(consistency=CONSISTENCY)),
    rewards.Term(name="consistent", judge=consistent, weight=0.0),
    rewards.Term(name="right", judge=right, weight=0.0),
  )
)
SAMPLER = sampling.Autoregressive(length=RESPONSE, end=(END,))

taught = Experiment(
  name="r1_reward_taught",
  model=MODEL,
  data=data.Demonstrations(
    task=Comparisons(rows=128, length=5400, taught=True),
    vocabulary=VOCABULARY,
    length=PROMPT + RESPONSE,
    pack=False,
  ),
  algorithm=FineTuning(optimiser=AdamW(learning_rate=3e-3)),
  steps=160,
  checkpoints=Checkpoints(every=160),
)

experiment = Experiment(
  name="r1_reward",
  model=MODEL,
  start=Trained(by=taught),
  data=prompts(rows=128, length=5400),
  reward=REWARD,
  algorithm=PolicyOptimisation(
    recipe=StableReinforce().recipe,
    sampler=SAMPLER,
    group_size=1,
    optimiser=AdamW(learning_rate=3e-4),
    minibatches=2,
  ),
  evaluation=evaluation.TextSamples(
    data=prompts(rows=1, length=180),
    sampler=SAMPLER,
    prompts=180,
    every=20,
  ),
  steps=80,
  checkpoints=Checkpoints(every=80),
)
