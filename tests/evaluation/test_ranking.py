from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.evaluation import ranking


def test_ranks_hits_and_gains_against_a_loop():
  """The first place counts; -1 is nothing; a hit at rank 2 gains .630930."""
  rng = np.random.default_rng(0)
  ranked = rng.integers(-1, 8, (64, 6))
  target = rng.integers(0, 8, 64)
  rank = ranking.target_rank(jnp.asarray(ranked), jnp.asarray(target))
  expected = [
    (own.tolist().index(one) + 1 if one in own else 0)
    for own, one in zip(ranked, target, strict=True)
  ]
  assert rank.tolist() == expected
  assert 0 in expected
  for k in (1, 3, 6):
    inside = [1 <= one <= k for one in expected]
    assert ranking.hit_at_k(rank, k=k).tolist() == inside
    gain = [
      1 / np.log2(one + 1) if ok else 0.0
      for one, ok in zip(expected, inside, strict=True)
    ]
    np.testing.assert_allclose(ranking.ndcg_at_k(rank, k=k), gain, rtol=1e-6)
  second = ranking.ndcg_at_k(jnp.array([2]), k=5)
  np.testing.assert_allclose(second, [0.630930], atol=1e-6)


def test_chains_are_ranked_by_their_likelihood():
  """Two items named twice; what names nothing is last whatever it scores."""
  item = np.array([[3, -1, 5, 3, 5, 9], [-1, -7, -1, 2, 2, 2]])
  nats = np.array([[-4, -1, -3, -2, -3, -9], [-1, -1, -1, -5, -4, -6.0]])
  apart = ranking.ranked_chains(item, nats, merge=False)
  assert apart.tolist() == [[3, 5, 5, 3, 9, -1], [2, 2, 2, -1, -1, -1]]
  merged = ranking.ranked_chains(item, nats, merge=True)
  assert merged.tolist() == [[3, 5, 9, -1, -1, -1], [2, -1, -1, -1, -1, -1]]


def test_nonsense_is_refused():
  for function in (ranking.hit_at_k, ranking.ndcg_at_k):
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
      function(jnp.array([1]), k=0)
  for change, words in (
    ({"prompts": 0}, "prompts = 0"),
    ({"places": (11,)}, "10 beams do not fill 11 places"),
    ({"places": ()}, "must be 1 or more"),
  ):
    with pytest.raises(ValueError, match=words):
      ranking.BeamRanking(
        **(
          {"data": None, "answers": ("x",), "length": 1, "prompts": 1} | change
        )
      )
