"""Attention of a decoder: grouped heads, rotary positions, windows, caps."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp

from rl_jax.models.decoder_cache import place
from rl_jax.models.decoder_rope import Rope, turned
from rl_jax.models.decoder_weights import Layer, Weight, kernel, rms_norm

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float, Int

__all__ = ["Attention", "Columns", "Stored", "Window"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Window:
  """Layers that see the last tokens only.

  Raises:
    ValueError: if `size` is below 1 or the pattern is empty.
  """

  size: int
  """How many tokens such a layer sees, its own included."""
  pattern: tuple[bool, ...] = (True,)
  """Which layers have the window, from the first; repeated to their number."""
  rope: Rope | None = None
  """Rotary positions of those layers; None: as in the others."""

  def __post_init__(self):
    if self.size < 1 or not self.pattern:
      raise ValueError(
        f"a window needs a size of at least 1 and a pattern, got {self.size}"
        f" and {self.pattern}"
      )

  def layers(self, count: int) -> tuple[bool, ...]:
    """For each of that many layers, whether it has the window."""
    return tuple(self.pattern[n % len(self.pattern)] for n in range(count))


class Columns(NamedTuple):
  """What every layer needs to know of the columns; computed once.

  Attributes:
    seen: which of the columns or slots each new one may attend to.
    near: those of them within the window; `seen` if there is no window.
    turn: cosines and sines of rotary positions.
    near_turn: those of layers with the window.
    used: where a cache writes the new columns; 0 without a cache.
  """

  seen: Bool[Array, "row time slot"]
  near: Bool[Array, "row time slot"]
  turn: tuple[Float[Array, "row time pairs"], Float[Array, "row time pairs"]]
  near_turn: tuple[
    Float[Array, "row time pairs"], Float[Array, "row time pairs"]
  ]
  used: Int[Array, ""]


class Stored(NamedTuple):
  """Keys and values of all layers, carried from layer to layer.

  Attributes:
    key: turned and normalised keys.
    value: values.
  """

  key: Float[Array, "layer row slot head features"]
  value: Float[Array, "layer row slot head features"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Attention:
  """Causal attention with grouped heads.

      s = cap(q . k / sqrt(scalar)),   y = softmax(s over what is seen) v

  Raises:
    ValueError: if a size is below 1, `key_value_heads` does not divide
      `heads`, `features` is odd, or `cap` or `query_scalar` is not positive.
  """

  heads: int
  """Heads of queries."""
  features: int
  """Features of a head; even."""
  key_value_heads: int | None = None
  """Heads of keys and values, each shared by a group; None: as `heads`."""
  rope: Rope = dataclasses.field(default_factory=Rope)
  """Rotary positions."""
  window: Window | None = None
  """Layers that see the last tokens only; None if all see everything."""
  bias: bool = False
  """Whether queries, keys and values have a bias (Qwen 2)."""
  query_key_norm: bool = False
  """Whether queries and keys are normalised by head (Qwen 3, Gemma 3)."""
  cap: float | None = None
  """Smooth bound on the absolute scores (50 in Gemma 2)."""
  query_scalar: float | None = None
  """Scores are divided by its root; None: `features`."""

  def __post_init__(self):
    if min(self.heads, self.features, self.groups) < 1:
      raise ValueError(f"sizes must be at least 1, got {self}")
    if self.heads % self.groups:
      raise ValueError(
        f"{self.groups} heads of keys do not divide {self.heads} of queries"
      )
    if self.features % 2:
      raise ValueError(f"a head turns pairs, got {self.features} features")
    for name in ("cap", "query_scalar"):
      number = getattr(self, name)
      if number is not None and not number > 0:
        raise ValueError(f"{name} must be positive, got {number}")

  @property
  def groups(self) -> int:
    """Heads of keys and values."""
    return self.heads if self.key_value_heads is None else self.key_value_heads

  def weights(
    self, width: int, *, scale: float, offset: float
  ) -> dict[str, Weight]:
    """The arrays of one layer.

    Args:
      width: features of a token.
      scale: of what the layer adds at the start.
      offset: of the norms, see `rms_norm`.

    Returns:
      Weights by name.
    """
    head = ("heads", "head")
    own = (self.heads, self.features)
    shared = (self.groups, self.features)
    found = {
      "query": kernel((width, *own), ("embed", *head)),
      "key": kernel((width, *shared), ("embed", *head)),
      "value": kernel((width, *shared), ("embed", *head)),
      "out": kernel((*own, width), (*head, "embed"), inputs=2, scale=scale),
    }
    if self.bias:
      found["query_bias"] = Weight(own, head)
      found["key_bias"] = Weight(shared, head)
      found["value_bias"] = Weight(shared, head)
    if self.query_key_norm:
      norm = Weight((self.features,), ("head",), mean=1 - offset)
      found |= {"query_norm": norm, "key_norm": norm}
    return found

  def columns(
    self,
    position: Int[Array, "row time"],
    seen: Bool[Array, "row time slot"],
    *,
    places: Int[Array, "row slot"],
    used: Int[Array, ""],
  ) -> Columns:
    """What all layers need to know of the new columns.

    Args:
      position: of each new token within its sequence.
      seen: which of the columns or slots it may attend to.
      places: positions of the tokens in those.
      used: where a cache writes the new columns.

    Returns:
      That and what follows from it.
    """
    near, turn = seen, self.rope(position, size=self.features)
    near_turn = turn
    if self.window is not None:
      distance = position[:, :, None] - places[:, None]
      near = seen & (distance < self.window.size)
      if self.window.rope is not None:
        near_turn = self.window.rope(position, size=self.features)
    return Columns(seen, near, turn, near_turn, used)

  def __call__(
    self,
    layer: Layer,
    h: Float[Array, "row time width"],
    columns: Columns,
    stored: Stored | None,
    *,
    number: Int[Array, ""],
    windowed: Bool[Array, ""],
    epsilon: float,
    offset: float,
  ) -> tuple[Float[Array, "row time width"], Stored | None]:
    """What the layer adds, and the cache with its new keys and values.

    Args:
      layer: its weights.
      h: normalised features.
      columns: positions and what is seen.
      stored: keys and values of a cache; None to attend to h alone.
      number: which layer it is.
      windowed: whether it has the window.
      epsilon: of the norms, see `rms_norm`.
      offset: of the norms.

    Returns:
      The attended features and the cache.
    """
    query, key, value = (
      layer.product(name, h) for name in ("query", "key", "value")
    )
    if self.query_key_norm:
      weight = layer.weight
      query, key = (
        rms_norm(x, weight[name], epsilon=epsilon, offset=offset)
        for x, name in ((query, "query_norm"), (key, "key_norm"))
      )
    turns = [
      jnp.where(windowed, near, far)
      for far, near in zip(columns.turn, columns.near_turn, strict=True)
    ]
    query, key = turned(query, *turns), turned(key, *turns)
    if stored is not None:
      at = {"layer": number, "slot": columns.used}
      stored = Stored(
        place(stored.key, key, **at), place(stored.value, value, **at)
      )
      key, value = (
        jax.lax.dynamic_index_in_dim(x, number, keepdims=False) for x in stored
      )
    seen = jnp.where(windowed, columns.near, columns.seen)
    attended = self._attended(query, key, value, seen)
    return layer.product("out", attended, inputs=2), stored

  def _attended(self, query, key, value, seen):
    row, time = query.shape[:2]
    query = query.reshape(row, time, self.groups, -1, self.features)
    score = jnp.einsum(
      "rtgnf,rsgf->rgnts", query, key, preferred_element_type=jnp.float32
    )
    scalar = self.features if self.query_scalar is None else self.query_scalar
    score = score / math.sqrt(scalar)
    if self.cap is not None:
      score = self.cap * jnp.tanh(score / self.cap)
    # Finite, so that a column of padding, which sees nothing, stays finite.
    lowest = jnp.finfo(jnp.float32).min
    score = jnp.where(seen[:, None, None], score, lowest)
    share = jax.nn.softmax(score, axis=-1).astype(value.dtype)
    attended = jnp.einsum("rgnts,rsgf->rtgnf", share, value)
    return attended.reshape(row, time, self.heads, self.features)
