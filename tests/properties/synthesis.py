"""Inputs made from annotations, and what may be done to a batch of them."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from properties.subjects import Spec, Subject

ROWS, TIME = 8, 5
SIZES = {"row": ROWS, "time": TIME, "*event0": 2, "*event1": 3}
OTHER = 4  # any other axis; also how many ids there are

Case = dict[str, Any]

# Where the mathematics needs more than a real number, by (the end of) name.
DOMAINS: dict[str, Callable[[np.random.Generator, tuple[int, ...]], Any]] = {
  "log_prob": lambda rng, shape: -rng.exponential(1.0, shape),
  "t": lambda rng, shape: rng.uniform(0.2, 0.8, shape),
  "s": lambda rng, shape: rng.uniform(0.05, 0.15, shape),
  "dt": lambda rng, shape: rng.uniform(-0.2, -0.05, shape),
  "sigma": lambda rng, shape: rng.uniform(0.5, 1.5, shape),
  "sigma_s": lambda rng, shape: rng.uniform(0.1, 0.4, shape),
  "clip_low": lambda rng, shape: rng.uniform(0.1, 0.3, shape),
  "clip_high": lambda rng, shape: rng.uniform(0.1, 0.3, shape),
  "kl": lambda rng, shape: rng.exponential(0.5, shape),
  "error": lambda rng, shape: rng.exponential(1.0, shape),
  "std": lambda rng, shape: rng.uniform(0.5, 1.5, shape),
  "ratio": lambda rng, shape: rng.uniform(0.25, 2.0, shape),
  "weight": lambda rng, shape: rng.uniform(0.25, 2.0, shape),
  "decay": lambda rng, shape: rng.uniform(0.0, 1.0, shape),
  "trace": lambda rng, shape: rng.uniform(0.0, 1.0, shape),
  "tokens": lambda rng, shape: rng.integers(1, 9, shape).astype(float),
  "label": lambda rng, shape: rng.uniform(0.0, 1.0, shape),
  # Shares: outside of [0, 1] they are NaN by contract.
  "mu": lambda rng, shape: rng.uniform(0.0, 1.0, shape),
  "mean_reward": lambda rng, shape: rng.uniform(0.0, 1.0, shape),
  "smoothing": lambda rng, shape: rng.uniform(0.0, 0.4, shape),
  # Values of the bins of a distribution, and a distribution over them.
  "atom": lambda rng, shape: np.sort(rng.uniform(-2.0, 2.0, shape)),
  "probability": lambda rng, shape: rng.dirichlet(
    np.ones(shape[-1]), shape[:-1]
  ),
}


def make(subject: Subject, seed: int = 0) -> Case:
  """One batch for a subject; the same seed makes the same batch."""
  rng = np.random.default_rng(seed)
  case: Case = {}
  for name, spec in subject.arrays.items():
    shape = tuple(_size(dim) for dim in spec.shape_names)
    case[name] = _array(rng, name, spec, shape)
  if "terminated" in case and "last" in case:
    case["terminated"] = case["terminated"] & case["last"]
  for name, constructor in subject.records.items():
    case[name] = constructor()
  return case


def _size(dim: str) -> int:
  if dim.isdigit():
    return int(dim)
  if found := re.fullmatch(r"(\w+)([+-])(\d+)", dim):
    name, sign, number = found.groups()
    return _size(name) + int(sign + number)
  return SIZES.get(dim, OTHER)


def _array(
  rng: np.random.Generator, name: str, spec: Spec, shape: tuple[int, ...]
) -> Any:
  if spec.kind == "key":
    count = int(np.prod(shape))
    return jax.random.split(jax.random.key(7), max(count, 1)).reshape(shape)
  if spec.kind == "int":
    if name == "segment":  # packed: ids rise along the row, then padding
      return np.sort(rng.integers(0, OTHER, shape), axis=-1)[..., ::-1].copy()
    if name == "index":  # of segments: does not fall along the row
      return np.sort(rng.integers(0, OTHER, shape), axis=-1).astype(np.int32)
    first = 1 if name.endswith("length") else 0  # a length is a count
    return rng.integers(first, OTHER, shape).astype(np.int32)
  if spec.kind == "bool":
    value = rng.uniform(size=shape) < 0.7
    if name in ("mask", "last") and value.ndim > 1:
      # No row is empty here, and records end where the batch ends.
      value[..., 0 if name == "mask" else -1] = True
    return value
  for ending in sorted(DOMAINS, key=len, reverse=True):
    # One letter alone is a name; at the end of one it is a subscript.
    last_word = len(ending) > 1 and name.endswith(f"_{ending}")
    if name == ending or last_word:
      return DOMAINS[ending](rng, shape).astype(np.float32)
  return rng.normal(size=shape).astype(np.float32)


def covered(subject: Subject, case: Case, name: str) -> np.ndarray | None:
  """Where the masks exclude an argument; None if no mask reaches it."""
  value, dims = case[name], subject.arrays[name].dims
  excluded = None
  for mask_name, mask_spec in subject.masks.items():
    mask, mask_dims = np.asarray(case[mask_name]), mask_spec.dims
    if dims[: len(mask_dims)] == mask_dims:
      shape = mask.shape + (1,) * (value.ndim - mask.ndim)
      out = ~mask.reshape(shape)
    elif mask_dims[: len(dims)] == dims:
      out = ~mask.any(axis=tuple(range(value.ndim, mask.ndim)))
    else:
      continue
    out = np.broadcast_to(out, value.shape)
    excluded = out if excluded is None else excluded | out
  return excluded


def poisoned(subject: Subject, case: Case, junk: float) -> Case:
  """The same batch with `junk` in every float that the masks exclude."""
  changed = dict(case)
  for name, spec in subject.arrays.items():
    if spec.kind != "float":
      continue
    excluded = covered(subject, case, name)
    if excluded is not None:
      changed[name] = np.where(excluded, np.float32(junk), case[name])
  return changed


def appended(subject: Subject, case: Case, axis: str, count: int) -> Case:
  """Rows or columns added at the end, masked out and full of NaN if maskable.

  Where no mask reaches an argument the new slots hold ordinary numbers.
  """
  changed = dict(case)
  for name, spec in subject.arrays.items():
    for place in spec.axes(axis):
      old = changed[name]
      # Copies of the first ones: values that the argument may have.
      index = np.arange(count) % old.shape[place]
      new = old.take(index, axis=place) if spec.kind != "key" else old[index]
      if spec.kind == "bool":
        new = np.full_like(new, name == "last")
      elif name == "segment":
        new = np.zeros_like(new)
      elif name == "index":
        new = np.full_like(new, -1)
      join = np.concatenate if spec.kind != "key" else jax.numpy.concatenate
      changed[name] = join([old, new], axis=place)
  return poisoned(subject, changed, np.nan)


def rows_of(subject: Subject, case: Case, index: Any) -> Case:
  """The same batch with some of its rows, or in another order."""
  return {
    name: value[index]
    if name in subject.arrays and subject.arrays[name].rowwise
    else value
    for name, value in case.items()
  }


def cropped(spec: Spec, value: Any) -> np.ndarray:
  """A result without what belongs to appended rows and columns."""
  value = np.asarray(value)
  for axis, size in (("row", ROWS), ("time", TIME)):
    for place in spec.axes(axis):
      value = value.take(np.arange(size), axis=place)
  return value
