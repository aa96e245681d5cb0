"""Micro-batches: every split of the rows gives one Total and one gradient."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from properties import synthesis
from properties.evidence import SUMMED, split_floats
from properties.subjects import Subject
from properties.synthesis import ROWS, Case


def divisors() -> list[int]:
  return [n for n in range(1, ROWS + 1) if ROWS % n == 0]


def parts_of(subject: Subject, case: Case, count: int) -> list[Case]:
  # Dealt, not cut: a part is no neighbourhood, and its rows are not strided
  # groups by accident.
  return [
    synthesis.rows_of(subject, case, np.arange(part, ROWS, count))
    for part in range(count)
  ]


def every_split_is_the_same(
  subject: Subject, reductions: tuple[Subject, ...]
) -> None:
  """Loss, Total and gradient of the mean for every split and reduction.

  Micro-batches are accumulated as a trainer does it: the gradient of each
  part's sum, added up, divided once by the weight of the whole. Parts are
  dealt, not cut, and each is seen by the function on its own (`vmap`).
  """
  case = synthesis.make(subject)
  loss, mask = _loss_and_mask(subject, case)
  extra = {
    name: _as_long(value, reduction, name, loss.shape[-1])
    for reduction in reductions
    for name, value in synthesis.make(reduction).items()
    if name not in ("loss", "mask")
  }
  floats, others = split_floats(subject, case)
  dealt, pushed, by_loss, totals = [], [], [], []
  for count in divisors():
    dealt.append([_dealt(subject, x, count) for x in (floats, others)])
    total, push = _reduced(reductions)(
      _deal(loss, count),
      _deal(mask, count),
      {k: _deal(v, count) for k, v in extra.items()},
    )
    total = np.asarray(total)
    assert (total[:, 1] > 0).all(), f"counted nothing: {total}"
    push = np.asarray(push) / total[:, 1].reshape(-1, 1, 1, 1)
    totals.append(total)
    by_loss.append(np.stack([_undeal(x) for x in push]))
    # One pull for all reductions: in random proportions, so that no error
    # of one makes up for another's.
    mixture = np.random.default_rng(7).normal(size=len(reductions))
    pushed.append(np.tensordot(mixture, push, 1).astype(np.float32))
  pulled = jax.jit(
    lambda *batch: [_pull(subject, *x) for x in zip(*batch, strict=True)]
  )(dealt, pushed)
  slopes_of_one: dict[str, np.ndarray] = {}
  for place, count in enumerate(divisors()):
    note = f"{count} micro-batches"
    losses, slopes = pulled[place]
    for expected, found in (
      (loss, _undeal(losses)),
      (totals[0], totals[place]),
      (by_loss[0], by_loss[place]),
    ):
      np.testing.assert_allclose(found, expected, err_msg=note, **SUMMED)
    for name, slope in slopes.items():
      whole = (
        _undeal(slope)
        if subject.arrays[name].rowwise
        else np.asarray(slope).sum(axis=0)
      )
      expected = slopes_of_one.setdefault(name, whole)
      np.testing.assert_allclose(
        whole, expected, err_msg=f"{name}, {note}", **SUMMED
      )


def _as_long(value: Any, subject: Subject, name: str, time: int) -> Any:
  """An argument of a reduction over as many columns as the loss has."""
  for place in subject.arrays[name].axes("time"):
    value = value.take(np.arange(time) % value.shape[place], axis=place)
  return value


def _deal(value: Any, count: int) -> np.ndarray:
  """Rows to `count` parts as cards are dealt: [part, row, ...]."""
  value = np.asarray(value)
  return value.reshape(-1, count, *value.shape[1:]).swapaxes(0, 1)


def _undeal(value: Any) -> np.ndarray:
  value = np.asarray(value).swapaxes(0, 1)
  return value.reshape(-1, *value.shape[2:])


def _dealt(subject: Subject, case: Case, count: int) -> Case:
  """Every argument by part; what has no rows is given to each of them."""
  return {
    name: _deal(value, count)
    if subject.arrays[name].rowwise
    else np.broadcast_to(value, (count, *np.shape(value)))
    for name, value in case.items()
  }


def _loss_of(subject: Subject, case: Case) -> jax.Array:
  loss = subject.outputs(subject(case))[0][1]
  return loss if loss.ndim == 2 else loss[:, None]


def _loss_and_mask(
  subject: Subject, case: Case
) -> tuple[np.ndarray, np.ndarray]:
  """A loss and what counts of it, with a time axis even if it has none."""
  loss = np.asarray(_loss_of(subject, case))
  for name in subject.masks:
    mask = case[name] if case[name].ndim == 2 else case[name][:, None]
    if mask.shape == loss.shape:
      return loss, mask
  return loss, np.random.default_rng(3).uniform(size=loss.shape) < 0.7


@functools.cache
def _reduced(reductions: tuple[Subject, ...]) -> Callable:
  """Totals [reduction, 2] of all parts and their gradient by the loss."""

  def totals(loss: jax.Array, mask: jax.Array, extra: Case) -> Any:
    def one(loss: jax.Array, mask: jax.Array, extra: Case) -> jax.Array:
      case = extra | {"loss": loss, "mask": mask}
      return jnp.stack([jnp.stack(tuple(r(case))) for r in reductions])

    return jnp.sum(jax.vmap(one)(loss, mask, extra), axis=0)

  def both(loss: jax.Array, mask: jax.Array, extra: Case) -> Any:
    total, pull = jax.vjp(lambda loss: totals(loss, mask, extra), loss)
    unit = np.zeros((len(reductions), *total.shape), np.float32)
    unit[np.arange(len(reductions)), np.arange(len(reductions)), 0] = 1.0
    return total, jax.vmap(pull)(unit)[0]

  return jax.jit(both)


def _pull(subject: Subject, parts: list[Case], pushed: jax.Array) -> Any:
  """Loss of every part, and its gradient as the reductions push it back."""
  floats, others = parts
  loss, pull = jax.vjp(
    lambda x: jax.vmap(lambda x, o: _loss_of(subject, o | x))(x, others),
    floats,
  )
  return loss, pull(pushed.astype(loss.dtype))[0]
