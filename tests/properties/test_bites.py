"""The harness itself: each promise is broken once, and must be noticed."""

from __future__ import annotations

import beartype
import jax
import jax.numpy as jnp
import pytest
from jaxtyping import Array, Bool, Float, Int, jaxtyped

from properties import checks, splits, subjects
from rl_jax import masks
from rl_jax.reduce import Total

pytestmark = pytest.mark.slow

# The shapes of the house, short enough to write broken functions with.
Rows = Float[Array, "*batch"]
Tokens = Float[Array, "*batch time"]
Mask = Bool[Array, "*batch time"]

PROMISES = {promise.name: promise for promise in checks.PROPERTIES}
REDUCTIONS = tuple(subjects.reductions())


@jaxtyped(typechecker=beartype.beartype)
def squared(value: Tokens, mask: Mask) -> Tokens:
  """A loss that keeps every promise."""
  return masks.keep(value, mask) ** 2


def mask_multiplied(value: Tokens, mask: Mask) -> Tokens:
  weight = mask.astype(value.dtype)
  return (value * weight) ** 2


def masked_after(value: Tokens, mask: Mask) -> Tokens:
  # The value is right; only the gradient meets the NaN.
  return jnp.where(mask, value**2, 0.0)


def mean_inside(value: Tokens, mask: Mask) -> Tokens:
  loss = masks.keep(value, mask) ** 2
  return loss / jnp.maximum(jnp.sum(mask), 1)


def divided_by_width(value: Tokens, mask: Mask) -> Rows:
  return jnp.sum(masks.keep(value, mask), axis=-1) / value.shape[-1]


def divided_by_rows(value: Rows) -> Rows:
  return value / value.shape[0]


def divided_by_length(value: Tokens, mask: Mask) -> Rows:
  total = jnp.sum(masks.keep(value, mask), axis=-1)
  return total / jnp.sum(mask, axis=-1)


def summed_in_half(value: Tokens, mask: Mask) -> Rows:
  total = jnp.sum(jnp.where(mask, value, 0), axis=-1)
  return total.astype(jnp.float32)


def returned_in_half(value: Tokens, mask: Mask) -> Tokens:
  return jnp.where(mask, value, 0)


def strided_groups(
  reward: Float[Array, "row"],
  group: Int[Array, "row"],
  valid: Bool[Array, "row"],
  *,
  num_groups: int,
) -> Float[Array, "row"]:
  by_group = masks.keep(reward, valid).reshape(-1, 2)
  return (by_group - by_group.mean(axis=1, keepdims=True)).reshape(-1)


def second_axis_is_time(value: Tokens, mask: Mask) -> Tokens:
  value = masks.keep(value, mask)
  return value - jnp.zeros(value.shape).at[:, 1:].set(value[:, :-1])


def mean_as_total(loss: Tokens, mask: Mask) -> Total:
  return Total(jnp.mean(masks.keep(loss, mask)), jnp.ones(()))


def different_when_traced(value: Tokens, mask: Mask) -> Tokens:
  bonus = 0.0 if isinstance(value, jax.core.Tracer) else 1.0
  return masks.keep(value, mask) + bonus


def wrong_slope(value: Tokens, mask: Mask) -> Tokens:
  return _square_of_slope_one(masks.keep(value, mask))


@jax.custom_jvp
def _square_of_slope_one(value):
  return value**2


_square_of_slope_one.defjvp(lambda at, by: (at[0] ** 2, by[0]))


@jaxtyped(typechecker=beartype.beartype)
def weighted_by_itself(value: Tokens, mask: Mask) -> Tokens:
  """A surrogate: its gradient is not the slope of its value, and is right."""
  value = masks.keep(value, mask)
  return jax.lax.stop_gradient(value**2) * value


def unchecked(value: Tokens, mask: Mask) -> Tokens:
  return jnp.where(mask, value, 0.0)


BROKEN = [
  ("masked_slots_do_not_count", mask_multiplied),
  ("masked_slots_do_not_count", masked_after),
  ("padding_changes_nothing", mask_multiplied),
  ("padding_changes_nothing", divided_by_width),
  ("padding_changes_nothing", divided_by_rows),
  ("edge_cases_are_defined", divided_by_length),
  ("half_precision_accumulates_in_float32", summed_in_half),
  ("half_precision_accumulates_in_float32", returned_in_half),
  ("order_of_rows_is_free", strided_groups),
  ("leading_axes_are_free", second_axis_is_time),
  ("totals_add_over_micro_batches", mean_as_total),
  ("jit_changes_nothing", different_when_traced),
  ("vmap_is_a_loop", different_when_traced),
  ("eight_devices_change_nothing", different_when_traced),
  ("gradient_is_the_slope", wrong_slope),
  ("wrong_shape_raises", unchecked),
  ("wrong_dtype_raises", unchecked),
]


@pytest.mark.parametrize(("name", "function"), BROKEN)
def test_broken_promise_is_noticed(name, function) -> None:
  (subject,) = subjects.subjects_of(function)
  promise = PROMISES[name]
  assert promise.applies(subject)
  with pytest.raises(AssertionError):
    promise.check(subject)


@pytest.mark.parametrize("function", [mean_inside, divided_by_rows])
def test_split_that_matters_is_noticed(function) -> None:
  (subject,) = subjects.subjects_of(function)
  with pytest.raises(AssertionError):
    splits.every_split_is_the_same(subject, REDUCTIONS)


def test_every_promise_is_broken_by_something() -> None:
  assert {name for name, _ in BROKEN} == set(PROMISES)


@pytest.mark.parametrize("function", [squared, weighted_by_itself])
def test_correct_loss_keeps_every_promise(function) -> None:
  (subject,) = subjects.subjects_of(function)
  kept = [p for p in checks.PROPERTIES if p.applies(subject)]
  for promise in kept:
    promise.check(subject)
  splits.every_split_is_the_same(subject, REDUCTIONS)
  # All but those of group ids and of Totals.
  assert len(kept) == len(PROMISES) - 1


def test_unknown_hyperparameter_says_what_to_add() -> None:
  def scaled(value: Tokens, *, wobble: float) -> Tokens:
    return value * wobble

  with pytest.raises(subjects.UnknownError, match=r"wobble.*HYPERPARAMETERS"):
    subjects.subjects_of(scaled)


def test_options_are_swept() -> None:
  found = {s.name for s in subjects.all_subjects()[0]}
  for scale in ("none", "group", "global"):
    name = f"advantages.groups.group_relative[scale={scale},ddof=1]"
    assert name in found
