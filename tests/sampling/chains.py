"""A decoder without layers: the next token depends on the last one alone.

What a sampler does can then be worked out by hand, and compiles at once.
"""

from __future__ import annotations

import dataclasses
import itertools

import jax
import jax.numpy as jnp

from rl_jax.models.decoder import Decoder
from rl_jax.models.decoder_attention import Attention

CALLS: list[int] = []
"""How many columns each `extend` that ran was given."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chain(Decoder):
  """log p(next | last) = log_softmax(params["table"][last])."""

  width: int = 2
  layers: int = 1
  mlp: int = 1
  attention: Attention = Attention(heads=1, features=2)
  counted: bool = False

  def extend(self, params, token, segment, cache, *, adapter=None):
    del segment, adapter
    if self.counted:
      columns = token.shape[1]
      jax.debug.callback(lambda: CALLS.append(columns))
    return params["table"][token], cache._replace(
      used=cache.used + token.shape[1]
    )

  def logits(self, params, hidden):
    del params
    return hidden


def fixed(*order):
  """Parameters that write these ids one after the other, each id once."""
  table = jnp.full((max(order) + 1,) * 2, -1e9)
  for last, following in itertools.pairwise(order):
    table = table.at[last, following].set(0.0)
  return {"table": table}
