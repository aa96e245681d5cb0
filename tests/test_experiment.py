"""Experiments as values: equal, hashed, stored, compared."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
import pathlib
import subprocess
import sys
from typing import Any

import pytest

from algorithms.language import letters
from rl_jax.experiment import (
  Band,
  Checkpoint,
  Checkpoints,
  Experiment,
  Mesh,
  Scratch,
  Trained,
  diff,
  from_dict,
  identity,
  stages,
  to_dict,
)
from training import tiny

HERE = pathlib.Path(__file__).parent
RUN_ONLY = {
  "name": "other",
  "mesh": Mesh(data=2),
  "checkpoints": Checkpoints(every=7),
  "guard": (Band(metric="reward", low=0.0),),
  "expected": (Band(metric="reward", high=1.0),),
}
IDENTITY = {
  "model": tiny.Field(width=9),
  "data": tiny.Prompts(rows=8),
  "algorithm": dataclasses.replace(tiny.AWM, group_size=8),
  "reward": tiny.Near(broken_from=3),
  "evaluation": tiny.SAMPLES,
  "start": Trained(by=tiny.pretraining()),
  "steps": 5,
  "seed": 1,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Holder:
  """Anything a component may hold."""

  value: Any
  where: Any = dataclasses.field(default=0, metadata={"identity": False})


def helper(x):
  return x


def holding(value):
  return tiny.experiment(model=Holder(value=value))


@pytest.mark.parametrize(
  "value",
  [
    None,
    True,
    3,
    0.5,
    "word",
    (1, (2.0, "x"), ()),
    math.inf,
    -math.inf,
    1e300,
    helper,
    Holder,
    {"a": 1, "float": (2.0,), "type": None},
    Holder(value=Holder(value=1)),
  ],
)
def test_round_trip_through_json(value):
  experiment = holding(value)
  stored = json.loads(json.dumps(to_dict(experiment)))
  again = from_dict(stored)
  assert again == experiment
  assert again.hash == experiment.hash
  assert diff(again, experiment) == []


def scaled(x, *, by, how=None):
  return by * x if how is None else by * how(x)


PARTIAL = functools.partial(
  scaled, by=2.0, how=functools.partial(scaled, by=math.inf)
)


def test_partials_of_functions_come_back_as_such():
  """Functions, keywords, and partials among them; and they still compute."""
  experiment = holding((PARTIAL, functools.partial(helper)))
  stored = json.loads(json.dumps(to_dict(experiment)))
  again = from_dict(stored)
  assert again.hash == experiment.hash
  assert diff(again, experiment) == []
  assert to_dict(again) == stored
  found = again.model.value[0]
  assert found.func is scaled
  assert found.keywords["how"].func is scaled
  assert found(3.0) == math.inf


def test_partials_differ_where_their_keywords_do():
  inner = functools.partial(scaled, by=4.0)
  old = holding(PARTIAL)
  new = holding(functools.partial(scaled, by=3.0, how=inner))
  assert diff(old, new) == [
    ("model.value.by", 2.0, 3.0),
    ("model.value.how.by", math.inf, 4.0),
  ]
  assert old.hash != new.hash
  for other in (
    functools.partial(helper, by=2.0),
    functools.partial(scaled, by=2.0),
    scaled,
  ):
    ((path, before, after),) = diff(old, holding(other))
    assert (path, before, after) == ("model.value", PARTIAL, other)
    assert holding(other).hash != old.hash


def test_the_order_of_keywords_does_not_matter():
  one = functools.partial(scaled, by=2.0, how=helper)
  two = functools.partial(scaled, how=helper, by=2.0)
  assert holding(one).hash == holding(two).hash
  assert diff(holding(one), holding(two)) == []


@pytest.mark.slow
def test_a_recipe_of_partials_is_the_same_in_another_process():
  stored = json.dumps(to_dict(letters.experiment()))
  code = (
    "import json; from rl_jax.experiment import diff, from_dict, to_dict;"
    "from algorithms.language import letters; mine = letters.experiment();"
    "given = from_dict(json.loads(input())); assert diff(mine, given) == [];"
    "print(mine.hash, given.hash)"
  )
  path = [str(HERE), str(HERE.parent)]
  found = subprocess.run(
    [sys.executable, "-c", f"import sys; sys.path[:0] = {path}; {code}"],
    input=stored,
    capture_output=True,
    text=True,
    check=True,
    env={"PYTHONHASHSEED": "7", "JAX_PLATFORMS": "cpu"},
  )
  assert found.stdout.split() == [letters.experiment().hash] * 2


def test_a_whole_experiment_round_trips():
  experiment = tiny.experiment(**(IDENTITY | RUN_ONLY))
  assert from_dict(json.loads(json.dumps(to_dict(experiment)))) == experiment


def test_every_field_is_in_one_of_the_two_lists():
  names = {field.name for field in dataclasses.fields(Experiment)}
  assert names == IDENTITY.keys() | RUN_ONLY.keys()


@pytest.mark.parametrize("field", sorted(IDENTITY))
def test_hash_changes_with_what_changes_the_result(field):
  changed = tiny.experiment(**{field: IDENTITY[field]})
  assert changed.hash != tiny.experiment().hash


@pytest.mark.parametrize("field", sorted(RUN_ONLY))
def test_hash_does_not_change_with_how_it_is_run(field):
  changed = tiny.experiment(**{field: RUN_ONLY[field]})
  assert changed != tiny.experiment()
  assert changed.hash == tiny.experiment().hash
  # Also inside of the experiment that another one starts from.
  outer = [
    tiny.experiment(start=Trained(by=inner))
    for inner in (changed, tiny.experiment())
  ]
  assert outer[0].hash == outer[1].hash


def test_fields_of_components_may_be_left_out_of_the_hash():
  values = [
    tiny.experiment(model=Holder(value=1, where=place)) for place in (1, 2)
  ]
  assert values[0].hash == values[1].hash
  assert "where" not in json.dumps(identity(values[0].model))


def test_equal_numbers_hash_alike():
  assert holding(1) == holding(1.0)
  assert holding(1).hash == holding(1.0).hash
  assert holding(0.0).hash == holding(-0.0).hash
  assert holding(1).hash != holding(1.5).hash
  assert holding("1").hash != holding(1).hash


@pytest.mark.slow
def test_hash_is_twelve_hex_digits_and_the_same_in_another_process():
  code = "from training import tiny; print(tiny.experiment().hash)"
  path = [str(HERE), str(HERE.parent)]
  found = subprocess.run(
    [sys.executable, "-c", f"import sys; sys.path[:0] = {path}; {code}"],
    capture_output=True,
    text=True,
    check=True,
    env={"PYTHONHASHSEED": "7", "JAX_PLATFORMS": "cpu"},
  )
  digits = found.stdout.strip()
  assert digits == tiny.experiment().hash
  assert len(digits) == 12
  assert set(digits) <= set("0123456789abcdef")


def test_diff_names_places_inside_of_components_and_tuples():
  old = tiny.experiment(expected=(Band(metric="a", low=0.0),))
  new = tiny.experiment(
    seed=1,
    model=tiny.Field(width=4),
    expected=(Band(metric="a", low=0.5),),
  )
  assert diff(old, new) == [
    ("model.width", 8, 4),
    ("seed", 0, 1),
    ("expected.0.low", 0.0, 0.5),
  ]
  assert diff(old, old) == []


def test_diff_of_other_types_and_lengths_is_the_whole_value():
  old, new = Scratch(), Checkpoint(path="runs/a")
  assert diff(tiny.experiment(), tiny.experiment(start=new)) == [
    ("start", old, new)
  ]
  assert diff((1, 2), (1,), "x") == [("x", (1, 2), (1,))]


def test_an_unknown_field_is_an_error_that_lists_the_known_ones():
  stored = to_dict(tiny.experiment())
  stored["fields"]["stepz"] = 3
  with pytest.raises(ValueError, match=r"no field stepz; it has .*steps"):
    from_dict(stored)


def test_a_missing_field_is_an_error_that_names_it():
  stored = to_dict(tiny.experiment())
  del stored["fields"]["steps"]
  with pytest.raises(ValueError, match=r"Experiment:.*'steps'"):
    from_dict(stored)


@pytest.mark.parametrize(
  "name", ["no.such.module:X", "training.tiny:Missing", "training.tiny:A.B"]
)
def test_what_cannot_be_imported_is_named(name):
  with pytest.raises(ValueError, match=f"cannot import '{name}'"):
    from_dict({"type": name, "fields": {}})


def test_local_classes_and_lambdas_cannot_stand_in_an_experiment():
  @dataclasses.dataclass(frozen=True)
  class Local:
    pass

  for value in (Local(), lambda x: x):
    with pytest.raises(ValueError, match="top level"):
      to_dict(holding(value))


@pytest.mark.parametrize(
  "value", [object(), {1, 2}, 1j, functools.partial(helper, 1), [1, 2], {1: 2}]
)
def test_what_would_not_come_back_equal_is_refused(value):
  with pytest.raises(ValueError, match="cannot stand in an experiment"):
    to_dict(holding(value))


def test_stages_come_once_each_and_in_field_order():
  base, judge = tiny.pretraining(steps=1), tiny.pretraining(steps=2)
  first, second = Trained(by=base), Trained(by=judge)
  # The same experiment under another name is the same stage.
  alias = Trained(by=tiny.pretraining(steps=1, name="alias"))
  experiment = tiny.experiment(
    model=Holder(value=(second, {"no": 1})), start=first, reward=alias
  )
  assert list(stages(experiment)) == [second, alias]
  assert list(stages(tiny.experiment())) == []


def test_stages_are_direct_ones_only():
  inner = tiny.pretraining(start=Trained(by=tiny.pretraining(steps=9)))
  experiment = tiny.experiment(start=Trained(by=inner))
  assert [stage.by for stage in stages(experiment)] == [inner]


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"steps": 0}, "steps must be at least 1, got 0"),
    ({"seed": -1}, "seed must not be negative, got -1"),
    ({"name": ""}, "name must be a plain word, got ''"),
    ({"name": "a/b"}, "name must be a plain word, got 'a/b'"),
  ],
)
def test_an_experiment_that_cannot_be_is_refused(changes, message):
  with pytest.raises(ValueError, match=message):
    tiny.experiment(**changes)


@pytest.mark.parametrize(
  "changes", [{"every": 0}, {"keep": 0}, {"keep_every": 0}]
)
def test_checkpoints_refuse(changes):
  with pytest.raises(ValueError, match="at least 1"):
    Checkpoints(**changes)


def test_bands():
  band = Band(metric="x", low=0.0, high=1.0)
  assert [band.holds(x) for x in (0.0, 0.5, 1.0)] == [True] * 3
  assert not any(band.holds(x) for x in (-0.1, 1.1, math.nan, math.inf))
  with pytest.raises(ValueError, match="low = 2 is above high = 1"):
    Band(metric="x", low=2, high=1)
