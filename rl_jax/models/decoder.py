"""A decoder of text, from scratch or with public weights.

One description covers Llama 2 and 3 with SmolLM 2, Qwen 2, 2.5 and 3, Gemma 2
and the text models of Gemma 3; `models.huggingface` reads and writes them.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import TYPE_CHECKING, Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from rl_jax import masks
from rl_jax.models import decoder_weights as weights
from rl_jax.models.decoder_attention import Attention, Stored
from rl_jax.models.decoder_cache import Cache
from rl_jax.models.decoder_lora import Lora
from rl_jax.models.decoder_weights import Layer, Weight

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

  from rl_jax.models.protocol import Params

__all__ = ["Decoder"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Decoder:
  """A causal transformer with gated MLPs and root-mean-square norms.

      h = embedding[token]
      h = h + attention(norm(h))
      h = h + down(act(gate(norm(h))) up(norm(h)))       layers times
      hidden = norm(h),   logits = cap(hidden output^T)

  Parameters of all layers are stacked, so that they compile as one body.
  Sequences are told apart by `segment`: an id for each column, the same for
  all columns of a sequence, 0 for padding; see `masks.segment_mask`. A
  token's position is how many columns of its segment come before it, so
  neither padding nor neighbours in a packed row change a sequence's numbers.

  Raises:
    ValueError: if a size is below 1, the cap or the epsilon is not positive,
      or `lora` names a product that no layer has.
  """

  vocabulary: int
  """Number of token ids."""
  width: int
  """Features of a token."""
  layers: int
  """Number of layers."""
  mlp: int
  """Hidden features of a layer's MLP."""
  attention: Attention
  """Heads, positions and windows."""
  context: int = 2048
  """Tokens that a sequence may have; recorded, and for others to check."""
  activation: Literal["silu", "gelu"] = "silu"
  """Of the gate; gelu is its tanh form (Gemma)."""
  tied: bool = True
  """Whether logits are products with the embedding of the input."""
  norm_epsilon: float = 1e-6
  """Keeps norms from dividing by zero."""
  norm_offset: float = 0.0
  """Added to the scales of norms: 1 in Gemma, whose weights start at 0."""
  post_norms: bool = False
  """Whether what a layer adds is normalised too (Gemma)."""
  scale_embedding: bool = False
  """Whether embeddings are multiplied with sqrt(width) (Gemma)."""
  soft_cap: float | None = None
  """Smooth bound on the absolute logits (30 in Gemma 2)."""
  lora: Lora | None = None
  """Low-rank changes that `adapter` arguments hold."""
  scan: bool = True
  """One compiled layer in a loop; false unrolls it: slow to compile, fast."""
  remat: Literal["none", "products", "all"] = "none"
  """What the backward pass computes again: nothing; all but products with
  weights; everything between layers."""
  dtype: Literal["float32", "bfloat16"] = "float32"
  """Precision of the products; parameters may be of any."""

  def __post_init__(self):
    sizes = (self.vocabulary, self.width, self.layers, self.mlp, self.context)
    if min(sizes) < 1:
      raise ValueError(f"sizes must be at least 1, got {self}")
    if self.soft_cap is not None and not self.soft_cap > 0:
      raise ValueError(f"soft_cap must be positive, got {self.soft_cap}")
    if not self.norm_epsilon > 0:
      raise ValueError(f"norm_epsilon must be positive: {self.norm_epsilon}")
    if self.lora is not None:
      self.lora.weights(self.block_weights())

  def init(self, key: PRNGKeyArray) -> Params:
    """Fresh float32 parameters; the same for the same key."""
    return weights.drawn(key, self.weights())

  def init_adapter(self, key: PRNGKeyArray) -> Params:
    """Fresh float32 parameters of `lora`, with which nothing changes yet.

    A compiler may still round differently with and without an adapter: where
    a ratio must be exactly one, both sides take one, the reference this one.
    """
    return weights.drawn(key, self._adapter_weights())

  def hidden(
    self,
    params: Params,
    token: Int[Array, "row time"],
    segment: Int[Array, "row time"],
    *,
    adapter: Params | None = None,
    sees: Bool[np.ndarray, "time column"] | None = None,
  ) -> Float[Array, "row time width"]:
    """Features of each column after the last norm.

    Logits are their products with `output(params)`; column t scores the token
    of column t + 1. `log_probs.chunked_log_prob` takes both, with `soft_cap`.

    Args:
      params: as `init` makes them.
      token: ids in [0, vocabulary), anything where padding. Another id makes
        its row NaN.
      segment: id of each column's sequence; 0 = padding.
      adapter: as `init_adapter` makes it; None for the base alone.
      sees: which columns each one sees of its sequence, itself included, for
        sequences that branch; None: itself and all before it. Where a column
        is in its sequence is how many it sees.

    Returns:
      Features in `dtype`; something finite where padding.
    """
    seen = masks.segment_mask(segment)
    seen = seen if sees is None else seen & sees[None]
    position = jnp.maximum(jnp.sum(seen, axis=-1) - 1, 0)
    columns = self.attention.columns(
      position, seen, places=position, used=jnp.zeros((), int)
    )
    return self._run(params, token, segment, columns, None, adapter)[0]

  def extend(
    self,
    params: Params,
    token: Int[Array, "row time"],
    segment: Int[Array, "row time"],
    cache: Cache,
    *,
    adapter: Params | None = None,
  ) -> tuple[Float[Array, "row time width"], Cache]:
    """As `hidden`, for columns that follow those in a cache.

    A prompt is many columns at once, a step of generation is one.

    Args:
      params: as `init` makes them.
      token: the next ids of each row.
      segment: id of each column's sequence; 0 = padding.
      cache: from `empty_cache` or an earlier call; donate it.
      adapter: as `init_adapter` makes it; None for the base alone.

    Returns:
      Features of the new columns, and the cache that has them. NaN if the
      cache had too few slots left.
    """
    used, time = cache.used, token.shape[1]
    write = jax.lax.dynamic_update_slice
    start = (jnp.zeros((), used.dtype), used)
    stored = write(cache.segment, segment.astype(cache.segment.dtype), start)
    slot = jnp.arange(stored.shape[1])
    column = used + jnp.arange(time)
    seen = (segment[:, :, None] == stored[:, None]) & (segment != 0)[..., None]
    seen = seen & (slot[None] <= column[:, None])[None]
    position = jnp.maximum(jnp.sum(seen, axis=-1) - 1, 0)
    places = write(cache.position, position.astype(cache.position.dtype), start)
    columns = self.attention.columns(position, seen, places=places, used=used)
    h, kept = self._run(
      params, token, segment, columns, Stored(cache.key, cache.value), adapter
    )
    h = jnp.where(used + time <= stored.shape[1], h, jnp.nan)
    assert kept is not None
    return h, Cache(kept.key, kept.value, stored, places, used + time)

  def empty_cache(self, rows: int, slots: int) -> Cache:
    """A cache for that many rows and, padding included, columns."""
    heads = (self.attention.groups, self.attention.features)
    shape = (self.layers, rows, slots, *heads)
    return Cache(
      key=jnp.zeros(shape, self.dtype),
      value=jnp.zeros(shape, self.dtype),
      segment=jnp.zeros((rows, slots), jnp.int32),
      position=jnp.zeros((rows, slots), jnp.int32),
      used=jnp.zeros((), jnp.int32),
    )

  def output(self, params: Params) -> Float[Array, "vocabulary width"]:
    """The output embedding, one vector per id."""
    return params["embedding" if self.tied else "output"]

  def logits(
    self, params: Params, hidden: Float[Array, "*batch width"]
  ) -> Float[Array, "*batch vocabulary"]:
    """Unnormalised log-probabilities of all ids, for few columns at a time.

    Args:
      params: as `init` makes them.
      hidden: from `hidden` or `extend`.

    Returns:
      Logits in float32, after the model's cap: where a function asks for
      `soft_cap` beside them, it is None.
    """
    table = self.output(params).astype(hidden.dtype)
    logits = jnp.einsum(
      "...w,vw->...v", hidden, table, preferred_element_type=jnp.float32
    )
    if self.soft_cap is not None:
      logits = self.soft_cap * jnp.tanh(logits / self.soft_cap)
    return logits

  def unstacked(self, params: Params) -> Params:
    """The same parameters, with each layer's apart from the others'.

    `hidden` and `extend` take either form. Where they run in a loop, a layer
    out of a stack is copied in each turn; these are copied once, before it.

    Args:
      params: as `init` makes them, or apart already.

    Returns:
      Parameters whose `blocks` are a tuple with a dict for each layer.
    """
    blocks = params["blocks"]
    if isinstance(blocks, tuple):
      return params
    each = (
      jax.tree.map(lambda x, n=number: x[n], blocks)
      for number in range(self.layers)
    )
    return params | {"blocks": tuple(each)}

  def merged(self, params: Params, adapter: Params) -> Params:
    """Parameters with the adapter added in, for use without it."""
    blocks = self._lora().merged(params["blocks"], adapter)
    return params | {"blocks": blocks}

  def weights(self) -> dict[str, Any]:
    """What the parameters are: a nested dict of `Weight`."""
    table = Weight(
      (self.vocabulary, self.width), ("vocab", "embed"), start=0.02
    )
    found = {
      "embedding": table,
      "blocks": {
        name: weight.stacked(self.layers)
        for name, weight in self.block_weights().items()
      },
      "final_norm": self._norm_weight(),
    }
    return found if self.tied else found | {"output": table}

  def block_weights(self) -> dict[str, Weight]:
    """What the parameters of one layer are."""
    # What 2 layers additions of variance one would sum to, stays at one.
    scale = 1 / math.sqrt(2 * self.layers)
    up = weights.kernel((self.width, self.mlp), ("embed", "mlp"))
    found = self.attention.weights(
      self.width, scale=scale, offset=self.norm_offset
    )
    found |= {
      "gate": up,
      "up": up,
      "down": weights.kernel(
        (self.mlp, self.width), ("mlp", "embed"), scale=scale
      ),
      "attention_norm": self._norm_weight(),
      "mlp_norm": self._norm_weight(),
    }
    if self.post_norms:
      found["attention_post_norm"] = self._norm_weight()
      found["mlp_post_norm"] = self._norm_weight()
    return found

  def logical_axes(self, params: Params) -> Params:
    """Names of the axes of all parameters; see `VelocityModel`."""
    return _axes(self.weights(), params)

  def adapter_axes(self, adapter: Params) -> Params:
    """Names of the axes of all parameters of an adapter."""
    return _axes(self._adapter_weights(), adapter)

  def _norm_weight(self):
    return Weight((self.width,), ("embed",), mean=1 - self.norm_offset)

  def _lora(self) -> Lora:
    if self.lora is None:
      raise ValueError("an adapter needs a decoder whose lora is not None")
    return self.lora

  def _adapter_weights(self):
    return {
      name: {part: one.stacked(self.layers) for part, one in pair.items()}
      for name, pair in self._lora().weights(self.block_weights()).items()
    }

  def _norm(self, h, weight):
    return weights.rms_norm(
      h, weight, epsilon=self.norm_epsilon, offset=self.norm_offset
    )

  def _run(self, params, token, segment, columns, stored, adapter):
    dtype = jnp.dtype(self.dtype)
    scale = 1.0 if adapter is None else self._lora().scale
    # A NaN in a padded column would reach others as zero times NaN.
    token = jnp.where(segment != 0, token, 0)
    h = (
      params["embedding"]
      .at[token]
      .get(mode="fill", fill_value=jnp.nan, wrap_negative_indices=False)
    )
    h = h.astype(dtype)
    if self.scale_embedding:
      h = h * jnp.asarray(math.sqrt(self.width), dtype)

    def layer(carry, inputs):
      h, stored = carry
      weight, change, number, windowed = inputs
      own = Layer(weight, change, scale)
      added, stored = self.attention(
        own,
        self._norm(h, weight["attention_norm"]),
        columns,
        stored,
        number=number,
        windowed=windowed,
        epsilon=self.norm_epsilon,
        offset=self.norm_offset,
      )
      if self.post_norms:
        added = self._norm(added, weight["attention_post_norm"])
      h = h + added
      added = self._mlp(own, self._norm(h, weight["mlp_norm"]))
      if self.post_norms:
        added = self._norm(added, weight["mlp_post_norm"])
      return (h + added, stored), None

    if self.remat != "none":
      policy = jax.checkpoint_policies.dots_with_no_batch_dims_saveable
      layer = jax.checkpoint(
        layer,
        # Inside a loop the compiler cannot undo the recomputation.
        prevent_cse=not self.scan,
        policy=policy if self.remat == "products" else None,
      )
    window = self.attention.window
    windowed = (False,) * self.layers
    if window is not None:
      windowed = window.layers(self.layers)
    blocks, carry = params["blocks"], (h, stored)
    rest = (
      {} if adapter is None else adapter,
      jnp.arange(self.layers),
      jnp.array(windowed),
    )
    if self.scan and not isinstance(blocks, tuple):
      carry, _ = jax.lax.scan(layer, carry, (blocks, *rest))
    else:
      for number, weight in enumerate(self.unstacked(params)["blocks"]):
        own = jax.tree.map(lambda x, n=number: x[n], rest)
        carry, _ = layer(carry, (weight, *own))
    h, stored = carry
    return self._norm(h, params["final_norm"]), stored

  def _mlp(self, layer, h):
    act = jax.nn.silu
    if self.activation == "gelu":
      act = functools.partial(jax.nn.gelu, approximate=True)
    gate = act(layer.product("gate", h))
    return layer.product("down", gate * layer.product("up", h))


def _axes(described: Any, params: Params) -> Params:
  """Names of axes, after a check that these arrays are what is described."""

  def is_weight(node: Any) -> bool:
    return isinstance(node, Weight)

  shapes = jax.tree.map(lambda w: w.shape, described, is_leaf=is_weight)
  found = jax.tree.map(lambda array: array.shape, params)
  if shapes != found:
    raise ValueError(
      f"these are not the parameters of this model: expected {shapes}, got"
      f" {found}"
    )
  return jax.tree.map(lambda w: w.axes, described, is_leaf=is_weight)
