"""Published full-scale settings of language methods, as values.

Those of "Unpacking DPO and PPO" (Ivison et al. 2024, arXiv:2406.09279) and of
the JAX code that it was run with, EasyLM, on Tulu 2 13B (v3-256). Sizes of
batches are in rows; `experiments/language/tulu_8b_*.py` put such numbers on a
mesh, `experiments/language/unpacking_dpo_ppo.py` repeats the comparison on
digits.
"""

from __future__ import annotations

import dataclasses
from functools import partial

from rl_jax import algorithms, models, sampling
from rl_jax.advantages import whiten
from rl_jax.algorithms.components import Critic, Generalized, Raw
from rl_jax.algorithms.recipe import PolicyRecipe
from rl_jax.experiment import Trained
from rl_jax.losses import (
  clipped_policy_terms,
  clipped_value_loss,
  logistic_preference_loss,
)
from rl_jax.reduce import over_tokens
from rl_jax.training.optimisers import AdamW

__all__ = [
  "UNFINISHED",
  "easylm_dpo",
  "easylm_ppo",
  "easylm_ppo_large_judge",
  "easylm_reward_model",
  "unpacking_ppo",
]

UNFINISHED = -10.0
"""Reward of a response without an end token (`LearnedReward.unfinished`)."""

easylm_ppo = PolicyRecipe(
  reference="Ivison et al. 2024, arXiv:2406.09279, and its code, EasyLM",
  baseline=Raw(),
  credit=Generalized(
    discount=1.0, trace=0.95, target_trace=0.95, kl_weight=0.05
  ),
  whitening=partial(
    whiten, ddof=1, epsilon=1e-6, guard="inside_root", shift_mean=True
  ),
  loss=partial(clipped_policy_terms, clip_low=0.2, clip_high=0.2),
  reduction=over_tokens,
  value=Critic(loss=partial(clipped_value_loss, clip=0.2), weight=0.1),
  note="EasyLM computes KL and values anew before each minibatch",
)

# With a reward model of 70B.
easylm_ppo_large_judge = dataclasses.replace(
  easylm_ppo,
  credit=Generalized(
    discount=1.0, trace=0.95, target_trace=0.95, kl_weight=0.0325
  ),
)


def unpacking_ppo(
  *,
  critic: models.ScalarHead,
  judge: Trained,
  end: tuple[int, ...],
  updates: int,
) -> algorithms.PolicyOptimisation:
  """PPO as in the paper: one response to each of the 512 prompts of a step.

  Eight updates of 64 rows at a ratio of one, responses of up to 1024 tokens
  drawn at temperature .7 while log-probs are those of temperature 1. The
  bound on the gradient's norm is not published.

  Args:
    critic: the network of the value model.
    judge: the experiment that trains the reward model, from whose parameters
      the critic starts.
    end: ids that end a response.
    updates: optimiser steps of the whole run.

  Returns:
    The algorithm.
  """
  optimiser = AdamW(
    learning_rate=1e-6, warm_up_steps=updates // 10, weight_decay=0.0
  )
  return algorithms.PolicyOptimisation(
    recipe=easylm_ppo,
    sampler=sampling.Autoregressive(length=1024, temperature=0.7, end=end),
    temperature=1.0,
    group_size=1,
    optimiser=optimiser,
    minibatches=8,
    behaviour="interleaved",
    estimated_over="minibatch",
    reference=True,
    critic=algorithms.Critic(model=critic, optimiser=optimiser, start=judge),
  )


def easylm_dpo(*, pairs: int) -> algorithms.PreferenceOptimisation:
  """DPO as in the paper: 32 pairs a step, three passes.

  Args:
    pairs: of the data set.

  Returns:
    The algorithm.
  """
  updates = 3 * pairs // 32
  return algorithms.PreferenceOptimisation(
    loss=partial(logistic_preference_loss, beta=0.1),
    beta=0.1,
    optimiser=AdamW(
      learning_rate=5e-7,
      warm_up_steps=updates // 10,
      linear_steps=updates - updates // 10,
      weight_decay=0.0,
    ),
    micro_batches=4,
  )


def easylm_reward_model(
  *, pairs: int, body: models.Pretrained | Trained
) -> algorithms.RewardModelling:
  """The reward model of the paper: 512 pairs a step, one pass.

  The rate falls from 1e-5 to a tenth of it, which is where a line to zero is
  after nine tenths of its way.

  Args:
    pairs: of the data set.
    body: what its decoder starts from.

  Returns:
    The algorithm.
  """
  updates = pairs // 512
  warm_up = 3 * updates // 100
  return algorithms.RewardModelling(
    body=body,
    optimiser=AdamW(
      learning_rate=1e-5,
      warm_up_steps=warm_up,
      linear_steps=round((updates - warm_up) / 0.9),
      weight_decay=0.0,
    ),
    micro_batches=16,
  )
