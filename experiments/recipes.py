"""Policy-optimisation methods, and what frameworks call GRPO, as values.

A method here is the mathematics of its paper at the numbers of its paper, or
of the code that the paper points to where it gives none. A framework's recipe
is what its user gets who asks for GRPO and touches no other option, at the
version that is named; `tests/parity` holds what those versions computed. Any
of them may be changed with `dataclasses.replace`.

`docs/same_name_different_mathematics.md` is written from these values.
"""

from __future__ import annotations

from functools import partial

from rl_jax.advantages import (
  best_minus_second,
  group_relative,
  informative_groups,
  leave_one_out,
  leave_one_out_scaled,
  length_adaptive_trace,
  nonzero_relative,
  whiten,
)
from rl_jax.algorithms.component_functions import (
  fresh_policy_gradient,
  loosely_clipped,
  over_all_rows,
)
from rl_jax.algorithms.components import (
  Critic,
  EveryToken,
  Generalized,
  Greedy,
  KlInLoss,
  KlSubtracted,
  LengthWeighted,
  Overlong,
  PerRow,
  PositiveImitation,
  Raw,
  ToGo,
  TrainerOverSampler,
  WithinGroup,
)
from rl_jax.algorithms.recipe import PolicyRecipe
from rl_jax.divergences import importance_k3, k1, k2, k3
from rl_jax.losses import (
  clipped_policy_terms,
  clipped_value_loss,
  clipped_weight_loss,
  dual_clipped_loss,
  geometric_mean_loss,
  sequence_clipped_loss,
  soft_gate_loss,
)
from rl_jax.ratios import token_ratio, truncated_weight
from rl_jax.reduce import over_constant, over_sequences, over_tokens

__all__ = [
  "cispo",
  "dapo",
  "dr_grpo",
  "easydel_grpo",
  "gmpo",
  "gpg",
  "grpo",
  "grpo_pass_at_k",
  "gspo",
  "marin_rloo",
  "nemo_grpo",
  "open_instruct_grpo",
  "openrlhf_grpo",
  "opo",
  "ppo",
  "reinforce_plus_plus",
  "reinforce_plus_plus_baseline",
  "remax",
  "rloo",
  "sapo",
  "trl_dr_grpo",
  "trl_grpo",
  "tunix_grpo",
  "vapo",
  "verl_grpo",
]

INFINITY = float("inf")

# Parts that several share. Where papers give no ddof and no epsilon, these
# are those of the code most of them were run with.
_standardised = WithinGroup(
  estimator=partial(group_relative, scale="group", ddof=1, epsilon=1e-6)
)
_centred = WithinGroup(
  estimator=partial(group_relative, scale="none", ddof=0, epsilon=0.0)
)
_clip = partial(clipped_policy_terms, clip_low=0.2, clip_high=0.2)
_higher_clip = partial(clipped_policy_terms, clip_low=0.2, clip_high=0.28)
_whiten = partial(
  whiten, ddof=1, epsilon=1e-8, guard="inside_root", shift_mean=True
)

ppo = PolicyRecipe(
  reference="Schulman et al. 2017, arXiv:1707.06347; numbers of TRL's trainer",
  baseline=Raw(),
  credit=Generalized(
    discount=1.0, trace=0.95, target_trace=0.95, kl_weight=0.05
  ),
  whitening=_whiten,
  loss=_clip,
  reduction=over_tokens,
  value=Critic(loss=partial(clipped_value_loss, clip=0.2), weight=0.1),
)

vapo = PolicyRecipe(
  reference="Yue et al. 2025, arXiv:2504.05118",
  baseline=Raw(),
  credit=Generalized(
    discount=1.0,
    trace=partial(length_adaptive_trace, alpha=0.05),
    target_trace=1.0,
    kl_weight=0.0,
  ),
  loss=_higher_clip,
  reduction=over_tokens,
  value=Critic(loss=partial(clipped_value_loss, clip=0.5), weight=1.0),
  imitation=PositiveImitation(weight=0.1),
  note="the critic is pretrained on Monte-Carlo returns",
)

rloo = PolicyRecipe(
  reference="Ahmadian et al. 2024, arXiv:2402.14740; numbers of TRL",
  shaping=(KlSubtracted(weight=0.05),),
  baseline=WithinGroup(estimator=leave_one_out),
  credit=EveryToken(),
  loss=partial(
    sequence_clipped_loss,
    level="sequence",
    clip_low=0.2,
    clip_high=0.2,
    clamp=None,
  ),
  reduction=over_sequences,
)

remax = PolicyRecipe(
  reference="Li et al. 2023, arXiv:2310.10505",
  baseline=Greedy(),
  credit=EveryToken(),
  loss=fresh_policy_gradient,
  reduction=partial(over_constant, divisor=1.0),
)

reinforce_plus_plus = PolicyRecipe(
  reference="Hu et al. 2025, arXiv:2501.03262",
  baseline=Raw(),
  credit=ToGo(discount=1.0, kl_weight=0.01, bound=10.0),
  whitening=_whiten,
  loss=_clip,
  reduction=over_tokens,
)

reinforce_plus_plus_baseline = PolicyRecipe(
  reference="Hu et al. 2025, arXiv:2501.03262, section 3.2",
  baseline=_centred,
  credit=EveryToken(),
  whitening=_whiten,
  loss=_clip,
  reduction=over_tokens,
  penalty=KlInLoss(estimator=k2, weight=0.001),
)

grpo = PolicyRecipe(
  reference="Shao et al. 2024, arXiv:2402.03300",
  baseline=_standardised,
  credit=EveryToken(),
  loss=_clip,
  reduction=over_sequences,
  penalty=KlInLoss(estimator=k3, weight=0.04),
)

dr_grpo = PolicyRecipe(
  reference="Liu et al. 2025, arXiv:2503.20783",
  baseline=_centred,
  credit=EveryToken(),
  loss=_clip,
  reduction=partial(over_constant, divisor=3000.0),
  note="the divisor is the longest response of its runs",
)

dapo = PolicyRecipe(
  reference="Yu et al. 2025, arXiv:2503.14476",
  shaping=(Overlong(soft=16384.0, hard=20480.0, factor=1.0),),
  rows=informative_groups,
  baseline=_standardised,
  credit=EveryToken(),
  loss=_higher_clip,
  reduction=over_tokens,
)

gspo = PolicyRecipe(
  reference="Zheng et al. 2025, arXiv:2507.18071",
  baseline=_standardised,
  credit=EveryToken(),
  loss=partial(
    sequence_clipped_loss,
    level="geometric",
    clip_low=3e-4,
    clip_high=4e-4,
    clamp=None,
  ),
  reduction=over_sequences,
)

cispo = PolicyRecipe(
  reference="MiniMax 2025, arXiv:2506.13585; bound of TRL's documentation",
  baseline=_standardised,
  credit=EveryToken(),
  loss=partial(clipped_weight_loss, low=0.0, high=5.0),
  reduction=over_tokens,
)

gmpo = PolicyRecipe(
  reference="Zhao et al. 2025, arXiv:2507.20673",
  baseline=_standardised,
  credit=EveryToken(),
  loss=partial(geometric_mean_loss, clip_low=0.4, clip_high=0.4),
  reduction=over_sequences,
)

sapo = PolicyRecipe(
  reference="Gao et al. 2025, arXiv:2511.20347",
  baseline=_standardised,
  credit=EveryToken(),
  loss=partial(soft_gate_loss, sharpness=1.0, negative_sharpness=1.05),
  reduction=over_sequences,
)

gpg = PolicyRecipe(
  reference="Chu et al. 2025, arXiv:2504.02546",
  baseline=WithinGroup(estimator=partial(nonzero_relative, count="advantage")),
  credit=EveryToken(),
  loss=fresh_policy_gradient,
  reduction=over_tokens,
)

opo = PolicyRecipe(
  reference="Hao et al. 2025, arXiv:2505.23585",
  baseline=LengthWeighted(),
  credit=EveryToken(),
  loss=fresh_policy_gradient,
  reduction=over_tokens,
)

grpo_pass_at_k = PolicyRecipe(
  reference="Tang et al. 2025, arXiv:2503.19595",
  baseline=WithinGroup(
    estimator=partial(best_minus_second, scale="group", ddof=1, epsilon=1e-6)
  ),
  credit=EveryToken(),
  loss=_clip,
  reduction=over_tokens,
)

# What frameworks compute under the one name.

trl_grpo = PolicyRecipe(
  reference="TRL 1.16.0",
  baseline=WithinGroup(
    estimator=partial(group_relative, scale="group", ddof=1, epsilon=1e-4)
  ),
  credit=EveryToken(),
  loss=_clip,
  reduction=over_tokens,
  note="with vLLM the sampler's ratio weighs rows, 0 above 3",
)

trl_dr_grpo = PolicyRecipe(
  reference='TRL 1.16.0, loss_type="dr_grpo", scale_rewards="none"',
  baseline=_centred,
  credit=EveryToken(),
  loss=_clip,
  reduction=partial(over_all_rows, divisor=512.0),
  note="the divisor is max_completion_length",
)

verl_grpo = PolicyRecipe(
  reference="verl 0.9.1",
  baseline=_standardised,
  credit=EveryToken(),
  loss=partial(dual_clipped_loss, clip_low=0.2, clip_high=0.2, bound=3.0),
  reduction=over_tokens,
  clamp=20.0,
  note="a row alone in its group keeps its raw reward; here it gets 0",
)

openrlhf_grpo = PolicyRecipe(
  reference="OpenRLHF 0.11.2, group_norm",
  baseline=WithinGroup(
    estimator=partial(group_relative, scale="group", ddof=1, epsilon=1e-9)
  ),
  credit=ToGo(discount=1.0, kl_weight=0.01, bound=10.0),
  loss=_clip,
  reduction=over_tokens,
  clamp=20.0,
  note="k1 is cut at 10 before it enters the reward",
)

nemo_grpo = PolicyRecipe(
  reference="NeMo-RL, commit 7ea279ab",
  baseline=WithinGroup(
    estimator=partial(leave_one_out_scaled, ddof=1, epsilon=1e-6)
  ),
  credit=EveryToken(),
  loss=_clip,
  reduction=over_tokens,
  penalty=KlInLoss(
    estimator=importance_k3, weight=0.01, ratio_to="itself", clamp=10.0
  ),
  note="the spread is the difference of mean square and squared mean",
)

tunix_grpo = PolicyRecipe(
  reference="tunix 0.1.7",
  baseline=_standardised,
  credit=EveryToken(),
  loss=_clip,
  reduction=over_sequences,
  clamp=20.0,
  penalty=KlInLoss(estimator=k1, weight=0.04),
  note="k1 in the loss has no expected gradient",
)

open_instruct_grpo = PolicyRecipe(
  reference="open-instruct, commit e6c3044a",
  baseline=_centred,
  credit=EveryToken(),
  loss=partial(clipped_policy_terms, clip_low=0.2, clip_high=0.272),
  reduction=over_tokens,
  weight=TrainerOverSampler(
    ratio=partial(token_ratio, clamp=10.0),
    weight=partial(truncated_weight, maximum=2.0),
  ),
  penalty=KlInLoss(estimator=k3, weight=0.05),
)

easydel_grpo = PolicyRecipe(
  reference="EasyDeL 0.3.0",
  baseline=WithinGroup(
    estimator=partial(group_relative, scale="group", ddof=0, epsilon=1e-4)
  ),
  credit=EveryToken(),
  loss=partial(loosely_clipped, clip_low=0.2, clip_high=0.2),
  reduction=over_tokens,
  penalty=KlInLoss(estimator=k3, weight=0.04),
  note="the clip is on the wrong side for negative advantages",
)

marin_rloo = PolicyRecipe(
  reference="marin, commit 011a1deb",
  baseline=WithinGroup(estimator=leave_one_out),
  credit=EveryToken(),
  loss=_clip,
  reduction=over_tokens,
  weight=PerRow(),
  penalty=KlInLoss(estimator=k3, weight=0.1, reduction=over_sequences),
  note="its reduction named GRPO is Dr. GRPO's; its own loss is this one",
)
