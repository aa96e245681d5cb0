"""Pytrees that flow between the parts of a program.

Every leaf has the row axis first, so one `jax.tree.map` splits a record into
micro-batches, permutes it or shards it, and nothing is left behind.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float, Int, Key, PyTree

__all__ = ["Rollouts"]


class Rollouts(NamedTuple):
  """What a policy produced and how well: from `collect` to `update`.

  Attributes:
    sample: the finished latent x_0, `row *event`, in the unit of the data.
    condition: what it was asked for: class ids, embeddings or a pytree of
      them, each `row ...`.
    reward: one number per row, any unit; anything where `valid` is false.
    group: which prompt the row answers, an id in [0, number of groups).
    valid: true = counts; false for padding and for rows without a verdict.
    key: the key that the row was drawn with. Its sample depends on this key,
      its condition and the parameters, on no neighbour and on no mesh.
    trajectory: the sampler's record of how the sample came about, each leaf
      `row ...`, for losses that need its log-probabilities; None for those
      that need only the sample.
    metric: numbers to report by name, one per row, averaged over valid rows.
  """

  sample: Float[Array, "row *event"]
  condition: PyTree[Array]
  reward: Float[Array, "row"]
  group: Int[Array, "row"]
  valid: Bool[Array, "row"]
  key: Key[Array, "row"]
  trajectory: Any
  metric: dict[str, Float[Array, "row"]]
