"""PPO with a critic teaches a tiny decoder to add.

  rl-jax train experiments/language/critic_ppo.py

What it shows: the other way to know which of the tokens of a response was to
blame. Instead of comparing responses to one prompt, as chain_sum_grpo.py does
from the same start, a second network says after each token what reward is to
be expected; advantages are generalised, rows are used twice, and k1 to the
policy at the start is taken from the reward. The critic's body begins as the
policy's; for five steps only the critic learns. `explained_variance` says how
much of the returns it accounts for.
Time: about 3 minutes on 2 cores, the warm start included.
Expected: held-out sums right from about 40 % to at least 70 %; measured, one
seed: .40 to .80 (95 % interval .035), .64 after 20 steps already.
Variations: --algorithm.critic.from-policy False has a critic from scratch;
--algorithm.critic.warm-up 0 lets a critic that knows nothing advise.
"""

from __future__ import annotations

import dataclasses

from experiments import recipes
from experiments.language import chain_sum_sft, chain_sums
from rl_jax import algorithms, models
from rl_jax import experiment as e
from rl_jax.algorithms.components import Generalized
from rl_jax.training.optimisers import AdamW

experiment = e.Experiment(
  name="critic_ppo",
  model=chain_sums.MODEL,
  data=chain_sums.prompts(rows=256, first=3000, length=6000),
  reward=chain_sums.REWARD,
  algorithm=algorithms.PolicyOptimisation(
    # The reward is 0 or 1 here, not the score of a reward model.
    recipe=dataclasses.replace(
      recipes.ppo,
      credit=Generalized(
        discount=1.0, trace=0.95, target_trace=0.95, kl_weight=0.01
      ),
    ),
    sampler=chain_sums.RESPONSE,
    group_size=1,
    optimiser=AdamW(learning_rate=3e-4, warm_up_steps=10),
    epochs=2,
    minibatches=2,
    reference=True,
    critic=algorithms.Critic(
      model=models.ScalarHead(body=chain_sums.MODEL),
      optimiser=AdamW(learning_rate=1e-3),
      warm_up=5,
    ),
  ),
  evaluation=chain_sums.EVALUATION,
  start=e.Trained(by=chain_sum_sft.experiment),
  steps=100,
  checkpoints=e.Checkpoints(every=50),
  expected=(e.Band(metric="evaluation/reward", low=0.70),),
)
