"""Implicit process rewards: the tree, the sums, the steps."""

from __future__ import annotations

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.advantages.segments import segment_index
from rl_jax.losses.outcome_reward import implicit_ce_loss
from rl_jax.rewards.implicit import (
  aggregate_steps,
  gather_steps,
  implicit_q,
  implicit_step_rewards,
  token_log_ratio,
)

# The spec's worked example: six tokens, steps that end at 1, 3 and 5.
RATIO = jnp.array([[0.4, -0.2, 0.6, -0.5, 0.1, 0.3]])
REFERENCE = jnp.full((1, 6), -1.0)
ENDS = np.array([[False, True, False, True, False, True]])
EVERY = np.ones((1, 6), bool)
INDEX = segment_index(jnp.array(ENDS), jnp.array(EVERY))
BETA = 0.05


def steps(mode, ratio=RATIO, index=INDEX, beta=BETA, segments=3):
  ratio = jnp.asarray(ratio)
  return implicit_step_rewards(
    ratio,
    jnp.zeros_like(ratio),
    index,
    beta=beta,
    mode=mode,
    num_segments=segments,
  )


def tree(rng, depth, width):
  """Log-probs of a random tabular model at every prefix."""
  return {
    prefix: np.log(rng.dirichlet(np.ones(width)))
    for n in range(depth)
    for prefix in itertools.product(range(width), repeat=n)
  }


def of_leaves(table, leaves):
  return np.array(
    [[table[leaf[:t]][leaf[t]] for t in range(len(leaf))] for leaf in leaves]
  )


def expectations(policy, reference, prefix, depth, width, beta):
  """Soft and plain expectation of the outcome over the reference's ways on."""
  soft = plain = 0.0
  for rest in itertools.product(range(width), repeat=depth - len(prefix)):
    leaf = prefix + rest
    own = of_leaves(policy, [leaf])[0].sum()
    other = of_leaves(reference, [leaf])[0]
    weight = math.exp(other[len(prefix) :].sum())
    outcome = beta * (own - other.sum())
    soft += weight * math.exp(outcome / beta)
    plain += weight * outcome
  return beta * math.log(soft), plain


@pytest.mark.slow
def test_worked_example():
  """The numbers of the paper's sheet, computed by hand."""
  q = implicit_q(RATIO + REFERENCE, REFERENCE, jnp.array(EVERY), beta=BETA)
  gathered = gather_steps(q, INDEX, num_segments=3)
  single, accumulative = steps("single"), steps("accumulative")
  np.testing.assert_allclose(gathered.value, [[0.01, 0.015, 0.035]], atol=1e-7)
  np.testing.assert_allclose(accumulative.value, gathered.value, atol=1e-7)
  np.testing.assert_allclose(single.value, [[0.01, 0.005, 0.02]], atol=1e-7)
  assert single.valid.all()
  assert accumulative.valid.all()
  low = aggregate_steps(single.value, single.valid, method="min")
  orm = aggregate_steps(accumulative.value, single.valid, method="last")
  np.testing.assert_allclose((low[0], orm[0]), (0.005, 0.035), atol=1e-7)


def test_prefix_scores_are_soft_expectations_of_the_outcome():
  """Proposition 3.1 by enumeration, for models that nobody has trained."""
  depth, width, beta = 3, 3, 0.7
  rng = np.random.default_rng(0)
  policy, reference = tree(rng, depth, width), tree(rng, depth, width)
  leaves = list(itertools.product(range(width), repeat=depth))
  with jax.enable_x64(True):
    q = np.asarray(
      implicit_q(
        jnp.asarray(of_leaves(policy, leaves)),
        jnp.asarray(of_leaves(reference, leaves)),
        jnp.ones((len(leaves), depth), bool),
        beta=beta,
      )
    )
  assert q.dtype == np.float64
  apart = []
  for row, leaf in enumerate(leaves):
    for t in range(depth):
      soft, plain = expectations(
        policy, reference, leaf[: t + 1], depth, width, beta
      )
      np.testing.assert_allclose(q[row, t], soft, atol=1e-12)
      if t < depth - 1:
        apart.append(abs(q[row, t] - plain))
  assert max(apart) > 0.1, "the plain expectation is another number"


def test_the_two_prefixes_of_the_sheet():
  policy = {(): np.log([0.8, 0.2]), (0,): np.log([0.9, 0.1])}
  policy[(1,)] = np.log([0.3, 0.7])
  reference = {(): np.log([0.5, 0.5]), (0,): np.log([0.5, 0.5])}
  reference[(1,)] = np.log([0.2, 0.8])
  found = [
    expectations(policy, reference, prefix, 2, 2, 0.7)
    for prefix in ((0,), (1,))
  ]
  np.testing.assert_allclose(
    found, [(0.329003, -0.028575), (-0.641404, -0.659416)], atol=1e-6
  )
  q = implicit_q(
    jnp.log(jnp.array([[0.8], [0.2]])),
    jnp.log(jnp.full((2, 1), 0.5)),
    jnp.ones((2, 1), bool),
    beta=0.7,
  )
  np.testing.assert_allclose(q[:, 0], [0.329003, -0.641404], atol=1e-6)


def batch(rows=16, time=12, segments=4):
  rng = np.random.default_rng(1)
  ratio = rng.normal(size=(rows, time)).astype(np.float32)
  length = rng.integers(1, time + 1, rows)
  mask = np.arange(time) < length[:, None]
  end = (rng.uniform(size=mask.shape) < 0.3) & mask
  end &= np.cumsum(end, axis=1) < segments
  index = np.asarray(segment_index(jnp.array(end), jnp.array(mask)))
  return ratio, mask, index


@pytest.mark.slow
def test_steps_against_a_loop():
  ratio, mask, index = batch()
  hidden = np.where(mask, ratio, np.nan)
  for mode in ("single", "accumulative"):
    found = steps(mode, ratio=hidden, index=jnp.array(index), segments=4)
    for row, own in enumerate(index):
      total, values = 0.0, []
      for k in range(max(own) + 1):
        step = float(ratio[row][own == k].astype(np.float64).sum()) * BETA
        total += step
        values.append(step if mode == "single" else total)
      values += [0.0] * (4 - len(values))
      np.testing.assert_allclose(found.value[row], values, atol=1e-6)
      assert found.valid[row].tolist() == [k <= max(own) for k in range(4)]


@pytest.mark.slow
def test_scores_of_responses_against_a_loop():
  ratio, _, index = batch()
  single = steps("single", ratio=ratio, index=jnp.array(index), segments=4)
  value, valid = np.asarray(single.value), np.asarray(single.valid)
  hidden = np.where(valid, value, np.nan)
  for method, reduce in {
    "min": min,
    "sum": sum,
    "mean": np.mean,
    "last": lambda x: x[-1],
  }.items():
    found = aggregate_steps(
      jnp.asarray(hidden), jnp.asarray(valid), method=method
    )
    expected = [reduce(own[ok]) for own, ok in zip(value, valid, strict=True)]
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.slow
def test_sums_telescope_to_the_outcome_reward():
  ratio, mask, index = batch()
  tokens = BETA * token_log_ratio(
    jnp.asarray(ratio), jnp.zeros(ratio.shape), jnp.asarray(mask)
  )
  single = steps("single", ratio=ratio, index=jnp.array(index), segments=4)
  orm = aggregate_steps(
    *steps("accumulative", ratio=ratio, index=jnp.array(index), segments=4),
    method="last",
  )
  np.testing.assert_allclose(tokens.sum(axis=1), orm, atol=1e-6)
  total = aggregate_steps(*single, method="sum")
  np.testing.assert_allclose(total, orm, atol=1e-6)
  low = aggregate_steps(
    *steps("accumulative", ratio=ratio, index=jnp.array(index), segments=4),
    method="min",
  )
  assert np.all(np.asarray(low) <= np.asarray(orm))


def test_the_reference_itself_scores_nothing():
  log_prob = jnp.log(jnp.full((2, 3), 0.3))
  mask = jnp.array([[True, True, False], [True, True, True]])
  q = implicit_q(log_prob, log_prob, mask, beta=BETA)
  assert not np.asarray(q).any()
  loss = implicit_ce_loss(
    q[:, -1], jnp.array([0.0, 1.0]), jnp.ones(2, bool), beta=BETA
  )
  np.testing.assert_allclose(loss, math.log(2), rtol=1e-6)


def test_masked_tokens_add_nothing():
  log_prob = jnp.array([[0.5, jnp.nan, 0.25]])
  mask = jnp.array([[True, False, True]])
  q = implicit_q(log_prob, jnp.zeros((1, 3)), mask, beta=2.0)
  assert q.tolist() == [[1.0, 0.0, 1.5]]


def test_the_scale_of_evaluation_chooses_the_same_response():
  ratio, _, index = batch()
  for method in ("min", "sum"):
    best = [
      int(
        np.argmax(
          aggregate_steps(
            *steps(
              "single",
              ratio=ratio,
              index=jnp.array(index),
              beta=beta,
              segments=4,
            ),
            method=method,
          )
        )
      )
      for beta in (0.001, 0.05, 1.0)
    ]
    assert len(set(best)) == 1


def test_bad_input():
  mask = jnp.array(EVERY)
  for beta in (0.0, -1.0, math.inf):
    with pytest.raises(ValueError, match=f"beta .*{beta}"):
      implicit_q(RATIO, REFERENCE, mask, beta=beta)
    with pytest.raises(ValueError, match="beta"):
      steps("single", beta=beta)
  with pytest.raises(ValueError, match="num_segments"):
    gather_steps(RATIO, INDEX, num_segments=0)


def test_unknown_options(unchecked):
  with pytest.raises(ValueError, match=r"mode must be .* got 'both'"):
    steps("both")
  with pytest.raises(ValueError, match=r"method must be .* got 'max'"):
    aggregate_steps(jnp.ones((1, 2)), jnp.ones((1, 2), bool), method="max")


def test_a_response_without_a_step_scores_zero():
  nothing = jnp.zeros((1, 2), bool)
  for method in ("min", "sum", "mean", "last"):
    found = aggregate_steps(jnp.full((1, 2), jnp.nan), nothing, method=method)
    assert found.tolist() == [0.0]
