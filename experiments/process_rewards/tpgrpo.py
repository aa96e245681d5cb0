"""TP-GRPO on sums with steps that are wrong and taken back.

  rl-jax train experiments/process_rewards/tpgrpo.py

What it shows: advantages of thoughts (arXiv:2507.23317). PLACEHOLDER
Time: PLACEHOLDER
Expected: PLACEHOLDER
Variations: --algorithm.recipe.credit.merge False; --algorithm.refresh 1
"""

from __future__ import annotations

from experiments.process_rewards import tpgrpo_task
from rl_jax.algorithms.estimators.tp_grpo import TpGrpo

experiment = tpgrpo_task.trained("tpgrpo", TpGrpo())
