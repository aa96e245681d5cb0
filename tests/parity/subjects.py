"""The stored inputs as our functions take them."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from parity.sources import inputs
from rl_jax.algorithms.recipe import PolicyBatch

__all__ = [
  "arrays",
  "batch_of",
  "inputs_with_nan",
  "last_of",
  "pairs",
  "placed",
]

PAIRS = (
  "chosen",
  "rejected",
  "reference_chosen",
  "reference_rejected",
  "chosen_length",
  "rejected_length",
)


def arrays() -> dict:
  """Fields of the batch by name, at the precision that is switched on."""
  stored = inputs().items()
  return {k: jnp.asarray(v) for k, v in stored if k not in PAIRS}


def pairs() -> dict:
  """Fields of the pairs by name."""
  return {name: jnp.asarray(inputs()[name]) for name in PAIRS}


def batch_of(rows) -> PolicyBatch:
  """The batch of which only some rows are valid, which is as good as those."""
  given = arrays()
  every = np.arange(given["score"].shape[0])
  return PolicyBatch(
    log_prob=given["log_prob"],
    behaviour_log_prob=given["old_log_prob"],
    mask=given["mask"],
    reward=given["score"],
    group=given["group"],
    valid=jnp.asarray(np.isin(every, rows)),
    sampler_log_prob=given["rollout_log_prob"],
    reference_log_prob=given["reference_log_prob"],
    greedy_reward=given["greedy_score"],
    value=given["value"],
    behaviour_value=given["old_value"],
  )


def placed(theirs, rows) -> np.ndarray:
  """What they have for some rows, at those of the batch, at counted tokens."""
  theirs, mask = np.asarray(theirs), inputs()["mask"]
  if theirs.ndim == 1:
    theirs = theirs[:, None]
  found = np.zeros(mask.shape)
  found[np.asarray(rows).astype(int)] = theirs
  return np.where(mask, found, 0.0)


def last_of(mask):
  """The last counted column of each row."""
  length = jnp.sum(mask, axis=-1, keepdims=True)
  return jnp.cumsum(mask, axis=-1) * mask == length


def inputs_with_nan() -> PolicyBatch:
  """All rows, with NaN in everything that stands past the end of one."""
  batch = batch_of(range(10))

  def spoilt(value):
    return jnp.where(batch.mask, value, jnp.nan)

  return batch._replace(
    **{
      name: spoilt(value)
      for name, value in batch._asdict().items()
      if name != "mask" and getattr(value, "shape", None) == batch.mask.shape
    }
  )
