"""Advantages, returns, whitening, KL and corrections against the peers'."""

from __future__ import annotations

import functools

import jax.numpy as jnp
import numpy as np
import pytest

from parity.sources import load
from parity.subjects import arrays, batch_of, last_of, placed
from rl_jax import advantages, divergences, losses, ratios, reduce
from rl_jax.algorithms.components import (
  Generalized,
  Greedy,
  LengthWeighted,
  ToGo,
)
from rl_jax.controllers import adapted_kl_coefficient

pytestmark = pytest.mark.slow


def close(found, wanted, tolerance=1e-6):
  np.testing.assert_allclose(found, wanted, rtol=tolerance, atol=tolerance)


# verl's column and those below leave the row out that is alone in its group.
ROWS = np.array([0, 1, 2, 4, 5, 6, 7, 8, 9])


def within(estimator, **settings):
  batch = batch_of(ROWS)
  return estimator(
    batch.reward, batch.group, batch.valid, num_groups=4, **settings
  )


def each(row):
  return placed(np.asarray(row)[ROWS], ROWS)


def relative(scale, ddof, epsilon):
  return within(
    advantages.group_relative, scale=scale, ddof=ddof, epsilon=epsilon
  )


@pytest.mark.parametrize(
  ("name", "ours"),
  [
    ("dr_grpo", lambda: relative("none", 0, 0.0)),
    ("leave_one_out", lambda: within(advantages.leave_one_out)),
    (
      "gpg",
      lambda: within(advantages.nonzero_relative, count="reward"),
    ),
    (
      "pass_at_k",
      lambda: within(
        advantages.best_minus_second, scale="group", ddof=1, epsilon=1e-6
      ),
    ),
    (
      "length_weighted",
      lambda: LengthWeighted()(
        batch_of(ROWS), batch_of(ROWS).reward, num_groups=4
      ),
    ),
    (
      "greedy",
      lambda: Greedy()(batch_of(ROWS), batch_of(ROWS).reward, num_groups=4),
    ),
  ],
)
def test_advantages_of_verl(name, ours):
  theirs = load("verl")["advantages"][name]
  close(each(ours()), placed(theirs, ROWS))


def test_reinforce_plus_plus_of_verl():
  """With its discount, and the whitening over the batch."""
  theirs = load("verl")["advantages"]
  given, mask = arrays(), batch_of(ROWS).mask & batch_of(ROWS).valid[:, None]
  white = functools.partial(
    advantages.whiten,
    ddof=1,
    epsilon=1e-8,
    guard="inside_root",
    shift_mean=True,
  )
  returns = advantages.discounted_returns(
    given["token_reward"], mask, last=last_of(mask), discount=0.9
  )
  close(white(returns, mask), placed(theirs["reinforce_plus_plus"], ROWS))
  centred = jnp.asarray(each(relative("none", 0, 0.0)))
  close(
    white(centred, mask), placed(theirs["reinforce_plus_plus_baseline"], ROWS)
  )


@pytest.mark.parametrize("peer", ["verl", "tunix"])
@pytest.mark.parametrize("which", ["mask", "hole_mask"])
def test_gae_that_skips_what_the_policy_did_not_write(peer, which):
  """Both whiten inside; tunix's arithmetic goes through float32."""
  theirs, tolerance = load(peer)["gae"][which], 1e-6
  given = arrays()
  mask = given[which]
  if peer == "verl":
    mask &= jnp.asarray(np.isin(np.arange(10), ROWS))[:, None]
  last = last_of(mask)
  following = advantages.next_values(given["value"], mask, last=last)
  advantage = advantages.generalized_advantage(
    given["token_reward"],
    given["value"],
    following,
    mask,
    terminated=last,
    last=last,
    discount=0.98,
    trace=0.9,
  )
  rows = ROWS if peer == "verl" else np.arange(10)
  returns = jnp.where(mask, advantage + given["value"], 0.0)
  close(returns, placed(theirs["returns"], rows) * mask, tolerance)
  white = advantages.whiten(
    advantage,
    mask,
    ddof=1,
    epsilon=1e-8,
    guard="inside_root",
    shift_mean=True,
  )
  close(white, placed(theirs["advantage"], rows) * mask, tolerance)


def test_returns_of_rlax():
  """One masked call against one unpadded sequence at a time."""
  theirs, given = load("rlax"), arrays()
  mask = given["mask"]
  last = last_of(mask)
  following = advantages.next_values(given["value"], mask, last=last)
  common = {"terminated": last, "last": last, "discount": 0.98}
  reward = given["token_reward"]
  close(
    advantages.generalized_advantage(
      reward, given["value"], following, mask, trace=0.9, **common
    ),
    theirs["gae"],
  )
  close(
    advantages.lambda_returns(reward, following, mask, trace=0.9, **common),
    theirs["lambda"],
  )
  close(
    advantages.n_step_returns(reward, following, mask, steps=2, **common),
    theirs["n_step"],
  )
  close(
    advantages.discounted_returns(reward, mask, last=last, discount=0.98),
    theirs["discounted"],
  )
  ratio = ratios.token_ratio(
    given["log_prob"], given["old_log_prob"], mask, clamp=None
  )
  trace = advantages.vtrace(
    reward,
    given["value"],
    following,
    ratio,
    mask,
    trace=0.9,
    max_ratio=1.1,
    max_trace=1.0,
    **common,
  )
  close(
    jnp.where(mask, trace.target - given["value"], 0.0), theirs["vtrace error"]
  )


def test_whitening_of_verl_and_tunix():
  given = arrays()
  mask = given["mask"]
  alone = jnp.asarray(np.isin(np.arange(10), ROWS))[:, None]
  white = functools.partial(
    advantages.whiten, ddof=1, epsilon=1e-8, guard="inside_root"
  )
  theirs = load("verl")["whiten"]
  for name, shift in (("shifted", True), ("unshifted", False)):
    found = white(given["value"], mask & alone, shift_mean=shift)
    close(found, placed(theirs[name], ROWS))
  found = white(given["value"], mask, shift_mean=True)
  close(found, load("tunix")["whiten"] * mask)


@pytest.mark.parametrize(
  ("peer", "rows", "tolerance"),
  [("verl", ROWS, 1e-6), ("openrlhf", ROWS, 1e-6)],
)
def test_values_of_the_kl_estimators(peer, rows, tolerance):
  theirs, given = load(peer)["kl"], arrays()
  pair = given["log_prob"], given["reference_log_prob"], given["mask"]
  ours = {"k1": divergences.k1, "k2": divergences.k2, "k3": divergences.k3}
  if peer == "verl":
    ours["abs"] = divergences.absolute_log_ratio
  for name, estimator in ours.items():
    found = placed(np.asarray(estimator(*pair))[rows], rows)
    close(found, placed(theirs[name], rows), tolerance)


def test_the_four_kl_estimators_of_open_instruct():
  theirs, given = load("open_instruct")["kl"], arrays()
  new, old = given["log_prob"], given["old_log_prob"]
  reference, mask = given["reference_log_prob"], given["mask"]
  close(divergences.k1(new, reference, mask), theirs["0"])
  close(divergences.k2(new, reference, mask), theirs["1"])
  close(divergences.k3(new, reference, mask), theirs["2"])
  close(divergences.importance_k1(new, old, reference, mask), theirs["3"])


def correction():
  given = arrays()
  mask = given["mask"] & jnp.asarray(np.isin(np.arange(10), ROWS))[:, None]
  return given["old_log_prob"], given["rollout_log_prob"], mask


@pytest.mark.parametrize("level", ["token", "sequence"])
def test_truncated_weights_of_verl(level):
  """Padding has weight zero there and one here; only counted tokens matter."""
  theirs = load("verl")["corrections"]
  old, sampler, mask = correction()
  if level == "token":
    ratio, counted = ratios.token_ratio(old, sampler, mask, clamp=20.0), mask
  else:
    ratio = ratios.sequence_ratio(old, sampler, mask, clamp=20.0)
    counted = jnp.any(mask, axis=-1)
  weight = ratios.truncated_weight(ratio, maximum=2.0)
  moments = ratios.weight_moments(weight, counted)
  normalised = ratios.normalised_weight(weight, moments.first.mean())
  for name, value in (("plain", weight), ("normalised", normalised)):
    value = value if value.ndim == 2 else value[:, None]
    wanted = placed(theirs[f"{level} {name}"], ROWS)
    close(jnp.where(mask, value, 0.0), wanted)
  if level == "token":
    dropped = ratios.masked_weight(ratio, low=0.5, high=2.0)
    wanted = placed(theirs["token dropped"], ROWS)
    close(jnp.where(mask, dropped, 0.0), wanted)
    close(moments.effective_fraction(), theirs["effective"])


@pytest.mark.parametrize(
  "name",
  [name for name in load("verl")["corrections"] if name.startswith("kept")],
)
def test_rejection_of_verl(name):
  _, option, bound = name.split()
  level, _, statistic = option.rpartition("_")
  level = level.removeprefix("seq_")
  pair = correction()
  if statistic == "k1":
    low, high = map(float, bound.split("_"))
    kept = ratios.keep_by_ratio(*pair, level=level, low=low, high=high)
  else:
    kept = ratios.keep_by_divergence(
      *pair, statistic=statistic, level=level, maximum=float(bound)
    )
  wanted = placed(load("verl")["corrections"][name], ROWS)
  np.testing.assert_array_equal(kept & pair[2], wanted.astype(bool))
  assert 0 < wanted.sum() < np.sum(pair[2])


@pytest.mark.parametrize(
  ("mode", "reduction"),
  [
    ("token-mean", reduce.over_tokens),
    ("seq-mean-token-mean", reduce.over_sequences),
    (
      "seq-mean-token-sum",
      functools.partial(reduce.over_constant, divisor=1.0),
    ),
    (
      "seq-mean-token-sum-norm",
      functools.partial(reduce.over_constant, divisor=6.0),
    ),
  ],
)
def test_aggregations_of_verl(mode, reduction):
  batch = batch_of(ROWS)
  mask = batch.mask & batch.valid[:, None]
  advantage = jnp.asarray(each(relative("group", 1, 1e-6)))
  loss = losses.dual_clipped_loss(
    batch.log_prob,
    batch.behaviour_log_prob,
    advantage,
    mask,
    clip_low=0.2,
    clip_high=0.2,
    bound=3.0,
  ).loss
  wanted = load("verl")[f"aggregate {mode}"]
  close(reduction(loss, mask).mean(), wanted)


def test_reductions_of_marin():
  """Its "grpo" is the constant one; its "dapo" divides by the rows twice."""
  theirs, given = load("marin")["reductions"], arrays()
  loss, mask = given["token_reward"], given["mask"]
  close(reduce.over_constant(loss, mask, divisor=8.0).mean(), theirs["grpo"])
  close(reduce.over_tokens(loss, mask).mean() / 10, theirs["dapo"])
  close(reduce.over_sequences(loss, mask).mean(), theirs["ppo"])


@pytest.mark.parametrize(("peer", "clip"), [("verl", 0.2), ("openrlhf", 0.5)])
def test_value_losses(peer, clip):
  given = arrays()
  _, _, mask = correction()
  terms = losses.clipped_value_loss(
    given["value"],
    given["old_value"],
    given["token_reward"],
    mask,
    clip=clip,
  )
  loss = reduce.over_tokens(terms.loss, mask).mean()
  close(loss, load(peer)["value_loss"]["loss"])


def test_adaptive_kl_of_verl():
  coefficient, found = jnp.asarray(0.2), []
  for kl in (12.0, 3.0, 6.3):
    coefficient = adapted_kl_coefficient(
      coefficient,
      jnp.asarray(kl),
      jnp.asarray(256.0),
      target=6.0,
      horizon=1e4,
    ).following
    found.append(coefficient)
  close(found, load("verl")["controller"])


def test_several_rewards_of_trl():
  """Summed then normalised, and GDPO's other order with its second step."""
  theirs, given = load("trl"), arrays()
  member = np.array([0, 2, 6, 9])
  reward = jnp.stack([given["score"], given["second_score"]], -1)[member]
  weight = jnp.array([1.0, 0.5])
  group, valid = jnp.zeros(4, int), jnp.ones(4, bool)
  common = {"num_groups": 1, "scale": "group", "ddof": 1, "epsilon": 1e-4}
  found = advantages.group_relative(reward @ weight, group, valid, **common)
  close(found, theirs["advantage_sum_then_normalize"])
  total, counted = advantages.sum_of_relatives(
    reward, weight, group, valid[:, None] & jnp.ones(2, bool)[None], **common
  )
  found = advantages.whiten(
    total, counted, ddof=1, epsilon=1e-4, guard="outside_root", shift_mean=True
  )
  close(found, theirs["advantage_normalize_then_sum"])


def test_scales_of_trl():
  theirs, batch = load("trl"), batch_of(np.arange(10))
  for scale, wanted in (("global", "batch"), ("none", "none")):
    # TRL's "batch" takes the mean of all rows where groups are one group; it
    # was given all ten as one.
    group = batch.group if scale == "none" else jnp.zeros(10, int)
    found = advantages.group_relative(
      batch.reward,
      group,
      batch.valid,
      num_groups=4,
      scale=scale,
      ddof=1,
      epsilon=1e-4,
    )
    close(found, theirs[f"advantage_{wanted}"])


def test_reinforce_of_openrlhf():
  """Discounted, with k1 in the reward, whitened with a floor."""
  theirs = load("openrlhf")["reinforce"]["advantage"]
  batch = batch_of(ROWS)
  mask = batch.mask & batch.valid[:, None]
  advantage, _ = ToGo(discount=0.9, kl_weight=0.01, bound=10.0)(
    batch, batch.reward
  )
  white = advantages.whiten(
    advantage, mask, ddof=0, epsilon=1e-8, guard="floor", shift_mean=True
  )
  close(white, placed(theirs, ROWS))


def test_gae_component_is_the_function():
  batch = batch_of(np.arange(10))
  batch = batch._replace(behaviour_value=batch.value)
  _, target = Generalized(
    discount=0.98, trace=0.9, target_trace=1.0, kl_weight=0.0
  )(batch, batch.reward)
  length = np.asarray(batch.mask).sum(-1)
  reward = np.asarray(batch.reward)
  for i, n in enumerate(length):
    wanted = reward[i] * 0.98 ** np.arange(n)[::-1]
    close(target[i, :n], wanted)
