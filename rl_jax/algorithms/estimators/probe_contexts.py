"""Responses cut off after each step, with a demand for the answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Int

__all__ = ["Contexts", "build_probe_batch"]


class Contexts(NamedTuple):
  """What probes are made after.

  Attributes:
    token: ids, padded on the left.
    mask: true = a token; none where there is no such step.
  """

  token: Int[Array, "row segment column"]
  mask: Bool[Array, "row segment column"]


def build_probe_batch(
  prompt: Int[Array, "row prompt"],
  prompt_mask: Bool[Array, "row prompt"],
  token: Int[Array, "row time"],
  mask: Bool[Array, "row time"],
  index: Int[Array, "row time"],
  forcing: Int[Array, "forcing"],
  *,
  num_segments: int,
) -> Contexts:
  """The beginning of a response up to each step, and then the demand.

      h_k = prompt, response through the last token of step k, forcing

  Args:
    prompt: ids, padded on the left.
    prompt_mask: true = a token of the prompt.
    token: ids of the response.
    mask: true = a token that the policy saw or chose.
    index: step of each token, -1 in the tail; see `step_segments`.
    forcing: ids that make the policy answer, such as those of a heading and an
      opened box.
    num_segments: steps that there is room for; static.

  Returns:
    Contexts of prompt + time + forcing columns, whose last column is a token
    where there is such a step.

  Raises:
    ValueError: if `num_segments` < 1, or there is no forcing.

  arXiv:2601.03823, code.

  >>> contexts = build_probe_batch(
  ...   jnp.array([[0, 7]]),
  ...   jnp.array([[False, True]]),
  ...   jnp.array([[1, 2, 3]]),
  ...   jnp.ones((1, 3), bool),
  ...   jnp.array([[0, 0, 1]]),
  ...   jnp.array([9]),
  ...   num_segments=2,
  ... )
  >>> jnp.where(contexts.mask, contexts.token, 0).tolist()
  [[[0, 0, 7, 1, 2, 9], [0, 7, 1, 2, 3, 9]]]
  """
  if num_segments < 1:
    raise ValueError(f"num_segments must be at least 1, got {num_segments}")
  if forcing.shape[0] == 0:
    raise ValueError("forcing must have a token at least")
  rows, columns = prompt.shape
  demand = jnp.broadcast_to(forcing, (rows, forcing.shape[0]))
  whole = jnp.concatenate([prompt, token, demand], axis=1)
  seen = jnp.concatenate([prompt_mask, mask, jnp.ones_like(demand, bool)], 1)
  width, time = whole.shape[1], token.shape[1]
  # Columns of the response through the end of step k.
  step = jnp.arange(num_segments)[None, :, None]
  place = jnp.arange(1, time + 1)[None, None]
  inside = (index[:, None] == step) & mask[:, None]
  used = jnp.max(jnp.where(inside, place, 0), axis=-1, initial=0)[..., None]
  # Moved to the right by what is left out between it and the demand.
  source = jnp.arange(width)[None, None] - (time - used)
  source = jnp.where(source < columns + used, source, source + time - used)
  inside = (source >= 0) & (used > 0)
  source = jnp.clip(source, 0, width - 1).reshape(rows, -1)

  def taken(values: jax.Array) -> jax.Array:
    found = jnp.take_along_axis(values, source, axis=1)
    return found.reshape(rows, num_segments, width)

  return Contexts(taken(whole), taken(seen) & inside)
