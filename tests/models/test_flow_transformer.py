import dataclasses
import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.models import FlowTransformer
from rl_jax.models.transformer_block import rotated
from rl_jax.training.sharding import (
  batch_sharding,
  make_mesh,
  shard_like,
  unsharded,
)

pytestmark = pytest.mark.slow

TINY = FlowTransformer(
  height=4,
  width_pixels=6,
  channels=2,
  patch=2,
  width=8,
  layers=2,
  heads=2,
  mlp_ratio=2,
  classes=4,
)


def randomised(model, seed=1):
  """Every number off its start, so that zero gates do not hide a path."""
  shapes = jax.eval_shape(model.init, jax.random.key(0))
  rng = np.random.RandomState(seed)
  return jax.tree.map(
    lambda leaf: jnp.asarray(rng.normal(size=leaf.shape) * 0.3, jnp.float32),
    shapes,
  )


@functools.partial(jax.jit, static_argnums=0)
def run(model, params, x, t, condition):
  return model.apply(params, x, t, condition)


@functools.partial(jax.jit, static_argnums=0)
@functools.partial(jax.value_and_grad, argnums=1)
def step(model, params, x, t, condition):
  return jnp.mean((model.apply(params, x, t, condition) - x) ** 2)


@pytest.fixture(scope="module")
def fresh():
  return jax.jit(TINY.init)(jax.random.key(0))


@pytest.fixture(scope="module")
def params():
  return randomised(TINY)


@pytest.fixture(scope="module")
def inputs():
  """Times whose products with a frequency are exact in float32."""
  rng = np.random.RandomState(0)
  return (
    jnp.asarray(rng.normal(size=(4, 2, 4, 6, 2)), jnp.float32),
    jnp.asarray(0.5 ** rng.randint(5, size=(4, 2)), jnp.float32),
    jnp.asarray([0, 1, 2, 3]),
  )


def oracle(params, model, x, t, condition):
  """One latent in float64, token by token and head by head."""
  weights = jax.tree.map(lambda a: np.asarray(a, np.float64), params)
  width, heads, patch = model.width, model.heads, model.patch
  size = width // heads
  grid = (model.height // patch, model.width_pixels // patch)

  def linear(layer, h):
    return h @ layer["kernel"] + layer["bias"]

  def silu(h):
    return h / (1 + np.exp(-h))

  def gelu(h):
    return 0.5 * h * (1 + np.tanh(np.sqrt(2 / np.pi) * (h + 0.044715 * h**3)))

  def norm(h):
    centred = h - h.mean(-1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)

  def angles(row, column, features, slowest):
    count = features // 4
    frequency = [slowest ** (k / count) for k in range(count)]
    return np.array(
      [row * f for f in frequency] + [column * f for f in frequency]
    )

  def turn(h, angle):
    pairs = h[: size // 2] + 1j * h[size // 2 :]
    pairs = pairs * np.exp(1j * angle)
    return np.concatenate([pairs.real, pairs.imag])

  places = [
    (row, column) for row in range(grid[0]) for column in range(grid[1])
  ]
  tokens = []
  for row, column in places:
    cut = x[
      row * patch : (row + 1) * patch, column * patch : (column + 1) * patch
    ]
    token = linear(weights["patches"], cut.reshape(-1))
    if model.positions == "sincos":
      angle = angles(row, column, width, 1e-4)
      token = token + np.concatenate([np.sin(angle), np.cos(angle)])
    tokens.append(token)
  h = np.stack(tokens)

  # The table of frequencies is a float32 constant of the network.
  frequency = np.float32(1000.0 ** (np.arange(128) / 127)).astype(np.float64)
  features = np.concatenate([np.sin(t * frequency), np.cos(t * frequency)])
  parts = weights["condition"]
  signal = linear(parts["time_out"], silu(linear(parts["time_in"], features)))
  if model.classes is not None:
    signal = signal + parts["class"]["embedding"][condition]
  else:
    signal = signal + linear(parts["vector"], condition)
  signal = silu(signal)

  for number in range(model.layers):
    block = jax.tree.map(lambda a, n=number: a[n], weights["blocks"])
    shift, scale, gate, shift2, scale2, gate2 = np.split(
      linear(block["modulation"], signal), 6
    )
    inner = norm(h) * (1 + scale) + shift
    attended = np.zeros_like(h)
    for head in range(heads):
      query, key, value = (
        inner @ block[name]["kernel"][:, head] + block[name]["bias"][head]
        for name in ("query", "key", "value")
      )
      if model.positions == "rope":
        turns = [angles(*place, size, 1e-2) for place in places]
        query = np.stack(
          [turn(q, a) for q, a in zip(query, turns, strict=True)]
        )
        key = np.stack([turn(k, a) for k, a in zip(key, turns, strict=True)])
      score = query @ key.T / np.sqrt(size)
      share = np.exp(score) / np.exp(score).sum(-1, keepdims=True)
      attended += share @ value @ block["attention_out"]["kernel"][head]
    h = h + gate * (attended + block["attention_out"]["bias"])
    inner = norm(h) * (1 + scale2) + shift2
    h = h + gate2 * linear(block["down"], gelu(linear(block["up"], inner)))

  shift, scale = np.split(linear(weights["modulation"], signal), 2)
  out = linear(weights["out"], norm(h) * (1 + scale) + shift)
  image = np.zeros(model.event_shape)
  for (row, column), token in zip(places, out, strict=True):
    image[
      row * patch : (row + 1) * patch, column * patch : (column + 1) * patch
    ] = token.reshape(patch, patch, -1)
  return image


@pytest.mark.slow
@pytest.mark.parametrize(
  "change",
  [
    {},
    {"positions": "rope"},
    {"classes": None, "condition_features": 3},
  ],
)
def test_forward_against_numpy(change, inputs):
  model = dataclasses.replace(TINY, **change)
  params = randomised(model)
  x, t, condition = inputs
  if model.condition_features is not None:
    condition = jnp.asarray(
      np.random.RandomState(3).normal(size=(4, 3)), jnp.float32
    )
  found = run(model, params, x, t, condition)
  for row, time in np.ndindex(4, 2):
    expected = oracle(
      params,
      model,
      np.asarray(x[row, time], np.float64),
      np.float64(t[row, time]),
      np.asarray(condition[row]),
    )
    np.testing.assert_allclose(found[row, time], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.slow
def test_velocity_is_zero_at_the_start(fresh, inputs):
  assert not np.any(run(TINY, fresh, *inputs))


def test_blocks_are_the_identity_at_the_start(fresh, inputs):
  """With a last layer that is not zero, no block changes the output."""
  kernel = jnp.ones_like(fresh["out"]["kernel"])
  opened = fresh | {"out": fresh["out"] | {"kernel": kernel}}
  other = jax.tree.map(lambda leaf: leaf * 2, fresh["blocks"])
  one = run(TINY, opened, *inputs)
  assert np.any(one)
  np.testing.assert_array_equal(
    one, run(TINY, opened | {"blocks": other}, *inputs)
  )


@pytest.mark.slow
def test_gradient_at_the_start_opens_the_last_layer(fresh, inputs):
  """The last layer learns first; then, through it, the rest (adaLN-zero)."""
  _, first = step(TINY, fresh, *inputs)
  assert np.any(first["out"]["kernel"])
  assert not np.any(first["blocks"]["query"]["kernel"])
  _, later = step(TINY, randomised(TINY), *inputs)
  for path, leaf in jax.tree_util.tree_leaves_with_path(later):
    assert np.all(np.isfinite(leaf)), path
    # A softmax does not see a constant added to all its scores.
    if jax.tree_util.keystr(path) != "['blocks']['key']['bias']":
      assert np.any(leaf), path


@pytest.mark.slow
def test_recomputation_changes_no_number(params, inputs):
  again = dataclasses.replace(TINY, remat=True)
  value, gradient = step(TINY, params, *inputs)
  value_again, gradient_again = step(again, params, *inputs)
  np.testing.assert_allclose(value, value_again, rtol=1e-6)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
    gradient,
    gradient_again,
  )


def test_a_row_does_not_see_its_neighbours(params, inputs):
  x, t, label = inputs
  whole = run(TINY, params, *inputs)
  broken = run(TINY, params, x.at[0].set(jnp.nan), t, label)
  np.testing.assert_array_equal(whole[1:], broken[1:])
  assert np.all(np.isnan(broken[0]))


@pytest.mark.parametrize("positions", ["sincos", "rope"])
def test_tokens_know_their_place(positions, inputs):
  """Without positions, swapped patches would give swapped velocities."""
  model = dataclasses.replace(TINY, positions=positions)
  x, t, label = inputs
  swapped = jnp.concatenate([x[..., 2:4, :], x[..., :2, :], x[..., 4:, :]], -2)
  params = randomised(model)
  out = run(model, params, x, t, label)
  found = run(model, params, swapped, t, label)
  back = jnp.concatenate(
    [found[..., 2:4, :], found[..., :2, :], found[..., 4:, :]], -2
  )
  assert np.max(np.abs(out - back)) > 1e-3


@pytest.mark.parametrize(("i", "j"), [(0, 0), (1, 3), (6, 8), (5, 0)])
def test_product_of_rotated_vectors_sees_the_difference_only(i, j):
  """The product is q . k = Re sum_n conj(q_n) k_n exp(i f_n (j - i))."""
  rng = np.random.RandomState(0)
  query, key = rng.normal(size=(2, 8)).astype(np.float32)
  frequency = np.array([1.0, 0.5, 0.25, 0.125], np.float32)

  def turned(vector, place):
    angle = jnp.asarray(place * frequency)[None]
    return rotated(jnp.asarray(vector)[None, None, None], angle)

  found = float(jnp.sum(turned(query, i) * turned(key, j)))
  one, two = (v[:4] + 1j * v[4:] for v in (query, key))
  expected = np.sum(np.conj(one) * two * np.exp(1j * frequency * (j - i))).real
  assert found == pytest.approx(expected, abs=1e-5)


@pytest.mark.slow
def test_half_precision_returns_float32_near_the_exact_velocity(params, inputs):
  """Sums of order one through some ten rounded layers: a few percent."""
  half = dataclasses.replace(TINY, dtype="bfloat16")
  exact = run(TINY, params, *inputs)
  found = run(half, params, *inputs)
  assert found.dtype == jnp.float32
  error = np.max(np.abs(found - exact)) / np.max(np.abs(exact))
  assert 0 < error < 0.05


def test_one_layer_more_is_one_slice_more():
  def shapes(layers):
    model = dataclasses.replace(TINY, layers=layers)
    return jax.eval_shape(model.init, jax.random.key(0))["blocks"]

  for two, three in zip(
    jax.tree.leaves(shapes(2)), jax.tree.leaves(shapes(3)), strict=True
  ):
    assert two.shape[0] == 2
    assert three.shape == (3, *two.shape[1:])


def test_layers_start_from_draws_of_their_own(fresh):
  kernel = fresh["blocks"]["query"]["kernel"]
  assert not np.array_equal(kernel[0], kernel[1])


@pytest.mark.slow
def test_eight_devices_give_the_numbers_of_one(params, inputs):
  mesh = make_mesh(data=2, fsdp=2, tensor=2)
  axes = TINY.logical_axes(params)
  assert unsharded(axes, params, mesh) == []
  value, gradient = step(TINY, params, *inputs)
  placed = jax.device_put(params, shard_like(axes, params, mesh))
  rows = jax.device_put(inputs, batch_sharding(mesh))
  split_value, split_gradient = step(TINY, placed, *rows)
  np.testing.assert_allclose(value, split_value, rtol=1e-5)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5),
    gradient,
    split_gradient,
  )
  query = placed["blocks"]["query"]["kernel"]
  assert {s.data.shape for s in query.addressable_shards} == {(2, 4, 1, 4)}


def test_axes_of_stacked_layers_are_named(params):
  axes = TINY.logical_axes(params)
  assert axes["blocks"]["query"]["kernel"] == (
    "layers",
    "embed",
    "heads",
    "head",
  )
  assert axes["patches"]["kernel"] == ("patch", "embed")
  jax.tree.map(
    lambda leaf, names: np.testing.assert_equal(leaf.ndim, len(names)),
    params,
    axes,
  )


@pytest.mark.parametrize(
  ("fields", "words"),
  [
    ({"height": 5}, "patches of 2 do not tile an image of 5 x 6"),
    ({"heads": 3}, "width of 8 does not split over 3 heads"),
    ({"positions": "rope", "heads": 4}, "multiple of 4 .* got 2 features"),
    ({"width": 6, "heads": 1}, "multiple of 4 .* got 6 features"),
    ({"classes": None}, "exactly one .* got None and None"),
    ({"condition_features": 3}, "exactly one .* got 4 and 3"),
    ({"classes": 0}, "at least 1, got 0 and None"),
    ({"layers": 0}, "sizes must be at least 1"),
  ],
)
def test_bad_fields_are_refused_with_the_numbers(fields, words):
  with pytest.raises(ValueError, match=words):
    dataclasses.replace(TINY, **fields)


def test_shapes_that_do_not_fit_are_refused(params):
  # Below the import hook of the tests: what a user without it sees.
  apply = inspect.unwrap(FlowTransformer.apply)
  zeros = jnp.zeros
  with pytest.raises(ValueError, match=r"do not end in \(4, 6, 2\)"):
    apply(TINY, params, zeros((2, 6, 4, 2)), zeros(2), zeros(2, int))
  vector = dataclasses.replace(TINY, classes=None, condition_features=3)
  with pytest.raises(ValueError, match="vectors of 5 numbers, not 3"):
    apply(vector, params, zeros((2, 4, 6, 2)), zeros(2), zeros((2, 5)))
