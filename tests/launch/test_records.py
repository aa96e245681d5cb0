"""What a run leaves on disk: complete, in order, once, whatever happens."""

from __future__ import annotations

import csv
import math
import struct
import tempfile
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest
from tensorboardX.proto import event_pb2

from rl_jax.launch.records import (
  Records,
  read_pictures,
  read_records,
  read_texts,
)
from rl_jax.training.loop import Row

FEW = hypothesis.settings(max_examples=15, deadline=None)


def scalars(workdir: Path) -> list[tuple[str, int, float]]:
  """Events as TensorBoard shows them: a START hides later steps before it."""
  shown: list[tuple[str, int, float]] = []
  for path in sorted((workdir / "tensorboard").iterdir()):
    content, at = path.read_bytes(), 0
    while at < len(content):
      (size,) = struct.unpack_from("<Q", content, at)
      event = event_pb2.Event.FromString(content[at + 12 : at + 12 + size])
      at += 16 + size
      if event.HasField("session_log"):
        shown = [item for item in shown if item[1] < event.step]
      shown += [
        (v.tag, event.step, v.simple_value) for v in event.summary.value
      ]
  return shown


def write(workdir: Path, rows: list[Row], *, step: int = 0) -> None:
  records = Records(workdir)
  records.started(step=step, steps=100)
  for item in rows:
    records.measured(item)
  records.close()


numbers = st.floats(allow_nan=False, width=32) | st.just(math.inf)
metrics = st.dictionaries(
  st.text("abc/_", min_size=1, max_size=4), numbers, max_size=4
)


@FEW
@hypothesis.given(st.lists(metrics, max_size=6))
def test_rows_come_back_as_they_were(found: list[dict[str, float]]) -> None:
  rows = [
    Row(i, ("train", "evaluation")[i % 2], m, i / 4, {})
    for i, m in enumerate(found)
  ]
  with tempfile.TemporaryDirectory() as directory:
    write(Path(directory), rows)
    assert read_records(Path(directory)) == rows


def test_not_a_number_is_recorded_before_the_run_stops(tmp_path, row) -> None:
  write(tmp_path, [row(1, loss=math.nan, other=-math.inf)])
  (only,) = read_records(tmp_path)
  assert math.isnan(only.metrics["loss"])
  assert only.metrics["other"] == -math.inf
  assert "NaN" not in (tmp_path / "metrics.jsonl").read_text()


def test_nothing_recorded_reads_as_nothing(tmp_path) -> None:
  assert read_records(tmp_path) == []
  assert read_pictures(tmp_path) == {}


def test_a_row_is_on_disk_when_measured_returns(tmp_path, row) -> None:
  records = Records(tmp_path)
  records.started(step=0, steps=9)
  for step in range(1, 4):
    records.measured(row(step, loss=1.0))
    assert [r.step for r in read_records(tmp_path)] == list(range(1, step + 1))
  records.close()


@FEW
@hypothesis.given(
  total=st.integers(1, 12),
  every=st.integers(1, 4),
  kills=st.lists(st.tuples(st.integers(0, 12), st.integers(0, 30)), max_size=3),
)
def test_kills_and_resumes_leave_the_uninterrupted_record(
  total: int, every: int, kills: list[tuple[int, int]]
) -> None:
  """A kill loses steps after the last save and tears a line anywhere."""
  with tempfile.TemporaryDirectory() as directory:
    workdir, saved = Path(directory), 0
    for reached, torn in [*sorted(kills), (total, 0)]:
      reached = max(saved, min(reached, total))
      first = saved + 1 if saved else 0
      rows = [
        Row(s, "train", {"loss": s / 8}, float(s), {})
        for s in range(first, reached + 1)
      ]
      write(workdir, rows, step=saved)
      saved = reached // every * every if reached < total else total
      path, content = workdir / "metrics.jsonl", b""
      content = path.read_bytes()
      unsaved = sum(
        len(line) + 1
        for line in content.splitlines()
        if b'"step": ' in line
        and int(line.split(b'"step": ')[1].split(b",")[0]) > saved
      )
      path.write_bytes(content[: len(content) - min(torn, unsaved)])
    rows = read_records(workdir)
    assert [(r.step, r.metrics["loss"]) for r in rows] == [
      (s, s / 8) for s in range(total + 1)
    ]
    shown = scalars(workdir)
    assert shown == [("loss", s, s / 8) for s in range(total + 1)]


def test_a_torn_last_line_never_counts(tmp_path, row) -> None:
  write(tmp_path, [row(1, loss=1.0), row(2, loss=2.0)])
  path = tmp_path / "metrics.jsonl"
  content = path.read_bytes()
  start = content.index(b"\n") + 1
  for cut in range(start, len(content)):
    path.write_bytes(content[:cut])
    assert [r.step for r in read_records(tmp_path)] == [1]


@pytest.mark.parametrize(
  "line", ["{", "[1]", '{"step": 1}', "null", '{"metrics": {"a": "x"}}', ""]
)
def test_a_damaged_line_is_named(tmp_path, row, line: str) -> None:
  write(tmp_path, [row(1), row(2)])
  path = tmp_path / "metrics.jsonl"
  first, second = path.read_text().splitlines()
  path.write_text(f"{first}\n{line}\n{second}\n")
  with pytest.raises(ValueError, match=r"metrics\.jsonl, line 2 is not"):
    read_records(tmp_path)


def test_a_half_written_replacement_changes_nothing(tmp_path, row) -> None:
  write(tmp_path, [row(1), row(2)])
  (tmp_path / "metrics.jsonl.partial").write_text('{"st')
  assert [r.step for r in read_records(tmp_path)] == [1, 2]
  write(tmp_path, [row(3)], step=2)
  assert [r.step for r in read_records(tmp_path)] == [1, 2, 3]


def test_resuming_from_zero_starts_the_record_anew(
  tmp_path, row, samples
) -> None:
  """The loop measures step 0 again when it starts there."""
  write(tmp_path, [row(0, "evaluation", samples), row(1)])
  write(tmp_path, [row(0, "evaluation")])
  assert [r.step for r in read_records(tmp_path)] == [0]
  assert read_pictures(tmp_path) == {}


def test_resuming_a_finished_run_changes_nothing(tmp_path, row) -> None:
  write(tmp_path, [row(1, loss=1.0), row(2, loss=2.0)])
  before = (tmp_path / "metrics.jsonl").read_bytes()
  table = (tmp_path / "metrics.csv").read_bytes()
  write(tmp_path, [], step=2)
  assert (tmp_path / "metrics.jsonl").read_bytes() == before
  assert (tmp_path / "metrics.csv").read_bytes() == table


def test_seconds_go_on_over_resumes(tmp_path) -> None:
  def at(step: int, seconds: float) -> Row:
    return Row(step, "train", {}, seconds, {})

  write(tmp_path, [at(1, 1.0), at(2, 2.5), at(3, 9.0)])
  write(tmp_path, [at(3, 0.5), at(4, 1.0)], step=2)
  write(tmp_path, [at(5, 0.25)], step=4)
  assert [r.seconds for r in read_records(tmp_path)] == [
    1.0,
    2.5,
    3.0,
    3.5,
    3.75,
  ]


def test_the_table_says_what_the_lines_say(tmp_path, row) -> None:
  rows = [row(0, "evaluation", evaluation__reward=0.5), row(1, loss=2.0)]
  write(tmp_path, rows)
  with (tmp_path / "metrics.csv").open(newline="") as file:
    table = list(csv.DictReader(file))
  assert [line["step"] for line in table] == ["0", "1"]
  assert table[0]["evaluation/reward"] == "0.5"
  assert table[0]["loss"] == ""
  assert table[1] == {
    "step": "1",
    "kind": "train",
    "seconds": "0.5",
    "evaluation/reward": "",
    "loss": "2.0",
  }


def test_a_run_that_raises_leaves_a_table_when_closed(tmp_path, row) -> None:
  records = Records(tmp_path)
  records.started(step=0, steps=2)
  records.measured(row(1, loss=1.0))
  assert not (tmp_path / "metrics.csv").exists()
  records.close()
  records.close()
  assert (tmp_path / "metrics.csv").exists()
  assert scalars(tmp_path) == [("loss", 1, 1.0)]


def test_rows_before_the_start_are_refused(tmp_path, row) -> None:
  with pytest.raises(RuntimeError, match=r"row of step 1 before started"):
    Records(tmp_path).measured(row(1))


def test_first_and_latest_pictures_stay(tmp_path, row, samples) -> None:
  rows = [
    row(s, "evaluation", samples | {"other": np.full(2, s)})
    for s in (0, 5, 10, 100)
  ]
  write(tmp_path, rows)
  found = read_pictures(tmp_path)
  assert sorted(found) == ["other", "samples"]
  assert [p.step for p in found["samples"]] == [0, 100]
  first = found["samples"][0]
  np.testing.assert_array_equal(first.image, samples["samples"])
  np.testing.assert_array_equal(first.correct, samples["samples_correct"])
  assert found["other"][1].correct is None
  np.testing.assert_array_equal(found["other"][1].image, [100, 100])


def test_pictures_of_steps_that_are_taken_back_go(
  tmp_path, row, samples
) -> None:
  write(tmp_path, [row(s, "evaluation", samples) for s in (0, 4, 8)])
  write(tmp_path, [row(6, "evaluation", samples)], step=4)
  assert [p.step for p in read_pictures(tmp_path)["samples"]] == [0, 6]


def test_a_mark_without_its_picture_is_a_picture(tmp_path, row) -> None:
  write(tmp_path, [row(0, "evaluation", {"all_correct": np.ones(2)})])
  assert list(read_pictures(tmp_path)) == ["all_correct"]


def test_names_with_a_slash_are_directories(tmp_path, row) -> None:
  write(tmp_path, [row(3, "evaluation", {"left/eye_2": np.ones(2)})])
  (picture,) = read_pictures(tmp_path)["left/eye_2"]
  assert picture.step == 3


def test_texts_of_evaluations_are_kept_and_taken_back(tmp_path, row) -> None:
  def wrote(step: int):
    text = {"prompt": "1 + 1", "completion": f"{step}", "reward": None}
    return row(step, "evaluation")._replace(texts=(text,))

  write(tmp_path, [wrote(0), row(1), wrote(4), wrote(8)])
  write(tmp_path, [wrote(6)], step=4)
  found = read_texts(tmp_path)
  assert [one.step for one in found] == [0, 4, 6]
  assert found[-1].record[0]["completion"] == "6"
  assert [r.texts for r in read_records(tmp_path)] == [()] * 4
  write(tmp_path, [wrote(0)])
  assert [one.step for one in read_texts(tmp_path)] == [0]
