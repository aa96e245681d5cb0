from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.log_probs import (
  at_own_position,
  next_token,
  segment_log_prob_mean,
  segment_log_prob_sum,
  sequence_log_prob_mean,
  sequence_log_prob_sum,
  token_log_prob,
)

SCALE = {"temperature": 1.0, "soft_cap": None}


_sum = jax.jit(segment_log_prob_sum, static_argnames="num_segments")
_mean = jax.jit(segment_log_prob_mean, static_argnames="num_segments")
_log_prob = jax.jit(token_log_prob, static_argnames=tuple(SCALE))


def _sequences():
  """Three sequences with their logits, and which tokens are responses."""
  rng = np.random.default_rng(0)
  made = []
  for length in (3, 1, 4):
    token = rng.integers(0, 6, length)
    logits = rng.normal(size=(length, 6)).astype(np.float32)
    response = np.arange(length) >= 1 + (length == 4)
    made.append((token.astype(np.int32), logits, response))
  return made


def _packed(sequences, width=10):
  token = np.zeros((1, width), np.int32)
  logits = np.full((1, width, 6), np.nan, np.float32)
  mask, segment = np.zeros((1, width), bool), np.zeros((1, width), np.int32)
  start = 0
  for number, (ids, z, response) in enumerate(sequences, start=1):
    stop = start + len(ids)
    token[0, start:stop], logits[0, start:stop] = ids, z
    mask[0, start:stop], segment[0, start:stop] = response, number
    start = stop
  return tuple(map(jnp.asarray, (token, logits, mask, segment)))


def _alone(sequence):
  """Log p of a response's tokens: logits of t - 1, token of t, in float64."""
  token, logits, response = sequence
  found = np.zeros(len(token))
  for t in range(1, len(token)):
    if response[t]:
      z = np.asarray(logits[t - 1], np.float64)
      found[t] = z[token[t]] - np.log(np.exp(z).sum())
  return found, response & (np.arange(len(token)) > 0)


@pytest.mark.slow
def test_packed_rows_score_what_the_sequences_alone_do():
  sequences = _sequences()
  token, logits, mask, segment = _packed(sequences)
  target, counts = next_token(token, mask, segment)
  log_prob = _log_prob(logits, target, counts, **SCALE)
  own = at_own_position(log_prob, counts)
  counted = at_own_position(counts.astype(jnp.float32), counts) > 0
  alone = [_alone(s) for s in sequences]
  np.testing.assert_allclose(
    own[0, :8], np.concatenate([x for x, _ in alone]), atol=1e-6
  )
  np.testing.assert_array_equal(
    counted[0, :8], np.concatenate([m for _, m in alone])
  )
  assert not counted[0, 8:].any()
  total = [x.sum() for x, _ in alone]
  mean = [x.sum() / max(m.sum(), 1) for x, m in alone]
  for place, kept in ((own, counted), (log_prob, counts)):
    np.testing.assert_allclose(
      _sum(place, segment, kept, num_segments=4)[0],
      [*total, 0.0],
      atol=1e-5,
    )
    np.testing.assert_allclose(
      _mean(place, segment, kept, num_segments=4)[0],
      [*mean, 0.0],
      atol=1e-5,
    )


@pytest.mark.slow
def test_no_sequence_scores_the_first_token_of_the_next():
  segment = jnp.array([[1, 1, 2, 3, 3, 0, 0]])
  everything = jnp.ones(segment.shape, bool)
  token = jnp.arange(1, 8, dtype=jnp.int32)[None]
  target, counts = next_token(token, everything, segment)
  assert counts.astype(int).tolist() == [[1, 0, 0, 1, 0, 0, 0]]
  assert target.tolist() == [[2, 0, 0, 5, 0, 0, 0]]


@pytest.mark.slow
def test_unpacked_rows_are_one_segment():
  rng = np.random.default_rng(2)
  mask = jnp.asarray(rng.uniform(size=(3, 5)) < 0.6)
  log_prob = jnp.where(mask, jnp.asarray(rng.normal(size=(3, 5))), jnp.nan)
  log_prob = log_prob.astype(jnp.float32)
  one = jnp.ones((3, 5), jnp.int32)
  for packed, whole in (
    (_sum, sequence_log_prob_sum),
    (_mean, sequence_log_prob_mean),
  ):
    np.testing.assert_allclose(
      packed(log_prob, one, mask, num_segments=1)[:, 0],
      whole(log_prob, mask),
      rtol=1e-6,
    )


def test_sums_and_means_by_hand():
  log_prob = jnp.array([[-1.0, -3.0, jnp.nan], [jnp.nan] * 3])
  mask = jnp.array([[True, True, False], [False] * 3])
  assert sequence_log_prob_sum(log_prob, mask).tolist() == [-4.0, 0.0]
  assert sequence_log_prob_mean(log_prob, mask).tolist() == [-2.0, 0.0]


@pytest.mark.slow
def test_gradient_reaches_each_token_by_its_sequences_weight():
  segment = jnp.array([[1, 1, 1, 2, 2, 0]])
  mask = jnp.array([[True, False, True, True, True, False]])
  weight = jnp.array([[2.0, 3.0]])
  slope = jax.grad(
    lambda x: jnp.sum(weight * _mean(x, segment, mask, num_segments=2))
  )(jnp.full((1, 6), -1.0))
  np.testing.assert_allclose(slope, [[1.0, 0.0, 1.0, 1.5, 1.5, 0.0]])


@pytest.mark.slow
def test_shift_there_and_back_is_the_identity_on_responses():
  rng = np.random.default_rng(4)
  segment = jnp.array([[1, 1, 2, 2, 2, 3, 0], [1, 2, 2, 2, 2, 2, 2]])
  mask = jnp.ones((2, 7), bool)
  value = jnp.asarray(rng.normal(size=(2, 7)), jnp.float32)
  _, counts = next_token(segment, mask, segment)
  ahead = jnp.roll(value, -1, axis=1)
  first = jnp.array(
    [[True, False, True, False, False, True, True], [True, True] + [False] * 5]
  )
  np.testing.assert_array_equal(
    at_own_position(ahead, counts), jnp.where(first, 0.0, value)
  )


@pytest.mark.parametrize("wrong", [-1, 3])
def test_segments_out_of_range_are_refused_or_not_a_number(wrong):
  log_prob, mask = jnp.zeros((2, 2)), jnp.ones((2, 2), bool)
  segment = jnp.array([[1, 2], [wrong, 1]])
  for function in (segment_log_prob_sum, segment_log_prob_mean):
    with pytest.raises(ValueError, match=rf"\[0, 2\].*{wrong}"):
      function(log_prob, segment, mask, num_segments=2)
    traced = jax.jit(function, static_argnames="num_segments")
    found = traced(log_prob, segment, mask, num_segments=2)
    assert np.isnan(found).all(axis=-1).tolist() == [False, True]
    with pytest.raises(ValueError, match="got 0"):
      function(log_prob, segment, mask, num_segments=0)
