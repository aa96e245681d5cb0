"""A tiny decoder learns that there is a second try, and not what for.

  rl-jax train experiments/process_rewards/verpo_turns_sft.py

What it shows: the warm start of verpo_turns.py: the programs of verpo_sft.py
in episodes of two, the second of which takes no notice of what was said to
the first.
Time: 15 seconds on 2 cores.
Expected: about 4 % of held-out functions are right within two turns.
Variations: --steps 50 does not know the language yet;
--algorithm.optimiser.learning-rate 1e-3 is slower.
"""

from __future__ import annotations

import dataclasses
from functools import partial

from experiments.process_rewards import verpo_sft
from experiments.process_rewards import verpo_task as task
from experiments.process_rewards import verpo_turns_task as turns
from rl_jax import data

_PROGRAMS = verpo_sft.experiment

experiment = dataclasses.replace(
  _PROGRAMS,
  name="verpo_turns_sft",
  model=turns.MODEL,
  data=dataclasses.replace(
    _PROGRAMS.data,
    task=data.Texts(
      rows=128,
      origin=partial(turns.demonstrations, count=8000, seed=0),
      answer="answer",
    ),
    length=task.PROMPT + turns.EPISODES.length,
  ),
  evaluation=turns.EVALUATION,
)
