from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax import losses


def _case(rows=4, time=5):
  keys = jax.random.split(jax.random.key(0), 4)
  log_prob = 0.3 * jax.random.normal(keys[0], (rows, time))
  behaviour = 0.3 * jax.random.normal(keys[1], (rows, time))
  advantage = jnp.array([1.0, -2.0, 0.0, 0.5])
  mask = jax.random.bernoulli(keys[2], 0.7, (rows, time))
  return log_prob, behaviour, advantage, mask


@pytest.mark.slow
def test_one_advantage_serves_the_whole_chain():
  log_prob, behaviour, advantage, mask = _case()
  chain = losses.denoising_policy_loss(
    log_prob, behaviour, advantage, mask, clip_low=1e-4, clip_high=1e-4
  )
  for step in range(5):
    one = losses.clipped_policy_loss(
      log_prob[:, step],
      behaviour[:, step],
      advantage,
      mask[:, step],
      clip_low=1e-4,
      clip_high=1e-4,
    )
    np.testing.assert_array_equal(chain.loss[:, step], one)


@pytest.mark.slow
def test_a_tiny_range_clips_almost_everything_off_policy():
  log_prob, behaviour, advantage, mask = _case()
  terms = losses.denoising_policy_loss(
    log_prob, behaviour, advantage, mask, clip_low=1e-4, clip_high=1e-4
  )
  np.testing.assert_array_equal(terms.clipped, mask)


@pytest.mark.slow
def test_on_policy_gradient():
  log_prob, _, advantage, mask = _case()
  gradient = jax.grad(
    lambda x: losses.denoising_policy_loss(
      x, log_prob, advantage, mask, clip_low=1e-4, clip_high=1e-4
    ).loss.sum()
  )(log_prob)
  expected = np.where(mask, -np.asarray(advantage)[:, None], 0.0)
  np.testing.assert_allclose(gradient, expected, atol=1e-6)


class TestDiscount:
  def test_early_steps_get_less(self):
    remaining = jnp.array([[2, 1, 0], [0, 1, 2]])
    advantage = losses.denoising_advantage(
      jnp.array([4.0, -8.0]), remaining, discount=0.5
    )
    np.testing.assert_allclose(advantage, [[1, 2, 4], [-8, -4, -2]], rtol=1e-6)

  def test_discount_one_is_the_same_for_all(self):
    remaining = jnp.arange(3)[None]
    advantage = losses.denoising_advantage(
      jnp.array([3.0]), remaining, discount=1.0
    )
    np.testing.assert_array_equal(advantage, [[3.0, 3.0, 3.0]])

  @pytest.mark.parametrize("bad", [0.0, 1.1, float("nan")])
  def test_a_discount_out_of_range_is_refused(self, bad):
    with pytest.raises(ValueError, match="discount"):
      losses.denoising_advantage(
        jnp.ones(1), jnp.zeros((1, 1), int), discount=bad
      )


class TestClipSchedule:
  def _clip(self, remaining, **changes):
    settings = {
      "num_steps": 5,
      "clip_first": 0.01,
      "clip_last": 0.1,
      "rate": 3.0,
    }
    return losses.denoising_clip(
      jnp.asarray([remaining]), **(settings | changes)
    )[0]

  def test_it_widens_from_first_to_last(self):
    clip = self._clip([4, 3, 2, 1, 0])
    np.testing.assert_allclose(clip[0], 0.01, atol=1e-7)
    np.testing.assert_allclose(clip[-1], 0.1, atol=1e-7)
    assert (np.diff(clip) > 0).all()
    middle = 0.01 + 0.09 * (np.exp(1.5) - 1) / (np.exp(3.0) - 1)
    np.testing.assert_allclose(clip[2], middle, rtol=1e-5)

  @pytest.mark.slow
  def test_it_feeds_the_loss(self):
    clip = self._clip([4, 0])[None]
    terms = losses.denoising_policy_loss(
      jnp.log(jnp.full((1, 2), 1.05)),
      jnp.zeros((1, 2)),
      jnp.ones(1),
      jnp.ones((1, 2), bool),
      clip_low=clip,
      clip_high=clip,
    )
    np.testing.assert_array_equal(terms.clipped, [[True, False]])
    np.testing.assert_allclose(terms.loss, [[-1.01, -1.05]], rtol=1e-6)

  @pytest.mark.parametrize(
    ("bad", "name"),
    [
      ({"num_steps": 1}, "num_steps"),
      ({"rate": 0.0}, "rate"),
      ({"clip_first": -0.1}, "clip_first"),
    ],
  )
  def test_nonsense_is_refused(self, bad, name):
    with pytest.raises(ValueError, match=name):
      self._clip([0], **bad)


class TestKlMask:
  def _slope(self, ratio, advantage, kl):
    one = jnp.ones((1, 1))

    def loss(x):
      return losses.kl_masked_policy_loss(
        x,
        0 * one,
        jnp.array([advantage]),
        kl * one,
        one > 0,
        threshold=1e-6,
      ).loss.sum()

    return jax.grad(loss)(jnp.log(ratio * one)).item()

  @pytest.mark.slow
  @pytest.mark.parametrize(
    ("ratio", "advantage", "kl", "slope"),
    [
      (2.0, 1.0, 1e-3, 0.0),  # far and outward: stopped
      (0.5, -1.0, 1e-3, 0.0),
      (2.0, -1.0, 1e-3, 2.0),  # far, but coming back
      (0.5, 1.0, 1e-3, -0.5),
      (2.0, 1.0, 1e-7, -2.0),  # near: the ratio alone stops nothing
      (1.0, 1.0, 1e-3, -1.0),  # neither out nor in
    ],
  )
  def test_where_the_gradient_stops(self, ratio, advantage, kl, slope):
    np.testing.assert_allclose(
      self._slope(ratio, advantage, kl), slope, atol=1e-6
    )

  @pytest.mark.slow
  def test_the_value_is_the_plain_surrogate_and_masks_hold(self):
    log_prob, behaviour, advantage, mask = _case()
    kl = jnp.where(mask, 1.0, jnp.nan)
    terms = losses.kl_masked_policy_loss(
      jnp.where(mask, log_prob, jnp.nan),
      behaviour,
      advantage,
      kl,
      mask,
      threshold=1e-6,
    )
    plain = -advantage[:, None] * jnp.exp(log_prob - behaviour)
    np.testing.assert_allclose(
      terms.loss, jnp.where(mask, plain, 0.0), rtol=1e-5, atol=1e-6
    )
    assert not terms.clipped[~np.asarray(mask)].any()

  def test_a_negative_threshold_is_refused(self):
    log_prob, behaviour, advantage, mask = _case()
    with pytest.raises(ValueError, match="threshold"):
      losses.kl_masked_policy_loss(
        log_prob, behaviour, advantage, log_prob, mask, threshold=-1.0
      )
