"""Comparisons of arms over seeds: what is run, what is reused, what is said."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from experiments import arms
from rl_jax.experiment import Trained
from training import tiny

pytestmark = pytest.mark.slow

METRICS = ("reward", "loss")


def quick(**change):
  return tiny.experiment(steps=2, **change)


def both():
  """Arms that differ in one thing."""
  faster = dataclasses.replace(
    tiny.AWM,
    optimiser=dataclasses.replace(tiny.OPTIMISER, learning_rate=0.5),
  )
  return {
    "plain": quick(name="plain"),
    "fast": quick(name="fast", algorithm=faster),
  }


def studied(place, **change):
  settings = {
    "seeds": 2,
    "metrics": METRICS,
    "out": place / "out",
    "baseline": "plain",
    "root": place / "runs",
  }
  return arms.study(both(), **settings | change)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
  return tmp_path_factory.mktemp("arms")


@pytest.fixture(scope="module")
def found(place):
  return studied(place)


def test_every_arm_has_every_seed_and_every_metric(found):
  assert list(found.last) == list(found.curves) == ["plain", "fast"]
  for arm, last in found.last.items():
    assert list(last) == list(METRICS)
    for metric, values in last.items():
      step, curve = found.curves[arm][metric]
      assert step.tolist() == [1, 2]
      assert curve.shape == (2, 2)
      assert curve[:, -1].tolist() == values
    assert len(found.seconds[arm]) == 2


def test_seeds_and_arms_differ(found):
  plain, fast = (found.curves[arm]["loss"][1] for arm in ("plain", "fast"))
  assert plain[0].tolist() != plain[1].tolist()
  # The first rollouts are those of one policy, whatever is learnt from them.
  first = [found.curves[arm]["reward"][1][:, 0] for arm in ("plain", "fast")]
  np.testing.assert_array_equal(*first)
  assert plain[0, 1] != fast[0, 1]


def test_what_is_stored_is_what_was_found(found, place):
  stored = json.loads((place / "out" / "results.json").read_text())
  assert list(stored) == ["plain", "fast"]
  for arm, each in stored.items():
    curve = each["metrics"]["reward"]
    assert curve["step"] == [1, 2]
    np.testing.assert_allclose(
      curve["value"], found.curves[arm]["reward"][1], atol=5e-6
    )
    assert each["experiment"]["fields"]["name"] == arm
  table = (place / "out" / "table.md").read_text()
  assert "over 2 seeds" in table
  assert (place / "out" / "curves.png").read_bytes()[:4] == b"\x89PNG"


def test_the_table_has_means_and_paired_differences(found, place):
  lines = (place / "out" / "table.md").read_text().splitlines()
  head, _, plain, fast, *_ = [
    [cell.strip() for cell in line.strip("|").split("|")] for line in lines
  ]
  assert head[:3] == ["arm", "reward", "less plain"]
  own, other = (np.array(found.last[x]["reward"]) for x in ("plain", "fast"))
  assert plain[1].split(" ± ")[0] == f"{own.mean():.3f}"
  assert plain[2] == ""
  less, error = map(float, fast[2].split(" ± "))
  difference = other - own
  assert less == pytest.approx(difference.mean(), abs=5e-4)
  error_there = difference.std(ddof=1) / np.sqrt(2)
  assert error == pytest.approx(error_there, abs=5e-4)


def test_finished_runs_are_read_and_not_built_again(found, place, monkeypatch):
  def refused(*_, **__):
    raise AssertionError("a finished run was trained")

  monkeypatch.setattr(arms, "train", refused)
  again = studied(place)
  assert again.last == found.last
  for arm, curves in found.curves.items():
    for metric, (step, value) in curves.items():
      np.testing.assert_array_equal(again.curves[arm][metric][0], step)
      np.testing.assert_array_equal(again.curves[arm][metric][1], value)


def test_one_seed_more_runs_one_seed_more(found, place, monkeypatch):
  trained = []
  train = arms.train
  monkeypatch.setattr(
    arms,
    "train",
    lambda experiment, **more: (
      trained.append(experiment.seed) or train(experiment, **more)
    ),
  )
  more = studied(place, seeds=3, out=place / "more")
  assert trained == [2, 2]
  assert more.last["plain"]["reward"][:2] == found.last["plain"]["reward"]


def test_one_seed_has_no_error(found, place):
  studied(place, seeds=1, out=place / "one")
  assert "±" not in (place / "one" / "table.md").read_text().split("Last")[0]


def test_a_metric_that_was_not_recorded_is_said_with_those_that_were(place):
  with pytest.raises(KeyError, match=r"'rewrad' was not recorded; .*'reward'"):
    studied(place, metrics=("rewrad",))


def test_an_unknown_baseline_is_refused_before_anything_runs(tmp_path):
  with pytest.raises(KeyError, match="best"):
    studied(tmp_path, baseline="best")
  assert not (tmp_path / "runs").exists()


def test_a_run_that_is_stopped_stops_the_study(tmp_path, monkeypatch):
  train = arms.train
  monkeypatch.setattr(
    arms,
    "train",
    lambda experiment, **more: train(experiment, **more)._replace(
      status="interrupted"
    ),
  )
  with pytest.raises(KeyboardInterrupt):
    studied(tmp_path)
  assert not (tmp_path / "out").exists()


def test_a_seed_is_that_of_all_stages():
  first = quick(name="first")
  second = quick(name="second", start=Trained(by=first))
  third = arms.seeded(quick(name="third", start=Trained(by=second)), 5)
  assert third.seed == third.start.by.seed == 5
  assert third.start.by.start.by == dataclasses.replace(first, seed=5)
  assert first.seed == tiny.experiment().seed
