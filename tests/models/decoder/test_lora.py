import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.decoder.conftest import FULL, PLAIN, randomised
from rl_jax.models.decoder_lora import Lora

pytestmark = pytest.mark.slow

EVERY = ("query", "key", "value", "out", "gate", "up", "down")
MODEL = dataclasses.replace(FULL, lora=Lora(rank=2, alpha=6.0, targets=EVERY))


@pytest.fixture(scope="module")
def adapter():
  rng = np.random.RandomState(5)
  shapes = jax.eval_shape(MODEL.init_adapter, jax.random.key(0))
  return jax.tree.map(
    lambda leaf: jnp.asarray(rng.normal(size=leaf.shape) * 0.2, jnp.float32),
    shapes,
  )


@jax.jit
def hidden(params, token, adapter):
  return MODEL.hidden(params, token, jnp.ones_like(token), adapter=adapter)


def test_start_is_the_base(full_params, token, adapter, expected):
  """Whatever `down` holds; the compiler may round the sum with zero anew."""
  fresh = MODEL.init_adapter(jax.random.key(0))
  assert np.any(fresh["query"]["down"])
  found = hidden(full_params, token, fresh)
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
  other = {
    name: {"down": adapter[name]["down"], "up": fresh[name]["up"]}
    for name in EVERY
  }
  np.testing.assert_array_equal(found, hidden(full_params, token, other))


def test_merged_weights_do_what_the_adapter_does(
  full_params, token, adapter, expected
):
  merged = MODEL.merged(full_params, adapter)
  change = np.einsum(
    "lhfr,lrw->lhfw", adapter["out"]["down"], adapter["out"]["up"]
  )
  np.testing.assert_allclose(
    merged["blocks"]["out"],
    full_params["blocks"]["out"] + 3.0 * change,
    atol=1e-6,
  )
  found = hidden(full_params, token, adapter)
  assert np.max(np.abs(found - expected)) > 0.1
  again = hidden(merged, token, None)
  np.testing.assert_allclose(found, again, rtol=1e-5, atol=1e-5)


def test_adapter_alone_learns_first_through_up(full_params, token):
  fresh = MODEL.init_adapter(jax.random.key(0))

  def loss(adapter):
    return jnp.sum(hidden(full_params, token, adapter)[..., 0])

  gradient = jax.jit(jax.grad(loss))(fresh)
  for name in EVERY:
    assert np.any(gradient[name]["up"]), name
    assert not np.any(gradient[name]["down"]), name


def test_generation_uses_the_adapter(full_params, token, adapter):
  segment, cache = jnp.ones_like(token), MODEL.empty_cache(4, 8)
  found, _ = jax.jit(MODEL.extend)(
    full_params, token, segment, cache, adapter=adapter
  )
  np.testing.assert_allclose(
    found, hidden(full_params, token, adapter), atol=1e-5
  )


def test_axes_are_those_of_the_base(adapter):
  axes = MODEL.adapter_axes(adapter)
  assert axes["query"]["down"] == ("layers", "embed", None)
  assert axes["query"]["up"] == ("layers", None, "heads", "head")
  assert axes["out"]["down"] == ("layers", "heads", "head", None)


def test_merging_keeps_the_precision_of_the_base(full_params, adapter):
  half = jax.tree.map(lambda x: x.astype(jnp.bfloat16), full_params)
  merged = MODEL.merged(half, adapter)
  assert {x.dtype.name for x in jax.tree.leaves(merged)} == {"bfloat16"}


@pytest.mark.parametrize(
  ("fields", "words"),
  [
    ({"rank": 0}, "positive, got 0 and 1.0"),
    ({"alpha": 0.0}, "positive, got 1 and 0.0"),
    ({"targets": ()}, "at least one"),
    ({"targets": ("up", "up")}, "different names"),
  ],
)
def test_bad_fields_are_refused(fields, words):
  with pytest.raises(ValueError, match=words):
    Lora(**{"rank": 1, "alpha": 1.0} | fields)


def test_unknown_targets_are_refused_with_the_known_ones():
  lora = Lora(rank=1, alpha=1.0, targets=("query", "q_proj"))
  with pytest.raises(ValueError, match=r"no products \['q_proj'\].*'query'"):
    dataclasses.replace(PLAIN, lora=lora)


def test_an_adapter_needs_a_model_that_has_one(token, adapter):
  with pytest.raises(ValueError, match="whose lora is not None"):
    PLAIN.hidden(
      randomised(PLAIN), token, jnp.ones_like(token), adapter=adapter
    )
