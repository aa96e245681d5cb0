"""The contract of DESIGN, for every function that a pure module exports."""

from __future__ import annotations

import pytest

from properties import checks, criteria, splits, subjects

SUBJECTS, UNKNOWN = subjects.all_subjects()
# All but the first choice of each function's options.
OTHERS = {
  subject
  for place, subject in enumerate(SUBJECTS)
  if place and SUBJECTS[place - 1].function is subject.function
}
REDUCTIONS = tuple(subjects.reductions())


@pytest.mark.slow
@pytest.mark.parametrize(
  ("promise", "subject"),
  [
    pytest.param(promise, subject, id=f"{promise.name}-{subject.name}")
    for promise in checks.PROPERTIES
    for subject in SUBJECTS
    if promise.applies(subject)
    and not (promise.of_the_machine and subject in OTHERS)
  ],
)
def test_promise(promise: checks.Property, subject: subjects.Subject) -> None:
  promise.check(subject)


@pytest.mark.slow
@pytest.mark.parametrize(
  "subject",
  [
    pytest.param(subject, id=subject.name)
    for subject in SUBJECTS
    if criteria.returns_loss(subject)
  ],
)
def test_every_split_is_the_same(subject: subjects.Subject) -> None:
  splits.every_split_is_the_same(subject, REDUCTIONS)


def test_every_exported_function_is_a_subject() -> None:
  assert not UNKNOWN, "\n".join(map(str, UNKNOWN))
  covered = {subject.function for subject in SUBJECTS}
  assert covered == set(subjects.exported())
  assert len(covered) > 20


def test_every_promise_applies_to_something() -> None:
  for promise in checks.PROPERTIES:
    assert any(map(promise.applies, SUBJECTS)), promise.name
