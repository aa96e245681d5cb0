"""What is left out for having gone too far, and by which bounds."""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax import ratios, reduce


def _case(seed=0, rows=12, time=4):
  rng = np.random.default_rng(seed)
  behaviour = -rng.exponential(1.0, (rows, time))
  log_prob = behaviour + rng.normal(0.0, 0.5, (rows, time))
  mask = rng.uniform(size=(rows, time)) < 0.8
  mask[0] = False
  floats = (jnp.asarray(x, jnp.float32) for x in (log_prob, behaviour))
  return *floats, jnp.asarray(mask)


def _statistic(name, d):
  """The sheet's section 5, d = log of policy over rollout."""
  return {"k1": -d, "k2": d * d / 2, "k3": math.exp(d) - 1 - d}[name]


def _oracle(case, name, level, accept):
  log_prob, behaviour, mask = (np.asarray(x) for x in case)
  kept = np.zeros_like(mask)
  for row in range(mask.shape[0]):
    at = np.flatnonzero(mask[row])
    values = [
      _statistic(name, float(log_prob[row, t]) - float(behaviour[row, t]))
      for t in at
    ]
    if not values:
      continue
    whole = {
      "sum": sum(values),
      "mean": sum(values) / len(values),
      "max": max(values),
    }
    for t, value in zip(at, values, strict=True):
      kept[row, t] = accept(whole.get(level, value))
  return kept


@pytest.mark.slow
@pytest.mark.parametrize("level", ["token", "sum", "mean"])
@pytest.mark.parametrize(("low", "high"), [(0.8, 1.5), (0.5, 1.1), (1.0, 9.0)])
def test_ratio_against_a_loop(level, low, high):
  case = _case(4)
  found = ratios.keep_by_ratio(*case, level=level, low=low, high=high)
  expected = _oracle(
    case, "k1", level, lambda k: math.log(low) <= k <= math.log(high)
  )
  np.testing.assert_array_equal(found, expected)
  assert expected.any()
  assert (np.asarray(case[2]) & ~expected).any()


@pytest.mark.slow
@pytest.mark.parametrize("statistic", ["k2", "k3"])
@pytest.mark.parametrize("level", ["token", "sum", "mean", "max"])
@pytest.mark.parametrize("maximum", [0.05, 0.2])
def test_divergence_against_a_loop(statistic, level, maximum):
  case = _case(1)
  found = ratios.keep_by_divergence(
    *case, statistic=statistic, level=level, maximum=maximum
  )
  expected = _oracle(case, statistic, level, lambda k: k <= maximum)
  np.testing.assert_array_equal(found, expected)


def test_bounds_are_on_the_inverse_of_the_importance_ratio():
  """The trap: the same two numbers on pi / behaviour keep other tokens."""
  d, zero = jnp.log(jnp.array([0.5, 1.0, 2.0])), jnp.zeros(3)
  mask, bounds = jnp.ones(3, bool), {"low": 0.9, "high": 3.0}
  found = ratios.keep_by_ratio(d, zero, mask, level="token", **bounds)
  assert found.tolist() == [True, True, False]
  ratio = ratios.token_ratio(d, zero, mask, clamp=None)
  weight = ratios.masked_weight(ratio, **bounds)
  assert (weight > 0).tolist() == [False, True, True]
  inverse = ratios.masked_weight(ratio, low=1 / 3.0, high=1 / 0.9)
  np.testing.assert_array_equal(inverse > 0, found)


def test_bounds_are_inclusive():
  # Dyadic log-ratios: squares and halves are exact.
  d, zero, mask = jnp.array([1.0, 1.25]), jnp.zeros(2), jnp.ones(2, bool)
  found = ratios.keep_by_divergence(
    d, zero, mask, statistic="k2", level="token", maximum=0.5
  )
  assert found.tolist() == [True, False]
  on_policy = ratios.keep_by_ratio(
    zero, zero, mask, level="token", low=1.0, high=1.0
  )
  assert on_policy.all()


@pytest.mark.slow
def test_one_token_far_out_rejects_its_row_by_maximum_only():
  d = jnp.array([[2.0] + [0.0] * 19])
  zero, mask = jnp.zeros((1, 20)), jnp.ones((1, 20), bool)
  kept = {
    level: ratios.keep_by_divergence(
      d, zero, mask, statistic="k2", level=level, maximum=0.5
    )
    for level in ("token", "mean", "max")
  }
  assert kept["mean"].all()
  assert not kept["max"].any()
  assert kept["token"].sum() == 19


def test_what_overflows_is_left_out():
  d, zero, mask = jnp.array([200.0, -200.0]), jnp.zeros(2), jnp.ones(2, bool)
  found = ratios.keep_by_divergence(
    d, zero, mask, statistic="k3", level="token", maximum=300.0
  )
  assert found.tolist() == [False, True]
  bounded = ratios.keep_by_ratio(
    d, zero, mask, level="token", low=1e-30, high=float("inf")
  )
  assert bounded.tolist() == [False, True]


@pytest.mark.parametrize("level", ["token", "sum", "mean"])
def test_not_a_number_is_left_out(level):
  d, zero = jnp.array([[jnp.nan, 0.0]]), jnp.zeros((1, 2))
  mask = jnp.ones((1, 2), bool)
  by_ratio = ratios.keep_by_ratio(d, zero, mask, level=level, low=0.5, high=2.0)
  far = ratios.keep_by_divergence(
    d, zero, mask, statistic="k2", level=level, maximum=1.0
  )
  assert not by_ratio[0, 0]
  assert not far[0, 0]
  assert ratios.keep_by_ratio(
    d, zero, mask & ~jnp.isnan(d), level=level, low=0.5, high=2.0
  ).tolist() == [[False, True]]


def test_what_is_rejected_leaves_the_denominator():
  log_prob, behaviour, mask = _case(2)
  kept = ratios.keep_by_ratio(
    log_prob, behaviour, mask, level="token", low=0.8, high=1.25
  )
  fraction = ratios.rejected_fraction(mask, kept)
  rejected = (np.asarray(mask) & ~np.asarray(kept)).sum()
  assert fraction.value.item() == rejected
  assert fraction.weight.item() == np.asarray(mask).sum()
  one = jnp.ones_like(log_prob)
  assert reduce.over_tokens(one, kept).mean() == 1.0
  # As a weight of zero it would stay in it, and dilute the mean.
  ratio = ratios.token_ratio(log_prob, behaviour, mask, clamp=None)
  weight = ratios.masked_weight(ratio, low=0.8, high=1.25)
  in_place = jnp.where(weight > 0, one, 0.0)
  assert reduce.over_tokens(in_place, mask).mean() == pytest.approx(
    1 - fraction.mean().item(), abs=1e-6
  )


def test_rejected_rows_are_counted_as_rows():
  log_prob, behaviour, mask = _case(3)
  kept = ratios.keep_by_divergence(
    log_prob, behaviour, mask, statistic="k3", level="max", maximum=0.2
  )
  found = ratios.rejected_fraction(mask.any(axis=-1), kept.any(axis=-1))
  assert found.weight.item() == 11  # the first row is empty
  assert 0 < found.value.item() < 11


@pytest.mark.parametrize(
  ("advantage", "drift", "kept"),
  [(1.0, 9.0, True), (0.0, 9.0, True), (-1.0, 9.0, False), (-1.0, 0.5, True)],
)
def test_only_bad_rows_that_drifted_are_masked(advantage, drift, kept):
  mask = jnp.array([[True, True, False]])
  found = ratios.off_policy_sequence_mask(
    jnp.array([[-2 * drift, 0.0, jnp.nan]]),
    jnp.zeros((1, 3)),
    jnp.full((1, 3), advantage),
    mask,
    threshold=0.5,
  )
  assert found.tolist() == [[kept, kept, False]]


def test_drift_has_a_direction():
  """Rows that have become likelier are kept, whatever their advantage."""
  found = ratios.off_policy_sequence_mask(
    jnp.zeros((1, 2)),
    jnp.full((1, 2), -5.0),
    -jnp.ones((1, 2)),
    jnp.ones((1, 2), bool),
    threshold=0.0,
  )
  assert found.all()


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (2.0, 1.0), (-1.0, 1.0)])
def test_bounds_must_be_ordered_and_positive(low, high):
  with pytest.raises(ValueError, match=f"low={low}, high={high}"):
    ratios.keep_by_ratio(*_case(), level="token", low=low, high=high)


@pytest.mark.parametrize("maximum", [-0.1, float("nan")])
def test_maximum_must_not_be_negative(maximum):
  with pytest.raises(ValueError, match=str(maximum)):
    ratios.keep_by_divergence(
      *_case(), statistic="k2", level="token", maximum=maximum
    )
