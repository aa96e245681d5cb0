"""The published settings of the flow methods, as values.

An algorithm here is what an experiment's `algorithm` field holds. Sizes are
those of the published runs: 8 accelerators or more, latents of Stable
Diffusion 3.5 Medium, FLUX.1-dev or Stable Diffusion 1.5. All parameters are
trained; the published runs train a LoRA of rank 32 (alpha 64).
"""

from __future__ import annotations

from rl_jax import algorithms, sampling
from rl_jax.training.optimisers import AdamW

# Rectified-flow latents of Stable Diffusion 3: shift 3, smallest time 1/1000.
_SD3 = {"shift": 3.0, "t_min": 1e-3}
_FLOW_ADAMW = AdamW(learning_rate=3e-4, weight_decay=1e-4, clip_norm=1.0)


def _awm_sd35(
  *, strategy: str, noise_level: float, base_weight: float, rows: int
) -> algorithms.AdvantageWeightedMatching:
  """AWM on SD3.5-M (arXiv:2509.25050, published configurations)."""
  return algorithms.AdvantageWeightedMatching(
    group_size=24,
    sampler=sampling.SaSolver(
      steps=14, order=2, noise_level=noise_level, **_SD3
    ),
    times=sampling.DiscreteTimes(count=6, fraction=0.9, strategy=strategy),
    optimiser=_FLOW_ADAMW,
    base_weight=base_weight,
    slow_weight=1.0,
    micro_batches=rows,
  )


# 72 groups of 24 per step; a micro-batch of 3 rows on each of 8 devices.
awm_geneval = _awm_sd35(
  strategy="discrete_wo_init", noise_level=0.4, base_weight=1e-3, rows=72
)
awm_ocr = _awm_sd35(
  strategy="discrete_wo_init", noise_level=0.4, base_weight=3e-3, rows=72
)
# 24 groups of 24; ODE rollouts; a micro-batch of 2 rows on 8 devices.
awm_pickscore = _awm_sd35(
  strategy="discrete", noise_level=0.0, base_weight=1e-4, rows=36
)

# FLUX.1-dev, from a third party's configuration: 48 groups of 16, guidance
# 3.5 distilled into the network, no pull to the base.
awm_flux = algorithms.AdvantageWeightedMatching(
  group_size=16,
  sampler=sampling.SaSolver(steps=10, order=2, noise_level=0.0, **_SD3),
  times=sampling.DiscreteTimes(count=4, fraction=0.7, strategy="discrete"),
  optimiser=_FLOW_ADAMW,
  base_weight=0.0,
  slow_weight=0.1,
  micro_batches=48,
)


def _flow_grpo(
  *, steps: int, noise_level: float, base_weight: float, rows: int
) -> algorithms.DenoisingPolicyGradient:
  """Flow-GRPO (arXiv:2505.05470, published configurations)."""
  return algorithms.DenoisingPolicyGradient(
    group_size=24,
    sampler=sampling.FlowSde(steps=steps, noise_level=noise_level, **_SD3),
    advantage=algorithms.GroupRelative(scale="global", ddof=0, epsilon=1e-4),
    optimiser=_FLOW_ADAMW,
    base_weight=base_weight,
    updates=2,
    micro_batches=rows,
    average=algorithms.Average(maximum=0.9, every=8),
  )


# 48 groups of 24; the model is `models.Guided(weight=4.5)`.
flow_grpo_sd35 = _flow_grpo(
  steps=10, noise_level=0.7, base_weight=0.04, rows=24
)
flow_grpo_sd35_pickscore = _flow_grpo(
  steps=10, noise_level=0.7, base_weight=0.01, rows=24
)
# FLUX.1-dev: guidance is distilled into the network.
flow_grpo_flux = _flow_grpo(steps=6, noise_level=0.9, base_weight=0.0, rows=24)

# DDPO (arXiv:2305.13301, PyTorch code) on Stable Diffusion 1.5 under
# `models.Guided(weight=5.0)`: no KL, rewards standardised per prompt.
ddpo_sd15 = algorithms.DenoisingPolicyGradient(
  group_size=2,
  sampler=sampling.Ddim(steps=50, prediction="noise", eta=1.0),
  advantage=algorithms.PromptStatistics(
    buffer_size=32, min_count=16, epsilon=1e-6
  ),
  optimiser=_FLOW_ADAMW,
  fraction=1.0,
  updates=2,
)
