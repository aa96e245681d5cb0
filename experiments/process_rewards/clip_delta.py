"""PLACEHOLDER.

  rl-jax train experiments/process_rewards/clip_delta.py

What it shows: PLACEHOLDER
Time: PLACEHOLDER
Expected: PLACEHOLDER
Variations: --algorithm.recipe.credit.refine none; --algorithm.recipe.credit.alpha 0.1
"""

from __future__ import annotations

from experiments.process_rewards import clip_delta_task

experiment = clip_delta_task.trained(
  "clip_delta", refine="clip_delta", alpha=0.3
)
