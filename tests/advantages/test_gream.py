from __future__ import annotations

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.advantages import gream

EPSILON = 1e-6


@partial(jax.jit, static_argnames=("num_groups", "k"))
def bonus(exact, group, valid, *, num_groups, k):
  return gream.pass_at_k_bonus(
    exact, group, valid, num_groups=num_groups, k=k, epsilon=EPSILON
  )


@partial(jax.jit, static_argnames=("num_groups", "k"))
def calibrated(reward, exact, group, valid, *, num_groups, k):
  return gream.bonus_calibrated(
    reward,
    exact,
    group,
    valid,
    num_groups=num_groups,
    k=k,
    ddof=1,
    epsilon=EPSILON,
  )


def groups_of_ten():
  """Group c has c exact rows of ten."""
  exact = np.arange(10)[None] < np.arange(11)[:, None]
  group = np.repeat(np.arange(11), 10)
  return exact.reshape(-1), group, np.ones(110, bool)


def by_subsets(exact, k):
  """Each row's mean over the k-subsets that hold it, less that over all."""
  subsets = list(itertools.combinations(range(len(exact)), k))
  worth = np.array([any(exact[i] for i in own) for own in subsets], float)
  spread = worth.std()
  found = []
  for row in range(len(exact)):
    own = [row in subset for subset in subsets]
    found.append((worth[own].mean() - worth.mean()) / (spread + EPSILON))
  return np.array(found)


# The numbers of the sheet.
@pytest.mark.parametrize(
  ("hits", "right", "wrong"),
  [
    (0, None, 0.0),
    (1, 1.224742, -0.136082),
    (2, 0.707105, -0.176776),
    (5, 0.156173, -0.156173),
    (10, 0.0, None),
  ],
)
def test_worked_examples_of_ten_rows_and_four_tries(hits, right, wrong):
  exact, group, valid = groups_of_ten()
  found = np.asarray(bonus(exact, group, valid, num_groups=11, k=4))
  own = found[group == hits]
  for value, rows in ((right, own[:hits]), (wrong, own[hits:])):
    if value is not None:
      np.testing.assert_allclose(rows, value, atol=2e-6)


@pytest.mark.parametrize("k", [1, 4])
def test_equals_the_mean_over_all_subsets(k):
  """Counted out; with one try it is also the standardised outcome."""
  exact, group, valid = groups_of_ten()
  found = np.asarray(bonus(exact, group, valid, num_groups=11, k=k))
  for hits in range(11):
    own = np.asarray(exact)[group == hits]
    expected = by_subsets(own, k)
    np.testing.assert_allclose(found[group == hits], expected, atol=2e-5)
    if k == 1 and 0 < hits < 10:
      np.testing.assert_allclose(
        found[group == hits][0], np.sqrt((10 - hits) / hits), rtol=1e-5
      )


def test_sums_to_nothing_and_is_largest_where_hits_are_rare():
  exact, group, valid = groups_of_ten()
  found = np.asarray(bonus(exact, group, valid, num_groups=11, k=4))
  for hits in range(11):
    assert abs(found[group == hits].sum()) < 2e-5
  right = [found[group == hits][0] for hits in range(1, 11)]
  assert right == sorted(right, reverse=True)
  # From seven hits on any four rows hold one.
  assert right[0] > 0
  assert not np.any(found[group >= 7])


@pytest.mark.slow
def test_ragged_groups_and_rows_that_do_not_count():
  """The same numbers as each group alone, in any order."""
  rng = np.random.default_rng(0)
  sizes, rows = (3, 10, 6, 2), 21
  group = np.repeat(np.arange(4), sizes)
  exact, valid = rng.uniform(size=(2, rows)) < [[0.3], [0.8]]
  order = rng.permutation(rows)
  found = np.asarray(
    bonus(exact[order], group[order], valid[order], num_groups=4, k=2)
  )
  expected = np.zeros(rows)
  for number in range(4):
    own = np.flatnonzero((group == number) & valid)
    if len(own) >= 2:
      expected[own] = by_subsets(exact[own], 2)
  np.testing.assert_allclose(found, expected[order], atol=1e-5)
  few = bonus(exact, group, valid, num_groups=4, k=4)
  assert not np.any(few[group == 3]), "two rows are no four tries"


@pytest.mark.slow
def test_worked_example_of_the_calibrated_advantage():
  """Rewards (1, .5, .5, 0 x 7) of the sheet; c = 0 leaves GRPO's."""
  reward = jnp.array([1.0, 0.5, 0.5, *[0.0] * 7] * 2)
  exact = np.arange(20) == 0
  group = np.repeat([0, 1], 10)
  found = calibrated(reward, exact, group, group >= 0, num_groups=2, k=4)
  expected = [3.513046, 0.722031, 0.722031, *[-0.708158] * 7]
  expected += [2.288304, 0.858114, 0.858114, *[-0.572076] * 7]
  np.testing.assert_allclose(found, expected, atol=5e-6)


@pytest.mark.slow
def test_the_bonus_does_not_ask_for_levels_of_reward():
  """A reward of 1 that is not exact gets none; an exact one of .5 does."""
  exact, group, valid = groups_of_ten()
  rng = np.random.default_rng(1)
  reward = rng.choice([0.0, 0.5, 0.707, 0.866, 1.0], 110).astype(np.float32)
  both = [
    calibrated(scale * reward, exact, group, valid, num_groups=11, k=4)
    for scale in (1.0, 8.0)
  ]
  np.testing.assert_allclose(both[0], both[1], atol=1e-4)
  none = np.zeros_like(exact)
  grpo = calibrated(reward, none, group, valid, num_groups=11, k=4)
  expected = bonus(exact, group, valid, num_groups=11, k=4)
  np.testing.assert_allclose(both[0] - grpo, expected, atol=1e-5)


@pytest.mark.slow
def test_no_gradient_flows():
  exact, group, valid = groups_of_ten()

  def total(reward):
    return calibrated(reward, exact, group, valid, num_groups=11, k=4)[3]

  assert not np.any(jax.grad(total)(jnp.linspace(0, 1, 110)))


@pytest.mark.parametrize(
  ("change", "words"),
  [
    ({"k": 0}, r"k = 0 .* the batch has 4"),
    ({"k": 5}, r"k = 5 .* the batch has 4"),
    ({"epsilon": -1.0}, "epsilon must not be negative, got -1"),
    ({"num_groups": 0}, "num_groups must be at least 1, got 0"),
  ],
)
def test_nonsense_is_refused(change, words):
  options = {"num_groups": 1, "k": 2, "epsilon": 0.0} | change
  rows = jnp.ones(4, bool), jnp.zeros(4, int), jnp.ones(4, bool)
  with pytest.raises(ValueError, match=words):
    gream.pass_at_k_bonus(*rows, **options)
