"""DPO on digit strings with a hidden rule: one run of the comparison.

  rl-jax train experiments/language/unpacking_dpo.py

What it shows: a policy of which half of the digits are right learns from 10 240
comparisons of its own answers, one label in ten turned round, without a
reward model: DPO with beta .1 and summed log-probabilities. The policy is
fine-tuned first. `unpacking_dpo_ppo.py` has the whole comparison.
Time: under a minute on 2 cores, everything included.
Expected: gold reward at least .8 (from about .55) at 2 to 3 nats from the
reference.
Variations: --algorithm.comparisons.flips 0.35 has labels of worse quality;
--algorithm.algorithm.averaged True takes means over tokens instead of sums.
"""

from __future__ import annotations

import dataclasses

from experiments.language import unpacking_stages
from rl_jax.experiment import Band

experiment = dataclasses.replace(
  unpacking_stages.dpo(seed=1, flips=0.1, pairs=10_240),
  name="unpacking_dpo",
  expected=(Band(metric="evaluation/reward", low=0.80),),
)
