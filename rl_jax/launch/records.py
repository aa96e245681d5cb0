"""Numbers, pictures and texts of a run on disk, exact over kills and resumes.

`metrics.jsonl` is the record: one line per measurement, appended and flushed
before the checkpoint of that step is written. Everything else here, the wide
table and the TensorBoard events, can be made from it again.
"""

from __future__ import annotations

import csv
import json
import math
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TextIO

import numpy as np

from rl_jax.launch.board import Board
from rl_jax.launch.texts import drop_texts, keep_texts, read_texts
from rl_jax.training.loop import Row

if TYPE_CHECKING:
  from rl_jax.training.loop import Outcome

__all__ = [
  "Picture",
  "Records",
  "read_pictures",
  "read_records",
  "read_texts",
]

_CORRECT = "_correct"


class Picture(NamedTuple):
  """Samples of one evaluation.

  Attributes:
    step: of the evaluation.
    image: usually [row, column, height, width] in [-1, 1].
    correct: [row, column], whether a sample is what its row asks for; None
      where nobody said.
  """

  step: int
  image: np.ndarray
  correct: np.ndarray | None


class Records:
  """An observer that writes what is measured below a work directory.

  On a resume from step s, whatever was written of later steps is taken back
  first, so that nothing appears twice; `seconds` goes on from the last row
  that is kept.

  Args:
    workdir: of the run; made if absent.
  """

  def __init__(self, workdir: Path) -> None:
    self._workdir = Path(workdir)
    self._file: TextIO | None = None
    self._board: Board | None = None
    self._before = 0.0

  def started(self, *, step: int, steps: int) -> None:
    """Takes back what is later than `step` and opens the files.

    Raises:
      ValueError: if the record is damaged other than by a torn last line.
    """
    del steps
    self.close()
    self._workdir.mkdir(parents=True, exist_ok=True)
    # The loop measures step 0 anew whenever it starts there.
    kept = [r for r in read_records(self._workdir) if 0 < step >= r.step]
    path = self._workdir / "metrics.jsonl"
    _write_whole(path, "".join(map(_line, kept)).encode())
    self._before = kept[-1].seconds if kept else 0.0
    for file, _, picture_step in _picture_files(self._workdir):
      if step == 0 or picture_step > step:
        file.unlink()
    drop_texts(self._workdir, after=step if step else -1)
    self._file = path.open("a", encoding="utf-8")
    self._board = Board(self._workdir / "tensorboard", step=step)

  def measured(self, row: Row) -> None:
    """Appends one row; it is in the file when this returns.

    Raises:
      RuntimeError: if the loop has not said that it started.
    """
    if self._file is None or self._board is None:
      raise RuntimeError(f"row of step {row.step} before started() was called")
    row = row._replace(seconds=self._before + row.seconds)
    for name, picture in row.pictures.items():
      if not (
        name.endswith(_CORRECT) and name[: -len(_CORRECT)] in row.pictures
      ):
        correct = row.pictures.get(name + _CORRECT)
        self._keep_picture(name, Picture(row.step, picture, correct))
    if row.texts:
      keep_texts(self._workdir, row.step, row.texts)
    self._file.write(_line(row))
    self._file.flush()
    self._board.add(row)

  def saved(self, step: int) -> None:
    """Nothing to do: every row is in its file already."""

  def ended(self, outcome: Outcome) -> None:
    """Writes the wide table and closes the files."""
    del outcome
    self.close()

  def close(self) -> None:
    """The same without an outcome, for a run that raised; may be repeated."""
    if self._file is None:
      return
    self._file.close()
    self._file = None
    if self._board is not None:
      self._board.close()
      self._board = None
    _write_table(self._workdir)

  def _keep_picture(self, name: str, picture: Picture) -> None:
    path = self._workdir / "pictures" / f"{name}_{picture.step}.npz"
    path.parent.mkdir(parents=True, exist_ok=True)
    arrays = {"image": picture.image}
    if picture.correct is not None:
      arrays["correct"] = picture.correct
    temporary = path.with_name(path.name + ".partial")
    with temporary.open("wb") as file:
      np.savez_compressed(file, **arrays)
    os.replace(temporary, path)
    found = [f for f, n, _ in _picture_files(self._workdir) if n == name]
    for file in found[1:-1]:
      file.unlink()


def read_records(workdir: Path) -> list[Row]:
  """Every row of a run, in order, without pictures and texts.

  A last line without its line end was torn by a kill and does not count.

  Args:
    workdir: of the run.

  Returns:
    The rows; none if nothing was recorded.

  Raises:
    ValueError: if any other line cannot be read; it names the line.
  """
  path = Path(workdir) / "metrics.jsonl"
  if not path.exists():
    return []
  rows = []
  *lines, _ = path.read_bytes().split(b"\n")
  for i, line in enumerate(lines, start=1):
    try:
      item = json.loads(line)
      # Strings stand for what JSON has no number for: nan, inf.
      metrics = {k: float(v) for k, v in item["metrics"].items()}
      rows.append(Row(item["step"], item["kind"], metrics, item["seconds"], {}))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
      raise ValueError(
        f"{path}, line {i} is not a record of a run ({error}); move the file"
        " away to go on without it"
      ) from error
  return rows


def read_pictures(workdir: Path) -> dict[str, list[Picture]]:
  """The kept pictures of a run.

  Args:
    workdir: the run's directory.

  Returns:
    Name of the picture -> its versions, earliest first.
  """
  found: dict[str, list[Picture]] = {}
  for path, name, step in _picture_files(Path(workdir)):
    with np.load(path) as arrays:
      correct = arrays.get("correct")
      found.setdefault(name, []).append(Picture(step, arrays["image"], correct))
  return found


def _picture_files(workdir: Path) -> list[tuple[Path, str, int]]:
  directory = workdir / "pictures"
  found = []
  for path in directory.rglob("*.npz"):
    relative = path.relative_to(directory).with_suffix("").as_posix()
    if match := re.fullmatch(r"(.+)_(\d+)", relative):
      found.append((path, match[1], int(match[2])))
  return sorted(found, key=lambda item: item[1:])


def _line(row: Row) -> str:
  item: dict[str, Any] = {
    "step": row.step,
    "kind": row.kind,
    "seconds": round(row.seconds, 4),
    "metrics": {
      k: v if math.isfinite(v) else repr(v) for k, v in row.metrics.items()
    },
  }
  return json.dumps(item, allow_nan=False) + "\n"


def _write_table(workdir: Path) -> None:
  rows = read_records(workdir)
  names = list(dict.fromkeys(name for row in rows for name in row.metrics))
  path = workdir / "metrics.csv"
  temporary = path.with_name(path.name + ".partial")
  with temporary.open("w", newline="", encoding="utf-8") as file:
    table = csv.writer(file)
    table.writerow(["step", "kind", "seconds", *names])
    for row in rows:
      cells = [row.metrics.get(name, "") for name in names]
      table.writerow([row.step, row.kind, row.seconds, *cells])
  os.replace(temporary, path)


def _write_whole(path: Path, content: bytes) -> None:
  temporary = path.with_name(path.name + ".partial")
  with temporary.open("wb") as file:
    file.write(content)
    file.flush()
    os.fsync(file.fileno())
  os.replace(temporary, path)
