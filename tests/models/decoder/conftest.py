"""Small decoders that have every feature, and numbers to feed them."""

from __future__ import annotations

import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.models.decoder import Decoder
from rl_jax.models.decoder_attention import Attention, Window
from rl_jax.models.decoder_rope import Linear, Rope

FIXTURES = pathlib.Path(__file__).parents[1] / "fixtures"
FAMILIES = ("llama", "llama_tied", "qwen2", "qwen3", "gemma2", "gemma3")

PLAIN = Decoder(
  vocabulary=32,
  width=16,
  layers=2,
  mlp=24,
  attention=Attention(heads=2, features=8),
  tied=False,
)
FULL = Decoder(
  vocabulary=32,
  width=16,
  layers=2,
  mlp=24,
  attention=Attention(
    heads=4,
    features=8,
    key_value_heads=2,
    rope=Rope(theta=1000.0, scaling=Linear(factor=4.0)),
    window=Window(size=3, pattern=(True, False), rope=Rope(theta=50.0)),
    bias=True,
    query_key_norm=True,
    cap=4.0,
    query_scalar=6.0,
  ),
  activation="gelu",
  norm_offset=1.0,
  post_norms=True,
  scale_embedding=True,
  soft_cap=5.0,
)


def randomised(model, seed=1):
  """Every number off its start, so that zeros hide no path."""
  shapes = jax.eval_shape(model.init, jax.random.key(0))
  rng = np.random.RandomState(seed)
  return jax.tree.map(
    lambda leaf: jnp.asarray(rng.normal(size=leaf.shape) * 0.4, jnp.float32),
    shapes,
  )


@pytest.fixture(scope="session")
def full_params():
  return randomised(FULL)


@pytest.fixture(scope="session")
def token():
  return jnp.asarray(np.random.RandomState(0).randint(32, size=(4, 8)))


@pytest.fixture(scope="session")
def expected(full_params, token):
  """Features of whole rows, in one pass."""
  return jax.jit(FULL.hidden)(full_params, token, jnp.ones_like(token))
