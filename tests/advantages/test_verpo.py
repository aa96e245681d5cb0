"""Rewards from unit tests, against loops written from the paper's formulas."""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax import advantages
from rl_jax.advantages import segments

RNG = np.random.default_rng(5)
GROUP = np.array([2, 0, 2, 1, 0, 2, 1, 0, 3, 4])
TURN_MASK = np.arange(3) < np.array([3, 1, 2, 1, 2, 1, 3, 0, 1, 0])[:, None]
TESTS = np.array([4, 6, 5, 1, 2])
TEST_MASK = np.arange(6) < TESTS[GROUP][:, None]
PASSED = (RNG.uniform(size=(10, 3, 6)) < 0.6).astype(np.float32)
OPTIONS = {"alpha": 2.0, "sigma": 0.1, "delta": 1e-6}


def everything(
  passed,
  mask,
  test_mask,
  group,
  *,
  alpha=2.0,
  sigma=0.1,
  delta=1e-6,
  beta=1.0,
  discount=0.9,
  density=True,
  sum_to_one=False,
  scale="none",
):
  """From results to advantages, as the module says."""
  rate = advantages.pass_rates(passed, mask, test_mask, group, num_groups=5)
  weight = advantages.verpo_test_weights(
    rate,
    test_mask,
    alpha=alpha,
    sigma=sigma,
    delta=delta,
    density=density,
    sum_to_one=sum_to_one,
  )
  reward = advantages.turn_rewards(passed, weight, mask, test_mask)
  outcome = advantages.discounted_outcome(
    advantages.suite_passed(passed, mask, test_mask),
    jnp.sum(mask, axis=-1),
    discount=discount,
  )
  advantage = advantages.verpo_advantage(
    reward, outcome, mask, group, num_groups=5, beta=beta, scale=scale
  )
  return {
    "rate": rate,
    "weight": weight,
    "reward": reward,
    "outcome": outcome,
    "advantage": advantage,
  }


def oracle(passed, mask, test_mask, group, **options):
  """The spec's steps 1 to 7, one prompt at a time, with loops."""
  o = {
    "alpha": 2.0,
    "sigma": 0.1,
    "delta": 1e-6,
    "beta": 1.0,
    "discount": 0.9,
    "density": True,
    "sum_to_one": False,
    "scale": "none",
  } | options
  rows, turns, tests = passed.shape
  out = {
    "rate": np.zeros((rows, tests)),
    "weight": np.zeros((rows, tests)),
    "reward": np.zeros((rows, turns)),
    "outcome": np.zeros(rows),
    "advantage": np.zeros((rows, turns)),
  }
  for g in set(group.tolist()):
    own = [i for i in range(rows) if group[i] == g]
    real = [j for j in range(tests) if test_mask[own[0], j]]
    pairs = [(i, t) for i in own for t in range(turns) if mask[i, t]]
    rho = {
      j: sum(float(passed[i, t, j]) for i, t in pairs) / max(1, len(pairs))
      for j in real
    }
    weight = {}
    for j in real:
      near = sum(
        math.exp(-((rho[j] - rho[k]) ** 2) / (2 * o["sigma"] ** 2))
        for k in real
      )
      weight[j] = math.exp(-o["alpha"] * rho[j])
      weight[j] /= (near + o["delta"]) if o["density"] else 1
    total = sum(weight.values()) if o["sum_to_one"] else 1
    weight = {j: w / total for j, w in weight.items()}
    for i in own:
      for j in real:
        out["rate"][i, j], out["weight"][i, j] = rho[j], weight[j]
    for i, t in pairs:
      out["reward"][i, t] = sum(weight[j] * passed[i, t, j] for j in real)
    alive = [i for i in own if mask[i].any()]
    for i in alive:
      last = max(t for t in range(turns) if mask[i, t])
      if all(passed[i, last, j] for j in real):
        out["outcome"][i] = o["discount"] ** int(mask[i].sum())

    def centred(values, scaled=o["scale"] == "group"):
      middle = sum(values) / max(1, len(values))
      spread = np.std(values, ddof=1) + 1e-6 if len(values) > 1 else 1.0
      same = len(set(values)) < 2
      return [
        0.0 if same else (v - middle) / (spread if scaled else 1.0)
        for v in values
      ]

    whole = dict(
      zip(alive, centred([out["outcome"][i] for i in alive]), strict=True)
    )
    parts = centred([out["reward"][i, t] for i, t in pairs])
    for (i, t), part in zip(pairs, parts, strict=True):
      out["advantage"][i, t] = whole[i] + o["beta"] * part
  return out


# Everything is run in one shape, or each test would compile it anew: with
# rows, turns and tests that do not count, and hold NaN.
SHAPE = 10, 4, 30


def filled(value, shape, filling):
  out = np.full(shape, filling, np.asarray(value).dtype)
  out[tuple(slice(size) for size in np.shape(value))] = value
  return out


def padded(passed, mask, test_mask, group):
  counted = mask[..., None] & test_mask[:, None]
  passed = np.where(counted, passed, np.nan).astype(np.float32)
  return (
    jnp.asarray(filled(passed, SHAPE, np.nan)),
    jnp.asarray(filled(mask, SHAPE[:2], False)),
    jnp.asarray(filled(test_mask, SHAPE[::2], False)),
    jnp.asarray(filled(group, SHAPE[:1], 4)),
  )


def run(passed, mask, test_mask, group, **options):
  found = everything(*padded(passed, mask, test_mask, group), **options)
  found = {name: np.asarray(value) for name, value in found.items()}
  rows, turns, tests = passed.shape
  for name in ("advantage", "reward"):
    assert not found[name][rows:].any()
    assert not found[name][:, turns:].any()
    found[name] = found[name][:rows, :turns]
  for name in ("rate", "weight"):
    assert not found[name][rows:].any()
    assert not found[name][:, tests:].any()
    found[name] = found[name][:rows, :tests]
  return found | {"outcome": found["outcome"][:rows]}


def single(text, repeat=None):
  """Rows of digits: responses of one turn to one prompt."""
  rows = [[float(x) for x in row] for row in text.split()]
  passed = np.array(rows)[:, None]
  if repeat is not None:
    passed = np.repeat(passed, repeat, axis=-1)
  count, _, tests = passed.shape
  return (
    passed,
    np.ones((count, 1), bool),
    np.ones((count, tests), bool),
    np.zeros(count, int),
  )


@pytest.mark.slow
@pytest.mark.parametrize(
  "options",
  [
    {},
    {"density": False, "sum_to_one": True, "beta": 0.5},
    {"scale": "group", "alpha": 0.0, "sigma": 0.3},
  ],
  ids=str,
)
def test_against_loops(options):
  """Ragged suites, trajectories and groups; NaN where nothing may look."""
  found = run(PASSED, TURN_MASK, TEST_MASK, GROUP, **options)
  expected = oracle(PASSED, TURN_MASK, TEST_MASK, GROUP, **options)
  for name, value in expected.items():
    np.testing.assert_allclose(
      found[name], value, rtol=1e-5, atol=2e-6, err_msg=name
    )


@pytest.mark.slow
def test_worked_example_of_five_tests():
  """The specification's: 4 responses, sigma .1, alpha 2, gamma .9, beta 1."""
  case = single("11110 11100 11111 11000")
  found = run(*case)
  level = advantages.pass_rate_density(
    jnp.asarray(filled(found["rate"], SHAPE[::2], np.nan)),
    padded(*case)[2],
    sigma=0.1,
  )
  expected = {
    "rate": [1, 1, 0.75, 0.5, 0.25],
    "weight": [0.066213, 0.066213, 0.197144, 0.338161, 0.581001],
  }
  for name, value in expected.items():
    np.testing.assert_allclose(found[name][0], value, atol=1e-6)
  np.testing.assert_allclose(
    level[0, :5], [2.043941, 2.043941, 1.131815, 1.087881, 1.043941], atol=1e-6
  )
  np.testing.assert_allclose(
    found["reward"][:, 0], [0.667730, 0.329569, 1.248731, 0.132426], atol=2e-6
  )
  np.testing.assert_allclose(
    found["advantage"][:, 0],
    [-0.151884, -0.490045, 1.329117, -0.687188],
    atol=2e-6,
  )
  turn = run(*case, discount=1e-9)["advantage"][:, 0]
  np.testing.assert_allclose(
    turn, [0.073116, -0.265045, 0.654117, -0.462188], atol=2e-6
  )


def test_a_test_that_comes_ten_times_counts_once():
  """The specification's: tests (easy, hard), and the easy one ten times."""
  few, many = single("11 10 00 10"), single("11 10 00 10", [10, 1])
  reward = [0.829660, 0.223130, 0.0, 0.223130]
  options = {"sigma": 0.05, "delta": 0.0}
  first = run(*few, **options)
  np.testing.assert_allclose(first["rate"][0], [0.75, 0.25])
  np.testing.assert_allclose(first["weight"][0], [0.22313, 0.606531], atol=1e-6)
  np.testing.assert_allclose(first["reward"][:, 0], reward, atol=1e-6)
  second = run(*many, **options)
  np.testing.assert_allclose(second["reward"][:, 0], reward, atol=1e-5)


def test_without_density_the_easy_test_wins_by_number():
  """The specification's, the easy test nine times more."""
  many = single("11 10 00 10", [9, 1])
  found = run(*many, sigma=0.05, density=False)["reward"][:, 0]
  expected = [2.614702, 2.008171, 0.0, 2.008171]
  np.testing.assert_allclose(found, expected, atol=5e-6)
  plain = single("11 10 00 10", [9, 1])[0].mean(-1)[:, 0]
  np.testing.assert_allclose(plain, [1.0, 0.9, 0.0, 0.9])


def test_with_beta_zero_it_is_the_centred_outcome():
  found = run(PASSED, TURN_MASK, TEST_MASK, GROUP, beta=0.0, discount=1.0)
  outcome = np.asarray(found["outcome"])
  assert set(outcome) == {0.0, 1.0}
  for g in range(5):
    own = (g == GROUP) & TURN_MASK.any(-1)
    centred = outcome[own] - (outcome[own].mean() if own.any() else 0)
    expected = np.where(TURN_MASK[own], centred[:, None], 0)
    np.testing.assert_allclose(found["advantage"][own], expected, atol=1e-6)


def test_with_alpha_zero_and_no_density_it_counts_passes():
  found = run(PASSED, TURN_MASK, TEST_MASK, GROUP, alpha=0.0, density=False)
  counts = (PASSED * TEST_MASK[:, None]).sum(-1) * TURN_MASK
  np.testing.assert_allclose(found["reward"], counts, atol=1e-6)


def test_parts_of_the_advantage_sum_to_zero_over_a_group():
  both = run(PASSED, TURN_MASK, TEST_MASK, GROUP, beta=1.0)
  trajectory = run(PASSED, TURN_MASK, TEST_MASK, GROUP, beta=0.0)
  turn = np.asarray(both["advantage"] - trajectory["advantage"])
  first = np.asarray(trajectory["advantage"])[:, 0]
  for g in range(5):
    assert abs(turn[g == GROUP].sum()) < 2e-6
    assert abs(first[g == GROUP].sum()) < 2e-6


@pytest.mark.parametrize("density", [True, False])
def test_passing_more_tests_never_has_a_lower_reward(density):
  found = run(PASSED, TURN_MASK, TEST_MASK, GROUP, density=density)
  reward, pairs = np.asarray(found["reward"]), np.argwhere(TURN_MASK)
  compared = 0
  for i, t in pairs:
    for k, s in pairs:
      real = TEST_MASK[i]
      more = (PASSED[i, t] >= PASSED[k, s])[real].all()
      if GROUP[i] == GROUP[k] and more:
        compared += 1
        assert reward[i, t] >= reward[k, s] - 1e-6
  assert compared > len(pairs)


def test_a_test_that_all_or_none_pass_moves_nobody_unless_density_does():
  one = single("10 01 00 10")
  more = single("101 011 001 101")
  none = single("100 010 000 100")
  options = {"density": False, "discount": 1.0}
  plain = run(*one, **options)["advantage"]
  for other in (none, more):
    # Outcomes are all 0 but where the third test is passed by all.
    found = run(*other, **options)["reward"][:, 0]
    base = run(*one, **options)["reward"][:, 0]
    assert np.ptp(np.asarray(found - base)) < 1e-6
  assert np.abs(np.asarray(plain)).max() > 0.1
  near = single("1111 1101 1101 1101 1101 1101 1101 0101")
  far = single("111 110 110 110 110 110 110 010")
  with_test, without = run(*near), run(*far)
  assert with_test["weight"][0, 0] < without["weight"][0, 0] - 0.01


def test_the_largest_reward_is_about_the_number_of_levels_or_one():
  case = single("1" * 30 + " " + "1" * 20 + "0" * 10 + " " + "0" * 30)
  found = run(*case, alpha=0.0, sigma=0.01, delta=0.0)
  np.testing.assert_allclose(found["reward"][0, 0], 2.0, atol=1e-4)
  found = run(*case, sum_to_one=True, density=False)
  np.testing.assert_allclose(found["reward"][0, 0], 1.0, atol=1e-6)


def test_a_group_of_one_turn_teaches_nothing():
  found = run(PASSED, TURN_MASK, TEST_MASK, GROUP, scale="group")
  assert not np.asarray(found["advantage"])[GROUP == 3].any()


def test_every_token_of_a_turn_has_its_advantage():
  advantage = jnp.array([[0.5, -1.0], [2.0, 0.0]])
  turn = jnp.array([[0, 0, -1, 1, 1], [0, -1, -1, -1, -1]])
  np.testing.assert_array_equal(
    segments.spread_segments(advantage, turn),
    [[0.5, 0.5, 0.0, -1.0, -1.0], [2.0, 0.0, 0.0, 0.0, 0.0]],
  )


@pytest.mark.slow
def test_share_of_groups_that_teach_nothing():
  reward = jnp.array([[1.0], [1.0], [0.0], [1.0], [0.5], [jnp.nan]])
  group, mask = jnp.array([0, 0, 1, 1, 2, 3]), jnp.arange(6)[:, None] < 5
  found = advantages.degenerate_group_ratio(reward, mask, group, num_groups=8)
  # Groups 0 and 2, of three that have a response.
  assert (found.value.item(), found.weight.item()) == (2.0, 3.0)


def test_partial_success_leaves_fewer_groups_that_teach_nothing():
  """Nobody solves it: the outcome says nothing, the tests do."""
  case = single("1110 1100 1000 1110")
  found = run(*case)
  outcome = found["outcome"][:, None]

  def share(reward):
    reward = jnp.asarray(filled(reward, (6, 1), np.nan))
    mask, group = jnp.arange(6)[:, None] < 4, jnp.zeros(6, int)
    return advantages.degenerate_group_ratio(
      reward, mask, group, num_groups=8
    ).mean()

  assert share(outcome) == 1.0
  assert share(outcome + found["reward"]) == 0.0


RATE, EVERY = jnp.zeros((2, 3)), jnp.ones((2, 3), bool)
WEIGHTS = {"density": True, "sum_to_one": False}


@pytest.mark.parametrize(
  ("call", "match"),
  [
    (
      lambda: advantages.pass_rates(
        jnp.zeros((2, 1, 0)),
        jnp.ones((2, 1), bool),
        jnp.ones((2, 0), bool),
        jnp.zeros(2, int),
        num_groups=1,
      ),
      "without tests",
    ),
    (lambda: advantages.pass_rate_density(RATE, EVERY, sigma=0.0), "sigma"),
    (
      lambda: advantages.verpo_test_weights(
        RATE, EVERY, alpha=-1.0, sigma=0.1, delta=0.0, **WEIGHTS
      ),
      "alpha",
    ),
    (
      lambda: advantages.verpo_test_weights(
        RATE, EVERY, alpha=1.0, sigma=0.1, delta=-1.0, **WEIGHTS
      ),
      "delta",
    ),
    (
      lambda: advantages.discounted_outcome(
        jnp.ones(1), jnp.ones(1, int), discount=1.5
      ),
      "discount",
    ),
    (
      lambda: advantages.turn_relative(
        jnp.ones((1, 1)),
        jnp.ones((1, 1), bool),
        jnp.zeros(1, int),
        num_groups=1,
        scale="none",
      ),
      "two turns",
    ),
    (
      lambda: advantages.pass_rates(
        jnp.zeros((2, 1, 3)),
        jnp.ones((2, 1), bool),
        EVERY,
        jnp.zeros(2, int),
        num_groups=0,
      ),
      "num_groups",
    ),
  ],
)
def test_bad_input(call, match):
  with pytest.raises(ValueError, match=match):
    call()
