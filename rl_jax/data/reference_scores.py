"""Stored log-probabilities of preference pairs under a reference policy."""

from __future__ import annotations

import hashlib
import os
import zipfile
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
  from collections.abc import Sequence

  from jaxtyping import Float, Int

__all__ = ["ReferenceScores", "pair_key", "read_reference", "write_reference"]

_SUMS = ("chosen", "rejected")
_COUNTS = ("chosen_tokens", "rejected_tokens")
_DIGESTS = ("data", "policy")
# What NumPy and the zip format say of a file that is damaged or another one.
_UNREADABLE = (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error)


class ReferenceScores(NamedTuple):
  """What a reference policy says of every pair of a source, in its order.

      chosen[i] = sum_t log ref(y_t | x, y_<t),   y the chosen answer of pair i

  and likewise `rejected`, over an answer's tokens and its end. A mean over
  tokens is this over the count.

  Attributes:
    chosen: of the chosen answers, in nats.
    rejected: of the rejected answers.
    chosen_tokens: tokens of each chosen answer, its end included.
    rejected_tokens: the same of the rejected answers.
    data: digest of the pairs' ids; see `PreferenceSource.digest`.
    policy: digest of the reference; see `stored_reference.policy_digest`.
  """

  chosen: Float[np.ndarray, "pair"]
  rejected: Float[np.ndarray, "pair"]
  chosen_tokens: Int[np.ndarray, "pair"]
  rejected_tokens: Int[np.ndarray, "pair"]
  data: str
  policy: str


def pair_key(*parts: Sequence[int]) -> bytes:
  """A digest of token ids, and of where each part ends.

  Args:
    parts: ids of the prompt, of the chosen and of the rejected answer.

  Returns:
    32 bytes.

  >>> pair_key([1], [2, 3]) == pair_key([1, 2], [3])
  False
  """
  flat = [*map(len, parts), *(token for part in parts for token in part)]
  return hashlib.sha256(np.array(flat, "<i4").tobytes()).digest()


def write_reference(path: str | Path, scores: ReferenceScores) -> None:
  """Writes one .npz file; the whole of it or nothing.

  Args:
    path: of the file, which is replaced if it is there.
    scores: what to write.
  """
  path = Path(path)
  draft = path.with_name(f".{path.name}.draft")
  try:
    with draft.open("wb") as file:
      np.savez(file, **scores._asdict())
    os.replace(draft, path)
  finally:
    draft.unlink(missing_ok=True)


def read_reference(path: str | Path) -> ReferenceScores:
  """What `write_reference` has written.

  Args:
    path: of the file.

  Returns:
    Its content: finite sums, and as many counts of at least one token.

  Raises:
    ValueError: if there is no such file, it is damaged or another one, an
      array is missing, or a number is none; it says what to do.
  """
  remedy = f"`rl-jax reference FILE {path}` writes it"
  if not Path(path).exists():
    raise ValueError(f"there is no {path}: {remedy}")
  remedy = f"remove it, and {remedy} anew"
  try:
    with Path(path).open("rb") as opened:
      file = np.load(opened, allow_pickle=False)
      if isinstance(file, np.ndarray):
        raise ValueError("it is one array")
      found = {name: np.asarray(file[name]) for name in file.files}
  except _UNREADABLE as error:
    raise ValueError(
      f"{path} is damaged, or not what `rl-jax reference` writes ({error}):"
      f" {remedy}"
    ) from error
  missing = sorted(set(ReferenceScores._fields) - found.keys())
  if missing:
    raise ValueError(f"{path} lacks {', '.join(missing)}: {remedy}")
  wrong = _wrong(found)
  if wrong:
    raise ValueError(f"{path}: {wrong}: {remedy}")
  return ReferenceScores(
    chosen=found["chosen"].astype(np.float32),
    rejected=found["rejected"].astype(np.float32),
    chosen_tokens=found["chosen_tokens"].astype(np.int32),
    rejected_tokens=found["rejected_tokens"].astype(np.int32),
    data=str(found["data"]),
    policy=str(found["policy"]),
  )


def _wrong(found: dict[str, np.ndarray]) -> str | None:
  """What is wrong with the arrays; None if nothing is."""
  shapes = {name: found[name].shape for name in (*_SUMS, *_COUNTS)}
  if len(set(shapes.values())) > 1 or len(shapes["chosen"]) != 1:
    return f"not one number for each pair, but {shapes}"
  for name in (*_SUMS, *_COUNTS):
    kind = np.floating if name in _SUMS else np.integer
    if not np.issubdtype(found[name].dtype, kind):
      return f"{name} is of type {found[name].dtype}"
  for name in _SUMS:
    bad = np.flatnonzero(~np.isfinite(found[name]))
    if bad.size:
      first = found[name][bad[0]]
      return (
        f"{name} of pair {bad[0]} is {first}, and {bad.size} are not finite"
      )
  for name in _COUNTS:
    if (found[name] < 1).any():
      return f"{name} has an answer of {found[name].min()} tokens"
  for name in _DIGESTS:
    if found[name].shape or found[name].dtype.kind != "U":
      return f"{name} is no digest"
  return None
