"""A generated catalogue with users, its item index, and a vocabulary for it.

Items lie in clusters of clusters; a user walks from cluster to cluster by a
Markov chain and takes an item of each, popular ones more often. The next item
is therefore only partly to be known, and its first code more surely than its
last, as in real catalogues.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from rl_jax import environments
from rl_jax.data.item_index import (
  ItemIndex,
  deduplicate_codes,
  residual_kmeans,
)
from rl_jax.models.tokenizer import Tokenizer
from rl_jax.rewards.verifiers import Verifier
from rl_jax.rewards.verifiers.items import ItemAnswer

if TYPE_CHECKING:
  from collections.abc import Iterator

  from rl_jax.data.source import Source

__all__ = ["HISTORY", "LEVELS", "ItemTokens", "NextItem", "catalogue"]

ITEMS, FEATURES = 256, 8
LEVELS, CODES = 3, 8
# Items of a history that a prompt shows.
HISTORY = 3
COARSE, FINE = 8, 4
END = "<|end|>"


class Catalogue(NamedTuple):
  """What there is to recommend.

  Attributes:
    index: codes of every item.
    cluster: of every item, [item].
    moves: chance of each cluster after each, [cluster, cluster].
    weight: popularity of the items within their cluster, [item].
  """

  index: ItemIndex
  cluster: np.ndarray
  moves: np.ndarray
  weight: np.ndarray


@functools.cache
def catalogue() -> Catalogue:
  """The catalogue, the same in every process."""
  rng = np.random.default_rng(0)
  coarse = 4.0 * rng.normal(size=(COARSE, FEATURES))
  fine = coarse[:, None] + 1.5 * rng.normal(size=(COARSE, FINE, FEATURES))
  cluster = np.arange(ITEMS) % (COARSE * FINE)
  x = fine.reshape(-1, FEATURES)[cluster]
  x = x + rng.normal(size=(ITEMS, FEATURES))
  codes, _ = residual_kmeans(x, num_levels=LEVELS, num_codes=CODES, seed=0)
  clusters = COARSE * FINE
  moves = rng.dirichlet(np.full(clusters, 0.06), clusters)
  weight = rng.dirichlet(np.full(ITEMS // clusters, 0.5), clusters).T
  return Catalogue(
    ItemIndex(codes=deduplicate_codes(codes)),
    cluster,
    moves,
    weight.reshape(-1),
  )


@functools.cache
def _walks(count: int) -> np.ndarray:
  """Items that each user took, [user, place]."""
  rng = np.random.default_rng(1)
  found = catalogue()
  members = [
    np.flatnonzero(found.cluster == own) for own in range(len(found.moves))
  ]
  walks = np.empty((count, HISTORY + 1), int)
  for user in range(count):
    own = int(rng.integers(len(found.moves)))
    for place in range(HISTORY + 1):
      items = members[own]
      walks[user, place] = rng.choice(items, p=found.weight[items])
      own = int(rng.choice(len(found.moves), p=found.moves[own]))
  return walks


USERS = 8192


@dataclasses.dataclass(frozen=True, kw_only=True)
class NextItem:
  """Histories of users, whose next item is the reference.

  Raises:
    ValueError: if the range exceeds the users.
  """

  rows: int
  """Prompts of a batch."""
  length: int
  """Users of the task."""
  first: int = 0
  """Where among the users they begin."""
  shuffle: bool = True
  """Whether every pass has an order of its own."""
  verifier: Verifier = ItemAnswer(
    mode="direct", levels=LEVELS, scores=(0.5, 0.707, 0.866)
  )
  """What judges."""

  def __post_init__(self) -> None:
    if self.rows < 1 or not 0 <= self.first < self.first + self.length <= USERS:
      raise ValueError(f"users {self.first}, {self.length} more, of {USERS}")

  def source(self) -> Source:
    """The histories; see `rl_jax.environments.TextTask`."""
    return environments.Items(self.length, self._item)

  def _item(self, index: int) -> tuple[str, str]:
    texts = catalogue().index.texts
    *history, target = _walks(USERS)[self.first + index]
    return " ".join(texts[item] for item in history) + "=", texts[target]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ItemTokens:
  """One id for each code of the catalogue, a space, "=" and the end."""

  @property
  def size(self) -> int:
    """Number of ids: the `vocabulary` of a decoder for them."""
    return len(tuple(_texts()))

  @property
  def end(self) -> int:
    """The id that ends an answer: the last."""
    return self.size - 1

  def load(self) -> Tokenizer:
    """The tokenizer; the same object every time."""
    return _tokenizer()


def _texts() -> Iterator[str]:
  return itertools.chain(catalogue().index.tokens, (" ", "=", END))


@functools.cache
def _tokenizer() -> Tokenizer:
  import tokenizers

  ids = {text: number for number, text in enumerate(_texts())}
  rules: Any = tokenizers.Tokenizer(tokenizers.models.WordLevel(ids))
  rules.pre_tokenizer = tokenizers.pre_tokenizers.Split(
    tokenizers.Regex(r"<\|[a-z]+(_\d+)?\|>|[\s\S]"), "isolated"
  )
  rules.decoder = tokenizers.decoders.Fuse()
  rules.add_special_tokens(
    [tokenizers.AddedToken(END, special=True, normalized=False)]
  )
  return Tokenizer(backend=rules, eos=END)
