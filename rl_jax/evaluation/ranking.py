"""Lists of recommended items against the one that is right."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import jax.numpy as jnp
import numpy as np

from rl_jax.reduce import Total
from rl_jax.sampling.beam import constrained_beam_search
from rl_jax.sampling.tries import Trie

if TYPE_CHECKING:
  from collections.abc import Callable

  from jaxtyping import Array, Float, Int, PyTree

  from rl_jax.training.state import State

__all__ = [
  "BeamRanking",
  "hit_at_k",
  "ndcg_at_k",
  "ranked_chains",
  "target_rank",
]


def target_rank(
  ranked: Int[Array, "row place"], target: Int[Array, "row"]
) -> Int[Array, "row"]:
  """Where the right item stands.

      rank = min {j: ranked_j = target}, from 1;   0 if it stands nowhere

  Args:
    ranked: items, the best first; a negative one is none.
    target: the right one, not negative.

  Returns:
    The rank of its first place.

  >>> target_rank(jnp.array([[3, 7, 7], [1, 2, 0]]), jnp.array([7, 5])).tolist()
  [2, 0]
  """
  found = ranked == target[:, None]
  first = jnp.argmax(found, axis=-1) + 1
  return jnp.where(jnp.any(found, axis=-1), first, 0)


def hit_at_k(rank: Int[Array, "row"], *, k: int) -> Float[Array, "row"]:
  """Whether the right item is among the first k: with one target also recall.

      1[1 <= rank <= k]

  Args:
    rank: as from `target_rank`; 0 = nowhere.
    k: how many places count.

  Returns:
    0 or 1 for each row.

  Raises:
    ValueError: if `k` < 1.

  >>> hit_at_k(jnp.array([2, 0]), k=5).tolist()
  [1.0, 0.0]
  """
  _check_k(k)
  return ((rank >= 1) & (rank <= k)).astype(jnp.float32)


def ndcg_at_k(rank: Int[Array, "row"], *, k: int) -> Float[Array, "row"]:
  """Discounted gain of one right item, whose ideal is 1.

      1 / log2(rank + 1) where 1 <= rank <= k, else 0

  Args:
    rank: as from `target_rank`; 0 = nowhere.
    k: how many places count.

  Returns:
    The gain of each row.

  Raises:
    ValueError: if `k` < 1.

  Järvelin & Kekäläinen 2002.

  >>> ndcg_at_k(jnp.array([3, 1, 0]), k=5).tolist()
  [0.5, 1.0, 0.0]
  """
  hit = hit_at_k(rank, k=k)
  return hit / jnp.log2(jnp.maximum(rank, 1).astype(jnp.float32) + 1.0)


def ranked_chains(
  item: Int[np.ndarray, "row chain"],
  log_prob: Float[np.ndarray, "row chain"],
  *,
  merge: bool,
) -> Int[np.ndarray, "row chain"]:
  """Items that sampled answers name, the likeliest answer first.

  An answer's score is the log-probability of all of its tokens, thoughts
  included, which favours short ones.

  Args:
    item: what each answer names; negative = nothing that there is.
    log_prob: of the whole answer, nats.
    merge: whether an item counts once, at its best place, and later ones
      move up; the released code leaves duplicates where they are.

  Returns:
    Items in order, those that name nothing last, as -1.

  GREAM, arXiv:2510.20815, code.

  >>> item, nats = np.array([[4, -1, 4, 2]]), np.array([[-2.0, -1, -3, -4]])
  >>> ranked_chains(item, nats, merge=False).tolist()
  [[4, 4, 2, -1]]
  >>> ranked_chains(item, nats, merge=True).tolist()
  [[4, 2, -1, -1]]
  """
  item = np.where(item < 0, -1, item)
  # A stable sort: of equal scores the earlier answer stands first.
  order = np.lexsort((-np.asarray(log_prob), item < 0), axis=-1)
  ranked = np.take_along_axis(item, order, axis=-1)
  if not merge:
    return ranked
  merged = np.full_like(ranked, -1)
  for row, own in enumerate(ranked):
    different = list(dict.fromkeys(own[own >= 0].tolist()))
    merged[row, : len(different)] = different
  return merged


@dataclasses.dataclass(frozen=True, kw_only=True)
class BeamRanking:
  """Constrained beam search on held-out prompts whose answers are items.

  Measures `evaluation/hit_at_<k>` and `evaluation/ndcg_at_<k>`; with one
  right item recall is the same as hit.

  Raises:
    ValueError: if a count is below 1, or a k above the width.
  """

  data: Any
  """Prompts; see `rl_jax.data.Prompts`. A reference is the item's text."""
  answers: tuple[str, ...]
  """The text of every item that may be named."""
  length: int
  """Most tokens of an item, the end token included."""
  prompts: int
  """How many prompts, from the first on."""
  width: int = 10
  """Beams."""
  places: tuple[int, ...] = (1, 5, 10)
  """Every k."""
  every: int = 10
  """Steps between two evaluations."""

  def __post_init__(self) -> None:
    if min(self.prompts, self.width, self.every, self.length) < 1:
      raise ValueError(
        f"prompts = {self.prompts}, width = {self.width}, every ="
        f" {self.every} and length = {self.length} must be at least 1"
      )
    if not self.places or not 1 <= min(self.places) <= max(self.places):
      raise ValueError(f"places must be 1 or more, got {self.places}")
    if max(self.places) > self.width:
      raise ValueError(
        f"{self.width} beams do not fill {max(self.places)} places"
      )

  def build(
    self, experiment: Any, load: Callable[[Any], PyTree]
  ) -> tuple[Callable[[State, PyTree], tuple[dict, dict]], PyTree]:
    """The evaluation as a pure function, and the arrays it needs.

    The function's `state.params` is the pair of parameters and low-rank
    change, or None, that programs of language models make.

    Raises:
      ValueError: if there are fewer prompts, an answer is longer than
        `length`, or a reference is no answer.
    """
    del load
    model, source = experiment.model, self.data.source()
    if len(source) < self.prompts:
      raise ValueError(
        f"the evaluation wants {self.prompts} prompts, its data has"
        f" {len(source)}"
      )
    items = source[np.arange(self.prompts)]
    tokenizer = self.data.vocabulary.load()
    end = () if tokenizer.eos is None else (tokenizer.id(tokenizer.eos),)
    written = [(*tokenizer.encode(one), *end) for one in self.answers]
    longest = max(map(len, written))
    if longest > self.length:
      raise ValueError(
        f"length = {self.length} does not hold an answer of {longest} tokens"
      )
    target = np.full((self.prompts, self.length), -1, np.int32)
    known = frozenset(self.answers)
    for row, item in enumerate(items["item"]):
      _, reference = self.data.texts(int(item))
      if reference not in known:
        raise ValueError(f"{reference!r} of item {item} is not an answer")
      ids = (*tokenizer.encode(reference), *end)
      target[row, : len(ids)] = ids

    def evaluate(state: State, frozen: PyTree) -> tuple[dict, dict]:
      params, adapter = state.params
      found = constrained_beam_search(
        model,
        params,
        frozen["prompt"],
        frozen["prompt_mask"],
        frozen["trie"],
        width=self.width,
        length=self.length,
        adapter=adapter,
      )
      written = jnp.where(found.mask, found.token, -1)
      right = jnp.all(written == frozen["target"][:, None], axis=-1)
      # Places of the right item are 1, of all others 0.
      rank = target_rank(right.astype(jnp.int32), jnp.ones(self.prompts, int))
      metrics = {}
      for k in self.places:
        metrics[f"evaluation/hit_at_{k}"] = Total.of(hit_at_k(rank, k=k))
        metrics[f"evaluation/ndcg_at_{k}"] = Total.of(ndcg_at_k(rank, k=k))
      return metrics, {}

    return evaluate, {
      "prompt": jnp.asarray(items["prompt"]),
      "prompt_mask": jnp.asarray(items["prompt_mask"]),
      "target": jnp.asarray(target),
      "trie": Trie(*map(jnp.asarray, Trie.of(written))),
    }


def _check_k(k):
  if k < 1:
    raise ValueError(f"k must be at least 1, got {k}")
