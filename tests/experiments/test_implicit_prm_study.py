"""Which seeds the study of implicit PRMs counts, and what it says of others."""

from __future__ import annotations

import json
import sys

import pytest

pytest.importorskip("tokenizers", reason="needs the extra `language`")

from experiments.process_rewards import implicit_prm_study as study


def numbers(seed):
  """What a seed would give: a generator and two models."""
  generator = {"mean of 8": 0.5, "majority of 8": 0.75, "any of 8": 1.0}
  best = dict.fromkeys(("best of 8, whole", "AUC"), 0.5 + seed / 16)
  return {"generator": generator, "CE": best, "DPO": best}


def run(monkeypatch, tmp_path, *, seeds, unable=()):
  """The command with made-up seeds, some of whose generators cannot add."""
  asked = []

  def one(seed):
    asked.append(seed)
    return None if seed in unable else numbers(seed)

  monkeypatch.setattr(study, "one_seed", one)
  words = ["study", "--seeds", str(seeds), "--out", str(tmp_path)]
  monkeypatch.setattr(sys, "argv", words)
  study.main()
  return asked


def test_all_seeds_count_where_all_can_add(monkeypatch, tmp_path):
  assert run(monkeypatch, tmp_path, seeds=3) == [0, 1, 2]
  table = (tmp_path / "table.md").read_text()
  assert "over 3 seeds" in table
  assert "Left out" not in table
  stored = json.loads((tmp_path / "results.json").read_text())
  assert stored == [numbers(seed) for seed in (0, 1, 2)]
  assert (tmp_path / "curves.png").exists()


def test_who_cannot_add_is_replaced_and_said(monkeypatch, tmp_path):
  asked = run(monkeypatch, tmp_path, seeds=2, unable=(0, 2, 3))
  assert asked == [0, 1, 2, 3, 4]
  table = (tmp_path / "table.md").read_text()
  assert table.endswith("all steps right: seeds 0, 2, 3.\n")
  # The mean of seeds 1 and 4, and half of their distance.
  assert "0.656 ± 0.094" in table


def test_too_many_that_cannot_add_stop_it(monkeypatch, tmp_path):
  with pytest.raises(RuntimeError, match=r"\[0, 1, 2, 3\] have not learnt"):
    run(monkeypatch, tmp_path, seeds=1, unable=range(99))
  assert not (tmp_path / "table.md").exists()
