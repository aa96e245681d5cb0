"""PPO on digit strings with a hidden rule: one run of the comparison.

  rl-jax train experiments/language/unpacking_ppo.py

What it shows: the recipe of "Unpacking DPO and PPO" (arXiv:2406.09279) with
all its parts. A reward model is trained on comparisons of the fine-tuned
policy's answers; a critic starts as the reward model; one answer to each of
256 prompts a step, four updates whose ratio is one, k1 in the reward, -10 for
an answer without an end. The rule itself, which nothing is trained on, is
measured beside the reward model's score as `gold`.
Time: about 2 minutes on 2 cores, most of it for the reward model.
Expected: gold reward at least .8 (from about .55) at 2 to 3 nats from the
reference.
Variations: --data.task.high 10 asks for the category only that preferences
are rare for; --reward.unfinished None has no penalty for what does not end.
"""

from __future__ import annotations

import dataclasses

from experiments.language import unpacking_stages
from rl_jax.experiment import Band

experiment = dataclasses.replace(
  unpacking_stages.ppo(seed=1, flips=0.1, pairs=10_240, high=3),
  name="unpacking_ppo",
  expected=(Band(metric="evaluation/reward", low=0.80),),
)
