"""SALT's numbers: the worked cases of its specification, and a slow oracle."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.advantages.groups import group_relative
from rl_jax.advantages.salt import (
  salt_step_advantages,
  visit_mean,
  visitor_count,
)

OPTIONS = {
  "num_edges": 24,
  "weighting": "trajectory",
  "mix": 1.0,
  "min_shared": 2,
  "baseline": "none",
}
STEPS = jax.jit(salt_step_advantages, static_argnames=tuple(OPTIONS))


def oracle(advantage, edge, node, valid, **options):
  """Loops over sets, in float64, from the formulas of the specification."""
  rows = [row for row in range(len(edge)) if valid[row]]

  def mean(ids, wanted):
    values = []
    for row in rows:
      visits = sum(int(i == wanted) for i in ids[row])
      if options["weighting"] == "trajectory":
        visits = min(visits, 1)
      values += [advantage[row]] * visits
    return sum(values) / len(values)

  out = np.zeros(edge.shape)
  for row, turn in itertools.product(rows, range(edge.shape[1])):
    if edge[row, turn] < 0:
      continue
    own = float(advantage[row])
    takers = sum(edge[row, turn] in edge[other] for other in rows)
    step = own
    if takers >= options["min_shared"]:
      step = mean(edge, edge[row, turn])
    if options["baseline"] == "node":
      step -= mean(node, node[row, turn])
    out[row, turn] = options["mix"] * step + (1 - options["mix"]) * own
  return out


def batch(seed, rows=6, turns=4, ids=5):
  rng = np.random.default_rng(seed)
  edge = rng.integers(0, ids, (rows, turns)).astype(np.int32)
  for row, length in enumerate(rng.integers(0, turns + 1, rows)):
    edge[row, length:] = -1
  node = np.where(edge < 0, -1, edge // 2).astype(np.int32)
  valid = rng.uniform(size=rows) < 0.8
  advantage = rng.normal(size=rows).astype(np.float32)
  return advantage, edge, node, valid


def steps(advantage, edge, node=None, valid=None, **changed):
  edge = jnp.asarray(edge, jnp.int32)
  return np.asarray(
    STEPS(
      jnp.asarray(advantage, jnp.float32),
      edge,
      edge if node is None else jnp.asarray(node, jnp.int32),
      jnp.ones(len(edge), bool) if valid is None else jnp.asarray(valid),
      **OPTIONS | changed,
    )
  )


@pytest.mark.slow
@pytest.mark.parametrize("baseline", ["none", "node"])
@pytest.mark.parametrize("weighting", ["trajectory", "occurrence"])
def test_is_what_loops_over_sets_give(weighting, baseline):
  for mix, min_shared in ((1.0, 2), (0.25, 3), (0.0, 2)):
    changed = {
      "weighting": weighting,
      "baseline": baseline,
      "mix": mix,
      "min_shared": min_shared,
    }
    many = [batch(seed) for seed in range(20)]
    function = lambda *x, c=changed: salt_step_advantages(*x, **OPTIONS | c)  # noqa: E731
    stacked = [jnp.stack(column) for column in zip(*many, strict=True)]
    found = jax.jit(jax.vmap(function))(*stacked)
    for one, own in zip(many, found, strict=True):
      expected = oracle(*one, **changed)
      np.testing.assert_allclose(own, expected, atol=1e-6)


def test_four_trajectories_of_the_specification():
  """Outcomes 1, 0, 1, 0; edges named as there."""
  names = [
    ["0a1", "1b2", "2cE"],
    ["0a1", "1b2", "2dF"],
    ["0a1", "1e3", "3cE"],
    ["0f4", "4cF"],
  ]
  order = list(dict.fromkeys(itertools.chain(*names)))
  edge = [
    [order.index(e) for e in row] + [-1] * (3 - len(row)) for row in names
  ]
  base = group_relative(
    jnp.array([1.0, 0.0, 1.0, 0.0]),
    jnp.zeros(4, int),
    jnp.ones(4, bool),
    num_groups=1,
    scale="group",
    ddof=1,
    epsilon=1e-6,
  )
  np.testing.assert_allclose(
    base, [0.866024, -0.866024, 0.866024, -0.866024], atol=1e-6
  )
  expected = [
    [0.288675, 0.0, 0.866024],
    [0.288675, 0.0, -0.866024],
    [0.288675, 0.866024, 0.866024],
    [-0.866024, -0.866024, 0.0],
  ]
  np.testing.assert_allclose(steps(base, edge), expected, atol=1e-6)


@pytest.mark.slow
def test_loop_of_the_specification():
  """The first row passes x twice."""
  x, y, z = 0, 1, 2
  edge = [[x, x, y], [x, z, -1]]
  for weighting, shared in (("trajectory", 0.0), ("occurrence", 1 / 3)):
    found = steps([1.0, -1.0], edge, weighting=weighting)
    expected = [[shared, shared, 1.0], [shared, -1.0, 0.0]]
    np.testing.assert_allclose(found, expected, atol=1e-7)


def test_a_group_without_a_difference_stays_zero():
  edge = np.array([[0, 1, 2], [0, 3, 4]])
  for baseline in ("none", "node"):
    assert not steps([0.0, 0.0], edge, edge, baseline=baseline).any()


@pytest.mark.slow
def test_without_shared_edges_it_is_the_base_exactly():
  advantage = np.random.default_rng(0).normal(size=4).astype(np.float32)
  edge = np.arange(12).reshape(4, 3)
  base = np.repeat(advantage[:, None], 3, 1)
  np.testing.assert_array_equal(steps(advantage, edge), base)
  shared = np.zeros((4, 3), int)
  np.testing.assert_array_equal(steps(advantage, shared, mix=0.0), base)
  np.testing.assert_array_equal(steps(advantage, shared, min_shared=5), base)


@pytest.mark.parametrize("weighting", ["trajectory", "occurrence"])
def test_what_all_do_the_same_has_nothing_if_the_base_is_centred(weighting):
  advantage = np.array([1.5, -0.25, -1.0, -0.25], np.float32)
  edge = np.array([[0, 1, 2]] * 4)
  assert not steps(advantage, edge, weighting=weighting).any()
  edge[:, 2] = [2, 3, 4, 5]
  found = steps(advantage, edge, weighting=weighting)
  assert not found[:, :2].any()
  np.testing.assert_array_equal(found[:, 2], advantage)


def test_values_stay_between_those_of_the_members():
  for seed in range(5):
    advantage, edge, node, valid = batch(seed)
    found = steps(advantage, edge, node, valid)
    for row, turn in np.argwhere((edge >= 0) & valid[:, None]):
      member = valid & (edge == edge[row, turn]).any(axis=1)
      low, high = advantage[member].min(), advantage[member].max()
      assert low - 1e-6 <= found[row, turn] <= high + 1e-6


def test_occurrence_weighting_conserves_the_total():
  for seed in range(5):
    advantage, edge, node, valid = batch(seed)
    found = steps(advantage, edge, node, valid, weighting="occurrence")
    taken = (edge >= 0).sum(axis=1) * valid
    np.testing.assert_allclose(
      found.sum(), (advantage * taken).sum(), atol=1e-5
    )


@pytest.mark.slow
def test_an_absent_step_does_not_wrap_to_the_last_edge():
  """The last id is in use, and -1 would count from the end."""
  edge = np.array([[0, 23, -1], [0, -1, -1]])
  found = steps([1.0, -1.0], edge)
  np.testing.assert_array_equal(found, [[0, 1, 0], [0, 0, 0]])
  count = visitor_count(jnp.asarray(edge), jnp.ones(2, bool), num_edges=24)
  assert count.tolist() == [[2, 1, 0], [2, 0, 0]]


@pytest.mark.slow
def test_an_id_beyond_the_last_one_is_not_dropped_in_silence():
  edge = jnp.array([[0, 24], [0, 1]])
  found = steps([1.0, -1.0], edge)
  np.testing.assert_array_equal(found, [[0, np.nan], [0, -1]])
  count = visitor_count(edge, jnp.ones(2, bool), num_edges=24)
  assert count.tolist() == [[2, -1], [2, 1]]
  found = steps([1.0, -1.0], np.zeros((2, 2)), edge, baseline="node")
  assert np.isnan(found).tolist() == [[False, True], [False, False]]


@pytest.mark.slow
def test_no_gradient_flows():
  edge = jnp.array([[0, 1], [0, 2]])
  gradient = jax.grad(
    lambda a: jnp.sum(
      salt_step_advantages(a, edge, edge, jnp.ones(2, bool), **OPTIONS)
    )
  )(jnp.array([1.0, -1.0]))
  assert not gradient.any()


@pytest.mark.parametrize(
  ("changed", "message"),
  [
    ({"mix": 1.5}, "mix must be in"),
    ({"min_shared": 0}, "min_shared must be at least 1"),
    ({"num_edges": 0}, "num_edges must be at least 1"),
    ({"weighting": "visits"}, "weighting must be"),
    ({"baseline": "state"}, "baseline must be"),
  ],
)
def test_refuses(unchecked, changed, message):
  with pytest.raises(ValueError, match=message):
    steps([1.0, -1.0], [[0, 1], [0, 2]], **changed)


def test_refuses_an_unknown_weighting_of_a_mean(unchecked):
  with pytest.raises(ValueError, match="weighting must be"):
    visit_mean(
      jnp.ones(1),
      jnp.zeros((1, 1), int),
      jnp.ones(1, bool),
      num_edges=1,
      weighting="none",
    )
