"""TP-GRPO on sums whose steps are wrong and taken back.

  rl-jax train experiments/process_rewards/tpgrpo.py

What it shows: advantages of thoughts (arXiv:2507.23317) from labels that
rules read off the text, in off-policy rounds of 20 steps with ratios to the
log-probabilities that were stored. `tp_taken_back` is the share of steps that
correct responses take back, `tp_mismatched` that of steps which a wrong
answer does not adopt.
Time: under a minute on 2 cores, the warm start included.
Expected: from 21 % of answers right to .66 to .69 in 100 steps, and GRPO's
outcome alone as well: measured with one seed (results/tpgrpo), .678 and .666
with GRPO, .694 not merged, .664 static; steps that are right .836 and .809.
The paper's saving does not show here: GRPO's last accuracy is reached after as
many solutions. A likely reason, not measured: a first sum that is wrong and
carried on correctly is one that the wrong answer does not adopt, and is free.
Variations: --algorithm.recipe.credit.merge False lets each step be a thought;
--algorithm.refresh 1 draws every step with the policy as it is.
"""

from __future__ import annotations

from experiments.process_rewards import tpgrpo_task
from rl_jax.algorithms.estimators.tp_grpo import TpGrpo

experiment = tpgrpo_task.trained("tpgrpo", TpGrpo())
