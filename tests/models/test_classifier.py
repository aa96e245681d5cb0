import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.models import Classifier


@pytest.mark.slow
def test_forward_against_numpy():
  model = Classifier(inputs=4, width=5, classes=3)
  params = jax.jit(model.init)(jax.random.key(0))
  params["in"]["bias"] = jnp.linspace(-1, 1, 5)
  params["out"]["bias"] = jnp.linspace(2, 3, 3)
  x = np.random.RandomState(0).normal(size=(2, 3, 4)).astype(np.float32)
  wide = jax.tree.map(lambda a: np.asarray(a, np.float64), params)
  hidden = np.maximum(x @ wide["in"]["kernel"] + wide["in"]["bias"], 0)
  expected = hidden @ wide["out"]["kernel"] + wide["out"]["bias"]
  found = model.apply(params, jnp.asarray(x))
  np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.slow
def test_parameter_count_and_scales_of_the_digits_judge():
  params = jax.jit(Classifier().init)(jax.random.key(0))
  count = sum(leaf.size for leaf in jax.tree.leaves(params))
  assert count == 64 * 128 + 128 + 128 * 10 + 10
  for name, inputs in (("in", 64), ("out", 128)):
    kernel, scale = params[name]["kernel"], 1 / np.sqrt(inputs)
    assert abs(np.std(kernel) - scale) < 5 * scale / np.sqrt(2 * kernel.size)


@pytest.mark.slow
def test_two_seeds_are_two_judges():
  model = Classifier(inputs=4, width=5, classes=3)
  init = jax.jit(model.init)
  one, two = (init(jax.random.key(seed)) for seed in (1, 77))
  assert not np.array_equal(one["in"]["kernel"], two["in"]["kernel"])


def test_axes_are_named():
  model = Classifier(inputs=4, width=5, classes=3)
  axes = model.logical_axes(jax.eval_shape(model.init, jax.random.key(0)))
  assert axes == {
    "in": {"kernel": ("embed", "mlp"), "bias": ("mlp",)},
    "out": {"kernel": ("mlp", "classes"), "bias": ("classes",)},
  }


def test_samples_of_another_size_are_refused():
  model = Classifier(inputs=4, width=5, classes=3)
  params = jax.jit(model.init)(jax.random.key(0))
  with pytest.raises(ValueError, match="samples of 3 numbers, not 4"):
    model.apply(params, jnp.zeros((2, 3)))


@pytest.mark.parametrize("field", ["inputs", "width", "classes"])
def test_sizes_must_be_positive(field):
  with pytest.raises(ValueError, match="at least 1"):
    Classifier(**{field: 0})
