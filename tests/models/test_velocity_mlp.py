import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.models import VelocityMLP

TINY = VelocityMLP(
  event=6, classes=3, width=8, blocks=2, time_features=4, class_features=2
)


@pytest.fixture(scope="module")
def params():
  """Biases too are random, so that a bias in the wrong place shows."""
  rng = np.random.RandomState(1)
  return jax.tree.map(
    lambda leaf: jnp.asarray(rng.normal(size=leaf.shape) * 0.4, jnp.float32),
    jax.eval_shape(TINY.init, jax.random.key(0)),
  )


@pytest.fixture(scope="module")
def inputs():
  rng = np.random.RandomState(0)
  return (
    jnp.asarray(rng.normal(size=(5, 3, 6)), jnp.float32),
    jnp.asarray(rng.uniform(size=(5, 3)), jnp.float32),
    jnp.asarray(rng.randint(3, size=(5, 3))),
  )


def oracle(params, x, t, label, blocks=2):
  """One latent at a time in float64, from the formulas of the docstring."""
  weights = jax.tree.map(lambda a: np.asarray(a, np.float64), params)

  def layer(name, h):
    return h @ weights[name]["kernel"] + weights[name]["bias"]

  def silu(h):
    return h / (1 + np.exp(-h))

  half = 2
  frequency = [100.0 ** (k / (half - 1)) for k in range(half)]
  time = [np.sin(t * f) for f in frequency] + [np.cos(t * f) for f in frequency]
  h = np.concatenate([x, time, weights["class"]["embedding"][label]])
  h = silu(layer("in", h))
  for block in range(blocks):
    h = h + silu(layer(f"block_{block}", h))
  return layer("out", h)


@pytest.mark.slow
def test_forward_against_numpy(params, inputs):
  x, t, label = inputs
  found = TINY.apply(params, x, t, label)
  for row in np.ndindex(5, 3):
    # float32 against float64: the sine of 100 t rounds t itself.
    expected = oracle(
      params,
      np.asarray(x[row], np.float64),
      np.float64(t[row]),
      int(label[row]),
    )
    np.testing.assert_allclose(found[row], expected, atol=1e-5)


def test_parameter_count_of_the_digits_network():
  """64 + 32 + 32 inputs, three layers of 256, 64 outputs, 10 class vectors."""
  shapes = jax.eval_shape(VelocityMLP().init, jax.random.key(0))
  count = sum(leaf.size for leaf in jax.tree.leaves(shapes))
  assert count == (
    10 * 32 + (64 + 32 + 32) * 256 + 256 + 2 * (256 * 256 + 256) + 256 * 64 + 64
  )
  assert count == 181_376


@pytest.mark.slow
def test_initial_scales():
  """Standard deviations within five standard errors, s / sqrt(2 n)."""
  params = jax.jit(VelocityMLP().init)(jax.random.key(3))
  expected = {
    "class": 0.5,
    "in": 1 / np.sqrt(128),
    "block_0": 1 / np.sqrt(256),
    "block_1": 1 / np.sqrt(256),
    "out": 0.1 / np.sqrt(256),
  }
  assert set(params) == set(expected)
  for name, scale in expected.items():
    weight = params[name]["embedding" if name == "class" else "kernel"]
    error = scale / np.sqrt(2 * weight.size)
    assert abs(np.std(weight) - scale) < 5 * error, name
    if name != "class":
      assert not np.any(params[name]["bias"])


@pytest.mark.slow
def test_init_depends_on_the_key_alone():
  init = jax.jit(TINY.init)
  one, same, other = (init(jax.random.key(seed)) for seed in (4, 4, 5))
  jax.tree.map(np.testing.assert_array_equal, one, same)
  assert not np.array_equal(one["in"]["kernel"], other["in"]["kernel"])
  assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(one))


@pytest.mark.slow
def test_batch_axes_are_independent(params, inputs):
  x, t, label = inputs
  whole = TINY.apply(params, x, t, label)
  flat = TINY.apply(params, x.reshape(15, 6), t.reshape(15), label.reshape(15))
  np.testing.assert_allclose(whole.reshape(15, 6), flat, atol=1e-6)
  single = TINY.apply(params, x[2, 1], t[2, 1], label[2, 1])
  np.testing.assert_allclose(whole[2, 1], single, atol=1e-6)


@pytest.mark.slow
def test_a_row_does_not_see_its_neighbours(params, inputs):
  x, t, label = inputs
  whole = TINY.apply(params, x, t, label)
  broken = TINY.apply(params, x.at[0].set(jnp.nan), t, label)
  np.testing.assert_array_equal(whole[1:], broken[1:])


def test_condition_of_a_row_serves_all_its_times(params, inputs):
  x, t, label = inputs
  repeated = jnp.broadcast_to(label[:, :1], (5, 3))
  np.testing.assert_array_equal(
    TINY.apply(params, x, t, label[:, 0]), TINY.apply(params, x, t, repeated)
  )


@pytest.mark.slow
def test_square_batches_do_not_mix_rows_with_times(params, inputs):
  """With as many rows as times a trailing broadcast would go unnoticed."""
  x, t, _ = inputs
  x, t, label = x[:3], t[:3], jnp.array([0, 1, 2])
  found = TINY.apply(params, x, t, label)
  for row in range(3):
    np.testing.assert_allclose(
      found[row],
      TINY.apply(params, x[row], t[row], jnp.full(3, row)),
      atol=1e-6,
    )


@pytest.mark.slow
def test_seeds_by_vmap(params, inputs):
  x, t, label = inputs
  seeds = [params, jax.tree.map(lambda leaf: leaf * 1.5, params)]
  stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *seeds)
  apply = jax.vmap(TINY.apply, in_axes=(0, None, None, None))
  found = jax.jit(apply)(stacked, x, t, label)
  for seed, own in enumerate(seeds):
    np.testing.assert_allclose(
      found[seed], TINY.apply(own, x, t, label), atol=1e-6
    )


@pytest.mark.slow
@pytest.mark.parametrize("label", [-1, 3])
def test_unknown_class_is_nan_and_not_another_class(params, label):
  out = TINY.apply(params, jnp.zeros(6), jnp.zeros(()), jnp.array(label))
  assert np.all(np.isnan(out))


@pytest.mark.slow
def test_every_parameter_has_a_gradient(params, inputs):
  x, t, label = inputs

  def loss(params):
    return jnp.mean(TINY.apply(params, x, t, label) ** 2)

  gradient = jax.jit(jax.grad(loss))(params)
  for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
    assert np.all(np.isfinite(leaf)), path
    assert np.any(leaf), path


@pytest.mark.slow
def test_bfloat16_products_return_float32_near_the_exact_ones(params, inputs):
  """bfloat16 keeps 8 bits: half a percent of a velocity of order one."""
  x, t, label = inputs
  half = VelocityMLP(
    event=6,
    classes=3,
    width=8,
    time_features=4,
    class_features=2,
    dtype="bfloat16",
  )
  exact = TINY.apply(params, x, t, label)
  found = half.apply(params, x, t, label)
  assert found.dtype == jnp.float32
  error = np.max(np.abs(found - exact)) / np.max(np.abs(exact))
  assert 0 < error < 0.03


def test_logical_axes_name_every_axis(params):
  axes = TINY.logical_axes(params)
  jax.tree.map(
    lambda leaf, names: (
      None
      if leaf.ndim == len(names)
      else pytest.fail(f"{leaf.shape} named {names}")
    ),
    params,
    axes,
  )
  assert axes["in"]["kernel"] == ("embed", "mlp")
  assert axes["class"]["embedding"] == ("classes", "embed")


def test_logical_axes_from_shapes_alone(params):
  shapes = jax.eval_shape(lambda: params)
  assert TINY.logical_axes(shapes) == TINY.logical_axes(params)


def test_logical_axes_refuse_the_parameters_of_another_network(params):
  with pytest.raises(ValueError, match="not the parameters of this model"):
    VelocityMLP().logical_axes(params)


def test_shapes_that_do_not_fit_are_refused(params):
  # Below the import hook of the tests: what a user without it sees.
  apply = inspect.unwrap(VelocityMLP.apply)
  zeros = jnp.zeros
  with pytest.raises(ValueError, match=r"do not end in \(6,\)"):
    apply(TINY, params, zeros((2, 5)), zeros(2), zeros(2, int))
  with pytest.raises(ValueError, match=r"times of shape \(1,\).*\(2,\)"):
    apply(TINY, params, zeros((2, 6)), zeros(1), zeros(2, int))
  with pytest.raises(ValueError, match=r"condition of shape \(3,\)"):
    apply(TINY, params, zeros((2, 6)), zeros(2), zeros(3, int))
  with pytest.raises(ValueError, match=r"condition of shape \(2, 1\)"):
    apply(TINY, params, zeros((2, 6)), zeros(2), zeros((2, 1), int))


@pytest.mark.parametrize(
  "fields",
  [
    {"event": 0},
    {"width": 0},
    {"classes": 0},
    {"blocks": -1},
    {"time_features": 3},
    {"time_features": 2},
    {"class_features": 0},
  ],
)
def test_bad_sizes_are_refused(fields):
  with pytest.raises(ValueError, match="at least"):
    VelocityMLP(**fields)
