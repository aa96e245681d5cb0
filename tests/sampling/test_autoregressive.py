"""Samples of a real decoder: their numbers, and what they do not depend on."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.decoder.conftest import FULL, randomised
from rl_jax.log_probs import (
  at_own_position,
  chunked_log_prob,
  next_token,
  support_log_prob,
  token_entropy,
)
from rl_jax.models.decoder_lora import Lora
from rl_jax.sampling import Autoregressive, row_keys
from rl_jax.sampling.autoregressive import _sample
from rl_jax.training.sharding import batch_sharding, make_mesh, shard_like

pytestmark = pytest.mark.slow

# Soft caps, windows of three tokens, scaled positions: as in Gemma.
MODEL = dataclasses.replace(FULL, lora=Lora(rank=2, alpha=2.0))
SAMPLER = Autoregressive(length=6, temperature=1.5, end=(3, 20), entropy=True)
LENGTHS, SAMPLES = (5, 2, 4, 1), 2
KEY = jax.random.key(0)


def padded(items, columns):
  """Prompts by number, padded on the left with ids that are none."""
  token = np.full((len(items), columns), -7, np.int32)
  for row, item in enumerate(items):
    ids = np.random.RandomState(item).randint(32, size=LENGTHS[item])
    token[row, columns - len(ids) :] = ids
  return jnp.asarray(token), jnp.asarray(token >= 0)


def keys(items, samples=SAMPLES):
  ids = [item * 100 + n for item in items for n in range(samples)]
  return row_keys(KEY, jnp.asarray(ids))


def draw(params, items, columns, *, sampler=SAMPLER, model=MODEL, **rest):
  found = sampler(
    model,
    params,
    *padded(items, columns),
    keys(items),
    samples=SAMPLES,
    **rest,
  )
  return jax.device_get(found)


def scored(params, items, columns, found, *, model=MODEL):
  """Logits of the whole rows in one pass, and what they are to score."""
  prompt, prompt_mask = (
    jnp.repeat(x, SAMPLES, axis=0) for x in padded(items, columns)
  )
  row = jnp.concatenate([prompt, found.token], axis=1)
  real = jnp.concatenate([prompt_mask, found.mask], axis=1)
  segment = real.astype(int)
  counts = real.at[:, :columns].set(False)
  hidden = jax.jit(model.hidden)(params, row, segment)
  return hidden, next_token(row, counts, segment)


@pytest.fixture(scope="module")
def params():
  return randomised(MODEL)


@pytest.fixture(scope="module")
def found(params):
  return draw(params, (0, 1, 2, 3), 5)


def test_rows_end_with_the_end_token_and_are_empty_after_it(found):
  lengths = found.mask.sum(-1)
  assert len(set(lengths.tolist())) > 2
  for row, length in enumerate(lengths):
    assert found.mask[row].tolist() == [t < length for t in range(6)]
    ends = [token in (3, 20) for token in found.token[row, :length]]
    assert not any(ends[:-1])
    assert found.ended[row] == ends[-1]
    assert ends[-1] or length == 6
    for value in (found.token, found.log_prob, found.entropy):
      assert not np.any(value[row, length:])
  assert found.ended.tolist().count(True) not in (0, 8)


def test_numbers_are_those_of_one_pass_over_the_whole_row(params, found):
  items = (0, 1, 2, 3)
  hidden, scored_by = scored(params, items, 5, found)
  logits = MODEL.logits(params, hidden)
  log_prob = support_log_prob(logits, *scored_by, support=SAMPLER.support)
  entropy = token_entropy(
    logits, scored_by.mask, temperature=1.5, soft_cap=None
  )
  for value, expected in (
    (log_prob, found.log_prob),
    (entropy, found.entropy),
  ):
    own = at_own_position(value, scored_by.mask)[:, 5:]
    np.testing.assert_allclose(own, expected, atol=1e-5, rtol=1e-5)


def test_chunked_log_probs_are_the_same(params, found):
  hidden, scored_by = scored(params, (0, 1, 2, 3), 5, found)
  chunked = chunked_log_prob(
    hidden,
    MODEL.output(params),
    *scored_by,
    chunk_tokens=16,
    chunk_vocabulary=16,
    temperature=SAMPLER.temperature,
    soft_cap=MODEL.soft_cap,
  )
  own = at_own_position(chunked.log_prob, scored_by.mask)[:, 5:]
  np.testing.assert_allclose(own, found.log_prob, atol=1e-5, rtol=1e-5)


def test_neighbours_padding_slot_and_batch_size_do_not_matter(params, found):
  """Tokens bit for bit; log-probs up to the rounding of other shapes."""
  items = (2, 3, 0)
  other = draw(params, items, 9)
  for row, item in enumerate(items):
    for n in range(SAMPLES):
      one, two = row * SAMPLES + n, item * SAMPLES + n
      np.testing.assert_array_equal(other.token[one], found.token[two])
      np.testing.assert_array_equal(other.mask[one], found.mask[two])
      assert other.ended[one] == found.ended[two]
      for value, expected in (
        (other.log_prob, found.log_prob),
        (other.entropy, found.entropy),
      ):
        np.testing.assert_allclose(
          value[one], expected[two], atol=1e-5, rtol=1e-5
        )


def test_samples_are_rows_that_repeat_the_prompt(params, found):
  prompt, mask = (
    jnp.repeat(x, SAMPLES, axis=0) for x in padded((0, 1, 2, 3), 5)
  )
  single = SAMPLER(MODEL, params, prompt, mask, keys((0, 1, 2, 3)), samples=1)
  np.testing.assert_array_equal(single.token, found.token)
  np.testing.assert_allclose(single.log_prob, found.log_prob, atol=1e-5)


def test_eight_devices_say_what_one_does(params):
  """Rows over data and fsdp, parameters over fsdp and tensor."""
  items = (0, 1, 2, 3)
  mesh = make_mesh(data=2, fsdp=2, tensor=2)
  one = draw(params, items, 5)
  placed = jax.device_put(
    params, shard_like(MODEL.logical_axes(params), params, mesh)
  )
  rows = batch_sharding(mesh)
  prompt, mask, key = jax.device_put((*padded(items, 5), keys(items)), rows)
  eight = SAMPLER(MODEL, placed, prompt, mask, key, samples=SAMPLES)
  for value in (eight.token, eight.log_prob, eight.ended):
    assert value.sharding.is_equivalent_to(rows, value.ndim)
  np.testing.assert_array_equal(eight.token, one.token)
  np.testing.assert_allclose(eight.log_prob, one.log_prob, atol=1e-5)


def test_options_of_the_distribution_are_those_of_the_scoring_side(params):
  sampler = Autoregressive(
    length=5,
    temperature=1.3,
    top_k=12,
    top_p=0.9,
    min_p=0.02,
    min_p_first=True,
    unroll=True,
  )
  items = (1, 0)
  found = draw(params, items, 5, sampler=sampler)
  assert found.entropy is None
  assert found.mask.all()
  assert not found.ended.any()
  hidden, scored_by = scored(params, items, 5, found)
  log_prob = support_log_prob(
    MODEL.logits(params, hidden), *scored_by, support=sampler.support
  )
  own = at_own_position(log_prob, scored_by.mask)[:, 5:]
  np.testing.assert_allclose(own, found.log_prob, atol=1e-5, rtol=1e-5)


def test_greedy_tokens_are_those_of_whole_passes(params):
  """One pass over everything so far for each token, no cache."""
  sampler = dataclasses.replace(SAMPLER, greedy=True, end=())
  adapter = jax.tree.map(
    lambda leaf: leaf + 0.3, MODEL.init_adapter(jax.random.key(1))
  )
  items = (0, 2)
  found = draw(params, items, 5, sampler=sampler, adapter=adapter)
  forward = jax.jit(MODEL.hidden)
  token, mask = (jnp.repeat(x, 2, axis=0) for x in padded(items, 5))
  token = jnp.pad(token, ((0, 0), (0, 6)))
  mask = jnp.pad(mask, ((0, 0), (0, 6)))
  for t in range(5, 11):
    hidden = forward(params, token, mask.astype(int), adapter=adapter)
    best = jnp.argmax(MODEL.logits(params, hidden[:, t - 1]), axis=-1)
    token, mask = token.at[:, t].set(best), mask.at[:, t].set(True)
  np.testing.assert_array_equal(found.token, token[:, 5:])
  plain = draw(params, items, 5, sampler=sampler)
  assert np.any(plain.token != found.token)


def test_the_cache_is_written_in_place():
  """While sampling there is one, and copies of no more than some layers."""
  model = dataclasses.replace(MODEL, layers=8)
  shapes = jax.eval_shape(model.init, jax.random.key(0))
  prompt, key = jnp.zeros((2, 5), jnp.int32), keys((0, 1))
  lowered = _sample.lower(
    Autoregressive(length=200),
    model,
    SAMPLES,
    shapes,
    prompt,
    prompt == 0,
    key,
    None,
    None,
  )
  cache = jax.eval_shape(lambda: model.empty_cache(4, 204))
  size = sum(leaf.size * leaf.dtype.itemsize for leaf in cache)
  assert lowered.compile().memory_analysis().temp_size_in_bytes < 1.5 * size
