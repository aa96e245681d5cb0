"""Sizes of public decoders, as their configuration files give them."""

from __future__ import annotations

from rl_jax import models
from rl_jax.models.decoder_rope import Llama3

__all__ = ["LLAMA_31_8B", "QWEN3_8B", "TULU_3_8B"]

QWEN3_8B = models.Decoder(
  vocabulary=151_936,
  width=4096,
  layers=36,
  mlp=12_288,
  attention=models.Attention(
    heads=32,
    key_value_heads=8,
    features=128,
    rope=models.Rope(theta=1e6),
    query_key_norm=True,
  ),
  context=40_960,
  tied=False,
  norm_epsilon=1e-6,
  remat="all",
  dtype="bfloat16",
)

LLAMA_31_8B = models.Decoder(
  vocabulary=128_256,
  width=4096,
  layers=32,
  mlp=14_336,
  attention=models.Attention(
    heads=32,
    key_value_heads=8,
    features=128,
    rope=models.Rope(
      theta=5e5,
      scaling=Llama3(factor=8.0, low=1.0, high=4.0, context=8192),
    ),
  ),
  context=131_072,
  tied=False,
  norm_epsilon=1e-5,
  remat="all",
  dtype="bfloat16",
)

# Llama 3.1 with eight ids more, of which one pads.
TULU_3_8B = models.Decoder(
  vocabulary=128_264,
  width=4096,
  layers=32,
  mlp=14_336,
  attention=LLAMA_31_8B.attention,
  context=131_072,
  tied=False,
  norm_epsilon=1e-5,
  remat="all",
  dtype="bfloat16",
)
