from __future__ import annotations

import itertools
from functools import partial

import numpy as np
import pytest

from rl_jax.data.item_index import (
  ItemIndex,
  deduplicate_codes,
  format_index_tokens,
  residual_kmeans,
)


def blobs(items=60, seed=0):
  """Clusters of clusters in three dimensions, of uneven size."""
  rng = np.random.default_rng(seed)
  centre = rng.normal(size=(4, 3)) * 4
  which = rng.choice(4, items, p=[0.6, 0.2, 0.1, 0.1])
  return centre[which] + rng.normal(size=(items, 3))


def residuals(x, codes, centroids):
  """R^1, R^2, .. R^{L+1}."""
  found = [x]
  for code, centroid in zip(codes, centroids, strict=True):
    found.append(found[-1] - centroid[code])
  return found


def test_worked_example_of_the_sheet():
  x = np.array([(1, 0.1), (0.9, 0), (-1, 0.2), (-1.1, -0.2)])
  codes, centroids = residual_kmeans(x, num_levels=1, num_codes=2)
  order = [codes[0, 0], codes[0, 2]]
  assert codes[0].tolist() == [order[0]] * 2 + [order[1]] * 2
  np.testing.assert_allclose(
    centroids[0, order], [(0.95, 0.05), (-1.05, 0)], atol=1e-12
  )
  left = residuals(x, codes, centroids)[-1]
  expected = [(0.05, 0.05), (-0.05, -0.05), (0.05, 0.2), (-0.05, -0.2)]
  np.testing.assert_allclose(left, expected, atol=1e-12)


@pytest.mark.slow
@pytest.mark.parametrize("balanced", [True, False])
@pytest.mark.parametrize(("items", "count"), [(60, 7), (9, 9), (23, 3)])
def test_residuals_shrink_and_telescope(balanced, items, count):
  x = blobs(items)
  codes, centroids = residual_kmeans(
    x, num_levels=3, num_codes=count, balanced=balanced, seed=1
  )
  assert codes.shape == (3, items)
  assert centroids.shape == (3, count, 3)
  each = residuals(x, codes, centroids)
  errors = [np.sum(one**2) for one in each]
  assert all(b <= a + 1e-12 for a, b in itertools.pairwise(errors))
  whole = sum(own[code] for code, own in zip(codes, centroids, strict=True))
  np.testing.assert_allclose(whole + each[-1], x, atol=1e-12)
  for code, own, before in zip(codes, centroids, each, strict=False):
    size = np.bincount(code, minlength=count)
    assert size.min() >= 1
    if balanced:
      low, high = max(1, items // count - 1), items // count + 1
      assert low <= size.min() <= size.max() <= high
    for number in range(count):
      mean = before[code == number].mean(axis=0)
      np.testing.assert_allclose(own[number], mean, atol=1e-12)


def test_balance_finds_clusters_of_equal_size_and_costs_where_they_are_not():
  rng = np.random.default_rng(0)
  centre = 10.0 * np.eye(3)
  even = centre[np.arange(30) % 3] + rng.normal(size=(30, 3))
  uneven = blobs()
  for x, count in ((even, 3), (uneven, 4)):
    errors = {}
    for balanced in (True, False):
      codes, centroids = residual_kmeans(
        x, num_levels=1, num_codes=count, balanced=balanced
      )
      errors[balanced] = np.sum(residuals(x, codes, centroids)[-1] ** 2)
    assert errors[False] <= errors[True] + 1e-9
    if x is even:
      assert errors[True] == pytest.approx(errors[False])
      # Each cluster is one of the three, whatever it is called.
      assert len({(n % 3, c) for n, c in enumerate(codes[0])}) == 3


def test_the_seed_says_what_comes_out():
  one, two, other = (
    residual_kmeans(blobs(), num_levels=2, num_codes=5, starts=1, seed=seed)[0]
    for seed in (0, 0, 1)
  )
  np.testing.assert_array_equal(one, two)
  assert np.any(one != other)


def test_items_that_are_all_the_same_are_told_apart_at_the_end():
  codes, centroids = residual_kmeans(np.ones((5, 2)), num_levels=2, num_codes=2)
  assert np.isfinite(centroids).all()
  found = deduplicate_codes(codes)
  assert len(set(found)) == 5
  assert len(ItemIndex(codes=found)) == 5


def test_only_items_that_collide_have_one_code_more():
  found = deduplicate_codes(np.array([[3, 1, 3, 3, 0], [2, 2, 2, 2, 5]]))
  assert found == ((3, 2, 0), (1, 2), (3, 2, 1), (3, 2, 2), (0, 5))


def test_items_and_codes_both_ways():
  codes = deduplicate_codes(
    residual_kmeans(blobs(), num_levels=2, num_codes=5)[0]
  )
  index = ItemIndex(codes=codes)
  assert [index.item(own) for own in codes] == list(range(60))
  assert index.item((99, 0)) is None
  for own in codes:
    for n in range(len(own) + 1):
      expected = {
        one[n] for one in codes if one[:n] == own[:n] and n < len(one)
      }
      assert index.allowed_next(own[:n]) == tuple(sorted(expected))
  assert index.texts[0] == format_index_tokens(codes[0])
  assert set(index.tokens) == {
    token + "|>" for text in index.texts for token in text.split("|>") if token
  }


cluster = partial(residual_kmeans, num_levels=1)


@pytest.mark.parametrize(
  ("call", "words"),
  [
    (lambda: cluster(np.ones((3, 2)), num_codes=4), "3 items cannot fill 4"),
    (lambda: cluster(np.ones((3, 2)), num_codes=0), "num_codes = 0"),
    (lambda: cluster(np.array([[1], [np.nan]]), num_codes=1), "item 1 is not"),
    (lambda: deduplicate_codes(np.zeros((2, 0), int)), "at least one item"),
    (lambda: format_index_tokens((1, -1)), r"got \(1, -1\)"),
    (lambda: format_index_tokens(range(27)), "26 at most"),
    (lambda: ItemIndex(codes=()), "at least one sequence"),
    (lambda: ItemIndex(codes=((1,), (1,))), r"items have the codes \(1,\)"),
    (lambda: ItemIndex(codes=((1,), (1, 2))), "begins another"),
    (lambda: ItemIndex(codes=((1,),)).allowed_next((2,)), "no item begins"),
  ],
)
def test_nonsense_is_refused(call, words):
  with pytest.raises(ValueError, match=words):
    call()
