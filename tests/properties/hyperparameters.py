"""Hyper-parameters that exported functions need, by name.

One name means one thing in the whole library, so one table serves every
function. A tuple is swept.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import rl_jax.log_probs

HYPERPARAMETERS: dict[str, Any] = {
  "beta": 0.5,
  "bound": 1.5,
  "buffer_size": 4,
  "centring": 0.25,
  "clamp": 3.0,
  "clip": 1.5,
  "clip_first": 0.1,
  "clip_high": 0.28,
  "clip_last": 0.2,
  "clip_low": 0.2,
  "ddof": (0, 1),
  "degree": 2,
  "desirable_weight": 1.25,
  "discount": 0.75,
  "divisor": 8.0,
  "epsilon": 1e-4,
  "fraction": 0.5,
  "grid": np.array([2.0, 1.5, 1.0, 0.5, 0.25, 0.0]),
  "high": 1.25,
  "kl_weight": 0.5,
  "low": 0.75,
  "margin": 0.25,
  "maximum": 1.125,
  "minimum": 0.5,
  "mixture": 0.25,
  "negative_sharpness": 3.0,
  "noise": 0.125,
  "num_groups": 8,  # as many as rows, so that every row may be alone
  "min_count": 2,
  "num_prompts": 8,
  "num_steps": 6,
  "offset": 0.5,
  "power": 0.25,
  "rate": 1.0,
  "rho": 7.0,
  "sharpness": 2.0,
  "shift": 3.0,
  "smoothing": 0.125,
  "spread": 0.5,
  "t_min": 0.001,
  "tail": 0.5,
  "target": 1.0,
  "temperature": 0.75,
  "threshold": 0.5,
  "undesirable_weight": 0.75,
  "weight": 0.25,
  "alpha": 0.5,
  "decay": 0.5,
  "factor": 0.5,
  "hard": 6.0,
  "horizon": 8.0,
  "k": 2,
  "max_ratio": 1.5,
  "max_trace": 1.0,
  "penalty": 0.5,
  "replacement": -2.0,
  "soft": 2.0,
  "step": 0.125,
  "steps": 2,
  "trace": 0.75,
  "chunk_tokens": 16,
  "chunk_vocabulary": 3,  # of 4 entries, so that blocks differ
  "num_segments": 3,
  "soft_cap": 2.0,
  # Every step, and so wide that it leaves nothing out: -inf is not finite.
  "support": rl_jax.log_probs.Support(
    temperature=0.75,
    top_k=4,
    top_p=1 - 1e-6,
    min_p=1e-6,
    min_p_first=True,
  ),
}
