"""To whom a promise applies, computed from annotations and never by name."""

from __future__ import annotations

from properties import synthesis
from properties.subjects import Spec, Subject


def has_arrays(subject: Subject) -> bool:
  return bool(subject.arrays)


def has_floats(subject: Subject) -> bool:
  return any(spec.kind == "float" for spec in subject.arrays.values())


def differentiable(subject: Subject) -> bool:
  returns_float = any(spec.kind == "float" for spec in subject.return_specs)
  return has_floats(subject) and returns_float


def masked(subject: Subject) -> bool:
  case = synthesis.make(subject)
  return any(
    spec.kind == "float" and synthesis.covered(subject, case, name) is not None
    for name, spec in subject.arrays.items()
  )


def has_time(subject: Subject) -> bool:
  return any(spec.axes("time") for spec in subject.arrays.values())


def rows_are_free(subject: Subject) -> bool:
  """Order and company of rows mean nothing: no fold over them, no state."""
  return subject.rowwise and not subject.records


def rows_are_alone(subject: Subject) -> bool:
  """No argument says which rows belong together, and no spread is theirs."""
  # Degrees of freedom are those of a statistic over the whole batch.
  pooled = "ddof" in subject.options
  return rows_are_free(subject) and not subject.identifiers and not pooled


def rows_may_be_added(subject: Subject) -> bool:
  """An added row can be masked out, or changes no other row's result."""
  local = all(spec.rowwise for spec in subject.return_specs)
  return subject.rowwise and (bool(subject.masks) or local)


def returns_loss(subject: Subject) -> bool:
  return rows_are_alone(subject) and _loss_dims(subject.return_specs[0])


def returns_sums(subject: Subject) -> bool:
  specs = subject.return_specs
  return rows_are_alone(subject) and all(not spec.dims for spec in specs)


def any_leading_axes(subject: Subject) -> bool:
  specs = [spec for spec in subject.arrays.values() if spec.rowwise]
  return bool(specs) and all(spec.dims[0].startswith("*") for spec in specs)


def shape_is_shared(subject: Subject) -> bool:
  return shared_axis(subject) is not None


def _loss_dims(spec: Spec) -> bool:
  return spec.kind == "float" and spec.shape_names in (
    ("row",),
    ("row", "time"),
  )


def shared_axis(subject: Subject) -> tuple[str, int] | None:
  """An axis of an argument whose length another argument fixes."""
  owners: dict[str, set[str]] = {}
  for name, spec in subject.arrays.items():
    for dim in spec.shape_names:
      owners.setdefault(dim, set()).add(name)
  for name, spec in reversed(subject.arrays.items()):
    for place, dim in reversed(list(enumerate(spec.shape_names))):
      if len(owners[dim]) > 1 and spec.kind != "key":
        return name, place
  return None
