"""Items as short sequences of codes: alike items begin alike.

Codes count from 0 here, as indices into codebooks; the text of one counts
from 1, with a letter for its level: code 16 of the first level is `<|a_17|>`.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import string
from typing import TYPE_CHECKING

import numpy as np

from rl_jax.sampling.tries import Trie

if TYPE_CHECKING:
  from collections.abc import Iterable, Sequence

  from jaxtyping import Float, Int

__all__ = [
  "ItemIndex",
  "deduplicate_codes",
  "format_index_tokens",
  "residual_kmeans",
]


def residual_kmeans(
  x: Float[np.ndarray, "item feature"],
  *,
  num_levels: int,
  num_codes: int,
  balanced: bool = True,
  seed: int = 0,
  starts: int = 3,
  iterations: int = 100,
  tolerance: float = 1e-4,
) -> tuple[
  Int[np.ndarray, "level item"], Float[np.ndarray, "level code feature"]
]:
  r"""Codes of items, each level clustering what the last one left.

      R^1 = x,   c_l = clusters of R^l,   R^{l+1} = R^l - centroid_{c_l}

  Centroids are the means of their items, so that the sum of squares of R^l
  does not rise with l. Balanced clusters of n items have sizes in
  [max(1, n // K - 1), n // K + 1]: items choose in the order of what is at
  stake for them, the distance between their best two, among clusters with
  room; when as many are left as clusters still need, those come first.

  Args:
    x: embeddings.
    num_levels: L.
    num_codes: K.
    balanced: whether sizes are bounded; otherwise none is empty.
    seed: of the starts, with the number of the level.
    starts: of which the best is taken.
    iterations: most of each start.
    tolerance: a start ends when no centroid moves further than this, times
      the root mean square of the residuals.

  Returns:
    Codes in [0, K), and the centroids of every level.

  Raises:
    ValueError: if there are fewer items than codes, a count is below 1, or
      an embedding is not finite.

  GREAM, arXiv:2510.20815, and its code (constrained residual k-means).
  """
  x = np.asarray(x, np.float64)
  if min(num_levels, num_codes, starts, iterations) < 1:
    raise ValueError(
      f"num_levels = {num_levels}, num_codes = {num_codes}, starts = {starts}"
      f" and iterations = {iterations} must be at least 1"
    )
  if len(x) < num_codes:
    raise ValueError(
      f"{len(x)} items cannot fill {num_codes} clusters: use fewer codes"
    )
  if not np.isfinite(x).all():
    row = int(np.argmax(~np.isfinite(x).all(axis=1)))
    raise ValueError(f"the embedding of item {row} is not finite")
  residual, codes, centroids = x, [], []
  for level in range(num_levels):
    rng = np.random.default_rng([seed, level])
    found = [
      _clusters(residual, num_codes, balanced, rng, iterations, tolerance)
      for _ in range(starts)
    ]
    code, centroid = min(
      found, key=lambda one: float(np.sum((residual - one[1][one[0]]) ** 2))
    )
    codes.append(code)
    centroids.append(centroid)
    residual = residual - centroid[code]
  return np.stack(codes).astype(np.int32), np.stack(centroids)


def deduplicate_codes(
  codes: Int[np.ndarray, "level item"],
) -> tuple[tuple[int, ...], ...]:
  """One more code for items that share all others.

  Args:
    codes: as from `residual_kmeans`.

  Returns:
    Of each item its codes, and, if another item has the same, its place
    among them, in the order of the items. No two are the same, and none
    begins another.

  Raises:
    ValueError: if there is no item.

  GREAM, arXiv:2510.20815, code.

  >>> deduplicate_codes(np.array([[0, 1, 0], [2, 2, 2]]))
  ((0, 2, 0), (1, 2), (0, 2, 1))
  """
  rows = list(map(tuple, np.asarray(codes).T.tolist()))
  if not rows:
    raise ValueError("an index needs at least one item, got none")
  places: dict[tuple[int, ...], int] = {}
  size = dict.fromkeys(rows, 0)
  for row in rows:
    size[row] += 1
  found = []
  for row in rows:
    place = places.get(row, 0)
    places[row] = place + 1
    found.append((*row, place) if size[row] > 1 else row)
  return tuple(found)


def format_index_tokens(codes: Iterable[int]) -> str:
  """Codes as the text of their tokens.

  Args:
    codes: of one item, from 0, the first level first.

  Returns:
    A token for each, its level as a letter and its code from 1.

  Raises:
    ValueError: if a code is negative, or there are more than 26.

  >>> format_index_tokens((16, 2))
  '<|a_17|><|b_3|>'
  """
  codes = tuple(codes)
  if min(codes, default=0) < 0 or len(codes) > len(string.ascii_lowercase):
    raise ValueError(f"codes are 26 at most and none is negative, got {codes}")
  levels = zip(string.ascii_lowercase, codes, strict=False)
  return "".join(f"<|{letter}_{code + 1}|>" for letter, code in levels)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ItemIndex:
  """Which codes belong to which item, both ways.

  Raises:
    ValueError: if there is no item, a code is negative, two items have the
      same codes, or those of one begin another's.
  """

  codes: tuple[tuple[int, ...], ...]
  """Of each item; see `deduplicate_codes`."""

  def __post_init__(self) -> None:
    if len(set(self.codes)) != len(self.codes):
      twice = next(one for one in self.codes if self.codes.count(one) > 1)
      raise ValueError(f"two items have the codes {twice}: deduplicate them")
    _ = self.trie

  @functools.cached_property
  def trie(self) -> Trie:
    """The codes as a trie; `tokens` and `Trie.of` make one of a vocabulary."""
    return Trie.of(self.codes)

  @functools.cached_property
  def _items(self) -> dict[tuple[int, ...], int]:
    return {codes: item for item, codes in enumerate(self.codes)}

  def __len__(self) -> int:
    return len(self.codes)

  def item(self, codes: Sequence[int]) -> int | None:
    """The item with these codes, None if there is none.

    Args:
      codes: all codes of an item, from 0.

    Returns:
      Its number.
    """
    return self._items.get(tuple(codes))

  def allowed_next(self, prefix: Sequence[int]) -> tuple[int, ...]:
    """Which codes may follow; none after a whole item.

    Args:
      prefix: the first codes of an item, from 0.

    Returns:
      The codes, ascending.

    Raises:
      ValueError: if no item begins like this.

    >>> index = ItemIndex(codes=((0, 1), (0, 2), (3, 1)))
    >>> index.allowed_next(()), index.allowed_next((0,))
    ((0, 3), (1, 2))
    """
    trie, node = self.trie, 0
    for code in prefix:
      following = self._children(node)
      if code not in following:
        raise ValueError(f"no item begins with the codes {tuple(prefix)}")
      node = int(trie.first[node]) + following.index(code)
    return self._children(node)

  def _children(self, node: int) -> tuple[int, ...]:
    first, count = int(self.trie.first[node]), int(self.trie.children[node])
    return tuple(np.asarray(self.trie.token)[first : first + count].tolist())

  @functools.cached_property
  def texts(self) -> tuple[str, ...]:
    """Of each item the text of its codes."""
    return tuple(map(format_index_tokens, self.codes))

  @functools.cached_property
  def tokens(self) -> tuple[str, ...]:
    """The text of every code that some item has, level by level.

    What a vocabulary is extended by.
    """
    levels = itertools.zip_longest(*self.codes)
    found = []
    for level, column in enumerate(levels):
      letter = string.ascii_lowercase[level]
      for code in sorted({one for one in column if one is not None}):
        found.append(f"<|{letter}_{code + 1}|>")
    return tuple(found)


def _clusters(x, count, balanced, rng, iterations, tolerance):
  """One start: codes, and centroids that are the means of their items."""
  centroid = _spread_out(x, count, rng)
  scale = tolerance * np.sqrt(np.mean(x**2))
  for _ in range(iterations):
    square = _squares(x, centroid)
    code = _balanced(square) if balanced else _nearest(square)
    moved = np.stack([x[code == own].mean(axis=0) for own in range(count)])
    shift = np.abs(moved - centroid).max()
    centroid = moved
    if shift <= scale:
      break
  return code, centroid


def _squares(x, centroid):
  """Squared distances, [item, code]."""
  cross = x @ centroid.T
  own = np.sum(x**2, axis=1)[:, None] + np.sum(centroid**2, axis=1)[None]
  return np.maximum(own - 2 * cross, 0.0)


def _spread_out(x, count, rng):
  """Items far from each other, drawn by their squared distance (k-means++)."""
  chosen = [int(rng.integers(len(x)))]
  square = np.sum((x - x[chosen[0]]) ** 2, axis=1)
  while len(chosen) < count:
    free = np.ones(len(x), bool)
    free[chosen] = False
    weight = np.where(free, square, 0.0)
    # Items that are all the same leave nothing to draw by.
    weight = weight if weight.sum() > 0 else free * 1.0
    chosen.append(int(rng.choice(len(x), p=weight / weight.sum())))
    square = np.minimum(square, np.sum((x - x[chosen[-1]]) ** 2, axis=1))
  return x[chosen]


def _nearest(square):
  """The nearest cluster; an empty one takes the item furthest from its own."""
  code = np.argmin(square, axis=1)
  size = np.bincount(code, minlength=square.shape[1])
  for empty in np.flatnonzero(size == 0):
    far = np.where(size[code] > 1, square[np.arange(len(code)), code], -1.0)
    item = int(np.argmax(far))
    size[code[item]] -= 1
    code[item], size[empty] = empty, 1
  return code


def _balanced(square):
  """Every item in a cluster with room, and every cluster with enough."""
  items, count = square.shape
  low, high = max(1, items // count - 1), items // count + 1
  two = np.partition(square, min(1, count - 1), axis=1)
  order = np.argsort(two[:, 0] - two[:, min(1, count - 1)], kind="stable")
  size, code = np.zeros(count, int), np.zeros(items, int)
  wanted = low * count  # items that clusters still need
  for place, item in enumerate(order):
    closed = size >= (low if items - place <= wanted else high)
    own = int(np.argmin(np.where(closed, np.inf, square[item])))
    wanted -= size[own] < low
    size[own] += 1
    code[item] = own
  return code
