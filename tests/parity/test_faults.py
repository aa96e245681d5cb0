"""Silent errors of the peers, as their code showed them, and ours without.

The first half of each test reads what the named version computed; the second
gives our function the same input.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import recipes
from parity.sources import load
from parity.subjects import batch_of, inputs_with_nan, placed
from rl_jax import advantages, divergences, losses, reduce

pytestmark = pytest.mark.slow


def faults(peer):
  return load(peer)["faults"]


def close(found, wanted, tolerance=1e-6):
  np.testing.assert_allclose(found, wanted, rtol=tolerance, atol=tolerance)


EQUAL = jnp.full(6, 0.3), jnp.zeros(6, int), jnp.ones(6, bool)


@pytest.mark.parametrize(
  ("peer", "epsilon", "at_least"),
  [("openrlhf", 1e-9, 0.8), ("verl", 1e-6, 0.02), ("tunix", 1e-6, 0.02)],
)
def test_equal_rewards_are_amplified_rounding(peer, epsilon, at_least):
  """Six rewards of 0.3: their mean is not 0.3, and epsilon divides the rest."""
  theirs = faults(peer)["six rewards of 0.3 in float32"]
  assert np.max(np.abs(theirs)) > at_least
  ours = advantages.group_relative(
    *EQUAL, num_groups=1, scale="group", ddof=1, epsilon=epsilon
  )
  assert ours.tolist() == [0.0] * 6


def test_leaving_one_out_by_a_difference_of_squares():
  """Fifteen equal rewards and another: NeMo-RL's spread of the equal ones."""
  theirs = faults("nemo")["fifteen rewards of 0.9 and one of -1.2"]
  assert theirs[0] < -8000
  reward = jnp.full(16, 0.9).at[0].set(-1.2)
  ours = advantages.leave_one_out_scaled(
    reward,
    jnp.zeros(16, int),
    jnp.ones(16, bool),
    num_groups=1,
    ddof=1,
    epsilon=1e-6,
  )
  # The others do not vary, so there is nothing to divide by.
  close(ours[0], -2.1)
  close(ours[1:], theirs[1:], 2e-5)


def test_a_row_alone_in_its_group():
  assert np.isnan(faults("tunix")["singleton group"]).all()
  assert np.isnan(faults("openrlhf")["singleton group"][0][0])
  raw = faults("verl")["singleton keeps its raw reward"]
  close(raw, 5.0, 2e-5)
  alone = jnp.array([5.0, 1.0, 0.0]), jnp.array([0, 1, 1]), jnp.ones(3, bool)
  ours = advantages.group_relative(
    *alone, num_groups=2, scale="group", ddof=1, epsilon=1e-6
  )
  assert ours[0] == 0.0
  assert np.isfinite(ours).all()
  assert advantages.leave_one_out(*alone, num_groups=2)[0] == 0.0


def test_kl_in_the_loss_without_a_gradient():
  """Tunix's default; by enumeration of pi = (.6, .3, .1), as theirs was."""
  theirs = faults("tunix")
  exact = theirs["gradient of the exact KL"]
  default = theirs["expected gradient of the default KL in the loss"]
  close(default, np.zeros(3))
  logits = jnp.log(jnp.array([0.6, 0.3, 0.1]))
  reference = jnp.log(jnp.array([0.3, 0.3, 0.4]))

  def expected(estimator):
    def sampled(z):
      log_prob = jax.nn.log_softmax(z)
      value = estimator(log_prob, reference, jnp.ones(3, bool))
      return jnp.sum(jax.lax.stop_gradient(jnp.exp(log_prob)) * value)

    return jax.grad(sampled)(logits)

  close(expected(divergences.k1), default)
  close(expected(divergences.k2), exact)
  close(expected(divergences.k2), theirs["expected gradient of mse_kl"])
  close(expected(divergences.k3), theirs["expected gradient of low_var_kl"])
  close(expected(divergences.kl_value_and_gradient), exact)


@pytest.mark.parametrize(
  ("peer", "name"),
  [
    ("verl", "clamp of low_var_kl kills the gradient"),
    ("openrlhf", "clamp of k3 kills the gradient"),
    ("nemo", "clamp of k3 kills the gradient"),
  ],
)
def test_a_clamp_that_kills_the_gradient(peer, name):
  """Once ref - log pi exceeds 2.6 or so, where it is needed most."""
  assert faults(peer)[name] == 0.0
  slope = jax.grad(
    lambda x: jnp.sum(divergences.k3(x, jnp.array([-1.9]), jnp.ones(1, bool)))
  )(jnp.array([-5.0]))
  close(slope, [1.0 - np.exp(3.1)], 1e-5)


@pytest.mark.parametrize(
  ("peer", "name"),
  [
    ("tunix", "NaN behind the mask"),
    ("openrlhf", "NaN behind the mask"),
    ("open_instruct", "NaN behind the mask"),
    ("nemo", "NaN behind the mask"),
    ("marin", "NaN behind the mask"),
    ("verl", "NaN behind the mask, seq-mean-token-sum"),
    ("trl", "NaN behind the mask"),
    ("easydel", "NaN behind the mask"),
  ],
)
def test_nan_behind_the_mask(peer, name):
  assert np.isnan(np.ravel(faults(peer)[name])[0])
  loss, mask = jnp.array([[1.0, jnp.nan]]), jnp.array([[True, False]])
  for reduction in (reduce.over_tokens, reduce.over_sequences):
    value, slope = jax.value_and_grad(
      lambda x, over=reduction: over(x, mask).mean()
    )(loss)
    assert value == 1.0
    assert slope.tolist() == [[1.0, 0.0]]


@pytest.mark.parametrize("name", ["trl_grpo", "verl_grpo", "marin_rloo"])
def test_a_recipe_with_nan_behind_the_mask(name):
  """Value and gradient, for everything that a row holds past its end."""
  recipe = getattr(recipes, name)
  clean, dirty = batch_of(np.arange(10)), inputs_with_nan()

  def run(batch):
    def objective(log_prob):
      given = batch._replace(log_prob=log_prob)
      return recipe.totals(given, num_groups=4).objective()

    return jax.value_and_grad(objective)(batch.log_prob)

  for wanted, found in zip(run(clean), run(dirty), strict=True):
    np.testing.assert_array_equal(found, wanted)


def test_no_token_at_all():
  assert np.isnan(faults("openrlhf")["no token at all"])
  assert np.isnan(faults("marin")["empty row"])
  loss, mask = jnp.ones((2, 1)), jnp.array([[True], [False]])
  assert reduce.over_sequences(loss, mask).mean() == 1.0
  nothing = reduce.over_tokens(loss, jnp.zeros((2, 1), bool))
  assert (nothing.mean(), nothing.weight) == (0.0, 0.0)


def test_gae_of_one_token_is_whitened_to_nan():
  assert np.isnan(faults("tunix")["GAE of one counted token"]).all()
  one, mask = jnp.ones((1, 2)), jnp.array([[True, False]])
  last = mask
  ours = advantages.generalized_advantage(
    one,
    one,
    one,
    mask,
    terminated=last,
    last=last,
    discount=1.0,
    trace=1.0,
  )
  assert ours.tolist() == [[0.0, 0.0]]
  with pytest.raises(ValueError, match="two counted elements"):
    advantages.whiten(
      ours, mask, ddof=1, epsilon=1e-8, guard="inside_root", shift_mean=True
    )


def test_the_loss_of_marin_falls_with_the_batch():
  assert faults("marin")["same tokens, more rows"].tolist() == [-0.5, -0.25]
  for rows in (2, 4):
    loss = -jnp.ones((rows, 1))
    assert reduce.over_tokens(loss, loss < 0).mean() == -1.0


def test_padding_changes_a_constant_that_is_the_width():
  narrow, wide = faults("verl")["padding changes seq-mean-token-sum-norm"]
  assert (narrow, wide) == (1.0, 0.5)
  loss = jnp.ones((2, 2))
  padded = jnp.pad(loss, ((0, 0), (0, 2)))
  for x in (loss, padded):
    assert reduce.over_constant(x, x > 0, divisor=2.0).mean() == 1.0


def test_a_mask_that_is_ignored_at_width_one():
  assert faults("easydel")["mask ignored at width one"].tolist() == [102, 2]
  assert faults("easydel")["the same at width two"].tolist() == [2, 1]
  value, mask = jnp.array([[2.0], [100.0]]), jnp.array([[True], [False]])
  total = reduce.over_tokens(value, mask)
  assert (total.value, total.weight) == (2.0, 1.0)


def test_the_clip_on_the_wrong_side():
  """A bad token far below its range: EasyDeL goes on pushing it down."""
  theirs = load("easydel")["grpo"]
  rows = theirs["rows"].astype(int)
  batch = batch_of(rows)
  ratio = np.exp(batch.log_prob - batch.behaviour_log_prob)
  advantage = placed(theirs["advantage"], rows)
  below = np.asarray(batch.mask) & (advantage < 0) & (ratio < 0.8)
  above = np.asarray(batch.mask) & (advantage < 0) & (ratio > 1.2)
  assert below.any()
  assert above.any()
  slope = placed(theirs["gradient"], rows)
  trl = placed(load("trl")["grpo"]["gradient"], rows)
  kl = jax.grad(
    lambda x: (
      0.04
      * reduce.over_tokens(
        divergences.k3(x, batch.reference_log_prob, batch.mask), batch.mask
      ).mean()
    )
  )(batch.log_prob)
  # What its policy loss adds to the KL: a push down where PPO has none, and
  # none where PPO pushes down.
  assert np.all((slope - kl)[below] > 1e-3)
  assert np.all(trl[below] == 0.0)
  close((slope - kl)[above], 0.0)
  assert np.all(trl[above] > 1e-3)
  recipe = dataclasses.replace(
    recipes.easydel_grpo, loss=recipes.trl_grpo.loss, penalty=None
  )
  ours = jax.grad(
    lambda x: recipe.totals(
      batch._replace(log_prob=x), num_groups=4
    ).objective()
  )(batch.log_prob)
  assert np.all(ours[below] == 0.0)
  assert np.all(ours[above] > 1e-3)


def test_padded_steps_in_the_mean_of_rlax():
  theirs = faults("rlax")
  close(theirs["entropy without padding"], -np.log(4.0))
  close(theirs["entropy with one padded step"], -np.log(4.0) / 2)
  assert np.isnan(theirs["entropy with NaN in the padding"])
  entropy, mask = (
    jnp.array([[np.log(4.0), jnp.nan]]),
    jnp.array([[True, False]]),
  )
  bonus = losses.entropy_bonus(entropy, mask, weight=1.0)
  close(reduce.over_tokens(bonus, mask).mean(), -np.log(4.0))


def test_micro_batches_that_are_averaged():
  """TRL's "bnpo" divides by the tokens of each micro-batch."""
  whole, halves = faults("trl")["bnpo of the whole and of its halves"]
  assert abs(whole - halves) > 1e-2
  batch = batch_of(np.arange(10))
  recipe = recipes.trl_grpo
  signals = recipe.signals(batch, num_groups=4)
  parts = [
    recipe.terms(*jax.tree.map(lambda x, i=i: x[i : i + 5], (batch, signals)))
    for i in (0, 5)
  ]
  close(
    (parts[0] + parts[1]).objective(),
    recipe.terms(batch, signals).objective(),
  )
