"""The experiments that the comparison of DPO and PPO is made of.

Each is a value that `rl-jax train` can run, with what it starts from; see
`unpacking_dpo.py` and `unpacking_ppo.py`. They differ by a seed, on which all
randomness of all stages depends, and by the four axes of the paper.
"""

from __future__ import annotations

from functools import partial

from experiments.language import unpacking_task as task
from experiments.language.unpacking_parts import (
  Agreement,
  ByCategory,
  Compared,
  Comparisons,
)
from experiments.language_recipes import UNFINISHED, easylm_ppo
from rl_jax import algorithms, data, evaluation, models, rewards, sampling
from rl_jax.experiment import Checkpoints, Experiment, Trained
from rl_jax.losses import logistic_preference_loss
from rl_jax.training.optimisers import AdamW

__all__ = ["PROMPTS", "UPDATES", "dpo", "fine_tuned", "ppo", "reward_model"]

MODEL = models.Decoder(
  vocabulary=task.VOCABULARY.size,
  width=64,
  layers=2,
  mlp=128,
  attention=models.Attention(heads=4, features=16),
  context=20,
  scan=False,
)
SCORER = models.ScalarHead(body=MODEL)

# Optimiser steps of DPO and of PPO, 64 rows each, four in a step of the loop.
UPDATE, UPDATES, PER_STEP = 64, 240, 4
ROWS = UPDATE * PER_STEP
WARM_UP = UPDATES // 10
DPO_RATE, PPO_RATE, CRITIC_RATE = 3e-4, 3e-4, 1e-3

# Ranges of prompts, none of which shares a string with another. Preferences
# are asked for seven times out of ten on low digits.
LABELLED, UNLABELLED, HELD_OUT = 20_000, 40_000, 70_000
PROMPTS = {"as labelled": 3, "mixed": 5, "in-domain": 10}
TEST = 200

_KEPT = Checkpoints(every=1000, keep=1)
_TOKENS = sampling.Autoregressive(length=task.LENGTH, end=(task.END,))


def _tested(reference: Trained, *, every: int) -> ByCategory:
  """200 held-out prompts of each category, one answer each."""
  return ByCategory(
    categories=("low", "high"),
    texts=tuple(
      evaluation.TextSamples(
        data=task.prompts(
          rows=1, length=TEST, first=HELD_OUT + 1000 * k, high=10 * k
        ),
        sampler=_TOKENS,
        prompts=TEST,
        reward=task.GOLD,
        every=every,
      )
      for k in range(2)
    ),
    reference=reference,
    every=every,
  )


def fine_tuned(*, seed: int) -> Experiment:
  """The policy that all others start from: half of its digits are right."""
  return Experiment(
    name=f"unpacking_sft_{seed}",
    model=MODEL,
    data=data.Demonstrations(
      task=data.Texts(
        rows=128,
        origin=partial(task.demonstrations, count=20_000, skill=0.5, seed=seed),
        answer="answer",
      ),
      vocabulary=task.VOCABULARY,
      length=task.PROMPT + task.LENGTH,
      pack=False,
    ),
    algorithm=algorithms.FineTuning(
      optimiser=AdamW(learning_rate=3e-3, cosine_steps=120)
    ),
    steps=120,
    seed=seed,
    checkpoints=_KEPT,
  )


def _comparisons(*, seed: int, flips: float) -> Comparisons:
  return Comparisons(
    writer=Trained(by=fine_tuned(seed=seed)),
    sampler=_TOKENS,
    sharpness=12.0,
    flips=flips,
    seed=seed,
  )


def _labelled(*, rows: int, pairs: int) -> data.Prompts:
  return task.prompts(
    rows=rows, length=pairs, first=LABELLED, high=PROMPTS["as labelled"]
  )


def reward_model(*, seed: int, flips: float, pairs: int) -> Experiment:
  """Bradley-Terry on the pairs, six times over, from the fine-tuned body."""
  compared = _comparisons(seed=seed, flips=flips)
  updates = 6 * pairs // UPDATE
  steps = updates // PER_STEP
  return Experiment(
    name=f"unpacking_reward_{flips:g}_{pairs}_{seed}",
    model=SCORER,
    data=_labelled(rows=ROWS, pairs=pairs),
    algorithm=Compared(
      algorithm=algorithms.RewardModelling(
        body=compared.writer,
        optimiser=AdamW(
          learning_rate=1e-3,
          warm_up_steps=3 * updates // 100,
          linear_steps=updates - 3 * updates // 100,
          weight_decay=0.0,
        ),
        updates=PER_STEP,
      ),
      comparisons=compared,
    ),
    evaluation=Agreement(
      data=task.prompts(rows=1, length=400, first=HELD_OUT, high=5),
      prompts=400,
      comparisons=compared,
      every=steps,
    ),
    steps=steps,
    seed=seed,
    checkpoints=_KEPT,
  )


def dpo(*, seed: int, flips: float, pairs: int) -> Experiment:
  """DPO on the pairs: beta .1, summed log-probs."""
  compared = _comparisons(seed=seed, flips=flips)
  return Experiment(
    name=f"unpacking_dpo_{flips:g}_{pairs}_{seed}",
    model=MODEL,
    data=_labelled(rows=ROWS, pairs=pairs),
    algorithm=Compared(
      algorithm=algorithms.PreferenceOptimisation(
        loss=partial(logistic_preference_loss, beta=0.1),
        beta=0.1,
        optimiser=AdamW(
          learning_rate=DPO_RATE,
          warm_up_steps=WARM_UP,
          linear_steps=UPDATES - WARM_UP,
          weight_decay=0.0,
        ),
        updates=PER_STEP,
      ),
      comparisons=compared,
    ),
    evaluation=_tested(compared.writer, every=UPDATES // PER_STEP // 4),
    start=compared.writer,
    steps=UPDATES // PER_STEP,
    seed=seed,
    checkpoints=_KEPT,
  )


def ppo(*, seed: int, flips: float, pairs: int, high: int) -> Experiment:
  """PPO against the reward model of the pairs, from the same policy."""
  judge = Trained(by=reward_model(seed=seed, flips=flips, pairs=pairs))
  start = Trained(by=fine_tuned(seed=seed))
  steps = UPDATES // PER_STEP
  critic = AdamW(
    learning_rate=CRITIC_RATE, warm_up_steps=WARM_UP, weight_decay=0.0
  )
  return Experiment(
    name=f"unpacking_ppo_{flips:g}_{pairs}_{high}_{seed}",
    model=MODEL,
    data=task.prompts(
      rows=ROWS,
      length=UPDATE * UPDATES,
      first=UNLABELLED,
      high=high,
    ),
    reward=rewards.LearnedReward(
      judge=judge, unfinished=UNFINISHED, gold=task.GOLD
    ),
    algorithm=algorithms.PolicyOptimisation(
      recipe=easylm_ppo,
      sampler=sampling.Autoregressive(
        length=task.LENGTH, temperature=0.7, end=(task.END,)
      ),
      temperature=1.0,
      group_size=1,
      optimiser=AdamW(
        learning_rate=PPO_RATE, warm_up_steps=WARM_UP, weight_decay=0.0
      ),
      minibatches=PER_STEP,
      behaviour="interleaved",
      estimated_over="minibatch",
      reference=True,
      critic=algorithms.Critic(model=SCORER, optimiser=critic, start=judge),
    ),
    evaluation=_tested(start, every=steps // 4),
    start=start,
    steps=steps,
    seed=seed,
    checkpoints=_KEPT,
  )
