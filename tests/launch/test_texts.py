"""What a policy wrote on disk: whole, bounded, exact over kills."""

from __future__ import annotations

import json
import math
import tempfile
import unicodedata
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from rl_jax.launch import texts
from rl_jax.launch.texts import Written, keep_texts, printable, read_texts

FEW = hypothesis.settings(max_examples=25, deadline=None)
# Surrogates, controls, formats and all.
anything = st.text(st.characters(exclude_categories=()), max_size=30)
verdict = st.none() | st.sampled_from([0.0, 0.5, 1.0])


def record(prompt="p", completion="c", reward=0.0, reference="r"):
  return {
    "prompt": prompt,
    "completion": completion,
    "reference": reference,
    "reward": reward,
  }


@FEW
@hypothesis.given(st.lists(st.tuples(anything, anything, verdict), max_size=4))
def test_texts_come_back_as_they_were(found) -> None:
  given = tuple(record(p, c, r) for p, c, r in found)
  with tempfile.TemporaryDirectory() as directory:
    keep_texts(Path(directory), 7, given)
    assert read_texts(Path(directory)) == [Written(7, given)]


def test_conversations_and_other_columns_come_back(tmp_path) -> None:
  talk = [{"role": "user", "content": "a\nb"}]
  given = record(talk) | {"level": 3, "hard": True, "ratio": 0.5, "none": None}
  keep_texts(tmp_path, 0, [given])
  assert read_texts(tmp_path)[0].record == (given,)


@pytest.mark.parametrize(
  ("value", "kept"),
  [
    (math.nan, "nan"),
    (-math.inf, "-inf"),
    (1 << 63, "0x8000000000000000"),
    (np.float32(0.5), 0.5),
    (np.int64(3), 3),
    (b"\xff", "b'\\xff'"),
    ((1, "a"), [1, "a"]),
    ({1: 2}, {"1": 2}),
  ],
)
def test_what_json_cannot_say_is_kept_as_text(tmp_path, value, kept) -> None:
  keep_texts(tmp_path, 0, [record() | {"odd": value}])
  assert read_texts(tmp_path)[0].record[0]["odd"] == kept


def test_numbers_may_be_longer_than_python_prints(tmp_path) -> None:
  keep_texts(tmp_path, 0, [record() | {"odd": 16**5000}])
  assert read_texts(tmp_path)[0].record[0]["odd"] == "0x1" + 5000 * "0"


def test_nesting_has_an_end(tmp_path) -> None:
  deep: list = []
  for _ in range(500):
    deep = [deep]
  keep_texts(tmp_path, 0, [record(deep)])
  assert (tmp_path / "texts" / "0.jsonl").stat().st_size < 2000


def test_long_texts_are_cut_and_say_so(tmp_path, monkeypatch) -> None:
  monkeypatch.setattr(texts, "LONGEST", 10)
  keep_texts(tmp_path, 0, [record("x" * 10, "y" * 11, reference="z" * 9)])
  (kept,) = read_texts(tmp_path)[0].record
  assert kept["prompt"] == "x" * 10
  assert kept["completion"] == "y" * 10 + "… [10 of 11 characters]"
  assert kept["reference"] == "z" * 9


def test_first_and_newest_evaluations_stay(tmp_path) -> None:
  for step in (0, 5, 10, 20, 100, 1000):
    keep_texts(tmp_path, step, [record(completion=f"{step}")])
  found = read_texts(tmp_path)
  assert [one.step for one in found] == [0, 20, 100, 1000]
  assert [one.record[0]["completion"] for one in found] == [
    f"{one.step}" for one in found
  ]


@FEW
@hypothesis.given(
  total=st.integers(1, 14),
  every=st.integers(1, 4),
  kills=st.lists(st.tuples(st.integers(0, 14), st.integers(0, 14)), max_size=4),
)
def test_kills_and_resumes_leave_the_uninterrupted_texts(
  total: int, every: int, kills: list[tuple[int, int]]
) -> None:
  """A kill at one step, going on from any earlier one."""

  def evaluate(workdir: Path, first: int, last: int) -> None:
    for step in range(first, last + 1):
      if step % every == 0 or step == total:
        keep_texts(workdir, step, [record(completion=f"{step}")])

  with tempfile.TemporaryDirectory() as directory:
    whole, killed = Path(directory) / "whole", Path(directory) / "killed"
    evaluate(whole, 0, total)
    first = 0
    for reached, back in kills:
      evaluate(killed, first, min(max(first, reached), total))
      first = min(back, min(max(first, reached), total))
      texts.drop_texts(killed, after=first if first else -1)
      first += bool(first)
    evaluate(killed, first, total)
    assert read_texts(killed) == read_texts(whole)


def test_a_half_written_file_does_not_count(tmp_path) -> None:
  keep_texts(tmp_path, 3, [record()])
  (tmp_path / "texts" / "6.jsonl.partial").write_text('{"prom')
  (tmp_path / "texts" / "notes.jsonl").write_text("mine")
  assert [one.step for one in read_texts(tmp_path)] == [3]


@pytest.mark.parametrize("line", ["{", "[1]", "3", "null", ""])
def test_a_damaged_line_is_named(tmp_path, line: str) -> None:
  keep_texts(tmp_path, 3, [record(), record()])
  path = tmp_path / "texts" / "3.jsonl"
  path.write_text(path.read_text().splitlines()[0] + f"\n{line}\n")
  with pytest.raises(ValueError, match=r"3\.jsonl, line 2 is not what"):
    read_texts(tmp_path)


def test_nothing_written_reads_as_nothing(tmp_path) -> None:
  assert read_texts(tmp_path) == []


@hypothesis.given(anything)
def test_what_is_printed_moves_nothing(text: str) -> None:
  shown = printable(text)
  shown.encode()  # No lone surrogate is left.
  unseen = {"Cc", "Cf", "Cs", "Co", "Zl", "Zp"}
  for one in shown:
    assert one in "\n\t" or unicodedata.category(one) not in unseen
  assert printable(shown) == shown


def test_ordinary_texts_are_printed_as_they_are() -> None:
  text = "Größe: 3 × 4 = 12, 你好 🙂\n\tindented"
  assert printable(text) == text
  assert printable("a\nb", keep="") == "a\\x0ab"
  assert printable("\x1b]0;x\x07\x9b") == "\\x1b]0;x\\x07\\x9b"
  assert printable("\u202e\ud800") == "\\u202e\\ud800"


def test_records_are_json_lines(tmp_path) -> None:
  keep_texts(tmp_path, 0, [record("\u2028", "\r\n"), record()])
  lines = (tmp_path / "texts" / "0.jsonl").read_bytes().splitlines()
  assert [json.loads(line)["prompt"] for line in lines] == ["\u2028", "p"]
