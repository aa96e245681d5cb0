"""Samples of a chain: ends, constraints, cost, refusals; worked by hand."""

from __future__ import annotations

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.models.decoder import Decoder
from rl_jax.models.decoder_attention import Attention
from rl_jax.sampling import Autoregressive, Trie, row_keys
from rl_jax.sampling.autoregressive import _sample
from sampling.chains import CALLS, Chain, fixed

CHAIN = Chain(vocabulary=10)
ORDER = (0, 4, 2, 7, 1, 9, 3, 8)


def draw(params, prompt, *, samples=1, model=CHAIN, constraint=None, **options):
  prompt = jnp.asarray(prompt)
  return jax.device_get(
    Autoregressive(**options)(
      model,
      params,
      prompt,
      prompt >= 0,
      row_keys(jax.random.key(0), jnp.arange(len(prompt) * samples)),
      samples=samples,
      constraint=constraint,
    )
  )


def lengths(found):
  return found.mask.sum(-1).tolist()


def table(seed=0, size=10):
  rng = np.random.RandomState(seed)
  return jnp.asarray(rng.normal(size=(size, size)), jnp.float32)


@pytest.mark.slow
@pytest.mark.parametrize(
  ("options", "expected", "ended"),
  [
    ({}, ORDER[1:7], False),
    ({"end": (7, 1)}, (4, 2, 7), True),
    ({"stop": ((2, 7, 1),)}, (4, 2, 7, 1), True),
    # The one that is complete first, of two that overlap.
    ({"stop": ((2, 7, 1), (7, 1, 9), (1, 9))}, (4, 2, 7, 1), True),
    ({"stop": ((1, 9), (7,)), "end": (1,)}, (4, 2, 7), True),
    # The prompt is no part of the response.
    ({"stop": ((0, 4),)}, ORDER[1:7], False),
    # Its last id is the last that the limit allows.
    ({"stop": ((9, 3),)}, ORDER[1:7], True),
    ({"stop": ((3, 8),)}, ORDER[1:7], False),
    ({"stop": (ORDER,)}, ORDER[1:7], False),
  ],
)
def test_a_response_ends_with_what_ends_it(options, expected, ended):
  found = draw(fixed(*ORDER, 5), [[0]], length=6, **options)
  assert found.token[0, found.mask[0]].tolist() == list(expected)
  assert found.ended.tolist() == [ended]


@pytest.mark.slow
def test_each_row_ends_on_its_own():
  prompt = [[-1, 0], [2, 1], [-1, 7], [-1, 3]]
  found = draw(fixed(*ORDER, 5), prompt, length=4, stop=((9, 3),))
  assert lengths(found) == [4, 2, 3, 4]
  assert found.ended.tolist() == [False, True, True, False]


@pytest.mark.slow
def test_sampling_stops_when_all_rows_have_ended():
  """Columns read: the prompt but its last, then one at a time."""
  model = dataclasses.replace(CHAIN, counted=True)
  CALLS.clear()
  prompt = [[-1, -1, 0], [0, 2, 1]]
  draw(fixed(*ORDER, 5), prompt, model=model, length=7, end=(9,))
  jax.effects_barrier()
  assert sorted(CALLS) == [1] * 5 + [2]


@pytest.mark.slow
def test_a_row_without_a_prompt_is_padding_of_the_batch():
  prompt = [[-1, 0], [-1, -1]]
  found = draw({"table": table()}, prompt, length=3, entropy=True, samples=2)
  assert lengths(found) == [3, 3, 0, 0]
  assert found.ended.tolist() == [False] * 4
  for value in (found.token, found.log_prob, found.entropy):
    assert not value[2:].any()


@pytest.mark.slow
def test_sequences_come_as_often_as_they_are_likely():
  """All 27 of three tokens, within 5 sigma, and their log-probs."""
  log_p = np.asarray(jax.nn.log_softmax(table(size=3) / 0.8), np.float64)
  count = 5000
  found = draw(
    {"table": table(size=3)},
    [[1]],
    model=dataclasses.replace(CHAIN, vocabulary=3),
    samples=count,
    length=3,
    temperature=0.8,
  )
  steps = np.concatenate([np.ones((count, 1), int), found.token], axis=1)
  np.testing.assert_allclose(
    found.log_prob, log_p[steps[:, :-1], steps[:, 1:]], atol=1e-6
  )
  for row in itertools.product(range(3), repeat=3):
    p = np.exp(sum(log_p[a, b] for a, b in itertools.pairwise((1, *row))))
    share = np.mean(np.all(found.token == row, axis=-1))
    assert abs(share - p) < 5 * np.sqrt(p / count)


@pytest.mark.slow
def test_only_sequences_of_the_trie_are_written():
  """Their probabilities, by enumeration over what may come next."""
  sequences = [(5, 1), (5, 2, 0), (7,), (5, 2, 3), (0, 5, 1)]
  raw, count = np.asarray(table(), np.float64), 3000
  found = draw(
    {"table": table()},
    [[3]],
    samples=count,
    length=3,
    constraint=Trie.of(sequences),
  )
  assert found.ended.all()
  written = [
    tuple(token[mask].tolist())
    for token, mask in zip(found.token, found.mask, strict=True)
  ]
  expected = {}
  for sequence in sequences:
    last, total = 3, 0.0
    for n, token in enumerate(sequence):
      begun = sequence[:n]
      following = sorted({s[n] for s in sequences if s[:n] == begun})
      total += raw[last, token] - np.log(np.exp(raw[last, following]).sum())
      last = token
    expected[sequence] = total
  assert np.exp(list(expected.values())).sum() == pytest.approx(1)
  np.testing.assert_allclose(
    found.log_prob.sum(-1), [expected[own] for own in written], atol=1e-5
  )
  for sequence, log_p in expected.items():
    p = np.exp(log_p)
    share = written.count(sequence) / count
    assert abs(share - p) < 5 * np.sqrt(p / count)


@pytest.mark.slow
def test_a_constraint_goes_before_top_k_and_beside_the_ends():
  """The likeliest ids of all are not allowed; 6 ends in the middle."""
  table = jnp.zeros((10, 10)).at[:, 9].set(50.0).at[:, 4].add(3.0)
  found = draw(
    {"table": table},
    [[0], [1]],
    length=4,
    top_k=1,
    end=(6,),
    constraint=Trie.of([(4, 4, 6, 1), (2, 4, 6, 1)]),
  )
  assert found.token.tolist() == [[4, 4, 6, 0]] * 2
  assert found.ended.all()
  np.testing.assert_allclose(found.log_prob, np.zeros((2, 4)), atol=1e-6)


@pytest.mark.slow
def test_a_sequence_that_the_limit_cuts_has_not_ended():
  options = {"length": 2, "constraint": Trie.of([(4, 2, 6), (4, 1)])}
  found = draw(fixed(*ORDER, 5), [[0]], **options)
  assert found.token.tolist() == [[4, 2]]
  assert found.ended.tolist() == [False]


@pytest.mark.slow
def test_logits_of_a_batch_exist_one_step_at_a_time():
  """No array with the vocabulary has more than one entry per sample."""
  model = Decoder(
    vocabulary=101,
    width=4,
    layers=1,
    mlp=3,
    attention=Attention(heads=1, features=2),
  )
  rows, samples = 3, 2
  program = jax.make_jaxpr(_sample, static_argnums=(0, 1, 2))(
    Autoregressive(length=17, top_p=0.9, top_k=7, entropy=True),
    model,
    samples,
    model.init(jax.random.key(0)),
    jnp.zeros((rows, 13), jnp.int32),
    jnp.ones((rows, 13), bool),
    row_keys(jax.random.key(0), jnp.arange(rows * samples)),
    None,
    None,
  )
  sizes = [
    value.aval.size
    for equation in equations(program.jaxpr)
    for value in equation.outvars
    if 101 in value.aval.shape
  ]
  assert max(sizes) == rows * samples * 101


def equations(jaxpr):
  """Of a program and of all programs within it."""
  for equation in jaxpr.eqns:
    yield equation
    for inner in jax.tree.leaves(equation.params):
      if hasattr(inner, "jaxpr"):
        yield from equations(inner.jaxpr)
      elif hasattr(inner, "eqns"):
        yield from equations(inner)


@pytest.mark.parametrize(
  ("options", "words"),
  [
    ({"length": 0}, "length must be at least 1, got 0"),
    ({"temperature": 0.0}, "temperature must be positive, got 0.0"),
    ({"top_k": 0}, "top_k must be at least 1 or None, got 0"),
    ({"top_p": 1.5}, r"top_p must lie in \(0, 1\] or be None, got 1.5"),
    ({"top_p": 0.5, "min_p": 0.1}, "set min_p_first"),
    ({"end": (-1,)}, r"number 0 is \(-1,\)"),
    ({"stop": ((1,), ())}, r"number 1 is \(\)"),
  ],
)
def test_options_out_of_range_are_refused(options, words):
  with pytest.raises(ValueError, match=words):
    Autoregressive(**{"length": 4, **options})


@pytest.mark.slow
@pytest.mark.parametrize(
  ("options", "words"),
  [
    ({"length": 2047}, "of 2 tokens and responses of 2047 need a context of"),
    ({"end": (10,)}, r"end = \(10,\).* do not fit a vocabulary of 10"),
    ({"stop": ((1, 12),)}, r"stop = \(\(1, 12\),\).* of 10"),
    ({"top_k": 11}, "top_k = 11 do not fit a vocabulary of 10"),
    ({"samples": 0}, "need 0 keys and at least one sample, got 0"),
    ({"constraint": Trie.of([(1, 10)])}, "the id 10, the vocabulary only 10"),
  ],
)
def test_a_model_without_room_is_refused_before_anything_runs(options, words):
  with pytest.raises(ValueError, match=words):
    draw(fixed(*ORDER, 5), [[3, 0]], **{"length": 4, **options})


def test_prompts_without_columns_are_refused():
  with pytest.raises(ValueError, match="at least one token"):
    draw(fixed(*ORDER, 5), np.zeros((1, 0), int), length=4)


def test_one_key_per_sample():
  prompt = jnp.zeros((2, 1), int)
  with pytest.raises(ValueError, match="2 prompts with 3 samples each need 6"):
    Autoregressive(length=1)(
      CHAIN,
      fixed(*ORDER, 5),
      prompt,
      prompt == 0,
      row_keys(jax.random.key(0), jnp.arange(2)),
      samples=3,
    )


@pytest.mark.slow
def test_prompts_padded_on_the_right_are_refused_or_poisoned():
  prompt = jnp.asarray([[3, 0], [3, -1]])
  with pytest.raises(ValueError, match="1 of 2 end with padding, row 1 is"):
    draw(fixed(*ORDER, 5), prompt, length=2)
  sampler = Autoregressive(length=2)
  found = jax.jit(
    lambda prompt, key: sampler(
      CHAIN, fixed(*ORDER, 5), prompt, prompt >= 0, key, samples=1
    )
  )(prompt, row_keys(jax.random.key(0), jnp.arange(2)))
  assert np.isnan(found.log_prob).tolist() == [[False] * 2, [True] * 2]
