from __future__ import annotations

import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from rl_jax.log_probs import (
  chunked_log_prob,
  token_entropy,
  token_log_prob,
)

pytestmark = pytest.mark.slow

WIDTH = 6
PLAIN = {"temperature": 1.0, "soft_cap": None}
STATIC = ("chunk_tokens", "chunk_vocabulary", "temperature", "soft_cap")
SUMMED = {"rtol": 1e-5, "atol": 1e-5}


def _case(vocabulary, time=5, rows=2, width=WIDTH):
  rng = np.random.default_rng(0)
  hidden = rng.normal(size=(rows, time, width))
  embedding = rng.normal(size=(vocabulary, width))
  token = rng.integers(0, vocabulary, (rows, time))
  mask = rng.uniform(size=(rows, time)) < 0.8
  return (
    jnp.asarray(hidden, jnp.float32),
    jnp.asarray(embedding, jnp.float32),
    jnp.asarray(token, jnp.int32),
    jnp.asarray(mask),
  )


def _weighted(log_prob, entropy):
  """One number in which every element of both counts differently."""
  weight = np.cos(np.arange(2 * log_prob.size)).astype(np.float32)
  weight = weight.reshape(2, *log_prob.shape)
  return (log_prob * weight[0] + entropy * weight[1]).sum()


@functools.partial(jax.jit, static_argnames=STATIC)
def _chunked(hidden, embedding, token, mask, **options):
  def loss(*floats):
    scores = chunked_log_prob(*floats, token, mask, **options)
    return _weighted(*scores), scores

  return jax.grad(loss, (0, 1), has_aux=True)(hidden, embedding)


@functools.partial(jax.jit, static_argnames=STATIC[2:])
def _full(hidden, embedding, token, mask, **scale):
  def loss(*floats):
    logits = jnp.einsum("rtd,vd->rtv", *floats)
    scores = (
      token_log_prob(logits, token, mask, **scale),
      token_entropy(logits, mask, **scale),
    )
    return _weighted(*scores), scores

  return jax.grad(loss, (0, 1), has_aux=True)(hidden, embedding)


def _same(found, expected, **tolerance):
  jax.tree.map(
    lambda x, y: np.testing.assert_allclose(x, y, **(tolerance or SUMMED)),
    jax.tree.map(np.asarray, jax.tree.leaves(found)),
    jax.tree.map(np.asarray, jax.tree.leaves(expected)),
  )


# Of 22 entries, which go into blocks of 8 unevenly, as 5 columns into 3.
UNEVEN = {"chunk_tokens": 6, "chunk_vocabulary": 8}
SCALE = {"temperature": 0.7, "soft_cap": 2.0}


@pytest.mark.slow
@pytest.mark.parametrize(
  ("vocabulary", "chunk_tokens", "chunk_vocabulary", "scale"),
  [
    pytest.param(22, *UNEVEN.values(), SCALE, id="last blocks overlap"),
    pytest.param(22, 1, 1, SCALE, id="one by one"),
    pytest.param(22, 10**9, 10**9, SCALE, id="larger than there is"),
    pytest.param(192, 5, 100, PLAIN, id="all pieces"),
  ],
)
def test_values_and_gradients_of_the_full_form(
  vocabulary, chunk_tokens, chunk_vocabulary, scale
):
  case = _case(vocabulary)
  chunks = {"chunk_tokens": chunk_tokens, "chunk_vocabulary": chunk_vocabulary}
  _same(_chunked(*case, **chunks, **scale), _full(*case, **scale))


def test_against_sums_one_by_one():
  hidden, embedding, token, mask = _case(22)
  _, (log_prob, entropy) = _chunked(
    hidden, embedding, token, mask, **UNEVEN, **SCALE
  )
  log_prob, entropy = np.asarray(log_prob), np.asarray(entropy)
  hidden, embedding = np.asarray(hidden), np.asarray(embedding)
  for row, time in np.ndindex(*token.shape):
    if not mask[row, time]:
      assert log_prob[row, time] == entropy[row, time] == 0.0
      continue
    z = []
    for v in range(22):
      dot = math.fsum(
        float(hidden[row, time, d]) * float(embedding[v, d])
        for d in range(WIDTH)
      )
      z.append(2.0 * math.tanh(dot / 2.0) / 0.7)
    whole = math.fsum(math.exp(x) for x in z)
    p = [math.exp(x) / whole for x in z]
    own = math.log(p[int(token[row, time])])
    np.testing.assert_allclose(log_prob[row, time], own, **SUMMED)
    nats = -math.fsum(x * math.log(x) for x in p)
    np.testing.assert_allclose(entropy[row, time], nats, **SUMMED)


@pytest.mark.slow
def test_half_precision_is_accumulated_in_float32():
  """Equal to float32 of the same numbers, up to one rounding of gradients."""
  hidden, embedding, *rest = _case(64, time=20, rows=1, width=32)
  half = [np.asarray(x).astype(jnp.bfloat16) for x in (hidden, embedding)]
  wide = [x.astype(np.float32) for x in half]
  chunks = {"chunk_tokens": 8, "chunk_vocabulary": 16}
  slopes, scores = _chunked(*half, *rest, **chunks, **PLAIN)
  expected_slopes, expected = _full(*wide, *rest, **PLAIN)
  assert {x.dtype for x in scores} == {jnp.dtype("float32")}
  assert {x.dtype for x in slopes} == {jnp.dtype("bfloat16")}
  _same(scores, expected)
  rounded = [np.asarray(x).astype(np.float32) for x in slopes]
  _same(rounded, expected_slopes, rtol=2**-8, atol=1e-5)


def test_large_logits_lose_nothing():
  """Logits near 1000, where float32 has steps of 6e-5, one apart."""
  embedding = jnp.array([[1000.0], [1001.0], [999.0], [-1000.0]])
  hidden, mask = jnp.ones((1, 4, 1)), jnp.ones((1, 4), bool)
  token = jnp.array([[0, 1, 2, 3]])

  def loss(embedding):
    scores = chunked_log_prob(
      hidden,
      embedding,
      token,
      mask,
      chunk_tokens=2,
      chunk_vocabulary=1,
      **PLAIN,
    )
    return scores.log_prob.sum(), scores

  slope, scores = jax.jit(jax.grad(loss, has_aux=True))(embedding)
  p = np.exp(np.array([-1.0, 0.0, -2.0]))
  p /= p.sum()
  np.testing.assert_allclose(scores.log_prob[0, :3], np.log(p), rtol=1e-6)
  np.testing.assert_allclose(
    scores.entropy, -np.full((1, 4), np.sum(p * np.log(p))), rtol=1e-6
  )
  assert scores.log_prob[0, 3] < -2000.0
  expected = 1.0 - 4.0 * np.array([*p, 0.0])
  np.testing.assert_allclose(slope[:, 0], expected, atol=1e-6)


def test_one_sequence_needs_no_row_axis():
  hidden, embedding, token, mask = _case(22)
  _, whole = _chunked(hidden, embedding, token, mask, **UNEVEN, **SCALE)
  alone = chunked_log_prob(
    hidden[1], embedding, token[1], mask[1], **UNEVEN, **SCALE
  )
  _same(alone, [x[1] for x in whole])


def _sizes(jaxpr):
  """Elements of every intermediate, in inner programs too."""
  for equation in jaxpr.eqns:
    yield from (x.aval.size for x in equation.outvars)
    for parameter in jax.tree.leaves(
      equation.params, is_leaf=lambda x: hasattr(x, "eqns")
    ):
      inner = getattr(parameter, "jaxpr", parameter)
      if hasattr(inner, "eqns"):
        yield from _sizes(inner)


def test_logits_of_the_batch_never_exist_forward_or_backward():
  case = _case(4096, time=128, width=8)
  chunks = {"chunk_tokens": 64, "chunk_vocabulary": 256}
  logits = 2 * 128 * 4096
  full = jax.make_jaxpr(lambda *x: _full(*x, **PLAIN))(*case)
  chunked = jax.make_jaxpr(lambda *x: _chunked(*x, **chunks, **PLAIN))(*case)
  assert max(_sizes(full.jaxpr)) == logits
  assert max(_sizes(chunked.jaxpr)) == 4096 * 8  # the embedding's gradient


@pytest.mark.slow
def test_planned_memory_does_not_grow_with_the_vocabulary():
  chunks = {"chunk_tokens": 64, "chunk_vocabulary": 128}
  planned = []
  for vocabulary in (1024, 2048):
    case = _case(vocabulary, time=64)
    program = _chunked.lower(*case, **chunks, **PLAIN).compile()
    planned.append(program.memory_analysis().temp_size_in_bytes)
  assert planned[1] <= 1.01 * planned[0]
  assert planned[1] < 4 * 2 * 64 * 2048 / 4


@pytest.fixture(scope="module")
def sharded():
  """Rows over `data`, vocabulary over `tensor`: found, expected, program."""
  case = _case(64, time=4, rows=4)
  options = {"chunk_tokens": 8, "chunk_vocabulary": 16, **PLAIN}
  mesh = Mesh(np.array(jax.devices()[:8]).reshape(2, 4), ("data", "tensor"))
  names = ("data", "tensor", "data", "data")
  placed = [
    jax.device_put(x, NamedSharding(mesh, PartitionSpec(name)))
    for x, name in zip(case, names, strict=True)
  ]
  program = _chunked.lower(*placed, **options).compile()
  return program(*placed), _chunked(*case, **options), program.as_text()


@pytest.mark.slow
def test_eight_devices_give_the_same(sharded):
  found, expected, _ = sharded
  _same(found, expected)


@pytest.mark.slow
def test_sharded_embedding_is_not_gathered(sharded):
  """No device ever holds the other devices' part of the vocabulary."""
  found, _, text = sharded
  (_, by_embedding), _ = found
  assert by_embedding.sharding.shard_shape(by_embedding.shape)[0] == 16
  gathered = [
    math.prod(int(x) for x in dims.split(",") if x)
    for dims in re.findall(r"f32\[([\d,]*)\]\S* all-gather", text)
  ]
  assert max(gathered, default=0) < 64 * WIDTH


def test_junk_under_the_mask_reaches_nothing():
  hidden, embedding, token, mask = _case(22)
  expected = _chunked(hidden, embedding, token, mask, **UNEVEN, **SCALE)
  junk = jnp.where(mask[..., None], hidden, jnp.nan)
  marked = jnp.where(mask, token, -100)
  found = _chunked(junk, embedding, marked, mask, **UNEVEN, **SCALE)
  _same(found, expected, rtol=0, atol=0)


@pytest.mark.parametrize("wrong", [-1, 22])
def test_unknown_token_is_refused_or_not_a_number(wrong):
  hidden, embedding, token, mask = _case(22)
  token, mask = token.at[0, 0].set(wrong), mask.at[0, 0].set(True)
  case = hidden, embedding, token, mask
  with pytest.raises(ValueError, match=rf"\[0, 22\).*\[{wrong}\]"):
    chunked_log_prob(*case, **UNEVEN, **SCALE)
  _, (log_prob, entropy) = _chunked(*case, **UNEVEN, **SCALE)
  assert np.isnan(log_prob[0, 0])
  assert np.isfinite(log_prob).sum() == log_prob.size - 1
  assert np.isfinite(entropy).all()


@pytest.mark.parametrize(
  ("changed", "message"),
  [
    ({"chunk_tokens": 0}, "chunk_tokens .* got 0"),
    ({"chunk_vocabulary": -1}, "chunk_vocabulary .* got -1"),
    ({"temperature": 0.0}, "temperature .* got 0.0"),
    ({"soft_cap": 0.0}, "soft_cap .* got 0.0"),
  ],
)
def test_options_that_cannot_be_meant_are_refused(changed, message):
  options = {"chunk_tokens": 2, "chunk_vocabulary": 4, **PLAIN, **changed}
  with pytest.raises(ValueError, match=message):
    chunked_log_prob(*_case(16), **options)
