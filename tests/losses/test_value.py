"""Losses of a critic, against hand-worked cases and slow oracles."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax import losses, reduce

ATOM = jnp.array([-2.0, -1.0, 0.0, 1.0, 2.0])


def _case(seed=0, rows=4, time=5):
  rng = np.random.default_rng(seed)
  arrays = (rng.normal(size=(rows, time)) for _ in range(3))
  mask = rng.uniform(size=(rows, time)) < 0.7
  return *(jnp.asarray(x, jnp.float32) for x in arrays), jnp.asarray(mask)


def test_clipped_loss_against_a_loop():
  value, old, target, mask = _case()
  found = losses.clipped_value_loss(value, old, target, mask, clip=0.3)
  for at in np.ndindex(mask.shape):
    v, b, g = (float(x[at]) for x in (value, old, target))
    near = min(max(v, b - 0.3), b + 0.3)
    expected = 0.5 * max((v - g) ** 2, (near - g) ** 2) * bool(mask[at])
    assert found.loss[at].item() == pytest.approx(expected, rel=1e-5, abs=1e-6)
    clipped = bool(mask[at]) and (near - g) ** 2 > (v - g) ** 2
    assert found.clipped[at].item() == clipped


@pytest.mark.parametrize(
  ("value", "expected", "slope"),
  [
    (1.9, 0.5 * 0.8**2, 0.0),  # past the clip, towards the target: stopped
    (0.5, 0.5 * 1.5**2, -1.5),  # the wrong way: told to come back
    (1.1, 0.5 * 0.9**2, -0.9),  # within the clip
  ],
)
def test_where_the_clip_stops_the_gradient(value, expected, slope):
  one, kept = jnp.ones(1), jnp.ones(1, bool)

  def total(value):
    return losses.clipped_value_loss(value, one, 2 * one, kept, clip=0.2)[0][0]

  found = jax.value_and_grad(total)(value * one)
  assert found[0].item() == pytest.approx(expected, abs=1e-6)
  assert found[1].item() == pytest.approx(slope, abs=1e-6)


def test_infinite_clip_is_half_the_squared_error():
  value, old, target, mask = _case(1)
  found = losses.clipped_value_loss(
    value, old, target, mask, clip=float("inf")
  ).loss
  expected = np.where(mask, 0.5 * (value - target) ** 2, 0.0)
  np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("error", [-3.0, -0.5, 0.0, 0.25, 0.5, 8.0])
def test_huber_is_quadratic_then_linear(error):
  one, kept = jnp.ones(1), jnp.ones(1, bool)

  def total(value):
    return losses.huber_value_loss(value, one, kept, threshold=0.5)[0]

  value, slope = jax.value_and_grad(total)((1 + error) * one)
  far = abs(error) > 0.5
  expected = 0.5 * (abs(error) - 0.25) if far else 0.5 * error**2
  assert value.item() == pytest.approx(expected, abs=1e-6)
  assert slope.item() == pytest.approx(np.clip(error, -0.5, 0.5), abs=1e-6)


@pytest.mark.slow
def test_targets_get_no_gradient():
  value, old, target, mask = _case(2)

  def total(old, target):
    clipped = losses.clipped_value_loss(value, old, target, mask, clip=0.1)
    huber = losses.huber_value_loss(value, target, mask, threshold=0.5)
    two_hot = losses.two_hot_target(target, ATOM, mask)
    return clipped.loss.sum() + huber.sum() + (two_hot**2).sum()

  for gradient in jax.grad(total, argnums=(0, 1))(old, target):
    assert not gradient.any()


@pytest.mark.slow
@pytest.mark.parametrize(
  ("target", "expected"),
  [
    (0.25, [0, 0, 0.75, 0.25, 0]),
    (-2.0, [1, 0, 0, 0, 0]),
    (2.0, [0, 0, 0, 0, 1]),
    (1.0, [0, 0, 0, 1, 0]),
    (9.0, [0, 0, 0, 0, 1]),
    (-9.0, [1, 0, 0, 0, 0]),
  ],
)
def test_two_hot_by_hand(target, expected):
  found = losses.two_hot_target(jnp.array([target]), ATOM, jnp.ones(1, bool))
  np.testing.assert_allclose(found[0], expected, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("spacing", ["even", "uneven"])
def test_two_hot_has_the_target_as_mean(spacing):
  atom = ATOM if spacing == "even" else jnp.array([-2.0, -1.75, 0.5, 2.0])
  target = jnp.linspace(-2, 2, 33)
  p = losses.two_hot_target(target, atom, jnp.ones(33, bool))
  np.testing.assert_allclose(p.sum(axis=-1), 1.0, rtol=1e-6)
  np.testing.assert_allclose((p * atom[None]).sum(axis=-1), target, atol=1e-5)
  assert (p >= 0).all()
  assert ((p > 0).sum(axis=-1) <= 2).all()


@pytest.mark.slow
def test_gaussian_target_against_the_error_function():
  target, spread = [0.3, -1.9, 7.0], 0.75
  found = losses.gaussian_target(
    jnp.array(target), ATOM, jnp.ones(3, bool), spread=spread
  )
  edges = [-2.5, -1.5, -0.5, 0.5, 1.5, 2.5]
  for row, y in zip(found, target, strict=True):
    y = min(max(y, -2.0), 2.0)
    below = [math.erf((edge - y) / (spread * math.sqrt(2))) for edge in edges]
    expected = np.diff(below) / (below[-1] - below[0])
    np.testing.assert_allclose(row, expected, atol=1e-6)


@pytest.mark.slow
def test_gaussian_target_tends_to_the_nearest_atom():
  found = losses.gaussian_target(
    jnp.array([0.3]), ATOM, jnp.ones(1, bool), spread=1e-3
  )
  np.testing.assert_allclose(found[0], [0, 0, 1, 0, 0], atol=1e-6)


@pytest.mark.slow
def test_categorical_loss_and_gradient():
  """Cross-entropy; its gradient is softmax minus the target's probability."""
  rng = np.random.default_rng(0)
  logits = jnp.asarray(rng.normal(size=(2, 3, 5)), jnp.float32)
  mask = jnp.array([[True, True, False], [True, False, True]])
  target = jnp.asarray(rng.uniform(-2, 2, (2, 3)), jnp.float32)
  p = losses.two_hot_target(target, ATOM, mask)

  def total(logits, p):
    return losses.categorical_value_loss(logits, p, mask).sum()

  q = np.exp(np.float64(logits))
  q /= q.sum(axis=-1, keepdims=True)
  expected = -(np.asarray(p) * np.log(q)).sum(axis=-1)
  np.testing.assert_allclose(
    losses.categorical_value_loss(logits, p, mask), expected, atol=1e-6
  )
  gradient, into_target = jax.grad(total, argnums=(0, 1))(logits, p)
  expected = np.where(mask[..., None], q - p, 0.0)
  np.testing.assert_allclose(gradient, expected, atol=1e-6)
  assert not into_target.any()


@pytest.mark.slow
def test_categorical_loss_without_an_atom():
  logits, p = jnp.array([[0.0, -jnp.inf]]), jnp.array([[1.0, 0.0]])

  def total(logits):
    return losses.categorical_value_loss(logits, p, jnp.ones(1, bool)).sum()

  value, gradient = jax.value_and_grad(total)(logits)
  assert value == 0.0
  assert jnp.isfinite(gradient).all()


@pytest.mark.slow
def test_categorical_mean_inverts_two_hot():
  target = jnp.array([-1.75, 0.5, 2.0])
  kept = jnp.ones(3, bool)
  logits = jnp.log(losses.two_hot_target(target, ATOM, kept))
  found = losses.categorical_mean(logits, ATOM, kept)
  np.testing.assert_allclose(found, target, atol=1e-6)


def test_explained_variance_against_its_definition():
  value, _, target, mask = _case(3, rows=4)
  found = losses.explained_variance(value, target, mask)
  kept = np.asarray(mask)
  v, g = (np.asarray(x, np.float64)[kept] for x in (value, target))
  expected = 1 - np.var(g - v) / np.var(g)
  assert found.fraction().item() == pytest.approx(expected, abs=1e-5)
  parts = [
    losses.explained_variance(value[i], target[i], mask[i]) for i in range(4)
  ]
  added = parts[0] + parts[1] + parts[2] + parts[3]
  assert added.fraction().item() == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(
  ("value", "expected"),
  [
    ([1.0, -1.0], 1.0),
    ([3.0, 1.0], 1.0),  # a constant error is no variance
    ([0.0, 0.0], 0.0),
    ([-1.0, 1.0], -3.0),
  ],
)
def test_explained_variance_at_its_ends(value, expected):
  found = losses.explained_variance(
    jnp.array(value), jnp.array([1.0, -1.0]), jnp.ones(2, bool)
  )
  assert found.fraction().item() == expected


def test_explained_variance_of_constant_targets_is_zero():
  one, kept = jnp.ones(2), jnp.ones(2, bool)
  assert losses.explained_variance(2 * one, one, kept).fraction() == 0.0
  assert losses.explained_variance(one, one, ~kept).fraction() == 0.0


@pytest.mark.slow
def test_a_critic_learns_the_mean_by_either_loss():
  """Minimum of the expected loss over returns -1 and 2, equally likely."""
  returns, kept = jnp.array([-1.0, 2.0]), jnp.ones(2, bool)
  p = losses.two_hot_target(returns, ATOM, kept).mean(axis=0)
  logits = jnp.log(p)[None]
  found = losses.categorical_mean(logits, ATOM, jnp.ones(1, bool))
  np.testing.assert_allclose(found, 0.5, atol=1e-6)

  def expected(value):
    both = jnp.full(2, value)
    loss = losses.clipped_value_loss(
      both, both, returns, kept, clip=float("inf")
    )
    return reduce.over_tokens(loss.loss, kept).mean()

  assert jax.grad(expected)(0.5).item() == pytest.approx(0.0, abs=1e-6)


def test_impossible_options_are_refused():
  value, old, target, mask = _case()
  with pytest.raises(ValueError, match=r"-0\.1"):
    losses.clipped_value_loss(value, old, target, mask, clip=-0.1)
  with pytest.raises(ValueError, match=r"got 0\.0"):
    losses.huber_value_loss(value, target, mask, threshold=0.0)
  with pytest.raises(ValueError, match=r"got -1\.0"):
    losses.gaussian_target(target, ATOM, mask, spread=-1.0)
  with pytest.raises(ValueError, match="at least two atoms, got 1"):
    losses.two_hot_target(target, ATOM[:1], mask)
