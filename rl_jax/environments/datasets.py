"""Published problems, read by their published schema."""

from __future__ import annotations

import dataclasses
import gzip
import json
import pathlib
from typing import TYPE_CHECKING, Any, Literal

from rl_jax.environments.texts import Item, filled, listed
from rl_jax.rewards.verifiers import (
  Code,
  Format,
  Math,
  UnitTests,
  Verifier,
  boxed,
  ifeval,
)

if TYPE_CHECKING:
  from collections.abc import Callable, Iterator, Mapping

  from rl_jax.data.source import Source

__all__ = ["Gsm8k", "Instructions", "MathProblems", "Programs"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Gsm8k:
  """Grade-school word problems; the reference is the number.

  Items come from `path`, a JSON Lines file with "question" and "answer" (the
  solution, then "#### " and the number), or without one from the builder
  `gsm8k` of tensorflow-datasets, which downloads them once.

  Cobbe et al. 2021, arXiv:2110.14168.

  Raises:
    ValueError: if `rows` is below 1 or the template lacks its place.
  """

  rows: int
  """Prompts of a batch."""
  path: str | None = None
  """The file; its split is its own, so `split` must say the same."""
  split: Literal["train", "test"] = "train"
  """7473 problems to learn from, or 1319 held out."""
  template: str = "{question}\n"
  """The prompt; {question} stands for the problem."""
  shuffle: bool = True
  """Whether every pass has an order of its own."""
  verifier: Verifier = Math()
  """What judges."""

  def __post_init__(self):
    _checked(self.rows, self.template, "question")

  def source(self) -> Source:
    """The problems, in memory.

    Raises:
      FileNotFoundError: if there is no file at `path`.
      ValueError: if a row does not have the schema, with its line.
    """
    if self.path is not None:
      return listed(_items(self.path, self._item))
    from tensorflow_datasets.text.gsm8k import gsm8k

    builder = gsm8k.Gsm8k(file_format="array_record")
    builder.download_and_prepare()
    found = builder.as_data_source(split=self.split)
    return listed(
      self._item({key: text.decode() for key, text in row.items()})
      for row in found
    )

  def _item(self, row: Mapping[str, Any]) -> Item:
    _, mark, number = row["answer"].rpartition("####")
    if not mark or not number.strip():
      raise ValueError("the answer lacks '####' and a number")
    prompt = filled(self.template, "question", row["question"])
    return prompt, number.strip().replace(",", "")


@dataclasses.dataclass(frozen=True, kw_only=True)
class MathProblems:
  r"""Competition problems (MATH, MATH-500); the reference is the answer.

  `path` is a JSON Lines file, or a folder with one JSON file per problem below
  it, as MATH was published. A row has "problem" and "solution", whose last
  \boxed{...} is the answer unless "answer" says it.

  Hendrycks et al. 2021, arXiv:2103.03874.

  Raises:
    ValueError: if `rows` is below 1, the template lacks its place, or levels
      are none of 1 to 5.
  """

  rows: int
  """Prompts of a batch."""
  path: str
  """The file or folder."""
  levels: tuple[int, ...] = (1, 2, 3, 4, 5)
  """Which levels of difficulty; rows without one always count."""
  template: str = "{problem}\n"
  """The prompt; {problem} stands for the problem."""
  shuffle: bool = True
  """Whether every pass has an order of its own."""
  verifier: Verifier = Math()
  """What judges."""

  def __post_init__(self):
    _checked(self.rows, self.template, "problem")
    if not self.levels or not set(self.levels) <= {1, 2, 3, 4, 5}:
      raise ValueError(f"levels must be of 1 to 5, got {self.levels}")

  def source(self) -> Source:
    """The problems, in memory, files in the order of their names.

    Raises:
      FileNotFoundError: if there is nothing at `path`.
      ValueError: if a row does not have the schema, with its line.
    """
    return listed(_items(self.path, self._item))

  def _item(self, row: Mapping[str, Any]) -> Item | None:
    # "Level 5" in MATH, 5 in MATH-500, "Level ?" for three of them.
    level = f"{row.get('level', '')}".removeprefix("Level ")
    if level.isdigit() and int(level) not in self.levels:
      return None
    answer = row.get("answer") or boxed(row["solution"])
    if not answer:
      raise ValueError("neither an answer nor a boxed one in the solution")
    return filled(self.template, "problem", row["problem"]), answer


@dataclasses.dataclass(frozen=True, kw_only=True)
class Programs:
  """Functions to be written, in the schema of HumanEval.

  `path` is a JSON Lines file, gzipped or not, with "prompt" (imports, the
  head of a function and its docstring), "test" (defines `check(candidate)`)
  and "entry_point". The reference is a `UnitTests`.

  Chen et al. 2021, arXiv:2107.03374.

  Raises:
    ValueError: if `rows` is below 1 or the template lacks its place.
  """

  rows: int
  """Prompts of a batch."""
  path: str
  """The file."""
  template: str = "{prompt}"
  """The prompt; {prompt} stands for the head of the function."""
  shuffle: bool = True
  """Whether every pass has an order of its own."""
  verifier: Verifier = Code()
  """What judges."""

  def __post_init__(self):
    _checked(self.rows, self.template, "prompt")

  def source(self) -> Source:
    """The programs, in memory.

    Raises:
      FileNotFoundError: if there is no file at `path`.
      ValueError: if a row does not have the schema, with its line.
    """
    return listed(_items(self.path, self._item))

  def _item(self, row: Mapping[str, Any]) -> Item:
    if not row["entry_point"].isidentifier():
      raise ValueError(f"{row['entry_point']!r} is no name of a function")
    test = f"{row['test']}\ncheck({row['entry_point']})"
    prompt = filled(self.template, "prompt", row["prompt"])
    return prompt, UnitTests(row["prompt"], test)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Instructions:
  """Prompts that ask for a form, in the schema of IFEval.

  `path` is a JSON Lines file with "prompt", "instruction_id_list" and
  "kwargs"; the reference is a tuple of checks. Rows with an instruction that
  `ifeval` does not support are an error, or are left out with `skip`.

  Zhou et al. 2023, arXiv:2311.07911.

  Raises:
    ValueError: if `rows` is below 1 or the template lacks its place.
  """

  rows: int
  """Prompts of a batch."""
  path: str
  """The file."""
  skip: bool
  """Whether rows that cannot be checked are left out."""
  template: str = "{prompt}\n"
  """The prompt; {prompt} stands for the published one."""
  shuffle: bool = True
  """Whether every pass has an order of its own."""
  verifier: Verifier = Format(partial=True)
  """What judges."""

  def __post_init__(self):
    _checked(self.rows, self.template, "prompt")

  def source(self) -> Source:
    """The prompts, in memory.

    Raises:
      FileNotFoundError: if there is no file at `path`.
      ValueError: if a row does not have the schema, with its line.
    """
    return listed(_items(self.path, self._item))

  def _item(self, row: Mapping[str, Any]) -> Item | None:
    prompt = filled(self.template, "prompt", row["prompt"])
    names, parameters = row["instruction_id_list"], row["kwargs"]
    try:
      return prompt, ifeval(names, parameters)
    except ValueError:
      if self.skip:
        return None
      raise


def _checked(rows: int, template: str, field: str) -> None:
  if rows < 1:
    raise ValueError(f"rows must be at least 1, got {rows}")
  filled(template, field, "")


def _items(
  path: str, item: Callable[[Mapping[str, Any]], Item | None]
) -> Iterator[Item]:
  """Rows of a file or folder as items, None being left out."""
  for place, text in _documents(pathlib.Path(path)):
    try:
      made = item(json.loads(text))
    except KeyError as error:
      raise ValueError(f"{place}: the row lacks {error}") from error
    except (TypeError, AttributeError, ValueError) as error:
      raise ValueError(f"{place}: {error}") from error
    if made is not None:
      yield made


def _documents(path: pathlib.Path) -> Iterator[tuple[str, str]]:
  if path.is_dir():
    for file in sorted(path.rglob("*.json")):
      yield f"{file}", file.read_text(encoding="utf-8")
    return
  opened = gzip.open if path.suffix == ".gz" else open
  with opened(path, "rt", encoding="utf-8") as lines:
    for number, line in enumerate(lines, 1):
      if line.strip():
        yield f"{path} line {number}", line
