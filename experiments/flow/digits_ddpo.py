"""DDPO on real digits: DDIM rollouts and a history of rewards per prompt.

  rl-jax train experiments/flow/digits_ddpo.py

What it shows: the first policy gradient over denoising steps
(arXiv:2305.13301). The flow is sampled as a variance-preserving diffusion of
equal signal-to-noise by stochastic DDIM, rewards are standardised by the last
32 of their own prompt, there is no KL, and the clip range is 1e-4.
Time: about 2 minutes on 2 cores, everything included.
Expected: evaluation reward at least .80. Without a KL the spread drifts more
than that of `digits_flow_grpo.py`.
Variations: --algorithm.advantage.min-count 32 uses the batch's statistics for
longer; --algorithm.sampler.eta 0.5 explores less.
"""

import dataclasses

from experiments.flow import digits_awm
from rl_jax import algorithms, sampling
from rl_jax.experiment import Band
from rl_jax.training.optimisers import AdamW

experiment = dataclasses.replace(
  digits_awm.experiment,
  name="digits_ddpo",
  algorithm=algorithms.DenoisingPolicyGradient(
    group_size=16,
    sampler=sampling.Ddim(steps=20, prediction="flow", eta=1.0),
    advantage=algorithms.PromptStatistics(buffer_size=32, min_count=16),
    optimiser=AdamW(learning_rate=2e-3),
    fraction=1.0,
    updates=2,
  ),
  steps=100,
  expected=(Band(metric="evaluation/reward", low=0.80),),
)
