"""Constrained beam search against enumeration and against whole rows."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.decoder.conftest import FULL, randomised
from rl_jax.log_probs import next_token, support_log_prob
from rl_jax.log_probs.support import Support
from rl_jax.sampling import Trie
from rl_jax.sampling.beam import constrained_beam_search
from sampling.chains import Chain

IDS, LENGTH = 9, 4
CHAIN = Chain(vocabulary=IDS, context=16)


def sequences():
  """Of two to four ids each, none of which begins another."""
  rng = np.random.default_rng(3)
  found = set()
  for size in (2, 3, 3, 4, 4, 4, 4, 3, 4, 2, 4, 4):
    one = tuple(rng.integers(0, IDS, size).tolist())
    if not any(one[: len(x)] == x or x[: len(one)] == one for x in found):
      found.add(one)
  return sorted(found)


ALLOWED = sequences()
TRIE = Trie.of(ALLOWED)
TABLE = np.random.default_rng(4).normal(size=(IDS, IDS)).astype(np.float32)


def search(width, prompt, **rest):
  prompt = jnp.asarray(prompt)
  found = constrained_beam_search(
    CHAIN,
    {"table": jnp.asarray(TABLE)},
    prompt,
    jnp.ones(prompt.shape, bool),
    TRIE,
    **({"width": width, "length": LENGTH} | rest),
  )
  return jax.device_get(found)


def log_prob(last, sequence):
  log_probs = jax.nn.log_softmax(TABLE, axis=-1)
  total = 0.0
  for one in sequence:
    total, last = total + float(log_probs[last, one]), one
  return total


def by_hand(last, width):
  """Beam search with lists: complete ones compete with those that go on."""
  beams = [((), 0.0)]
  for _ in range(LENGTH):
    going = []
    for begun, _ in beams:
      options = {
        x[: len(begun) + 1] for x in ALLOWED if x[: len(begun)] == begun
      }
      going += [begun] if begun in ALLOWED else sorted(options)
    scored = [(x, log_prob(last, x)) for x in dict.fromkeys(going)]
    beams = sorted(scored, key=lambda one: -one[1])[:width]
  return beams


def written(found, row):
  return [
    tuple(token[mask].tolist())
    for token, mask in zip(found.token[row], found.mask[row], strict=True)
  ]


@pytest.mark.slow
def test_wide_beams_enumerate_everything():
  """More beams than responses: all of them in order, then nothing."""
  prompt = [[2, 5], [5, 1], [1, 0]]
  found = search(16, prompt)
  assert len(ALLOWED) >= 8
  for row, (_, last) in enumerate(prompt):
    expected = sorted(ALLOWED, key=lambda one: -log_prob(last, one))
    size = len(expected)
    assert written(found, row)[:size] == expected
    numbers = [log_prob(last, one) for one in expected]
    np.testing.assert_allclose(found.log_prob[row, :size], numbers, rtol=1e-5)
    assert np.all(found.log_prob[row, size:] == -np.inf)
    assert not np.any(found.mask[row, size:])
  ends = found.node[:, : len(ALLOWED)]
  assert not np.any(np.asarray(TRIE.children)[ends])
  assert all(len(set(own)) == len(ALLOWED) for own in ends.tolist())


@pytest.mark.slow
def test_narrow_beams_are_those_of_a_search_with_lists():
  prompt = [[0, last] for last in range(IDS)]
  found = search(2, prompt)
  missed = 0
  for row, (_, last) in enumerate(prompt):
    expected = by_hand(last, 2)
    assert written(found, row) == [one for one, _ in expected]
    numbers = [number for _, number in expected]
    np.testing.assert_allclose(found.log_prob[row], numbers, rtol=1e-5)
    best = max(log_prob(last, one) for one in ALLOWED)
    missed += best > numbers[0] + 1e-6
  assert missed, "a case in which a narrow search finds another than the best"


@pytest.mark.slow
def test_a_limit_that_comes_first_leaves_a_beginning():
  found = search(1, [[0, 3]], length=1)
  assert found.mask.sum() == 1
  assert np.asarray(TRIE.children)[found.node[0, 0]] > 0


def test_nonsense_is_refused():
  for change, words in (
    ({"width": 0}, "got 0 and 4"),
    ({"length": 0}, "got 2 and 0"),
    ({"length": 15}, "context of 17, the model has 16"),
  ):
    with pytest.raises(ValueError, match=words):
      search(change.pop("width", 2), [[0, 1]], **change)


@pytest.mark.slow
def test_scores_of_a_real_decoder_are_those_of_whole_rows():
  """Each beam has its own past in the cache, whatever prompt it follows."""
  params = randomised(FULL)
  rng = np.random.default_rng(0)
  allowed = rng.choice(FULL.vocabulary, (40, 3))
  allowed[:, 0] %= 3
  prompt = rng.integers(0, FULL.vocabulary, (2, 4)).astype(np.int32)
  mask = np.array([[True] * 4, [False, False, True, True]])
  width = 6
  found = constrained_beam_search(
    FULL,
    params,
    jnp.asarray(prompt),
    jnp.asarray(mask),
    Trie.of(allowed.tolist()),
    width=width,
    length=3,
  )
  assert np.all(found.mask)
  row = np.concatenate(
    [np.repeat(prompt, width, axis=0), found.token.reshape(-1, 3)], axis=1
  )
  real = np.concatenate(
    [np.repeat(mask, width, axis=0), np.ones((2 * width, 3), bool)], axis=1
  )
  segment = jnp.asarray(real.astype(np.int32))
  counts = jnp.asarray(real).at[:, :4].set(False)
  hidden = jax.jit(FULL.hidden)(params, jnp.asarray(row), segment)
  scored = support_log_prob(
    FULL.logits(params, hidden),
    *next_token(jnp.asarray(row), counts, segment),
    support=Support(temperature=1.0),
  )
  total = scored.sum(axis=1).reshape(2, width)
  np.testing.assert_allclose(found.log_prob, total, rtol=1e-4, atol=1e-4)
  assert np.all(np.diff(found.log_prob, axis=1) <= 0)
  # With all beginnings of a length the search would be exact; six are not.
  known = {tuple(one) for one in allowed.tolist()}
  assert {tuple(one) for one in found.token.reshape(-1, 3).tolist()} <= known
