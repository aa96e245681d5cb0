"""Importance ratios, the weights made of them, and their diagnostics."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax import ratios

# The truncation example of the reference sheet (section 7).
LOG_RATIO = jnp.array([[0.5, -0.2, 1.0], [0.1, 0.1, jnp.nan]])
MASK = jnp.array([[True, True, True], [True, True, False]])
ZERO = jnp.zeros((2, 3))


def test_token_ratio_of_the_reference_sheet() -> None:
  found = ratios.token_ratio(LOG_RATIO, ZERO, MASK, clamp=None)
  weight = ratios.truncated_weight(found, maximum=2.0)
  expected = [[1.648721, 0.818731, 2.0], [1.105171, 1.105171, 1.0]]
  np.testing.assert_allclose(weight, expected, rtol=1e-6)


def test_sequence_ratio_of_the_reference_sheet() -> None:
  found = ratios.sequence_ratio(LOG_RATIO, ZERO, MASK, clamp=None)
  weight = ratios.truncated_weight(found, maximum=2.0)
  np.testing.assert_allclose(weight, [2.0, 1.221403], rtol=1e-6)


def test_geometric_ratio_of_the_reference_sheet() -> None:
  found = ratios.geometric_ratio(LOG_RATIO, ZERO, MASK, clamp=None)
  # The sheet prints five digits of the first: exp(1.3 / 3).
  np.testing.assert_allclose(found, [np.exp(1.3 / 3), 1.105171], rtol=1e-6)


ALL = [ratios.token_ratio, ratios.sequence_ratio, ratios.geometric_ratio]


@pytest.mark.slow
@pytest.mark.parametrize("ratio", ALL)
def test_on_policy_the_ratio_is_one_and_the_gradient_that_of_log_prob(
  ratio,
) -> None:
  log_prob = jnp.array([[-1.0, -2.0], [-0.5, jnp.nan]])
  mask = jnp.array([[True, True], [True, False]])

  def total(log_prob, behaviour):
    return jnp.sum(ratio(log_prob, behaviour, mask, clamp=20.0))

  value = ratio(log_prob, log_prob, mask, clamp=20.0)
  assert (value == 1).all()
  own, behaviours = jax.grad(total, argnums=(0, 1))(log_prob, log_prob)
  share = 0.5 if ratio is ratios.geometric_ratio else 1.0
  assert own.tolist() == [[share, share], [1.0, 0.0]]
  assert not behaviours.any()


@pytest.mark.parametrize("ratio", ALL)
def test_empty_row_has_ratio_one(ratio) -> None:
  found = ratio(
    jnp.full((1, 2), jnp.nan),
    jnp.full((1, 2), jnp.nan),
    jnp.zeros((1, 2), bool),
    clamp=None,
  )
  assert (found == 1).all()


@pytest.mark.parametrize("ratio", ALL)
def test_clamp_bounds_the_exponent_and_stops_the_gradient(ratio) -> None:
  far, mask = jnp.array([[50.0]]), jnp.ones((1, 1), bool)

  def total(log_prob):
    return ratio(log_prob, jnp.zeros((1, 1)), mask, clamp=2.0).sum()

  assert total(far).item() == pytest.approx(np.exp(2.0), rel=1e-6)
  assert total(-far).item() == pytest.approx(np.exp(-2.0), rel=1e-6)
  assert jax.grad(total)(far).item() == 0.0


def test_sequence_ratio_clamps_the_sum_not_its_terms() -> None:
  log_prob, mask = jnp.array([[3.0, -3.0]]), jnp.ones((1, 2), bool)
  found = ratios.sequence_ratio(log_prob, jnp.zeros((1, 2)), mask, clamp=1.0)
  assert found.tolist() == [1.0]


def test_importance_weighting_is_unbiased_by_enumeration() -> None:
  """E_behaviour[ratio f] = E_pi[f]."""
  policy, behaviour = jnp.array([0.5, 0.3, 0.2]), jnp.array([0.2, 0.2, 0.6])
  value = jnp.array([1.0, -2.0, 4.0])
  ratio = ratios.token_ratio(
    jnp.log(policy), jnp.log(behaviour), jnp.ones(3, bool), clamp=None
  )
  found = jnp.sum(behaviour * ratio * value)
  assert found.item() == pytest.approx(jnp.sum(policy * value).item(), abs=1e-6)


def test_weights_are_constants() -> None:
  ratio = jnp.array([0.5, 1.0, 3.0])
  for weight in (
    lambda r: ratios.truncated_weight(r, maximum=2.0),
    lambda r: ratios.masked_weight(r, low=0.25, high=2.0),
  ):
    assert not jax.grad(lambda r, w=weight: w(r).sum())(ratio).any()


def test_masked_weight_has_inclusive_bounds() -> None:
  found = ratios.masked_weight(
    jnp.array([0.49, 0.5, 2.0, 2.01]), low=0.5, high=2.0
  )
  assert found.tolist() == [0.0, 0.5, 2.0, 0.0]


def test_clipped_fraction_counts_what_counts() -> None:
  ratio = jnp.array([0.5, 1.0, 2.0, jnp.nan, 9.0])
  mask = jnp.array([True, True, True, True, False])
  total = ratios.clipped_fraction(ratio, mask, low=0.8, high=1.2)
  assert (total.value.item(), total.weight.item()) == (3.0, 4.0)


def test_effective_fraction_against_its_definition() -> None:
  rng = np.random.default_rng(0)
  weight = rng.uniform(0.1, 3.0, (4, 5)).astype(np.float32)
  mask = rng.uniform(size=(4, 5)) < 0.7
  kept = weight[mask].astype(np.float64)
  expected = kept.sum() ** 2 / (kept**2).sum() / kept.size
  parts = [
    ratios.weight_moments(jnp.asarray(weight[i]), jnp.asarray(mask[i]))
    for i in range(4)
  ]
  whole = parts[0] + parts[1] + parts[2] + parts[3]
  assert whole.effective_fraction().item() == pytest.approx(expected, rel=1e-6)
  # The mean of the parts' fractions is another number.
  naive = np.mean([p.effective_fraction().item() for p in parts])
  assert abs(naive - expected) > 1e-3


@pytest.mark.parametrize(
  ("weight", "fraction"),
  [([2.0, 2.0], 1.0), ([1.0, 0.0], 0.5), ([0.0, 0.0], 0.0)],
)
def test_effective_fraction_at_its_ends(weight, fraction) -> None:
  moments = ratios.weight_moments(jnp.array(weight), jnp.ones(2, bool))
  assert moments.effective_fraction().item() == fraction


def test_effective_fraction_of_nothing_is_zero() -> None:
  moments = ratios.weight_moments(jnp.array([jnp.nan, 1.0]), jnp.zeros(2, bool))
  assert moments.effective_fraction().item() == 0.0


@pytest.mark.parametrize("clamp", [0.0, -1.0])
def test_clamp_must_be_positive(clamp: float) -> None:
  with pytest.raises(ValueError, match=str(clamp)):
    ratios.token_ratio(ZERO, ZERO, MASK, clamp=clamp)


@pytest.mark.parametrize(("low", "high"), [(2.0, 1.0), (-1.0, 1.0)])
def test_interval_must_be_ordered(low: float, high: float) -> None:
  one = jnp.ones(1)
  with pytest.raises(ValueError, match=f"low={low}, high={high}"):
    ratios.masked_weight(one, low=low, high=high)
  with pytest.raises(ValueError, match=f"low={low}, high={high}"):
    ratios.clipped_fraction(one, jnp.ones(1, bool), low=low, high=high)


def test_maximum_must_be_positive() -> None:
  with pytest.raises(ValueError, match=r"0\.0"):
    ratios.truncated_weight(jnp.ones(1), maximum=0.0)


@pytest.mark.parametrize(("low", "high"), [(0.5, 5.0), (0.0, 2.0)])
def test_truncated_weight_has_two_ends(low: float, high: float) -> None:
  found = ratios.truncated_weight(
    jnp.array([0.1, 1.0, 9.0]), minimum=low, maximum=high
  )
  np.testing.assert_allclose(found, [max(low, 0.1), 1.0, high], rtol=1e-6)


@pytest.mark.parametrize(
  ("minimum", "maximum"), [(3.0, 2.0), (-1.0, 2.0), (float("nan"), 2.0)]
)
def test_ends_must_be_ordered(minimum: float, maximum: float) -> None:
  with pytest.raises(ValueError, match=f"minimum={minimum}, maximum="):
    ratios.truncated_weight(jnp.ones(1), minimum=minimum, maximum=maximum)


@pytest.mark.slow
def test_normalised_weights_average_to_one_over_the_whole_batch() -> None:
  rng = np.random.default_rng(0)
  weight = jnp.asarray(rng.uniform(0.1, 3.0, (4, 5)), jnp.float32)
  mask = jnp.asarray(rng.uniform(size=(4, 5)) < 0.7)
  first = sum(
    (ratios.weight_moments(weight[i], mask[i]).first for i in range(4)),
    start=ratios.weight_moments(weight[0], mask[0] & False).first,
  )
  found = ratios.normalised_weight(weight, first.mean())
  assert found[mask].mean().item() == pytest.approx(1.0, abs=1e-6)
  np.testing.assert_allclose(found / found[0, 0], weight / weight[0, 0], 1e-5)


def test_normalising_nothing_gives_zero_and_no_gradient() -> None:
  one = jnp.ones(2)
  assert not ratios.normalised_weight(one, jnp.float32(0.0)).any()
  gradients = jax.grad(
    lambda w, m: ratios.normalised_weight(w, m).sum(), argnums=(0, 1)
  )(one, jnp.float32(2.0))
  assert not gradients[0].any()
  assert gradients[1] == 0.0


def test_row_maximum_sees_what_counts() -> None:
  weight = jnp.array([[1.0, 5.0, 2.0], [9.0, jnp.nan, 9.0], [3.0, 0.0, 1.0]])
  mask = jnp.array([[True, False, True], [False] * 3, [True] * 3])
  assert ratios.row_maximum(weight, mask).tolist() == [2.0, 0.0, 3.0]


def test_clamped_log_prob_is_the_clamp_of_the_ratio() -> None:
  rng = np.random.default_rng(0)
  log_prob = jnp.asarray(rng.normal(-3, 3, (3, 4)), jnp.float32)
  other = jnp.asarray(rng.normal(-3, 3, (3, 4)), jnp.float32)
  mask = jnp.asarray(rng.uniform(size=(3, 4)) < 0.7)

  def clamped(log_prob):
    near = ratios.clamped_log_prob(log_prob, other, mask, clamp=1.5)
    return ratios.token_ratio(near, other, mask, clamp=None)

  def direct(log_prob):
    return ratios.token_ratio(log_prob, other, mask, clamp=1.5)

  np.testing.assert_allclose(clamped(log_prob), direct(log_prob), rtol=1e-5)
  ours, theirs = (
    jax.grad(lambda x, f=f: f(x).sum())(log_prob) for f in (clamped, direct)
  )
  np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
  assert (ours == 0).any()
  assert (ours != 0).any()


def test_clamped_log_prob_within_the_bound_is_untouched() -> None:
  log_prob = jnp.array([-1.2345678, -0.1])
  found = ratios.clamped_log_prob(
    log_prob, log_prob + 0.3, jnp.ones(2, bool), clamp=1.0
  )
  np.testing.assert_array_equal(found, log_prob)
  with pytest.raises(ValueError, match=r"got 0\.0"):
    ratios.clamped_log_prob(log_prob, log_prob, jnp.ones(2, bool), clamp=0.0)
