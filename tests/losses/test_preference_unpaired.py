"""KTO and BCO: labelled responses against a number of the whole batch."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax import losses, reduce

H = jnp.array([1.0, -0.5, jnp.nan, 2.0, -3.0, 0.25])
LABEL = jnp.array([True, False, True, False, True, True])
KEPT = jnp.array([True, True, False, True, True, True])
BETA = 0.5


def kto(h=H, label=LABEL, z0=0.5, kept=KEPT, **options):
  options = {
    "beta": BETA,
    "desirable_weight": 1.0,
    "undesirable_weight": 1.25,
  } | options
  return losses.kto_loss(h, label, jnp.asarray(z0), kept, **options)


def bco(h=H, label=LABEL, shift=0.25, kept=KEPT, beta=BETA):
  return losses.bco_loss(h, label, jnp.asarray(shift), kept, beta=beta)


def sig(x):
  return 1 / (1 + math.exp(-x))


def test_against_a_loop():
  found_kto, found_bco = np.asarray(kto()), np.asarray(bco())
  log_ratio, label, kept = map(np.asarray, (H, LABEL, KEPT))
  for i in range(6):
    h, sign = float(log_ratio[i]), 1 if label[i] else -1
    weight = 1.0 if label[i] else 1.25
    expected = (
      weight * (1 - sig(sign * BETA * (h - 0.5))),
      -math.log(sig(sign * (BETA * h - 0.25))),
    )
    expected = expected if kept[i] else (0.0, 0.0)
    np.testing.assert_allclose(
      (found_kto[i], found_bco[i]), expected, rtol=2e-6
    )


def test_slopes():
  """Desirable: -w beta s (1 - s) and -beta (1 - s); undesirable: the sign."""
  by_kto = np.asarray(jax.grad(lambda h: kto(h).sum())(H))
  by_bco = np.asarray(jax.grad(lambda h: bco(h).sum())(H))
  log_ratio, label, kept = map(np.asarray, (H, LABEL, KEPT))
  for i in range(6):
    if not kept[i]:
      assert by_kto[i] == by_bco[i] == 0
      continue
    sign, weight = (1, 1.0) if label[i] else (-1, 1.25)
    s = sig(sign * BETA * (float(log_ratio[i]) - 0.5))
    np.testing.assert_allclose(
      by_kto[i], -sign * weight * BETA * s * (1 - s), rtol=1e-5
    )
    s = sig(sign * (BETA * float(log_ratio[i]) - 0.25))
    np.testing.assert_allclose(by_bco[i], -sign * BETA * (1 - s), rtol=1e-5)


def test_no_gradient_flows_into_the_batch_numbers():
  assert jax.grad(lambda z: kto(z0=z).sum())(0.5) == 0
  assert jax.grad(lambda z: bco(shift=z).sum())(0.25) == 0
  slope = jax.grad(lambda h: losses.kto_reference_point(h, KEPT))(H)
  np.testing.assert_array_equal(slope, 0.0)


def test_bounded_by_its_weight():
  h = jnp.array([-1e4, -1.0, 0.0, 1.0, 30.0, 1e4])
  kept = jnp.ones(6, bool)
  for label, weight in ((True, 1.0), (False, 1.25)):
    found = kto(h, jnp.full(6, label), kept=kept)
    assert found.min() >= 0
    assert found.max() <= weight


def test_a_label_and_its_opposite_add_up():
  """1 - s(z) and 1 - s(-z) sum to one; -log s(z) differs by z."""
  same = {"desirable_weight": 1.0, "undesirable_weight": 1.0}
  both = kto(**same) + kto(label=~LABEL, **same)
  np.testing.assert_allclose(both, KEPT.astype(float), rtol=1e-6)
  z = jnp.where(LABEL, 1, -1) * (BETA * H - 0.25)
  expected = jnp.where(KEPT, -z, 0.0)
  np.testing.assert_allclose(bco() - bco(label=~LABEL), expected, atol=1e-6)


def test_reference_point_is_the_mean_of_what_counts():
  found = losses.kto_reference_point(jnp.abs(H), KEPT)
  np.testing.assert_allclose(found, (1 + 0.5 + 2 + 3 + 0.25) / 5, rtol=1e-6)


def test_reference_point_is_not_negative():
  """A KL is not; its estimate may be."""
  assert losses.kto_reference_point(H - 5.0, KEPT) == 0.0


def test_reference_point_of_nothing_is_zero():
  assert losses.kto_reference_point(H, jnp.zeros(6, bool)) == 0.0


def test_splits_need_the_reference_point_of_the_whole():
  z0 = losses.kto_reference_point(H, KEPT)
  whole = reduce.over_tokens(kto(z0=z0), KEPT)
  parts = [
    reduce.over_tokens(kto(H[p], LABEL[p], z0, KEPT[p]), KEPT[p])
    for p in (slice(0, 3), slice(3, 6))
  ]
  for found, expected in zip(parts[0] + parts[1], whole, strict=True):
    np.testing.assert_allclose(found, expected, rtol=1e-6)
  # The mean is over responses, not over their weights.
  assert whole.weight == KEPT.sum()


class TestRunningReward:
  def test_worked_by_hand(self):
    """The pair of the reference sheet: rewards .1 and -.05, mean .025."""
    h = jnp.array([1.0, -0.5, 1.0, -0.5, 1.0, -0.5])
    kept = jnp.ones(6, bool)
    state = losses.update_running_reward(
      losses.init_running_reward(), 0.1 * h, kept
    )
    np.testing.assert_allclose(state.mean, 0.025, rtol=1e-6)
    loss = losses.bco_loss(h, h > 0, state.mean, kept, beta=0.1)
    np.testing.assert_allclose(loss, 0.656350, atol=1e-6)

  def test_batches_of_any_size_give_the_mean_of_all(self):
    rng = np.random.default_rng(0)
    state, seen = losses.init_running_reward(), []
    for _ in range(4):
      reward = rng.normal(3.0, 1.0, 6).astype(np.float32)
      kept = rng.uniform(size=6) < 0.5
      seen += reward[kept].astype(float).tolist()
      state = losses.update_running_reward(
        state, jnp.where(kept, reward, jnp.nan), jnp.asarray(kept)
      )
    np.testing.assert_allclose(state.mean, np.mean(seen), rtol=1e-6)
    assert state.count == len(seen)

  def test_nothing_new_changes_nothing(self):
    state = losses.RunningReward(jnp.array(2.0), jnp.array(7.0))
    again = losses.update_running_reward(state, H, jnp.zeros(6, bool))
    assert again == state

  def test_long_runs_keep_moving(self):
    """After 2^24 rewards a sum in float32 stands still; this mean does not."""
    state = losses.RunningReward(jnp.array(0.5), jnp.array(2.0**24))
    reward = jnp.full(4096, 4.5)
    state = losses.update_running_reward(state, reward, jnp.ones(4096, bool))
    expected = 0.5 + 4.0 * 4096 / (2**24 + 4096)
    np.testing.assert_allclose(state.mean, expected, rtol=1e-6)


class TestRefused:
  @pytest.mark.parametrize("beta", [0.0, -1.0, math.nan])
  def test_beta(self, beta):
    for loss in (kto, bco):
      with pytest.raises(ValueError, match=f"beta.*{beta}"):
        loss(beta=beta)

  @pytest.mark.parametrize("name", ["desirable_weight", "undesirable_weight"])
  def test_negative_weight(self, name):
    with pytest.raises(ValueError, match=f"{name}.*-0.5"):
      kto(**{name: -0.5})

  @pytest.mark.usefixtures("unchecked")
  def test_labels_that_are_numbers(self):
    """-1 and 1 are both true to `where`."""
    signs = jnp.where(LABEL, 1, -1)
    for loss in (kto, bco):
      with pytest.raises(ValueError, match=r"desirable must be boolean.*int32"):
        loss(label=signs)

  @pytest.mark.usefixtures("unchecked")
  def test_shapes(self):
    for loss in (kto, bco):
      with pytest.raises(ValueError, match=r"desirable and valid.*one shape"):
        loss(label=LABEL[:1])
    with pytest.raises(ValueError, match="one shape"):
      losses.kto_reference_point(H, KEPT[:1])
    with pytest.raises(ValueError, match="one shape"):
      losses.update_running_reward(losses.init_running_reward(), H, KEPT[:1])
