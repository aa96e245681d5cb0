"""Numbers, durations and configurations as text."""

from __future__ import annotations

import doctest
import re

import hypothesis
import hypothesis.strategies as st

import rl_jax.launch.text
from rl_jax.experiment import Mesh
from rl_jax.launch.text import duration, leaves, value_text

UNIT = {"s": 1, "min": 60, "h": 3600}


def test_docstrings_are_right() -> None:
  result = doctest.testmod(rl_jax.launch.text)
  assert result.failed == 0
  assert result.attempted > 0


@hypothesis.given(st.floats(0, 1e6))
def test_a_duration_is_within_what_its_last_unit_shows(seconds: float) -> None:
  parts = re.findall(r"([\d.]+) (s|min|h)", duration(seconds))
  said = sum(float(amount) * UNIT[unit] for amount, unit in parts)
  finest = UNIT[parts[-1][1]] if seconds >= 10 else 0.1
  assert abs(said - seconds) <= finest
  assert all(float(amount) < 60 or unit == "h" for amount, unit in parts)


def test_every_field_is_listed_with_its_path(experiment) -> None:
  found = dict(leaves(experiment))
  assert found["algorithm.1.size"] == "2"
  assert found["algorithm.1"] == "Part"
  assert found["start.by.name"] == "'base'"
  assert found["expected.1.high"] == "0.75"
  assert found["guard"] == "()"


def test_functions_and_classes_are_named() -> None:
  assert value_text(Mesh) == "rl_jax.experiment.Mesh"
  assert value_text(duration) == "rl_jax.launch.text.duration"
  assert value_text(Mesh().data) == "-1"
