"""One batch of records, for the tests of what runs along time."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np

from rl_jax.advantages import next_values

SCANNED = {"rtol": 1e-5, "atol": 1e-5}


def make_batch():
  """Rows with tool output in the middle, several records, cuts and ends."""
  rng = np.random.default_rng(4)
  shape = (6, 11)
  mask = rng.uniform(size=shape) < 0.65
  last = rng.uniform(size=shape) < 0.25
  last[:, -1] = True
  mask[0], last[0, :-1] = True, False
  mask[1] = False
  found = {
    "reward": rng.normal(size=shape),
    "value": rng.normal(size=shape),
    "next_value": rng.normal(size=shape),
    "ratio": rng.uniform(0.25, 2.5, shape),
    "mask": mask,
    "last": last,
    "terminated": last & (rng.uniform(size=shape) < 0.5),
  }
  return {
    k: v if v.dtype == bool else v.astype(np.float32) for k, v in found.items()
  }


def by_row(oracle, batch, names, **options):
  columns = [batch[name] for name in names]
  return np.array(
    [
      oracle(*[np.float64(c) if c.dtype != bool else c for c in row], **options)
      for row in zip(*columns, strict=True)
    ]
  )


def arrays(batch, *names):
  """NaN wherever nothing may look."""
  out = []
  for name in names:
    unseen = ~batch["mask"]
    if name == "next_value":
      unseen = unseen | batch["terminated"]
    out.append(jnp.asarray(np.where(unseen, np.nan, batch[name]), jnp.float32))
  return out


def flags(batch, *names):
  return {name: jnp.asarray(batch[name]) for name in names}


def consistent(batch):
  """next_value that is the value of the next counted column."""
  value, mask = jnp.asarray(batch["value"]), jnp.asarray(batch["mask"])
  last = jnp.asarray(batch["last"])
  after = next_values(value, mask, last=last)
  return jnp.where(last, jnp.asarray(batch["next_value"]), after)
