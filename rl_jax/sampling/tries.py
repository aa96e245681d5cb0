"""Which token ids may come next, when only some responses are allowed."""

from __future__ import annotations

import collections
from typing import TYPE_CHECKING, NamedTuple

import jax.numpy as jnp
import numpy as np

if TYPE_CHECKING:
  from collections.abc import Iterable, Sequence

  from jaxtyping import Array, Bool, Int

__all__ = ["Trie"]


class Trie(NamedTuple):
  """A set of sequences of ids as a tree: a node for each way to begin one.

  Nodes are numbered level by level from the root, 0, so that the children of
  a node stand side by side, ordered by their ids. A step of a sampler costs
  the most children that a node has, not the number of sequences.

  Attributes:
    token: the id that leads to a node; -1 at the root.
    first: the number of its first child; 0 where it has none.
    children: how many it has.
    lane: 0, 1, .. up to the most children that a node has.
  """

  token: Int[Array | np.ndarray, "node"]
  first: Int[Array | np.ndarray, "node"]
  children: Int[Array | np.ndarray, "node"]
  lane: Int[Array | np.ndarray, "most"]

  @classmethod
  def of(cls, sequences: Iterable[Sequence[int]]) -> Trie:
    """The trie of some sequences; one given twice counts once.

    Args:
      sequences: what a whole response may be, the end token included if the
        policy is to write it.

    Returns:
      The trie, made on the host.

    Raises:
      ValueError: if there is no sequence, one is empty or has a negative id,
        or one begins another: where the first ends, the row could not tell
        whether to go on.

    >>> Trie.of([(5, 1), (5, 2), (7,)]).token.tolist()
    [-1, 5, 7, 1, 2]
    """
    whole = {tuple(int(one) for one in sequence) for sequence in sequences}
    if not whole:
      raise ValueError("a trie needs at least one sequence, got none")
    for sequence in sorted(whole):
      if not sequence or min(sequence) < 0:
        raise ValueError(
          f"a sequence has ids, none of them negative, got {sequence}"
        )
    starts = {sequence[:n] for sequence in whole for n in range(len(sequence))}
    for sequence in sorted(whole & starts):
      raise ValueError(
        f"{sequence} begins another of the {len(whole)} sequences: end both"
        " with an end token"
      )
    ordered = sorted(whole | starts, key=lambda begun: (len(begun), begun))
    number = {begun: node for node, begun in enumerate(ordered)}
    parent = [number[begun[:-1]] for begun in ordered[1:]]
    first, children = np.zeros((2, len(ordered)), np.int32)
    # Backwards, so that the first child is written last.
    for node in range(len(ordered) - 1, 0, -1):
      first[parent[node - 1]] = node
    for node, own in collections.Counter(parent).items():
      children[node] = own
    token = [-1, *(begun[-1] for begun in ordered[1:])]
    return cls(
      token=np.asarray(token, np.int32),
      first=first,
      children=children,
      lane=np.arange(children.max(), dtype=np.int32),
    )

  def allowed(
    self, node: Int[Array, "row"], vocabulary: int
  ) -> Bool[Array, "row vocabulary"]:
    """Which ids lead on from each row's node.

    Args:
      node: where each row stands.
      vocabulary: number of ids.

    Returns:
      True for ids that may come next; none at a leaf.
    """
    token, _, exists = self._edges(node)
    rows = jnp.arange(node.shape[0])[:, None]
    nowhere = jnp.zeros((node.shape[0], vocabulary), bool)
    return nowhere.at[rows, jnp.where(exists, token, vocabulary)].set(
      True, mode="drop"
    )

  def child(
    self, node: Int[Array, "row"], token: Int[Array, "row"]
  ) -> Int[Array, "row"]:
    """Where each row stands after one more id.

    Args:
      node: where it stood.
      token: the id; where it is not allowed, the row is back at the root.

    Returns:
      The numbers of the nodes.
    """
    edge, child, exists = self._edges(node)
    taken = exists & (edge == token[:, None])
    return jnp.sum(jnp.where(taken, child, 0), axis=-1, dtype=node.dtype)

  def is_leaf(self, node: Int[Array, "row"]) -> Bool[Array, "row"]:
    """Whether a sequence is complete.

    Args:
      node: where each row stands.

    Returns:
      True at nodes without children.
    """
    return jnp.asarray(self.children)[node] == 0

  def _edges(self, node):
    """Ids and numbers of the children of each row's node, and which exist."""
    lane = jnp.asarray(self.lane)[None]
    exists = lane < jnp.asarray(self.children)[node][:, None]
    child = jnp.asarray(self.first)[node][:, None] + lane
    child = jnp.where(exists, child, 0)
    return jnp.asarray(self.token)[child], child, exists
