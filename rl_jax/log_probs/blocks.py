"""The blocks of `chunked`: one pass forward, one pass back, by hand.

Arrays here are `[row, time, width]` for features and `[piece, entry, width]`
for the embedding. A block is some columns of every row times some entries of
every piece, so that neither rows nor a vocabulary that are sharded over
devices are gathered. Logits are `[piece, entry, row, time]`: no product then
wants the embedding transposed, which is larger than anything else here.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp

from rl_jax.masks import widened

if TYPE_CHECKING:
  from jaxtyping import Array, Float, Int

__all__ = ["Plan"]


class Plan(NamedTuple):
  """What is static: how the blocks are cut and how logits are scaled."""

  columns: int  # of a block, per row
  entries: int  # of a block, per piece of the vocabulary
  pieces: int
  temperature: float
  soft_cap: float | None


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def blockwise(plan, hidden, embedding, token):
  return _forward(plan, hidden, embedding, token)[0]


# Compiled here too, so that calls outside any jit find it again.
@functools.partial(jax.jit, static_argnums=0)
def _forward(plan, hidden, embedding, token):
  dtype = _accumulator(hidden, embedding)
  shape = (hidden.shape[0], plan.columns)

  def scan_vocabulary(features, target):
    def add(j, carry):
      largest, total, spread, own = carry
      block = _Block.of(plan, embedding, j)
      z, _ = block.logits(features)
      top = jnp.max(block.only(z, -jnp.inf), axis=(0, 1))
      raised = jnp.maximum(largest, top)
      shift = largest - raised
      below = z - raised[None, None]
      weight = block.only(jnp.exp(below), 0.0)
      # sum exp(z - m) (z - m), where m is the largest logit so far.
      spread = jnp.exp(shift) * (spread + shift * total)
      spread += jnp.sum(weight * below, axis=(0, 1))
      total = jnp.exp(shift) * total + jnp.sum(weight, axis=(0, 1))
      own += jnp.sum(jnp.where(block.holds(target), z, 0.0), axis=(0, 1))
      return raised, total, spread, own

    zero = jnp.zeros(shape, dtype)
    # Finite, so that no infinity meets the zero that it multiplies.
    lowest = jnp.full(shape, jnp.finfo(dtype).min, dtype)
    blocks = _count(embedding.shape[1], plan.entries)
    largest, total, spread, own = jax.lax.fori_loop(
      0, blocks, add, (lowest, zero, zero, zero)
    )
    normaliser = jnp.log(total)
    log_prob = (own - largest) - normaliser
    return log_prob, normaliser - spread / total, largest, normaliser

  def fill(i, filled):
    start = _start(i, plan.columns, hidden.shape[1])
    found = scan_vocabulary(
      _columns(plan, hidden, start), _columns(plan, token, start)
    )
    return tuple(
      jax.lax.dynamic_update_slice_in_dim(x, y, start, axis=1)
      for x, y in zip(filled, found, strict=True)
    )

  empty = (jnp.zeros(token.shape, dtype),) * 4
  blocks = _count(token.shape[1], plan.columns)
  log_prob, *kept = jax.lax.fori_loop(0, blocks, fill, empty)
  return (log_prob, kept[0]), (hidden, embedding, token, *kept)


@functools.partial(jax.jit, static_argnums=0)
def _backward(plan, saved, cotangents):
  hidden, embedding, token, *kept = saved
  dtype = _accumulator(hidden, embedding)
  columns = _count(hidden.shape[1], plan.columns)

  def entries(j, carry):
    by_hidden, by_embedding = carry
    block = _Block.of(plan, embedding, j)

    def tokens(i, carry):
      by_hidden, by_entries = carry
      start = _start(i, plan.columns, hidden.shape[1])
      # Columns of a last block that the one before had already.
      new = start + jnp.arange(plan.columns) >= i * plan.columns
      features = _columns(plan, hidden, start)
      slope, bend = (
        jnp.where(new[None], _columns(plan, x, start), 0.0)[None, None]
        for x in cotangents
      )
      entropy, largest, normaliser = (
        _columns(plan, x, start)[None, None] for x in kept
      )
      z, rise = block.logits(features)
      log_p = (z - largest) - normaliser
      by_weight = slope + bend * (log_p + entropy)
      by_logit = -jnp.exp(log_p) * by_weight
      holds = block.holds(_columns(plan, token, start))
      by_logit += jnp.where(holds, slope, 0.0)
      by_logit = block.only(by_logit, 0.0) * rise
      here = _product("pert,ped->rtd", by_logit, block.vectors)
      here += _columns(plan, by_hidden, start)
      by_hidden = jax.lax.dynamic_update_slice_in_dim(
        by_hidden, here, start, axis=1
      )
      by_entries += _product("pert,rtd->ped", by_logit, features)
      return by_hidden, by_entries

    by_entries = jnp.zeros(block.vectors.shape, dtype)
    by_hidden, by_entries = jax.lax.fori_loop(
      0, columns, tokens, (by_hidden, by_entries)
    )
    by_entries = by_entries.astype(embedding.dtype)
    if not block.is_whole:
      by_entries += _entries(plan, by_embedding, block.start)
    by_embedding = jax.lax.dynamic_update_slice_in_dim(
      by_embedding, by_entries, block.start, axis=1
    )
    return by_hidden, by_embedding

  by_hidden, by_embedding = jax.lax.fori_loop(
    0,
    _count(embedding.shape[1], plan.entries),
    entries,
    (jnp.zeros(hidden.shape, dtype), jnp.zeros_like(embedding)),
  )
  return by_hidden.astype(hidden.dtype), by_embedding, None


blockwise.defvjp(_forward, _backward)


class _Block(NamedTuple):
  """Some entries of every piece of the vocabulary."""

  plan: Plan
  vectors: Float[Array, "piece entry width"]
  start: Int[Array, ""]
  number: Int[Array, ""]
  size: int

  @classmethod
  def of(cls, plan, embedding, number):
    size = embedding.shape[1]
    start = _start(number, plan.entries, size)
    return cls(plan, _entries(plan, embedding, start), start, number, size)

  @property
  def is_whole(self):
    """No block overlaps another."""
    return self.size % self.plan.entries == 0

  def only(self, value, other):
    """The value, but `other` for entries that the block before had already."""
    if self.is_whole:
      return value
    new = self._places >= self.number * self.plan.entries
    return jnp.where(new[None, :, None, None], value, other)

  def holds(self, token):
    """Whether each entry is the token and is new to this block."""
    first = jnp.arange(self.plan.pieces)[:, None] * self.size
    entry = (first + self._places[None])[..., None, None]
    return self.only(token[None, None] == entry, False)

  @property
  def _places(self):
    return self.start + jnp.arange(self.plan.entries)

  def logits(self, features):
    """Scaled logits of the block and their slope in the unscaled ones."""
    z = _product("ped,rtd->pert", self.vectors, features)
    rise = 1.0 / self.plan.temperature
    if self.plan.soft_cap is not None:
      bent = jnp.tanh(z / self.plan.soft_cap)
      z, rise = self.plan.soft_cap * bent, rise * (1.0 - bent**2)
    return z / self.plan.temperature, rise


def _product(axes, x, y):
  return jnp.einsum(axes, x, y, preferred_element_type=_accumulator(x, y))


def _accumulator(x, y):
  return widened(jnp.zeros((), jnp.result_type(x, y))).dtype


def _count(size, block):
  return -(-size // block) if size else 0


def _start(number, block, size):
  """Where a block begins: the last one is moved back to fit."""
  return jnp.minimum(number * block, size - block)


def _columns(plan, value, start):
  return jax.lax.dynamic_slice_in_dim(value, start, plan.columns, axis=1)


def _entries(plan, value, start):
  return jax.lax.dynamic_slice_in_dim(value, start, plan.entries, axis=1)


def even(size, most):
  """The size of equal blocks, none larger than asked; the last may overlap."""
  blocks = -(-size // max(most, 1))
  return -(-size // max(blocks, 1))
