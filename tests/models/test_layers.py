import inspect

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.models import layers


def test_time_features_by_hand():
  """Four features, fastest 8: frequencies 1 and 8, sines before cosines."""
  found = layers.time_features(jnp.array([0.25]), features=4, fastest=8.0)
  expected = [[np.sin(0.25), np.sin(2.0), np.cos(0.25), np.cos(2.0)]]
  np.testing.assert_allclose(found, expected, atol=1e-6)


def test_time_features_keep_the_batch_axes():
  t = jnp.linspace(0.0, 1.0, 6).reshape(2, 3)
  found = layers.time_features(t, features=8, fastest=100.0)
  assert found.shape == (2, 3, 8)
  flat = layers.time_features(t.reshape(6), features=8, fastest=100.0)
  np.testing.assert_array_equal(found.reshape(6, 8), flat)


def test_time_features_tell_neighbouring_times_apart():
  t = jnp.arange(1001) / 1000
  found = layers.time_features(t, features=32, fastest=100.0)
  gap = np.linalg.norm(np.diff(found, axis=0), axis=-1)
  # Only the fastest pair alone moves by 2 sin(0.05) = 0.09996.
  assert gap.min() > 0.0999


@pytest.mark.slow
@pytest.mark.parametrize(
  ("shape", "batch", "event"),
  [
    ((), (), 0),
    ((), (2, 3), 0),
    ((2,), (2, 3), 0),
    ((2, 3), (2, 3), 0),
    ((5,), (2, 3), 1),
    ((2, 5), (2, 3), 1),
    ((2, 3, 5), (2, 3), 1),
  ],
)
def test_condition_takes_the_batch_axes(shape, batch, event):
  condition = jnp.arange(np.prod(shape, dtype=int)).reshape(shape)
  found = layers.over_trailing(condition, batch, event=event)
  own = shape[len(shape) - event :] if event else ()
  assert found.shape == batch + own
  for place in np.ndindex(*batch):
    mine = condition[place[: len(shape) - event]]
    np.testing.assert_array_equal(found[place], mine)


@pytest.mark.parametrize(
  ("shape", "batch", "event"),
  [
    ((3,), (2, 3), 0),  # the last batch axis is not the first
    ((1,), (2, 3), 0),  # nothing is stretched from one
    ((2, 3, 1), (2, 3), 0),
    ((), (2,), 1),
  ],
)
def test_condition_that_does_not_lead_is_refused(shape, batch, event):
  with pytest.raises(ValueError, match="does not fit latents"):
    layers.over_trailing(jnp.zeros(shape), batch, event=event)


def test_times_must_be_those_of_the_latents():
  check = inspect.unwrap(layers.check_times)
  assert check(jnp.zeros((2, 3, 4)), jnp.zeros((2, 3)), (4,)) == (2, 3)
  assert check(jnp.zeros(4), jnp.zeros(()), (4,)) == ()
  with pytest.raises(ValueError, match="do not end in"):
    check(jnp.zeros(4), jnp.zeros(()), (2, 4))
  with pytest.raises(ValueError, match="one time for each latent"):
    check(jnp.zeros((2, 3, 4)), jnp.zeros(2), (4,))


@pytest.mark.slow
@pytest.mark.parametrize("scale", [1.0, 0.1])
def test_fan_in_normal_keeps_the_variance_of_its_inputs(scale):
  kernel = layers.fan_in_normal(scale)(jax.random.key(0), (400, 300))
  expected = scale / np.sqrt(400)
  error = expected / np.sqrt(2 * kernel.size)
  assert abs(np.std(kernel) - expected) < 5 * error


def test_dense_names_its_axes():
  layer = layers.dense(3, ("embed", "mlp"), name="x", dtype=jnp.float32)
  boxed = jax.eval_shape(layer.init, jax.random.key(0), jnp.zeros((1, 2)))
  params = nn.unbox(boxed["params"])
  axes = layers.axis_names(boxed["params"], params)
  assert axes == {"kernel": ("embed", "mlp"), "bias": ("mlp",)}


def test_names_are_refused_for_other_parameters():
  layer = layers.dense(3, (None, "mlp"), name="x", dtype=jnp.float32)
  boxed = jax.eval_shape(layer.init, jax.random.key(0), jnp.zeros((1, 2)))
  other = {"kernel": jnp.zeros((2, 4)), "bias": jnp.zeros(4)}
  with pytest.raises(ValueError, match=r"expected .*\(2, 3\).* got .*\(2, 4\)"):
    layers.axis_names(boxed["params"], other)
