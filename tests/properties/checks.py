"""What every pure function promises, as checks of one subject."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from properties import synthesis
from properties.criteria import (
  any_leading_axes,
  differentiable,
  has_arrays,
  has_time,
  masked,
  returns_sums,
  rows_are_free,
  rows_may_be_added,
  shape_is_shared,
  shared_axis,
)
from properties.evidence import (
  EXACT,
  SUMMED,
  assert_finite,
  compare,
  cosines,
  evaluated,
  in_float64,
  split_floats,
  stops_held,
  stops_recorded,
)
from properties.splits import divisors, parts_of
from properties.subjects import Subject
from properties.synthesis import ROWS, Case

NOTHING = {"rtol": 0, "atol": 0}


@dataclasses.dataclass(frozen=True)
class Property:
  """A promise: to whom it applies and how it is checked."""

  name: str
  applies: Callable[[Subject], bool]
  check: Callable[[Subject], None]

  @property
  def of_the_machine(self) -> bool:
    """Whether it is about how a function is run and not about its mathematics.

    The choice among a function's options is then of no account.
    """
    return self.name in _MACHINE


PROPERTIES: list[Property] = []
_MACHINE = {
  "eight_devices_change_nothing",
  "vmap_is_a_loop",
  "wrong_dtype_raises",
  "wrong_shape_raises",
}


def promise(applies: Callable[[Subject], bool]) -> Callable:
  def add(check: Callable[[Subject], None]) -> Callable[[Subject], None]:
    PROPERTIES.append(Property(check.__name__, applies, check))
    return check

  return add


@promise(lambda subject: bool(subject.name))
def edge_cases_are_defined(subject: Subject) -> None:
  """Empty rows, nothing at all, groups of one, all rewards equal: finite."""
  base = synthesis.make(subject)
  assert_finite(subject, base)
  for kept in (slice(0, 0), slice(1, None)):
    case = dict(base)
    for name in subject.masks:
      case[name] = np.zeros_like(base[name])
      case[name][kept] = base[name][kept]
    if subject.masks:
      assert_finite(subject, case)
  equal = {
    name: np.broadcast_to(base[name][:1], base[name].shape)
    for name, spec in subject.arrays.items()
    if spec.kind == "float" and spec.rowwise
  }
  assert_finite(subject, base | equal)
  if subject.identifiers:
    for ids in (np.arange(ROWS), np.zeros(ROWS)):
      same = dict.fromkeys(subject.identifiers, ids.astype(np.int32))
      assert_finite(subject, base | same)


@promise(masked)
def masked_slots_do_not_count(subject: Subject) -> None:
  """NaN or infinity there changes neither the value nor the gradient."""
  case = synthesis.make(subject)
  expected, slopes = evaluated(subject, case)
  for junk in (np.nan, np.inf):
    bad = synthesis.poisoned(subject, case, junk)
    found, bad_slopes = evaluated(subject, bad)
    compare(subject, expected, found, NOTHING)
    # XLA may turn a product with a mask into a selection, and hide the NaN
    # that the same code gives without jit.
    compare(subject, subject(case), subject(bad), NOTHING)
    for name, slope in bad_slopes.items():
      np.testing.assert_array_equal(slope, slopes[name], err_msg=name)
      excluded = synthesis.covered(subject, case, name)
      if excluded is not None:
        np.testing.assert_array_equal(slope[:, excluded], 0.0, err_msg=name)


@promise(lambda subject: has_time(subject) or rows_may_be_added(subject))
def padding_changes_nothing(subject: Subject) -> None:
  """Columns after the last and rows after the last, full of NaN if masked."""
  case = padded = synthesis.make(subject)
  if has_time(subject):
    padded = synthesis.appended(subject, padded, "time", 2)
  if rows_may_be_added(subject):
    padded = synthesis.appended(subject, padded, "row", 3)
  compare(subject, subject(case), subject(padded), SUMMED)


@promise(rows_are_free)
def order_of_rows_is_free(subject: Subject) -> None:
  case = synthesis.make(subject)
  order = np.random.default_rng(5).permutation(ROWS)
  found = subject(synthesis.rows_of(subject, case, order))
  expected = subject(case)
  for (spec, x), (_, y) in zip(
    subject.outputs(expected), subject.outputs(found), strict=True
  ):
    if spec.kind != "key":
      x = np.asarray(x)[order] if spec.rowwise else np.asarray(x)
      np.testing.assert_allclose(in_float64(y), in_float64(x), **SUMMED)


@promise(any_leading_axes)
def leading_axes_are_free(subject: Subject) -> None:
  """Rows laid out as [2, 4] give the same numbers as rows laid out as [8]."""
  case = synthesis.make(subject)
  folded = {
    name: value.reshape(2, ROWS // 2, *value.shape[1:])
    if name in subject.arrays and subject.arrays[name].rowwise
    else value
    for name, value in case.items()
  }
  for (spec, x), (_, y) in zip(
    subject.outputs(subject(case)),
    subject.outputs(subject(folded)),
    strict=True,
  ):
    y = np.asarray(y).reshape(np.shape(x)) if spec.rowwise else y
    np.testing.assert_allclose(in_float64(y), in_float64(x), **SUMMED)


@promise(returns_sums)
def totals_add_over_micro_batches(subject: Subject) -> None:
  case = synthesis.make(subject)
  for count in divisors():
    parts = [subject(part) for part in parts_of(subject, case, count)]
    added = jax.tree.map(lambda *x: sum(x), *parts)
    compare(subject, subject(case), added, SUMMED)


@promise(has_arrays)
def jit_changes_nothing(subject: Subject) -> None:
  case = synthesis.make(subject)
  compare(subject, subject(case), evaluated(subject, case)[0], SUMMED)


@promise(lambda subject: subject.rowwise)
def eight_devices_change_nothing(subject: Subject) -> None:
  case = synthesis.make(subject)
  mesh = Mesh(np.array(jax.devices()[:8]), ("data",))
  assert mesh.size == 8, f"needs 8 simulated devices, found {mesh.size}"
  by_row = NamedSharding(mesh, PartitionSpec("data"))
  everywhere = NamedSharding(mesh, PartitionSpec())
  rowwise = {k for k, spec in subject.arrays.items() if spec.rowwise}
  placed = {
    name: jax.device_put(value, by_row if name in rowwise else everywhere)
    for name, value in case.items()
  }
  compare(subject, subject(case), jax.jit(subject.__call__)(placed), SUMMED)


@promise(has_arrays)
def vmap_is_a_loop(subject: Subject) -> None:
  cases = [synthesis.make(subject, seed) for seed in (0, 1)]
  # Not numpy's: keys are arrays of jax only.
  stacked = jax.tree.map(lambda *x: jnp.stack(x), *cases)
  mapped = jax.vmap(subject.__call__)(stacked)
  for place, case in enumerate(cases):
    one = jax.tree.map(lambda x, place=place: np.asarray(x)[place], mapped)
    compare(subject, subject(case), one, SUMMED)


@promise(differentiable)
def half_precision_accumulates_in_float32(subject: Subject) -> None:
  case = synthesis.make(subject)
  floats, others = split_floats(subject, case)
  half = {k: v.astype(jnp.bfloat16) for k, v in floats.items()}
  rounded = {k: v.astype(jnp.float32) for k, v in half.items()}
  found = subject(others | half)
  for spec, value in subject.outputs(found):
    if spec.kind == "float":
      assert value.dtype == jnp.float32, f"returned {value.dtype}"
  compare(subject, subject(others | rounded), found, EXACT)


@promise(differentiable)
def gradient_is_the_slope(subject: Subject) -> None:
  """Against a central difference in float64, along a random direction.

  What the function stops is held at its value, so that a surrogate, whose
  gradient is meant not to be that of its value, is measured like any other.
  Inside `vmap` there is no value to hold: hence only along the elements that
  a gradient flows through.
  """
  rng, step = np.random.default_rng(11), 1e-5
  case = synthesis.make(subject)
  result, slopes = evaluated(subject, case)
  floats, others = split_floats(subject, case)
  outputs = [
    place
    for place, (spec, _) in enumerate(subject.outputs(result))
    if spec.kind == "float"
  ]
  for number, place in enumerate(outputs):
    along = {
      name: rng.normal(size=value.shape) * (slopes[name][number] != 0)
      for name, value in floats.items()
    }
    if not any(v.any() for v in along.values()):
      continue
    with jax.enable_x64(True):
      ends, held = [], []
      with stops_recorded(held):
        subject(others | {k: np.float64(v) for k, v in floats.items()})
      for by in (step, -step):
        there = {k: np.float64(v) + by * along[k] for k, v in floats.items()}
        with stops_held(held):
          value = subject.outputs(subject(others | there))[place][1]
        ends.append(np.sum(np.asarray(value) * cosines(value)))
    measured = (ends[0] - ends[1]) / (2 * step)
    terms = [slopes[k][number] * v for k, v in along.items()]
    # Relative to the terms that are summed: they may cancel.
    scale = sum(np.abs(x).sum() for x in terms)
    claimed = sum(np.sum(x, dtype=np.float64) for x in terms)
    np.testing.assert_allclose(claimed, measured, rtol=0, atol=1e-5 * scale)


@promise(shape_is_shared)
def wrong_shape_raises(subject: Subject) -> None:
  case = synthesis.make(subject)
  name, place = shared_axis(subject)
  value = case[name]
  # Length one would broadcast, which is the mistake that nothing reports.
  for wrong in (
    np.concatenate([value, value], axis=place),
    value.take([0], axis=place),
  ):
    _must_refuse(subject, case | {name: wrong}, f"{name} {wrong.shape}")


@promise(has_arrays)
def wrong_dtype_raises(subject: Subject) -> None:
  case = synthesis.make(subject)
  for name, spec in subject.arrays.items():
    if spec.kind == "key":
      continue
    wrong = "int32" if spec.kind == "float" else "float32"
    value = case[name].astype(wrong)
    _must_refuse(subject, case | {name: value}, f"{name} as {wrong}")


def _must_refuse(subject: Subject, case: Case, what: str) -> None:
  try:
    subject(case)
  except (TypeError, ValueError):
    return
  raise AssertionError(f"{subject.name} accepted {what}")
