from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.advantages.effective_rank import (
  effective_rank,
  prefix_effective_ranks,
  rank_acceleration,
  rank_velocity,
)

STRIDE, LONGEST, TIME = 3, 11, 16
WIDTHS = (5, 24)  # fewer and more features than tokens
LENGTHS = np.array([16, 12, 11, 10, 4, 3, 2, 1, 0])


def _oracle(hidden):
  """Singular values in float64."""
  if len(hidden) < 2:
    return 0.0
  hidden = hidden.astype(np.float64)
  sigma = np.linalg.svd(hidden - hidden.mean(axis=0), compute_uv=False)
  p = sigma / (sigma.sum() + 1e-8)
  return np.exp(-np.sum(p * np.log(p + 1e-8)))


def _oracle_prefixes(hidden):
  hidden = hidden[-LONGEST:]
  ends = range(STRIDE, len(hidden), STRIDE)
  return [_oracle(hidden[: end + 1]) for end in ends]


def _oracle_motion(m):
  """ERV and ERA by the sums of the paper, one window after the other."""
  d = [m[j] - np.mean(m[:j]) for j in range(1, len(m))]
  e = [d[j] - d[j - 1] for j in range(1, len(d))]
  return (np.mean(d) if d else 0.0), (np.mean(e) if e else 0.0)


@jax.jit
def every(hidden, mask):
  prefix, valid = prefix_effective_ranks(
    hidden, mask, stride=STRIDE, max_length=LONGEST
  )
  return (
    effective_rank(hidden, mask),
    prefix,
    valid,
    rank_velocity(prefix, valid),
    rank_acceleration(prefix, valid),
  )


@pytest.fixture(scope="module", params=WIDTHS)
def case(request):
  """Responses that change direction as they go; garbage where masked."""
  rng = np.random.default_rng(request.param)
  rows = len(LENGTHS)
  hidden = rng.normal(size=(rows, TIME, request.param)).cumsum(axis=1)
  hidden = (hidden * np.geomspace(1, 0.1, request.param)).astype(np.float32)
  mask = np.zeros((rows, TIME), bool)
  for row, length in enumerate(LENGTHS):
    # Not adjacent: a tool's answers may stand between the tokens.
    mask[row, np.sort(rng.permutation(TIME)[:length])] = True
  dirty = np.where(mask[..., None], hidden, np.nan)
  return hidden, mask, every(jnp.asarray(dirty), jnp.asarray(mask))


@pytest.mark.slow
def test_ranks_and_motion_equal_a_slow_oracle(case):
  hidden, mask, (rank, prefix, valid, velocity, acceleration) = case
  for row, own in enumerate(mask):
    z = hidden[row][own]
    m = _oracle_prefixes(z)
    np.testing.assert_allclose(rank[row], _oracle(z), rtol=1e-4)
    np.testing.assert_array_equal(
      valid[row], np.arange(valid.shape[1]) < len(m)
    )
    np.testing.assert_allclose(prefix[row][: len(m)], m, rtol=1e-4)
    np.testing.assert_array_equal(prefix[row][len(m) :], 0.0)
    speed, change = _oracle_motion(m)
    np.testing.assert_allclose(velocity[row], speed, rtol=2e-4, atol=2e-4)
    np.testing.assert_allclose(acceleration[row], change, rtol=2e-4, atol=2e-4)


@pytest.mark.slow
def test_rank_lies_between_one_and_the_smaller_side(case):
  hidden, _, (rank, *_) = case
  bound = np.minimum(LENGTHS - 1, hidden.shape[-1])
  some = LENGTHS > 1
  assert np.all(rank[some] >= 1 - 1e-5)
  assert np.all(rank[some] <= bound[some] * (1 + 1e-5))
  np.testing.assert_array_equal(rank[~some], 0.0)


def test_rank_does_not_see_order_rotation_scale_or_a_common_vector(case):
  hidden, mask, (rank, *_) = case
  rng = np.random.default_rng(3)
  width = hidden.shape[-1]
  turned = hidden @ np.linalg.qr(rng.normal(size=(width, width)))[0]
  order = rng.permutation(TIME)
  for other, seen in (
    (turned, mask),
    (hidden * 7.5, mask),
    (hidden + rng.normal(size=width), mask),
    (hidden[:, order], mask[:, order]),
  ):
    found = every(jnp.asarray(other, jnp.float32), jnp.asarray(seen))[0]
    np.testing.assert_allclose(found, rank, rtol=2e-4)


@pytest.mark.slow
def test_worked_ranks():
  """From the spec: orthogonal equal spreads count directions."""
  eye = np.eye(3)
  pairs = np.stack([s * eye[i] for i in range(3) for s in (1, -1)])
  uneven = np.array([[3, 0, 0], [-3, 0, 0], [0, 1, 0], [0, -1, 0.0]])
  hidden = np.zeros((4, 6, 3))
  hidden[:3] = pairs
  hidden[3, :4] = uneven
  mask = np.arange(6) < np.array([6, 4, 2, 4])[:, None]
  rank = effective_rank(jnp.asarray(hidden, jnp.float32), jnp.asarray(mask))
  np.testing.assert_allclose(rank, [3.0, 2.0, 1.0, 1.754765], rtol=1e-5)


@pytest.mark.slow
def test_worked_velocity_and_acceleration():
  """From the spec: m = [2, 4, 5, 9], whole and its first three, two, one."""
  rank = jnp.tile(jnp.array([2.0, 4.0, 5.0, 9.0]), (5, 1))
  mask = jnp.asarray(np.arange(4) < np.arange(4, -1, -1)[:, None])
  np.testing.assert_allclose(
    rank_velocity(rank, mask), [3.111111, 2.0, 2.0, 0.0, 0.0], rtol=1e-6
  )
  np.testing.assert_allclose(
    rank_acceleration(rank, mask), [1.666667, 0.0, 0.0, 0.0, 0.0], rtol=1e-6
  )


@pytest.mark.slow
@pytest.mark.parametrize("width", [40, 400])
def test_eigenvalues_that_are_rounding_do_not_count(width):
  """Either side being the larger, a big mean beside a small spread."""
  rng = np.random.default_rng(width)
  hidden = (30 + rng.normal(size=(1, 120, width))).astype(np.float32)
  mask = np.arange(120)[None] < 100
  rank = jax.jit(effective_rank)(hidden, mask)
  np.testing.assert_allclose(rank[0], _oracle(hidden[0, :100]), rtol=2e-5)


@pytest.mark.slow
def test_half_precision_is_widened_before_anything_is_summed():
  hidden = jnp.asarray(np.random.default_rng(0).normal(size=(1, 8, 3)))
  half, mask = hidden.astype(jnp.bfloat16), jnp.ones((1, 8), bool)
  found = effective_rank(half, mask)
  assert found.dtype == jnp.float32
  whole = _oracle(np.asarray(half[0].astype(jnp.float32)))
  np.testing.assert_allclose(found[0], whole, rtol=1e-5)


def test_no_gradient_flows_to_the_features(case):
  hidden, mask, _ = case

  def total(hidden):
    return sum(x.sum() for x in every(hidden, jnp.asarray(mask)))

  slope = jax.jit(jax.grad(total))(jnp.asarray(hidden[:, :, :2]))
  np.testing.assert_array_equal(slope, 0.0)


@pytest.mark.slow
def test_a_feature_that_is_not_finite_is_refused_or_shows():
  hidden = jnp.ones((2, 4, 3)).at[1, 2, 0].set(jnp.nan)
  mask = jnp.ones((2, 4), bool)
  for function in (
    effective_rank,
    lambda *x: prefix_effective_ranks(*x, stride=1, max_length=4),
  ):
    with pytest.raises(ValueError, match=r"row 1 .* position 2"):
      function(hidden, mask)
  rank = jax.jit(effective_rank)(hidden, mask)
  np.testing.assert_array_equal(np.isnan(rank), [False, True])


def test_nonsense_is_refused():
  hidden, mask = jnp.ones((1, 4, 3)), jnp.ones((1, 4), bool)
  for stride, longest in ((0, 4), (1, 1)):
    with pytest.raises(ValueError, match=f"got {stride} and {longest}"):
      prefix_effective_ranks(hidden, mask, stride=stride, max_length=longest)


@pytest.mark.slow
def test_responses_too_short_for_any_beginning_have_none():
  hidden, mask = jnp.ones((2, 3, 4)), jnp.ones((2, 3), bool)
  prefix, valid = prefix_effective_ranks(hidden, mask, stride=3, max_length=8)
  assert prefix.shape == valid.shape == (2, 0)
  np.testing.assert_array_equal(rank_velocity(prefix, valid), 0.0)
  np.testing.assert_array_equal(rank_acceleration(prefix, valid), 0.0)
