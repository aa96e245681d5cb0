"""One framework's "GRPO" as three numbers: per token, aggregated, gradient."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from parity.batch import GROUP, make_batch
from parity.sources import module

__all__ = ["by_group", "jax_column", "rows_without", "tensors", "torch_column"]

Array = np.ndarray


def rows_without(*groups: int) -> Array:
  """Rows of the batch whose group is none of these."""
  return np.array([i for i, g in enumerate(GROUP) if g not in groups])


def by_group(advantage: Callable[[Array], Array], rows: Iterable[int]) -> Array:
  """Advantages of frameworks that want equal groups, one group at a time.

  Args:
    advantage: scores of the rows of one group to their advantages.
    rows: which rows of the batch.

  Returns:
    One number for each of the rows.
  """
  score, found = make_batch()["score"], {}
  rows = list(rows)
  for group in sorted({GROUP[i] for i in rows}):
    member = [i for i in rows if GROUP[i] == group]
    found |= dict(
      zip(member, np.asarray(advantage(score[member])), strict=True)
    )
  return np.array([found[i] for i in rows])


def tensors(rows: Array | None = None, **other: str) -> dict:
  """The batch as float64 torch tensors, masks as floats."""
  torch = module("torch")
  batch = make_batch()
  rows = np.arange(len(GROUP)) if rows is None else rows
  found = {}
  for name, value in batch.items():
    value = value[rows]
    kept = value if name == "group" else value.astype(np.float64)
    found[name] = torch.tensor(kept)
  return found | other


def torch_column(loss: Callable, batch: dict, *, token: bool = True) -> dict:
  """Loss, its gradient, and the loss of each token by itself.

  Args:
    loss: log-probabilities and a mask to the aggregated loss.
    batch: tensors.
    token: whether to ask for every token alone as well: its loss is the
      aggregated one when the mask holds nothing else.

  Returns:
    `loss`, `gradient` and, if asked for, `per_token`.
  """
  log_prob = batch["log_prob"].clone().requires_grad_(True)
  total = loss(log_prob, batch["mask"])
  total.backward()
  found = {"loss": total, "gradient": log_prob.grad}
  if token:
    found["per_token"] = _each(
      lambda mask: loss(
        batch["log_prob"].clone(), module("torch").tensor(mask)
      ).item(),
      batch["mask"].numpy(),
    )
  return found


def jax_column(loss: Callable, batch: dict, *, token: bool = True) -> dict:
  """As `torch_column`, for functions of jax arrays."""
  jax = module("jax")
  total, gradient = jax.value_and_grad(loss)(batch["log_prob"], batch["mask"])
  found = {"loss": total, "gradient": gradient}
  if token:
    found["per_token"] = _each(
      lambda mask: float(loss(batch["log_prob"], mask)), batch["mask"]
    )
  return found


def _each(loss: Callable[[Array], float], mask: Array) -> Array:
  found = np.zeros(mask.shape)
  for place in zip(*np.nonzero(mask), strict=True):
    alone = np.zeros(mask.shape)
    alone[place] = 1.0
    found[place] = loss(alone)
  return found
