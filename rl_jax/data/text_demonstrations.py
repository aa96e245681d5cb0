"""Answers to be imitated, as token ids in rows."""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from rl_jax.data.text import PromptSource, fitting, too_long_error
from rl_jax.data.text_packing import packed
from rl_jax.data.text_wording import Chat, Plain
from rl_jax.environments.texts import filled

if TYPE_CHECKING:
  from collections.abc import Sequence

  from jaxtyping import Int

  from rl_jax.data.source import Layout
  from rl_jax.models.tokenizer import Tokenizer

__all__ = ["Demonstration", "Demonstrations", "answer_ids", "laid_out"]


class Demonstration(NamedTuple):
  """A prompt with an answer.

  Attributes:
    prompt: ids that are given.
    answer: ids that are learned, the end token included.
  """

  prompt: list[int]
  answer: list[int]

  @property
  def size(self) -> int:
    """Tokens of both."""
    return len(self.prompt) + len(self.answer)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Demonstrations:
  """Prompts with the answers to be learned.

  Items are {"token": int32 [row, length], "segment": int32 [row, length],
  "mask": bool [row, length]}, padded on the right: ids; which demonstration
  of the row a column belongs to, from 1, 0 = padding; true = a token to be
  learned, that is one of an answer or its end. Prompt and answer are cut
  apart, so that a policy sees the very prompts that `Prompts` makes.

  Raises:
    ValueError: if `length` is below 1 or `answer` lacks its place.
  """

  task: Any
  """Where prompts come from; its references, which must be text, are the
  answers. See `rl_jax.environments` and `Texts`."""
  vocabulary: Any
  """Whose ids; see `rl_jax.models.vocabularies`."""
  length: int
  """Columns: the most tokens of a demonstration."""
  pack: bool
  """Whether demonstrations share rows, by `packed`; all are cut once at the
  start then, and an epoch has fewer rows. Otherwise each has its own row."""
  wording: Plain | Chat = Plain()
  """How a prompt is put to the model."""
  answer: str = "{answer}"
  """The answer; {answer} stands for the reference."""
  end: str | None = None
  """Token behind the answer; None: the vocabulary's `eos`."""
  too_long: Literal["refuse", "drop"] = "refuse"
  """A demonstration with more tokens is an error; or all are cut once at the
  start, and such are left out and counted."""

  def __post_init__(self):
    if self.length < 1:
      raise ValueError(f"length must be at least 1, got {self.length}")
    filled(self.answer, "answer", "")

  @property
  def rows(self) -> int:
    """Rows of a batch: those of the task."""
    return self.task.rows

  @property
  def shuffle(self) -> bool:
    """Whether every pass has an order of its own: as the task says."""
    return self.task.shuffle

  @property
  def layout(self) -> Layout:
    """Shapes and dtypes of a batch, known without reading anything."""
    wide = (self.rows, self.length)
    return {
      "token": (wide, np.int32),
      "segment": (wide, np.int32),
      "mask": (wide, np.bool_),
    }

  def source(self) -> DemonstrationSource:
    """The rows; the same object every time.

    Raises:
      ValueError: if no demonstration is left, or with `pack` one is too long.
    """
    return self._source

  @functools.cached_property
  def _source(self) -> DemonstrationSource:
    task = self.task.source()
    prompts = PromptSource(
      task=task,
      tokenizer=self.vocabulary.load(),
      wording=self.wording,
      length=self.length,
      answer=0,
      kept=None,
    )
    source = DemonstrationSource(prompts=prompts, settings=self, layout=None)
    if not self.pack and self.too_long == "refuse":
      return source
    sizes = [source.demonstration(item).size for item in range(len(task))]
    if self.too_long == "drop":
      kept = fitting(
        len(sizes), sizes.__getitem__, self.length, "demonstrations"
      ).tolist()
    else:
      kept = list(range(len(sizes)))
      worst = int(np.argmax(sizes))
      if sizes[worst] > self.length:
        raise too_long_error(f"demonstration {worst}", sizes[worst], self)
    layout = [[item] for item in kept]
    if self.pack:
      rows = packed([sizes[item] for item in kept], self.length)
      layout = [[kept[text] for text in row] for row in rows]
    return dataclasses.replace(source, layout=layout)


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class DemonstrationSource:
  """See `Demonstrations`."""

  prompts: PromptSource
  """The items of the task, one by one."""
  settings: Demonstrations
  """What the rows are made by."""
  layout: list[list[int]] | None
  """The items of each row; None: row i is item i."""

  def __len__(self) -> int:
    layout = self.layout
    return len(self.prompts) if layout is None else len(layout)

  def __getitem__(
    self, indices: Int[np.ndarray, "row"]
  ) -> dict[str, np.ndarray]:
    rows = []
    for index in map(int, indices):
      items = [index] if self.layout is None else self.layout[index]
      row = [self.demonstration(item) for item in items]
      size = sum(own.size for own in row)
      if size > self.settings.length:
        raise too_long_error(f"demonstration {index}", size, self.settings)
      rows.append(row)
    return laid_out(rows, self.settings.length, self.prompts.tokenizer)

  def demonstration(self, item: int) -> Demonstration:
    """Prompt and answer of an item, however long.

    Args:
      item: which item of the task.

    Returns:
      Their ids.

    Raises:
      ValueError: if the answer is no text, or the tokenizer refuses it.
    """
    columns = self.prompts.columns(np.array([item]))
    (reference,) = columns["reference"]
    if not isinstance(reference, str):
      raise ValueError(
        f"the reference of item {item} is {reference!r:.100}: only text can be"
        " an answer to learn"
      )
    text = filled(self.settings.answer, "answer", reference)
    tokenizer = self.prompts.tokenizer
    try:
      answer = answer_ids(tokenizer, text, self.settings.end)
    except ValueError as error:
      raise ValueError(f"the answer of item {item}: {error}") from error
    return Demonstration(self.prompts.ids(item), answer)


def answer_ids(tokenizer: Tokenizer, text: str, end: str | None) -> list[int]:
  """The ids of an answer and of its end.

  Args:
    tokenizer: what cuts it.
    text: the answer.
    end: token behind it; None: the vocabulary's `eos`.

  Returns:
    The ids, at least one.

  Raises:
    ValueError: if there is no such token.
  """
  end = tokenizer.eos if end is None else end
  if end is None:
    raise ValueError("the vocabulary names no eos token: name the end")
  return [*tokenizer.encode(text), tokenizer.id(end)]


def laid_out(
  rows: Sequence[Sequence[Demonstration]], length: int, tokenizer: Tokenizer
) -> dict[str, np.ndarray]:
  """Demonstrations side by side in rows, padded on the right.

  Args:
    rows: what each row holds, at most `length` tokens.
    length: columns.
    tokenizer: its `pad`, if it has one, stands in padding; else id 0.

  Returns:
    `token`, `segment` and `mask` as `Demonstrations` describes them.
  """
  pad = tokenizer.pad
  token = np.full(
    (len(rows), length), 0 if pad is None else tokenizer.id(pad), np.int32
  )
  segment = np.zeros(token.shape, np.int32)
  mask = np.zeros(token.shape, bool)
  for row, demonstrations in enumerate(rows):
    start = 0
    for number, (prompt, answer) in enumerate(demonstrations, 1):
      middle, end = start + len(prompt), start + len(prompt) + len(answer)
      token[row, start:end] = [*prompt, *answer]
      segment[row, start:end] = number
      mask[row, middle:end] = True
      start = end
  return {"token": token, "segment": segment, "mask": mask}
