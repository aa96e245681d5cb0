"""CANON against a loop written from its formulas, and worked by hand."""

from __future__ import annotations

import inspect
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.advantages import canon

RNG = np.random.default_rng(0)
# Twelve interleaved groups of 1 to 9 valid rows, many of them of odd size.
ROWS, GROUPS = 96, 12
SIZE = [1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 18, 20]
GROUP = RNG.permutation(np.repeat(np.arange(GROUPS), SIZE)).astype(np.int32)
REWARD = RNG.normal(size=ROWS).astype(np.float32)
# Few values, so that there are ties in every group.
METRIC = RNG.integers(0, 4, ROWS).astype(np.float32)
VALID = RNG.uniform(size=ROWS) < 0.8
WHOLE = np.ones(ROWS, bool)


def halves_of(metric, group, valid):
  """By insertion of one row after the other."""
  high = np.zeros(len(group), bool)
  for g in set(group.tolist()):
    ranked: list[int] = []
    for i in range(len(group)):
      if group[i] != g or not valid[i]:
        continue
      place = len(ranked)
      while place and metric[ranked[place - 1]] > metric[i]:
        place -= 1
      ranked.insert(place, i)
    high[ranked[len(ranked) // 2 :]] = True
  return high


def oracle(reward, metric, group, valid, mu, alpha, side, beta):
  out = np.zeros(len(group))
  high = halves_of(metric, group, valid)
  for i in np.flatnonzero(valid):
    peers = [j for j in np.flatnonzero(valid) if group[j] == group[i]]
    own = [float(reward[j]) for j in peers if high[j] == high[i]]
    other = [float(reward[j]) for j in peers if high[j] != high[i]]
    if not other:
      continue
    here = "high" if high[i] else "low"
    a, b = (alpha, 1.0) if here == side else (1.0, alpha)
    inter = a * float(reward[i]) - b * np.mean(other)
    inter += beta if high[i] else -beta
    out[i] = mu * inter + (1 - mu) * (float(reward[i]) - np.mean(own))
  return out


@jax.jit
def compiled(reward, metric, group, valid, mu):
  """Both sides and no side, for any mu: one program for most tests."""

  def one(**options):
    return canon.canon_advantage(
      reward, metric, group, valid, num_groups=GROUPS, mu=mu, **options
    )

  return (
    one(alpha_side="high"),
    one(alpha_side="high", alpha=0.9),
    one(alpha_side="low", alpha=0.75, beta=0.25, divisor=2.0),
  )


halves = jax.jit(partial(canon.conditional_halves, num_groups=GROUPS))


def padded(x, kind, fill):
  """Rows of the one shape that is compiled."""
  x = np.asarray(x, kind)
  return jnp.asarray(np.concatenate([x, np.full(ROWS - len(x), fill, kind)]))


def advantages(reward, metric, group, valid, mu):
  """`compiled` on few rows, and zero for those that are added."""
  rows = len(reward)
  found = compiled(
    padded(reward, np.float32, np.nan),
    padded(metric, np.float32, np.nan),
    padded(group, np.int32, GROUPS + 7),
    padded(valid, bool, False),
    jnp.float32(mu),
  )
  for each in found:
    np.testing.assert_array_equal(each[rows:], 0.0)
  return [np.asarray(each[:rows]) for each in found]


def plain(reward, metric, mu, *, group=None, valid=None):
  """Without alpha; one group unless said otherwise."""
  group = np.zeros(len(reward), int) if group is None else group
  valid = np.ones(len(reward), bool) if valid is None else valid
  return advantages(reward, metric, group, valid, mu)[0]


def refused(**changed):
  options = {"num_groups": 1, "mu": 0.5, "alpha_side": "high"}
  return inspect.unwrap(canon.canon_advantage)(
    jnp.ones(2),
    jnp.ones(2),
    jnp.zeros(2, int),
    jnp.ones(2, bool),
    **(options | changed),
  )


@pytest.mark.slow
@pytest.mark.parametrize("mu", [0.0, 0.3, 1.0])
def test_against_a_loop(mu: float) -> None:
  reward = np.where(VALID, REWARD, np.nan)
  metric = np.where(VALID, METRIC, np.nan)
  group = np.where(VALID, GROUP, 99)
  found = advantages(reward, metric, group, VALID, mu)
  for each, (alpha, side, beta, divisor) in zip(
    found,
    [(1.0, "high", 0.0, 1.0), (0.9, "high", 0.0, 1.0), (0.75, "low", 0.25, 2)],
    strict=True,
  ):
    expected = oracle(REWARD, METRIC, GROUP, VALID, mu, alpha, side, beta)
    np.testing.assert_allclose(
      each, expected / divisor, rtol=1e-5, atol=1e-6, err_msg=side
    )


@pytest.mark.parametrize("valid", [WHOLE, VALID], ids=["all", "some"])
def test_halves_against_insertion(valid) -> None:
  """Ties keep the order of rows, wherever the rows of a group stand."""
  metric = jnp.asarray(np.where(valid, METRIC, np.nan))
  found = halves(metric, jnp.asarray(GROUP), jnp.asarray(valid))
  np.testing.assert_array_equal(found, halves_of(METRIC, GROUP, valid))


@pytest.mark.slow
def test_a_constant_metric_splits_by_position() -> None:
  """The random metric of the paper: the first half of the rows is low."""
  found = plain([4.0, 0.0, 1.0, 1.0], np.zeros(4), 1.0)
  assert found.tolist() == [3.0, -1.0, -1.0, -1.0]


@pytest.mark.parametrize(
  ("mu", "expected"),
  [
    (1.0, [1, 1, 1, 0, -0.75, -0.75, -0.75, -0.75]),
    (0.0, [0.25, 0.25, 0.25, -0.75, 0, 0, 0, 0]),
    (0.5, [0.625] * 3 + [-0.375] * 5),
  ],
)
def test_worked_example_one(mu: float, expected: list[float]) -> None:
  """Of the spec: the first four rows are the high half."""
  found = plain([1, 1, 1, 0, 0, 0, 0, 0], np.arange(8)[::-1], mu)
  assert found.tolist() == expected


def test_worked_example_two() -> None:
  reward, metric = [1, 1, 1, 0, 0, 0, 0, 0], np.arange(8)[::-1]
  _, found, _ = advantages(reward, metric, np.zeros(8), np.ones(8), 1.0)
  expected = [0.9, 0.9, 0.9, 0.0] + [-0.675] * 4
  np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("mu", [0.0, 0.25, 1.0])
def test_worked_example_three(mu: float) -> None:
  """Both halves have mean 1/2, so inter and intra agree."""
  reward = [1, 0, 1, 1, 0, 0, 1, 0]
  found = plain(reward, [5, 3, 9, 2, 7, 6, 8, 4], mu)
  assert found.tolist() == [0.5 if r else -0.5 for r in reward]


def test_worked_example_three_has_these_halves() -> None:
  metric = padded([5, 3, 9, 2, 7, 6, 8, 4], np.float32, np.nan)
  valid = padded(np.ones(8), bool, False)
  found = halves(metric, jnp.zeros(ROWS, jnp.int32), valid)
  assert np.flatnonzero(found).tolist() == [2, 4, 5, 6]


# Groups of even size in the same program: eight of twelve rows.
EVEN = np.repeat(np.arange(8), 12)
DYADIC = RNG.integers(-8, 8, ROWS) / 4.0
DISTINCT = np.stack([RNG.permutation(12) for _ in range(8)]).ravel()


def test_half_is_dr_grpo_exactly_for_even_groups() -> None:
  reward = np.repeat(DYADIC[::12], 12) + np.tile([0.0, 3.0] * 6, 8)
  found = plain(reward, DISTINCT, 0.5, group=EVEN)
  means = reward.reshape(8, 12).mean(axis=1)
  np.testing.assert_allclose(found, reward - means[EVEN], rtol=0, atol=1e-6)


def test_inter_and_intra_differ_by_what_separates_the_halves() -> None:
  inter = plain(REWARD, DISTINCT, 1.0, group=EVEN)
  intra = plain(REWARD, DISTINCT, 0.0, group=EVEN)
  high = halves_of(DISTINCT, EVEN, WHOLE)
  gap = np.array(
    [
      REWARD[high & (g == EVEN)].mean() - REWARD[~high & (g == EVEN)].mean()
      for g in EVEN
    ]
  )
  np.testing.assert_allclose(
    inter - intra, np.where(high, gap, -gap), atol=2e-6
  )


def test_of_a_shift_a_scale_and_a_monotone_metric() -> None:
  for mu in (0.0, 0.75, 1.0):
    base = plain(REWARD, METRIC, mu, group=GROUP)
    moved = plain(REWARD + 2.0, METRIC, mu, group=GROUP)
    larger = plain(3.0 * REWARD, METRIC, mu, group=GROUP)
    other = plain(REWARD, np.exp(METRIC) - 20.0, mu, group=GROUP)
    np.testing.assert_allclose(moved, base, atol=2e-6)
    np.testing.assert_allclose(larger, 3.0 * base, atol=5e-6)
    np.testing.assert_array_equal(other, base)


@pytest.mark.parametrize("mu", [0.0, 0.5, 1.0])
def test_no_direction_is_preferred(mu: float) -> None:
  """Of the reversed metric the halves change names and nothing else."""
  found = plain(REWARD, -DISTINCT, mu, group=EVEN)
  base = plain(REWARD, DISTINCT, mu, group=EVEN)
  np.testing.assert_allclose(found, base, atol=1e-6)


def test_sums_over_a_group() -> None:
  intra = plain(REWARD, METRIC, 0.0, group=GROUP)
  inter = plain(REWARD, METRIC, 1.0, group=GROUP)
  high = halves_of(METRIC, GROUP, WHOLE)
  for g in range(1, GROUPS):
    up, down = high & (g == GROUP), ~high & (g == GROUP)
    gap = REWARD[up].mean() - REWARD[down].mean()
    assert intra[g == GROUP].sum() == pytest.approx(0.0, abs=1e-5)
    excess = (up.sum() - down.sum()) * gap
    assert inter[g == GROUP].sum() == pytest.approx(excess, abs=1e-5)


def test_equal_rewards_and_a_row_alone_are_zero() -> None:
  group = np.where(GROUP == 0, 0, 1 + GROUP % 3)
  for mu in (0.0, 0.4, 1.0):
    equal = plain(np.full(ROWS, 0.5), METRIC, mu, group=group)
    np.testing.assert_array_equal(equal, 0.0)
  # Two that are left of one group, of which one does not count.
  for each in advantages([3.0, 9.0], [1.0, 0.0], [0, 0], [True, False], 1.0):
    assert each.tolist() == [0.0, 0.0]


@pytest.mark.parametrize(
  ("reward", "metric"),
  [([np.nan, 1.0], [1.0, 2.0]), ([1.0, 1.0], [np.nan, 2.0])],
)
def test_what_is_not_known_reaches_its_group_and_no_other(
  reward: list[float], metric: list[float]
) -> None:
  found = plain(
    [*reward, 1.0, 0.0], [*metric, 1.0, 2.0], 0.5, group=[0, 0, 1, 1]
  )
  assert np.isnan(found[:2]).all()
  assert found[2:].tolist() == [0.5, -0.5]


@pytest.mark.parametrize("mu", [-0.25, 1.25, np.nan])
def test_a_weight_that_is_none_is_not_hidden(mu: float) -> None:
  assert np.isnan(plain([1.0, 0.0], [1.0, 2.0], mu)).all()


def test_no_gradient_flows() -> None:
  @jax.jit
  @partial(jax.grad, argnums=(0, 1, 2))
  def slopes(reward, metric, mu):
    group, valid = jnp.asarray(GROUP), jnp.asarray(VALID)
    found = compiled(reward, metric, group, valid, mu)
    return sum(jnp.sum(each**2) for each in found)

  found = slopes(jnp.asarray(REWARD), jnp.asarray(METRIC), jnp.float32(0.5))
  assert not any(slope.any() for slope in found)


@pytest.mark.parametrize(
  ("changed", "said"),
  [
    ({"mu": 1.5}, r"1\.5"),
    ({"mu": -1}, "-1"),
    ({"alpha_side": "long"}, "'long'"),
    ({"alpha": -0.5}, r"-0\.5"),
    ({"divisor": 0.0}, r"0\.0"),
    ({"num_groups": 0}, "0"),
  ],
)
def test_bad_options_are_refused(changed, said: str) -> None:
  with pytest.raises(ValueError, match=said):
    refused(**changed)


MASK = np.array([[1, 1, 1, 0], [0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]], bool)
COUNTS = np.array([True, True, True, False])


def test_metrics_of_responses() -> None:
  """Padding holds NaN; a response without a token has no metric."""
  entropy = jnp.where(MASK, jnp.arange(16.0).reshape(4, 4), jnp.nan)
  mask, valid = jnp.asarray(MASK), jnp.asarray(COUNTS)
  found = canon.response_entropy(entropy, mask, valid)
  np.testing.assert_array_equal(found, [1.0, 5.0, np.nan, 0.0])
  found = canon.response_length(mask, valid)
  np.testing.assert_array_equal(found, [3.0, 1.0, np.nan, 0.0])


@pytest.mark.parametrize(
  ("kind", "step", "intra"),
  # Spec: the weight of the intra term, 1 - mu, of the paper's two cosines.
  [
    ("cosine_first_intra", 0, 0.02),
    ("cosine_first_intra", 29, 0.6),
    ("cosine_first_intra", 30, 0.6),
    ("cosine_first_intra", 70, 0.6),
    ("cosine_first_inter", 0, 1 - 1 / 30),
    ("cosine_first_inter", 29, 0.0),
    ("cosine_first_inter", 30, 0.0),
    # Half of a fall of 40 steps: between 1 and 0.4.
    ("cosine_first_inter", 50, 0.3),
    ("cosine_first_intra", 210, 0.3),
  ],
)
def test_cosine_schedules(kind, step: int, intra: float) -> None:
  mu = canon.mu_schedule(
    jnp.asarray(step),
    jnp.float32(jnp.nan),
    kind=kind,
    warm_up=30,
    total=150,
    cycles=3,
  )
  assert 1 - mu.item() == pytest.approx(intra, abs=1e-6)


@pytest.mark.slow
def test_cosine_against_a_loop() -> None:
  steps = jnp.arange(40)
  options = {"high": 2.0, "low": 0.5, "warm_up": 5, "total": 36, "cycles": 3}
  found = jax.vmap(lambda k: canon.restarting_cosine(k, **options))(steps)
  expected = []
  for k in range(40):
    j = (k - 5) % 10
    fall = 0.5 + 1.5 / 2 * (1 + np.cos(np.pi * j / 10))
    expected.append(2.0 * (k + 1) / 5 if k < 5 else fall)
  np.testing.assert_allclose(found, expected, rtol=1e-5)
  assert canon.restarting_cosine(
    jnp.asarray(0), **(options | {"warm_up": 0})
  ).item() == pytest.approx(2.0)


@pytest.mark.parametrize(
  ("kind", "mean", "mu"),
  [
    ("accuracy_first_intra", 0.25, 0.25),
    ("accuracy_first_inter", 0.25, 0.75),
    ("accuracy_first_intra", 1.25, np.nan),
    ("accuracy_first_inter", -0.5, np.nan),
  ],
)
def test_accuracy_schedules(kind, mean: float, mu: float) -> None:
  found = canon.mu_schedule(
    jnp.asarray(3),
    jnp.float32(mean),
    kind=kind,
    warm_up=30,
    total=150,
    cycles=3,
  )
  np.testing.assert_array_equal(found, mu)


@pytest.mark.parametrize(
  "changed", [{"warm_up": -1}, {"cycles": 0}, {"total": 32, "cycles": 3}]
)
def test_schedules_without_steps_are_refused(changed) -> None:
  options = {"warm_up": 30, "total": 150, "cycles": 3}
  unchecked = inspect.unwrap(canon.restarting_cosine)
  with pytest.raises(ValueError, match="a step for each"):
    unchecked(jnp.asarray(0), high=1.0, low=0.0, **(options | changed))


def test_an_unknown_schedule_is_refused() -> None:
  unchecked = inspect.unwrap(canon.mu_schedule)
  with pytest.raises(ValueError, match="'linear'"):
    unchecked(
      jnp.asarray(0),
      jnp.float32(0),
      kind="linear",
      warm_up=1,
      total=2,
      cycles=1,
    )
