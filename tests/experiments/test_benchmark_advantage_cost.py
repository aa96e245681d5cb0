from __future__ import annotations

import dataclasses

import pytest

from experiments.advantages.cases import Shape
from experiments.benchmarks import advantage_cost, advantage_host

pytestmark = pytest.mark.slow

SIZE = advantage_cost.Size(
  prompts=2,
  samples=2,
  time=8,
  segment=4,
  factors=(1, 2),
  width=8,
  layers=1,
  repeats=1,
  only=("GRPO", "CANON", "SALT"),
)


def cost(name, *advantage, asked=None, host=None):
  return advantage_cost.Cost(name, list(advantage), asked, host)


def test_what_is_asked_and_the_host_s_work_are_told_apart(monkeypatch):
  seen = []
  monkeypatch.setattr(
    advantage_cost,
    "fastest",
    lambda function, repeats: seen.append(function()) or 0.001,
  )
  update, costs = advantage_cost.measure(SIZE)
  assert update == [1.0, 1.0]
  assert costs == [
    cost("GRPO", 1.0, 1.0),
    cost("CANON", 1.0, 1.0, asked=1.0),
    cost("SALT", 1.0, 1.0, host=1.0),
  ]
  # Host, two updates, one pass for entropies, and three estimators twice.
  assert len(seen) == 5 + 2 + 1 + 6


def test_claims_are_checked():
  good = cost("a", 1.0, 2.5), cost("b", 0.5, 0.5)
  update = [100.0, 200.0]
  assert advantage_cost.holds(SIZE, update, good)
  slow, steep = cost("c", 2.5, 5.0), cost("d", 1.0, 4.0)
  for bad in (slow, steep):
    assert not advantage_cost.holds(SIZE, update, (*good, bad))
  lines = advantage_cost.table(SIZE, update, (*good, slow, steep)).splitlines()
  cells = [[c.strip() for c in line.split("|")[1:-1]] for line in lines[2:]]
  assert {len(row) for row in cells} == {len(cells[0])}
  said = {row[0]: (row[4], row[6]) for row in cells[2:]}
  assert said == {
    "a": ("pass", "pass"),
    "b": ("pass", "pass"),
    "c": ("FAIL", "pass"),
    "d": ("pass", "FAIL"),
  }


def test_it_is_written_down(tmp_path, capsys, monkeypatch):
  found = [100.0, 200.0], [cost("GRPO", 1.0, 2.0, asked=3.0, host=0.5)]
  monkeypatch.setattr(advantage_cost, "measure", lambda size: found)
  assert advantage_cost.main(["--out", str(tmp_path / "new")]) == 0
  text = (tmp_path / "new" / "table.md").read_text()
  assert text == capsys.readouterr().out
  assert "3.00 ms, 3.0%" in text
  assert "0.50 ms, 0.5%" in text


def test_an_estimator_that_is_none_is_refused():
  size = dataclasses.replace(SIZE, only=("GRPO", "PPO"))
  with pytest.raises(ValueError, match=r"no such estimator: \['PPO'\]"):
    advantage_cost.measure(size)


def test_time_is_that_of_the_processor():
  quick = advantage_cost.fastest(lambda: None, 2)
  slow = advantage_cost.fastest(lambda: sum(range(200_000)), 2)
  assert 0 <= quick < slow


def test_the_host_does_something_for_each():
  found = {
    name: work() for name, work in advantage_host.host_work(Shape()).items()
  }
  assert len(found) == 5
  graphs = found["SALT"]
  assert len(graphs) == 2
  assert all(graph.shared_steps > 0 for graph in graphs)
  assert all(each.evaluation is not None for each in found["TP-GRPO"])
  assert all(each.reward == 1.0 for each in found["GREAM"])
  assert (found["ToolRL"].total > 0).all()
