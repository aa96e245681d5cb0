from __future__ import annotations

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.models.tokenizer import Tokenizer
from rl_jax.sampling import Autoregressive, Trie, generate, smallest_bucket
from sampling.chains import CALLS, Chain, fixed

pytestmark = pytest.mark.slow

CHAIN = Chain(vocabulary=10, context=20)
SAMPLER = Autoregressive(length=4, end=(9,))
TEXTS = ("ab", "c", "abcdefg", "hgf", "de", "aaaaa")


class Letters:
  """Ids of the letters from a; j is special."""

  def get_vocab(self, *, with_added_tokens):
    return {letter: n for n, letter in enumerate("abcdefghij")}

  def token_to_id(self, token):
    return self.get_vocab(with_added_tokens=True).get(token)

  def encode(self, text, *, add_special_tokens):
    return types.SimpleNamespace(ids=[ord(one) - ord("a") for one in text])

  def decode(self, ids, *, skip_special_tokens):
    return "".join("abcdefghi"[n] for n in ids if n < 9)


TOKENIZER = Tokenizer(backend=Letters(), eos="j")


@pytest.fixture(scope="module")
def params():
  table = np.random.RandomState(0).normal(size=(10, 10))
  return {"table": jnp.asarray(table, jnp.float32)}


def answers(params, texts=TEXTS, *, model=CHAIN, sampler=SAMPLER, **options):
  defaults = {"samples": 2, "buckets": (2, 8), "batch": 2}
  return generate(
    model,
    params,
    TOKENIZER,
    texts,
    sampler,
    key=jax.random.key(0),
    **{**defaults, **options},
  )


@pytest.mark.slow
def test_every_text_is_answered_once_per_sample(params):
  found = list(answers(params))
  pairs = [(one.item, one.sample) for one in found]
  assert sorted(pairs) == [(i, n) for i in range(6) for n in range(2)]
  for one in found:
    assert one.text == "".join("abcdefghi"[t] for t in one.token if t < 9)
    assert len(one.token) == len(one.log_prob) <= 4
    assert one.ended == (one.token[-1] == 9)
    assert one.ended or len(one.token) == 4
  assert len({one.token for one in found}) > 6


@pytest.mark.slow
@pytest.mark.parametrize(
  "options", [{"batch": 5}, {"buckets": (7,), "batch": 1}, {"samples": 3}]
)
def test_batches_buckets_and_other_samples_do_not_matter(params, options):
  one = {(x.item, x.sample): x for x in answers(params)}
  two = {(x.item, x.sample): x for x in answers(params, **options)}
  for place, expected in one.items():
    found = two[place]
    assert (found.token, found.ended) == (expected.token, expected.ended)
    np.testing.assert_allclose(found.log_prob, expected.log_prob, atol=1e-6)


@pytest.mark.slow
def test_results_come_batch_by_batch(params):
  """The first are there before a second batch has run."""
  model = dataclasses.replace(CHAIN, counted=True)
  CALLS.clear()
  first = next(answers(params, model=model, buckets=(8,)))
  jax.effects_barrier()
  assert first.item == 0
  # Of a batch one call has the prompts.
  assert CALLS.count(7) == 1
  assert len(list(answers(params, model=model, buckets=(8,)))) == 12
  jax.effects_barrier()
  assert CALLS.count(7) == 4


@pytest.mark.slow
def test_a_constraint_holds(params):
  found = answers(params, constraint=Trie.of([(1, 2, 3), (4,)]))
  assert {one.text for one in found} == {"bcd", "e"}


def test_no_texts_no_answers(params):
  assert list(answers(params, ())) == []


def test_what_is_written_is_what_the_model_says():
  found = list(answers(fixed(0, 4, 2, 7, 9, 1), ["a", "ae"], samples=1))
  assert [(x.text, x.token) for x in found] == [
    ("ech", (4, 2, 7, 9)),
    ("ch", (2, 7, 9)),
  ]


@pytest.mark.parametrize(
  ("texts", "options", "words"),
  [
    (("a", ""), {}, "text 1: a prompt of 0 tokens fits none"),
    (("a", "b" * 9), {}, r"text 1: a prompt of 9 .* buckets \(2, 8\)"),
    (("a",), {"batch": 0}, "at least 1, got 0 and 2"),
    (("a",), {"samples": 0}, "at least 1, got 2 and 0"),
    (("a",), {"buckets": (3, 3)}, "positive and increasing"),
    (("abc",), {"buckets": (17,)}, "need a context of 21, the model has 20"),
    (("a",), {"model": Chain(vocabulary=9)}, "do not belong together"),
  ],
)
def test_what_cannot_be_answered_is_refused_at_once(
  params, texts, options, words
):
  """Before anything is sampled: the iterator is not asked for a result."""
  with pytest.raises(ValueError, match=words):
    answers(params, texts, **options)


@pytest.mark.parametrize(
  ("length", "expected"), [(1, 4), (4, 4), (5, 16), (16, 16), (17, 64)]
)
def test_the_smallest_bucket_that_holds_a_prompt(length, expected):
  assert smallest_bucket(length, (4, 16, 64)) == expected


@pytest.mark.parametrize("buckets", [(), (0, 4), (4, 2), (-1,), (4, 4)])
def test_buckets_are_positive_and_increasing(buckets):
  with pytest.raises(ValueError, match="positive and increasing"):
    smallest_bucket(1, buckets)
