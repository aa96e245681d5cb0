"""Losses of reward models."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax import losses

R_W = jnp.array([1.0, -0.5, jnp.nan, 2.0, 0.25, jnp.inf])
R_L = jnp.array([0.5, 0.5, jnp.nan, -2.0, 1.0, 1.0])
KEPT = jnp.array([True, True, False, True, True, False])


def loss(r_w=R_W, r_l=R_L, kept=KEPT, margin=0.0, centring=0.0):
  return losses.bradley_terry_loss(
    r_w, r_l, kept, margin=margin, centring=centring
  )


def test_against_a_loop():
  margin = np.float32([1.0, 2.0, np.nan, 3.0, 1.0, 0.0])
  found = np.asarray(loss(margin=jnp.asarray(margin), centring=0.25))
  rows = zip(*map(np.asarray, (R_W, R_L, margin, KEPT)), strict=True)
  for i, (w, l, m, kept) in enumerate(rows):  # noqa: E741
    if not kept:
      assert found[i] == 0
      continue
    expected = math.log(1 + math.exp(-(w - l - m))) + 0.25 * (w + l) ** 2
    np.testing.assert_allclose(found[i], expected, rtol=2e-6)


@pytest.mark.parametrize(
  ("difference", "margin", "expected"),
  [  # worked in the notes on HelpSteer2-Preference and on noisy preferences
    (0.5, 0.0, 0.4740770),
    (0.5, 1.0, 0.9740770),
    (0.5, 2.0, 1.7014133),
    (0.5, 3.0, 2.5788897),
    (4.0, 3.0, 0.3132617),
    (1.0, 0.4, 0.4374880),
    (0.0, 0.0, 0.6931472),
  ],
)
def test_worked_by_hand(difference, margin, expected):
  one = jnp.ones(6)
  found = loss(one * difference, 0 * one, one > 0, margin)
  np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_slopes():
  by_w, by_l, by_margin = jax.grad(
    lambda w, l, m: loss(w, l, margin=m, centring=0.5).sum(),  # noqa: E741
    argnums=(0, 1, 2),
  )(R_W, R_L, jnp.ones(6))
  w, l = np.asarray(R_W, float), np.asarray(R_L, float)  # noqa: E741
  kept = np.asarray(KEPT)
  w, l = w[kept], l[kept]  # noqa: E741
  wrong, pull = 1 / (1 + np.exp(w - l - 1.0)), w + l
  for found, expected in ((by_w, pull - wrong), (by_l, pull + wrong)):
    found = np.asarray(found)
    np.testing.assert_allclose(found[kept], expected, rtol=1e-5)
    np.testing.assert_array_equal(found[~kept], 0.0)
  np.testing.assert_array_equal(by_margin, 0.0)


def test_at_its_margin_a_pair_pulls_by_one_half():
  slope = jax.grad(lambda w: loss(w, R_L, margin=0.5).sum())(R_W)
  np.testing.assert_allclose(np.asarray(slope)[0], -0.5, rtol=1e-6)


def test_only_differences_count_unless_centred():
  np.testing.assert_allclose(loss(R_W + 0.5, R_L + 0.5), loss(), rtol=1e-6)
  moved = loss(R_W + 0.5, R_L + 0.5, centring=0.01)
  change = np.abs(np.asarray(moved - loss(centring=0.01)))
  assert change[np.asarray(KEPT)].min() > 1e-3


def test_utilities_are_recovered():
  """By enumeration: scores are stationary at the truth, and nowhere else."""
  truth = jnp.array([0.3, -0.8, 1.1])
  first, second = np.array(
    [(i, j) for i in range(3) for j in range(3) if i != j]
  ).T
  probability = jax.nn.sigmoid(truth[first] - truth[second])

  def population(score):
    kept = jnp.ones(6, bool)
    each = loss(score[first], score[second], kept)
    return jnp.sum(probability * each)

  slope = jax.grad(population)
  np.testing.assert_allclose(slope(truth), 0.0, atol=1e-6)
  assert np.abs(slope(0.5 * truth)).max() > 1e-2


@pytest.mark.parametrize("centring", [-0.1, math.nan])
def test_bad_centring_is_refused(centring):
  with pytest.raises(ValueError, match=f"centring.*{centring}"):
    loss(centring=centring)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_scores_that_are_not_finite_are_refused(bad):
  with pytest.raises(ValueError, match=rf"chosen.*finite.*\[{bad}\].*1 of 4"):
    loss(r_w=jnp.where(jnp.arange(6) == 1, bad, R_W))


@pytest.mark.usefixtures("unchecked")
def test_shapes_that_would_broadcast_are_refused():
  with pytest.raises(ValueError, match=r"rejected and valid.*one shape"):
    loss(r_l=R_L[:1])
