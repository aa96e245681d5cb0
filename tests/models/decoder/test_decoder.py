import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.decoder.conftest import FULL, PLAIN, randomised
from rl_jax.log_probs import chunked_log_prob, token_log_prob
from rl_jax.models.decoder_attention import Attention, Window
from rl_jax.training.sharding import (
  batch_sharding,
  make_mesh,
  shard_like,
  unsharded,
)

pytestmark = pytest.mark.slow


@functools.partial(jax.jit, static_argnums=0)
def run(model, params, token, segment):
  return model.hidden(params, token, segment)


@functools.partial(jax.jit, static_argnums=0)
@functools.partial(jax.value_and_grad, argnums=1)
def step(model, params, token, segment):
  logits = model.logits(params, model.hidden(params, token, segment))
  counts = (segment != 0)[..., None]
  return jnp.sum(jnp.where(counts, logits, 0) ** 2) / jnp.sum(counts)


def assert_near(found, exact):
  """Each gradient to 1e-5 of its largest number: sums in another order."""

  def compare(a, b):
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * np.max(np.abs(b)))

  jax.tree.map(compare, found, exact)


def ones(token):
  return jnp.ones_like(token)


def oracle(model, params, token):
  """One sequence in float64, column by column and head by head."""
  weights = jax.tree.map(lambda a: np.asarray(a, np.float64), params)
  attention, size = model.attention, model.attention.features
  shared = attention.heads // attention.groups
  windowed = attention.window.layers(model.layers)

  def norm(h, weight):
    root = np.sqrt(np.mean(h**2) + model.norm_epsilon)
    return h / root * (model.norm_offset + weight)

  def turn(h, position, rope):
    scale = 1 if rope.scaling is None else rope.scaling.factor
    out = np.zeros(size)
    for k in range(size // 2):
      angle = position * rope.theta ** (-2 * k / size) / scale
      pair = (h[k] + 1j * h[k + size // 2]) * np.exp(1j * angle)
      out[k], out[k + size // 2] = pair.real, pair.imag
    return out

  def gelu(h):
    return 0.5 * h * (1 + np.tanh(np.sqrt(2 / np.pi) * (h + 0.044715 * h**3)))

  h = [weights["embedding"][t] * np.sqrt(model.width) for t in token]
  for layer in range(model.layers):
    w = {name: array[layer] for name, array in weights["blocks"].items()}
    rope = attention.window.rope if windowed[layer] else attention.rope
    keys, values, after = [], [], []
    for t, column in enumerate(h):
      inner = norm(column, w["attention_norm"])

      def heads(name, inner=inner, w=w):
        return np.einsum("i,ihf->hf", inner, w[name]) + w[f"{name}_bias"]

      keys.append([turn(norm(k, w["key_norm"]), t, rope) for k in heads("key")])
      values.append(heads("value"))
      added = np.zeros(model.width)
      for n, query in enumerate(heads("query")):
        query = turn(norm(query, w["query_norm"]), t, rope)
        first = max(0, t - attention.window.size + 1) if windowed[layer] else 0
        score = np.array(
          [query @ keys[s][n // shared] for s in range(first, t + 1)]
        ) / np.sqrt(attention.query_scalar)
        score = attention.cap * np.tanh(score / attention.cap)
        share = np.exp(score) / np.exp(score).sum()
        mixed = sum(
          p * values[first + s][n // shared] for s, p in enumerate(share)
        )
        added += mixed @ w["out"][n]
      column = column + norm(added, w["attention_post_norm"])
      inner = norm(column, w["mlp_norm"])
      added = (gelu(inner @ w["gate"]) * (inner @ w["up"])) @ w["down"]
      after.append(column + norm(added, w["mlp_post_norm"]))
    h = after
  return np.stack([norm(column, weights["final_norm"]) for column in h])


def test_forward_against_numpy(full_params, token, expected):
  for row in range(2):
    exact = oracle(FULL, full_params, np.asarray(token[row]))
    np.testing.assert_allclose(expected[row], exact, rtol=1e-5, atol=1e-5)


def test_logits_are_capped_products_with_the_output(full_params, token):
  hidden = run(FULL, full_params, token, ones(token))
  exact = (
    np.asarray(hidden, np.float64)
    @ np.asarray(full_params["embedding"], np.float64).T
  )
  np.testing.assert_allclose(
    FULL.logits(full_params, hidden), 5 * np.tanh(exact / 5), atol=1e-5
  )
  plain = randomised(PLAIN)
  np.testing.assert_array_equal(PLAIN.output(plain), plain["output"])


def test_chunked_log_prob_of_hidden_is_that_of_the_logits(full_params, token):
  hidden = run(FULL, full_params, token, ones(token))[:, :-1]
  mask = jnp.ones(hidden.shape[:2], bool)
  found = chunked_log_prob(
    hidden,
    FULL.output(full_params),
    token[:, 1:],
    mask,
    chunk_tokens=8,
    chunk_vocabulary=8,
    temperature=1.0,
    soft_cap=FULL.soft_cap,
  )
  expected = token_log_prob(
    FULL.logits(full_params, hidden),
    token[:, 1:],
    mask,
    temperature=1.0,
    soft_cap=None,
  )
  np.testing.assert_allclose(found.log_prob, expected, atol=1e-5)


def test_padding_changes_nothing(full_params, token):
  """On the left, on the right, and in between, with ids that do not exist."""
  whole = run(FULL, full_params, token, ones(token))
  slots = np.array([1, 2, 4, 5, 6, 8, 9, 11])
  padded = jnp.full((4, 13), -7).at[:, slots].set(token)
  segment = jnp.zeros((4, 13), int).at[:, slots].set(3)
  found = run(FULL, full_params, padded, segment)
  assert np.all(np.isfinite(found))
  np.testing.assert_allclose(found[:, slots], whole, atol=1e-5)


def test_packed_rows_equal_rows_of_their_own(full_params, token):
  whole = run(FULL, full_params, token, ones(token))
  packed = jnp.concatenate([token[:2, :3], token[2:], token[:2, :2]], 1)
  segment = jnp.asarray([[5] * 3 + [2] * 8 + [7] * 2] * 2)
  found = run(FULL, full_params, packed, segment)
  np.testing.assert_allclose(found[:, :3], whole[:2, :3], atol=1e-5)
  np.testing.assert_allclose(found[:, 3:11], whole[2:], atol=1e-5)
  np.testing.assert_allclose(found[:, 11:], whole[:2, :2], atol=1e-5)


def test_a_column_sees_neither_later_ones_nor_other_rows(full_params, token):
  whole = run(FULL, full_params, token, ones(token))
  changed = token.at[:, 5:].set(9).at[3].set(1)
  found = run(FULL, full_params, changed, ones(token))
  np.testing.assert_allclose(found[:3, :5], whole[:3, :5], atol=1e-6)
  order = jnp.array([2, 0, 3, 1])
  permuted = run(FULL, full_params, token[order], ones(token))
  np.testing.assert_allclose(permuted, whole[order], atol=1e-6)


def test_padding_leaves_no_trace_in_the_gradient(full_params, token):
  segment = ones(token).at[:, 5:].set(0).at[3].set(0)
  _, exact = step(FULL, full_params, token, segment)
  other = jnp.where(segment != 0, token, -1)
  _, found = step(FULL, full_params, other, segment)
  jax.tree.map(np.testing.assert_array_equal, exact, found)
  assert all(np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(found))


def test_an_id_that_does_not_exist_is_nan_and_stays_in_its_row(
  full_params, token
):
  found = run(FULL, full_params, token.at[1, 4].set(32), ones(token))
  assert np.all(np.isnan(found[1, 4]))
  assert np.all(np.isfinite(found[jnp.array([0, 2, 3])]))


@pytest.mark.slow
def test_unrolled_layers_and_recomputation_change_no_number(full_params, token):
  value, gradient = step(FULL, full_params, token, ones(token))
  for change in (
    {"remat": "all"},
    {"remat": "products", "scan": False},
  ):
    other = dataclasses.replace(FULL, **change)
    value_2, gradient_2 = step(other, full_params, token, ones(token))
    np.testing.assert_allclose(value, value_2, rtol=1e-5)
    assert_near(gradient_2, gradient)


def test_recomputation_stores_less(full_params, token):
  def stored(remat):
    model = dataclasses.replace(FULL, remat=remat, scan=True)

    def loss(params):
      return jnp.sum(model.hidden(params, token, ones(token)))

    _, back = jax.eval_shape(lambda p: jax.vjp(loss, p), full_params)
    return sum(leaf.size for leaf in jax.tree.leaves(back))

  assert stored("all") < stored("products") < stored("none")


def test_half_precision_is_near(full_params, token):
  half = dataclasses.replace(FULL, dtype="bfloat16")
  exact = run(FULL, full_params, token, ones(token))
  found = run(half, full_params, token, ones(token))
  assert found.dtype == jnp.bfloat16
  error = np.abs(np.asarray(found, np.float32) - exact).mean()
  # Eight bits of mantissa, through some twenty rounded sums.
  assert 0 < error < 0.04 * np.abs(exact).mean()


@pytest.mark.slow
def test_eight_devices_give_the_numbers_of_one(full_params, token):
  mesh = make_mesh(data=2, fsdp=2, tensor=2)
  axes = FULL.logical_axes(full_params)
  assert unsharded(axes, full_params, mesh) == []
  value, gradient = step(FULL, full_params, token, ones(token))
  placed = jax.device_put(full_params, shard_like(axes, full_params, mesh))
  rows = jax.device_put(token, batch_sharding(mesh))
  value_8, gradient_8 = step(FULL, placed, rows, ones(rows))
  np.testing.assert_allclose(value, value_8, rtol=1e-5)
  assert_near(gradient_8, gradient)
  key = placed["blocks"]["key"]
  assert {s.data.shape for s in key.addressable_shards} == {(2, 8, 1, 8)}


def test_every_weight_has_a_gradient(full_params, token):
  _, gradient = step(FULL, full_params, token, ones(token))
  for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
    assert np.all(np.isfinite(leaf)), path
    assert np.any(leaf), path


def test_start_is_sound():
  """Norms are the identity, and no layer adds more than its share."""
  init = jax.jit(PLAIN.init)
  params = init(jax.random.key(0))
  assert np.all(params["final_norm"] == 1)
  out, gate = params["blocks"]["out"], params["blocks"]["gate"]
  assert np.std(gate) == pytest.approx(1 / 4, rel=0.1)
  assert np.std(out) == pytest.approx(1 / 4 / 2, rel=0.1)
  assert not np.array_equal(out[0], out[1])
  again = init(jax.random.key(0))
  jax.tree.map(np.testing.assert_array_equal, params, again)
  for name, weight in FULL.block_weights().items():
    if not weight.inputs:
      assert (weight.mean, weight.start) == (0, 0), name


def test_parameters_of_another_model_are_refused(full_params):
  with pytest.raises(ValueError, match="not the parameters of this model"):
    PLAIN.logical_axes(full_params)


@pytest.mark.parametrize(
  ("fields", "words"),
  [
    ({"layers": 0}, "sizes must be at least 1"),
    ({"soft_cap": 0.0}, "soft_cap must be positive, got 0.0"),
    ({"norm_epsilon": 0.0}, "norm_epsilon must be positive"),
  ],
)
def test_bad_fields_are_refused(fields, words):
  with pytest.raises(ValueError, match=words):
    dataclasses.replace(PLAIN, **fields)


@pytest.mark.parametrize(
  ("fields", "words"),
  [
    ({"features": 7}, "turns pairs, got 7"),
    ({"key_value_heads": 3}, "3 heads of keys do not divide 4"),
    ({"heads": 0}, "sizes must be at least 1"),
    ({"cap": -1.0}, "cap must be positive, got -1.0"),
    ({"query_scalar": 0.0}, "query_scalar must be positive"),
  ],
)
def test_bad_attention_is_refused(fields, words):
  with pytest.raises(ValueError, match=words):
    Attention(**{"heads": 4, "features": 8} | fields)


def test_a_window_repeats_its_pattern():
  assert Window(size=2, pattern=(True, False)).layers(3) == (True, False, True)
  with pytest.raises(ValueError, match="size of at least 1"):
    Window(size=0)
