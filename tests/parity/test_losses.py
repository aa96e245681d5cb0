"""Policy losses of the peers at other options than their defaults."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import recipes
from parity.sources import load
from parity.subjects import batch_of, placed
from rl_jax import advantages, losses, ratios, reduce
from rl_jax.algorithms.component_functions import (
  fresh_policy_gradient,
  over_all_rows,
)
from rl_jax.algorithms.components import (
  EveryToken,
  KlInLoss,
  TrainerOverSampler,
  WithinGroup,
)
from rl_jax.divergences import importance_k3, k3, kl_value_and_gradient

pytestmark = pytest.mark.slow

changed = dataclasses.replace
clipped = functools.partial(losses.clipped_policy_terms, clip_low=0.2)
geometric = {"level": "geometric", "clamp": None}
gspo = {"clip_low": 0.03, "clip_high": 0.04} | geometric


def relative(scale, ddof, epsilon):
  estimator = functools.partial(
    advantages.group_relative, scale=scale, ddof=ddof, epsilon=epsilon
  )
  return WithinGroup(estimator=estimator)


def correction(weight, kept=None, clamp=None):
  return TrainerOverSampler(
    ratio=functools.partial(ratios.token_ratio, clamp=clamp),
    weight=weight,
    kept=kept,
  )


trl = recipes.trl_grpo
verl = recipes.verl_grpo
nemo = recipes.nemo_grpo
openrlhf = recipes.openrlhf_grpo
tunix = changed(recipes.tunix_grpo, penalty=None)
easydel = changed(recipes.easydel_grpo, penalty=None)
open_instruct = recipes.open_instruct_grpo
truncated = functools.partial(ratios.truncated_weight, maximum=2.0)
dropped = functools.partial(ratios.masked_weight, low=0.5, high=2.0)
sequence = functools.partial(losses.sequence_clipped_loss, **gspo)
tokens_of = functools.partial(losses.sequence_token_loss, **gspo)
# Fixtures of NeMo-RL, tunix: float32 inside.
ROUGH = 2e-5

VARIANTS = {
  "trl/grpo_with_kl": changed(trl, penalty=KlInLoss(estimator=k3, weight=0.04)),
  "trl/grpo_with_weighted_kl": changed(
    trl,
    penalty=KlInLoss(
      estimator=importance_k3, weight=0.04, ratio_to="behaviour"
    ),
  ),
  "trl/grpo_sequence_mean": changed(trl, reduction=reduce.over_sequences),
  # TRL keeps the advantages of its default in these fixtures.
  "trl/dr_grpo": changed(
    trl, reduction=functools.partial(over_all_rows, divisor=8.0)
  ),
  "trl/gspo": changed(trl, loss=sequence, reduction=reduce.over_sequences),
  "trl/cispo": changed(
    trl, loss=functools.partial(losses.clipped_weight_loss, low=0.0, high=1.5)
  ),
  "trl/sapo": changed(
    recipes.sapo, baseline=trl.baseline, reduction=reduce.over_sequences
  ),
  "trl/two_sided": changed(
    trl,
    loss=functools.partial(
      losses.dual_clipped_loss, clip_low=0.2, clip_high=0.2, bound=1.5
    ),
  ),
  "trl/rloo": changed(recipes.rloo, shaping=()),
  "verl/grpo_with_kl": changed(
    verl, penalty=KlInLoss(estimator=k3, weight=0.001, clamp=10.0)
  ),
  "verl/grpo_with_straight_through_kl": changed(
    verl, penalty=KlInLoss(estimator=kl_value_and_gradient, weight=0.001)
  ),
  "verl/grpo_with_weights": changed(
    verl, weight=correction(truncated, clamp=20.0)
  ),
  "verl/dapo": changed(
    verl,
    loss=functools.partial(
      losses.dual_clipped_loss, clip_low=0.2, clip_high=0.28, bound=3.0
    ),
  ),
  "verl/gspo": changed(verl, loss=tokens_of, reduction=reduce.over_sequences),
  "verl/geometric_mean": changed(recipes.gmpo, baseline=verl.baseline),
  "verl/cispo": changed(
    verl, loss=functools.partial(losses.clipped_weight_loss, low=0.8, high=1.28)
  ),
  "verl/sapo": changed(recipes.sapo, baseline=verl.baseline),
  "verl/gpg": changed(verl, loss=fresh_policy_gradient),
  "openrlhf/leave_one_out": changed(
    openrlhf, baseline=WithinGroup(estimator=advantages.leave_one_out)
  ),
  "openrlhf/dr_grpo": changed(openrlhf, baseline=relative("none", 0, 0.0)),
  "openrlhf/grpo_dual_clip": changed(openrlhf, loss=verl.loss),
  "openrlhf/grpo_token_weights": changed(
    openrlhf,
    weight=correction(
      functools.partial(ratios.truncated_weight, minimum=0.5, maximum=5.0)
    ),
  ),
  "openrlhf/grpo_token_dropped": changed(
    openrlhf,
    weight=correction(
      functools.partial(ratios.masked_weight, low=0.5, high=5.0)
    ),
  ),
  "openrlhf/grpo_row_dropped": changed(
    openrlhf,
    weight=correction(
      functools.partial(ratios.truncated_weight, maximum=jnp.inf),
      # Bounds on trainer over sampler, the inverse of what the function takes.
      kept=functools.partial(
        ratios.keep_by_ratio, level="mean", low=1.0 / 1.2, high=1.0 / 0.9
      ),
    ),
  ),
  "openrlhf/gspo": changed(
    openrlhf, loss=sequence, reduction=reduce.over_sequences, clamp=None
  ),
  "nemo/grpo_mean_baseline": changed(nemo, baseline=relative("group", 1, 1e-6)),
  "nemo/dr_grpo": changed(
    nemo, baseline=WithinGroup(estimator=advantages.leave_one_out)
  ),
  "nemo/grpo_sequence_mean": changed(nemo, reduction=reduce.over_sequences),
  "nemo/dual_clip": changed(nemo, loss=verl.loss),
  "nemo/gspo": changed(
    nemo, loss=sequence, reduction=reduce.over_sequences, penalty=None
  ),
  "nemo/cispo": changed(
    nemo,
    loss=functools.partial(losses.clipped_weight_loss, low=0.8, high=1.2),
    penalty=None,
  ),
  "nemo/grpo_token_weights": changed(nemo, weight=correction(truncated)),
  "nemo/grpo_token_dropped": changed(nemo, weight=correction(dropped)),
  "tunix/grpo_k3": changed(tunix, penalty=KlInLoss(estimator=k3, weight=0.04)),
  "tunix/gspo": changed(tunix, loss=tokens_of),
  "tunix/dual_clip": changed(tunix, loss=verl.loss),
  "tunix/token_mean": changed(recipes.tunix_grpo, reduction=reduce.over_tokens),
  "tunix/leave_one_out": changed(
    recipes.tunix_grpo,
    baseline=WithinGroup(estimator=advantages.leave_one_out),
  ),
  "tunix/dr_grpo": changed(
    recipes.tunix_grpo,
    baseline=relative("none", 0, 0.0),
    reduction=functools.partial(reduce.over_constant, divisor=6.0),
  ),
  "open_instruct/grpo_without_correction": changed(open_instruct, weight=None),
  "open_instruct/grpo_standard": changed(
    open_instruct, baseline=relative("group", 0, 1e-8)
  ),
  "open_instruct/cispo": changed(
    open_instruct,
    loss=functools.partial(losses.clipped_weight_loss, low=0.0, high=1.272),
  ),
  "easydel/grpo_sequence_mean": changed(
    recipes.easydel_grpo, reduction=reduce.over_sequences
  ),
  # Its divisor is the padded width, here the longest response as well.
  "easydel/dr_grpo": changed(
    recipes.easydel_grpo,
    reduction=functools.partial(over_all_rows, divisor=6.0),
  ),
}


@pytest.mark.parametrize("name", VARIANTS)
def test_variant(name):
  peer, _, option = name.partition("/")
  column = load(peer)["grpo"]
  theirs = load(peer)[option]
  rows = theirs.get("rows", column["rows"])
  batch, recipe = batch_of(rows), VARIANTS[name]

  def objective(log_prob):
    given = batch._replace(log_prob=log_prob)
    return recipe.totals(given, num_groups=4).objective()

  loss, gradient = jax.value_and_grad(objective)(batch.log_prob)
  tolerance = ROUGH if peer in ("nemo", "tunix") else 1e-6
  within = {"rtol": tolerance, "atol": tolerance}
  np.testing.assert_allclose(loss, theirs["loss"], **within)
  np.testing.assert_allclose(
    gradient, placed(theirs["gradient"], rows), **within
  )


def test_every_stored_column_is_tried():
  peers = ("trl", "verl", "openrlhf", "nemo", "tunix", "open_instruct")
  stored = {
    f"{peer}/{name}"
    for peer in (*peers, "easydel")
    for name, value in load(peer).items()
    if isinstance(value, dict) and "gradient" in value and name != "grpo"
  }
  elsewhere = {"verl/kl_cov", "verl/clip_cov"} | {
    # `minimum(ratio, bound)` with its gradient: a cut that nobody else has.
    "easydel/cispo",
    # Their clip on the wrong side meets bounds and rows here.
    "easydel/two_sided",
    "easydel/gspo",
  }
  assert stored == set(VARIANTS) | elsewhere


@pytest.mark.parametrize("which", ["kl_cov", "clip_cov"])
def test_covariance_losses_of_verl(which):
  column, theirs = load("verl")["grpo"], load("verl")[which]
  batch = batch_of(column["rows"])
  signals = verl.signals(batch, num_groups=4)
  advantage, mask = signals.advantage, signals.mask
  gradient = placed(theirs["gradient"], column["rows"])
  if which == "kl_cov":
    covariance = losses.token_covariance(
      batch.log_prob,
      advantage,
      reduce.over_tokens(batch.log_prob, mask).mean(),
      reduce.over_tokens(advantage, mask).mean(),
      mask,
    )
    spared = losses.largest_fraction(covariance, mask, mask, fraction=0.1)
    loss = functools.partial(losses.covariance_penalty_loss, weight=0.1)
    assert np.sum(spared) == 3
  else:
    # Theirs are drawn at random: those that lost the gradient of PPO, and
    # perhaps some that have no advantage and hence none anyway.
    slope = jax.grad(
      lambda x: jnp.sum(
        clipped(
          x, batch.behaviour_log_prob, advantage, mask, clip_high=0.2
        ).loss
      )
    )(batch.log_prob)
    spared = (slope != 0) & (gradient == 0)
    loss = functools.partial(
      losses.covariance_clip_loss, clip_low=0.2, clip_high=0.2
    )
    assert 0 < np.sum(spared) <= 3

  def objective(log_prob):
    terms = loss(log_prob, batch.behaviour_log_prob, advantage, spared, mask)
    return reduce.over_tokens(terms.loss, mask).mean()

  found, slope = jax.value_and_grad(objective)(batch.log_prob)
  np.testing.assert_allclose(found, theirs["loss"], rtol=1e-6)
  np.testing.assert_allclose(slope, gradient, atol=1e-6)


def test_every_token_credit_is_the_row_of_openrlhf_without_kl():
  """The same recipe with and without the KL that its advantages carry."""
  rows = load("openrlhf")["grpo"]["rows"]
  batch = batch_of(rows)
  credit = dataclasses.replace(openrlhf.credit, kl_weight=0.0)
  to_go = changed(openrlhf, credit=credit).signals(batch, num_groups=4)
  each = changed(openrlhf, credit=EveryToken()).signals(batch, num_groups=4)
  np.testing.assert_allclose(to_go.advantage, each.advantage, atol=1e-12)
