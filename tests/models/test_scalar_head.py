"""A decoder that says a number: what it begins as, and where parts live."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax import models

pytestmark = pytest.mark.slow

BODY = models.Decoder(
  vocabulary=7,
  width=8,
  layers=1,
  mlp=8,
  attention=models.Attention(heads=2, features=4),
)
HEAD = models.ScalarHead(body=BODY, start=0.75)


@pytest.fixture(scope="module")
def params():
  return HEAD.init(jax.random.key(0))


def test_every_value_begins_at_the_start(params):
  hidden = jax.random.normal(jax.random.key(1), (2, 3, 8))
  value = HEAD.value(params, hidden)
  assert value.shape == (2, 3)
  np.testing.assert_array_equal(value, np.full((2, 3), 0.75, np.float32))


def test_a_value_is_a_product_and_a_bias_in_float32(params):
  weight = jnp.arange(8, dtype=jnp.float32)
  head = {"weight": weight, "bias": jnp.float32(-2.0)}
  hidden = (jnp.arange(24).reshape(3, 8) % 5).astype(jnp.bfloat16)
  value = HEAD.value(params | {"head": head}, hidden)
  expected = (np.arange(24).reshape(3, 8) % 5) @ np.arange(8) - 2.0
  assert value.dtype == jnp.float32
  np.testing.assert_array_equal(value, expected)


def test_the_gradient_reaches_the_body_once_the_head_is_not_zero(params):
  hidden = jax.random.normal(jax.random.key(1), (2, 8))
  slope = jax.grad(lambda h, p: jnp.sum(HEAD.value(p, h)))
  assert not np.any(slope(hidden, params))
  ones = {"weight": jnp.ones(8), "bias": jnp.zeros(())}
  np.testing.assert_array_equal(
    slope(hidden, params | {"head": ones}), np.ones((2, 8))
  )


def test_the_body_is_drawn_or_given(params):
  given = BODY.init(jax.random.key(5))
  made = HEAD.init(jax.random.key(0), body=given)
  for found, expected in (
    (made["body"], given),
    (params["body"], BODY.init(jax.random.key(0))),
  ):
    for mine, theirs in zip(
      jax.tree.leaves(found), jax.tree.leaves(expected), strict=True
    ):
      np.testing.assert_array_equal(mine, theirs)
  assert not np.any(made["head"]["weight"])


def test_features_are_those_of_the_body(params):
  token = jnp.array([[1, 2, 3]])
  segment = jnp.array([[0, 1, 1]])
  np.testing.assert_array_equal(
    HEAD.hidden(params, token, segment),
    BODY.hidden(params["body"], token, segment),
  )


def test_every_array_has_names_for_its_axes(params):
  axes = HEAD.logical_axes(params)
  is_names = lambda node: isinstance(node, tuple)  # noqa: E731
  named = jax.tree.leaves(axes, is_leaf=is_names)
  for array, names in zip(jax.tree.leaves(params), named, strict=True):
    assert array.ndim == len(names)
  assert axes["head"] == {"weight": ("embed",), "bias": ()}


def test_a_body_with_lora_is_refused():
  body = dataclasses.replace(BODY, lora=models.Lora(rank=1, alpha=1.0))
  with pytest.raises(ValueError, match="trained whole: lora=None"):
    models.ScalarHead(body=body)
