from __future__ import annotations

import dataclasses
import itertools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax import data, models
from rl_jax.environments.texts import listed
from rl_jax.evaluation import ranking
from sampling.chains import Chain


def test_ranks_hits_and_gains_against_a_loop():
  """The first place counts; -1 is nothing; a hit at rank 2 gains .630930."""
  rng = np.random.default_rng(0)
  ranked = rng.integers(-1, 8, (64, 6))
  target = rng.integers(0, 8, 64)
  expected = [
    (own.tolist().index(one) + 1 if one in own else 0)
    for own, one in zip(ranked, target, strict=True)
  ]
  assert 0 in expected

  @jax.jit
  def measured(ranked, target):
    rank = ranking.target_rank(ranked, target)
    second = ranking.ndcg_at_k(jnp.array([2]), k=5)
    each = {
      k: (ranking.hit_at_k(rank, k=k), ranking.ndcg_at_k(rank, k=k))
      for k in (1, 3, 6)
    }
    return rank, each, second

  rank, each, second = measured(ranked, target)
  assert rank.tolist() == expected
  for k, (hit, gained) in each.items():
    inside = [1 <= one <= k for one in expected]
    assert hit.tolist() == inside
    gain = [
      1 / np.log2(one + 1) if ok else 0.0
      for one, ok in zip(expected, inside, strict=True)
    ]
    np.testing.assert_allclose(gained, gain, rtol=1e-6)
  np.testing.assert_allclose(second, [0.630930], atol=1e-6)


def test_chains_are_ranked_by_their_likelihood():
  """Two items named twice; what names nothing is last whatever it scores."""
  item = np.array([[3, -1, 5, 3, 5, 9], [-1, -7, -1, 2, 2, 2]])
  nats = np.array([[-4, -1, -3, -2, -3, -9], [-1, -1, -1, -5, -4, -6.0]])
  apart = ranking.ranked_chains(item, nats, merge=False)
  assert apart.tolist() == [[3, 5, 5, 3, 9, -1], [2, 2, 2, -1, -1, -1]]
  merged = ranking.ranked_chains(item, nats, merge=True)
  assert merged.tolist() == [[3, 5, 9, -1, -1, -1], [2, -1, -1, -1, -1, -1]]


@dataclasses.dataclass(frozen=True)
class Pairs:
  """Prompts with the items that are right."""

  items: tuple[tuple[str, str], ...]
  rows: int = 1
  shuffle: bool = False

  def source(self):
    return listed(self.items)


VOCABULARY = models.Characters(alphabet="abcd=")
ANSWERS = ("ab", "ac", "b", "cd", "dd")


def evaluated(references=("cd", "b", "ab", "dd"), **change):
  task = Pairs(
    tuple(("abcd"[n] + "=", one) for n, one in enumerate(references))
  )
  prompts = data.Prompts(task=task, vocabulary=VOCABULARY, length=2)
  given = {"data": prompts, "answers": ANSWERS, "length": 3, "prompts": 4}
  evaluation = ranking.BeamRanking(
    **(given | {"width": 4, "places": (1, 3)} | change)
  )
  model = Chain(vocabulary=VOCABULARY.size, context=8)
  return evaluation.build(types.SimpleNamespace(model=model), None)


@pytest.mark.slow
def test_beams_of_held_out_prompts_are_held_against_their_items():
  """Every prompt ends alike: one ranking, counted by hand."""
  size = VOCABULARY.size
  table = np.random.default_rng(5).normal(size=(size, size)).astype(np.float32)
  log_prob = jax.nn.log_softmax(table, axis=-1)
  ids = {one: number for number, one in enumerate("abcd=")}

  def score(answer):
    path = [ids["="], *(ids[one] for one in answer), size - 1]
    return sum(float(log_prob[a, b]) for a, b in itertools.pairwise(path))

  order = sorted(ANSWERS, key=score, reverse=True)
  evaluate, frozen = evaluated()

  @jax.jit
  def run(params, frozen):
    return evaluate(types.SimpleNamespace(params=(params, None)), frozen)

  metrics, pictures = run({"table": jnp.asarray(table)}, frozen)
  assert pictures == {}
  rank = [order.index(one) + 1 for one in ("cd", "b", "ab", "dd")]
  for k in (1, 3):
    hits = [one <= k for one in rank]
    gain = [h / np.log2(one + 1) for h, one in zip(hits, rank, strict=True)]
    found = (
      metrics[f"evaluation/hit_at_{k}"],
      metrics[f"evaluation/ndcg_at_{k}"],
    )
    means = [float(total.mean()) for total in found]
    np.testing.assert_allclose(means, [np.mean(hits), np.mean(gain)], rtol=1e-6)
  assert 0 < np.mean([one <= 3 for one in rank]) < 1


def test_what_cannot_be_ranked_is_refused():
  with pytest.raises(ValueError, match="'a' of item 0 is not an answer"):
    evaluated(references=("a",), prompts=1)
  with pytest.raises(ValueError, match="wants 4 prompts, its data has 1"):
    evaluated(references=("b",))
  with pytest.raises(ValueError, match=r"length = 2 .* 3 tokens"):
    evaluated(length=2)


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
