"""Clip and Delta keep a learned process reward model from being hacked.

  rl-jax train experiments/process_rewards/clip_delta.py

What it shows: rewards of steps (arXiv:2410.15115) from a small model that has
learned whether all that was written so far is right, beside the reward of
success, on sums of three numbers modulo 3. Steps may be filler, which the
model scores like what stands before. With its scores as they are the policy
learns to write filler to the end and never answers; clipped and telescoped
they leave it nothing to gain by that.
Time: about two minutes on 2 cores, the process reward model and the warm start
included.
Expected: measured with five seeds (results/clip_delta): 99.6 % of answers right
with Clip-Delta and with success alone, .01 fillers; with the scores as they
are .1 %, 8 fillers and hardly an end. The process reward model is right on
78 % of new steps. The chain is in clip_delta_chain.py.
Variations: --algorithm.recipe.credit.refine none is the hack;
--algorithm.recipe.credit.alpha 0.0 is success alone.
"""

from __future__ import annotations

from experiments.process_rewards import clip_delta_task

experiment = clip_delta_task.trained(
  "clip_delta", refine="clip_delta", alpha=0.3
)
