"""Prompts of a text task as token ids, padded on the left."""

from __future__ import annotations

import dataclasses
import functools
import logging
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from rl_jax.data.text_wording import Chat, Conversation, Plain, as_text

if TYPE_CHECKING:
  from collections.abc import Callable

  from jaxtyping import Int

  from rl_jax.data.source import Layout, Source
  from rl_jax.data.text_wording import Wording
  from rl_jax.models.tokenizer import Tokenizer

__all__ = ["PromptSource", "Prompts", "fitting", "too_long_error"]

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prompts:
  """The prompts of a task, for a language policy to answer.

  Items are {"prompt": int32 [row, length], "prompt_mask": bool [row, length],
  "item": int32 [row]}: ids padded on the left, so that the last column is the
  last token of every prompt; true = a token of it; which item of the task.
  A prompt is cut when it is asked for, so the task may have any size. With
  `answer` there are also "answer": int32 [row, answer], the ids of the
  reference padded on the right, and "answer_mask", for components that score
  it (`algorithms.recipe`).

  Raises:
    ValueError: if `length` is below 1 or `answer` negative. An item whose
      reference is no text, is empty or has more than `answer` tokens is an
      error when it comes.
  """

  task: Any
  """Where prompts and references come from; see `rl_jax.environments`."""
  vocabulary: Any
  """Whose ids; see `rl_jax.models.vocabularies`."""
  length: int
  """Columns: the most tokens of a prompt."""
  wording: Plain | Chat = Plain()
  """How a prompt is put to the model."""
  too_long: Literal["refuse", "drop"] = "refuse"
  """A prompt with more tokens is an error when it comes; or all prompts are
  cut once at the start, and such are left out and counted."""
  answer: int = 0
  """Most tokens of a reference that goes with its prompt; 0: none does."""

  def __post_init__(self):
    if self.length < 1 or self.answer < 0:
      raise ValueError(
        "length must be at least 1 and answer at least 0, got"
        f" {self.length} and {self.answer}"
      )

  @property
  def rows(self) -> int:
    """Prompts of a batch: those of the task."""
    return self.task.rows

  @property
  def shuffle(self) -> bool:
    """Whether every pass has an order of its own: as the task says."""
    return self.task.shuffle

  @property
  def layout(self) -> Layout:
    """Shapes and dtypes of a batch, known without reading anything."""
    wide = (self.rows, self.length)
    layout: Layout = {
      "prompt": (wide, np.int32),
      "prompt_mask": (wide, np.bool_),
      "item": (wide[:1], np.int32),
    }
    if self.answer:
      wide = (self.rows, self.answer)
      layout |= {"answer": (wide, np.int32), "answer_mask": (wide, np.bool_)}
    return layout

  def source(self) -> PromptSource:
    """The prompts; the same object every time.

    Raises:
      ValueError: if no prompt is left.
    """
    return self._source

  @functools.cached_property
  def _source(self) -> PromptSource:
    task = self.task.source()
    whole = PromptSource(
      task=task,
      tokenizer=self.vocabulary.load(),
      wording=self.wording,
      length=self.length,
      answer=self.answer,
      kept=None,
    )
    if self.too_long == "refuse":
      return whole
    kept = fitting(
      len(task), lambda item: len(whole.ids(item)), self.length, "prompts"
    )
    return dataclasses.replace(whole, kept=kept)

  def texts(self, item: int) -> tuple[str | Conversation, Any]:
    """Prompt and reference of an item, as the task has them.

    Args:
      item: which item of the task, as "item" says it.

    Returns:
      The prompt before `wording`, and the reference.
    """
    columns = self.source().columns(np.array([item]))
    return columns["prompt"][0], columns["reference"][0]


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class PromptSource:
  """See `Prompts`."""

  task: Source
  """The items."""
  tokenizer: Tokenizer
  """What cuts them."""
  wording: Wording
  """How they are put."""
  length: int
  """Columns."""
  answer: int
  """Most tokens of a reference; 0: references stay with the task."""
  kept: Int[np.ndarray, "row"] | None
  """Items that fit, in their order; None where all are taken."""

  def __len__(self) -> int:
    return len(self.task) if self.kept is None else len(self.kept)

  def __getitem__(
    self, indices: Int[np.ndarray, "row"]
  ) -> dict[str, np.ndarray]:
    items = indices if self.kept is None else self.kept[indices]
    pad = self.tokenizer.pad
    filler = 0 if pad is None else self.tokenizer.id(pad)
    token = np.full((len(items), self.length), filler, np.int32)
    mask = np.zeros(token.shape, bool)
    columns = self.columns(items)
    for row, item in enumerate(items):
      ids = self._ids(columns["prompt"][row], int(item))
      if len(ids) > self.length:
        raise too_long_error(f"the prompt of item {item}", len(ids), self)
      token[row, self.length - len(ids) :] = ids
      mask[row, self.length - len(ids) :] = True
    found = {
      "prompt": token,
      "prompt_mask": mask,
      "item": np.asarray(items, np.int32),
    }
    if self.answer:
      found |= self._answers(columns["reference"], items, filler)
    return found

  def _answers(
    self, references: list[Any], items: Int[np.ndarray, "row"], filler: int
  ) -> dict[str, np.ndarray]:
    """References as ids, padded on the right."""
    token = np.full((len(items), self.answer), filler, np.int32)
    mask = np.zeros(token.shape, bool)
    for row, (item, reference) in enumerate(
      zip(items, references, strict=True)
    ):
      if not isinstance(reference, str):
        raise ValueError(
          f"answer = {self.answer}, and the reference of item {item} is no"
          f" text but {type(reference).__name__}"
        )
      ids = self.tokenizer.encode(reference)
      if not 0 < len(ids) <= self.answer:
        raise ValueError(
          f"the reference of item {item} has {len(ids)} tokens, which is not"
          f" in [1, answer = {self.answer}]"
        )
      token[row, : len(ids)] = ids
      mask[row, : len(ids)] = True
    return {"answer": token, "answer_mask": mask}

  def columns(self, items: Int[np.ndarray, "row"]) -> dict[str, list[Any]]:
    """What the task says of items, bytes as text.

    Args:
      items: which items of the task.

    Returns:
      Lists by name, "prompt" and "reference" among them.
    """
    columns = {}
    for name, column in self.task[np.asarray(items)].items():
      columns[name] = [
        as_text(value, f"{name} of item {item}")
        if name == "prompt" or isinstance(value, bytes)
        else value
        for item, value in zip(items, column, strict=True)
      ]
    return columns

  def ids(self, item: int) -> list[int]:
    """The prompt of an item, without padding and however long.

    Args:
      item: which item of the task.

    Returns:
      Its ids, at least one.

    Raises:
      ValueError: if it has none, or the tokenizer refuses it.
    """
    return self._ids(self.columns(np.array([item]))["prompt"][0], item)

  def _ids(self, prompt: str | Conversation, item: int) -> list[int]:
    try:
      ids = self.wording.ids(self.tokenizer, prompt)
    except ValueError as error:
      raise ValueError(f"the prompt of item {item}: {error}") from error
    if not ids:
      raise ValueError(
        f"the prompt of item {item} is empty: a model needs a token to go on"
        " from"
      )
    return ids


def fitting(
  count: int, size: Callable[[int], int], length: int, name: str
) -> Int[np.ndarray, "row"]:
  """The items that fit, the others being counted in the log.

  Args:
    count: number of items.
    size: tokens of an item.
    length: most of them.
    name: what the items are called.

  Returns:
    Their numbers, ascending.

  Raises:
    ValueError: if none fits.
  """
  sizes = np.array([size(item) for item in range(count)])
  kept = np.flatnonzero(sizes <= length)
  dropped = count - len(kept)
  if not len(kept):
    raise ValueError(
      f"all {count} {name} have more than length = {length} tokens, the"
      f" shortest {sizes.min()}"
    )
  if dropped:
    _log.warning(
      "%d of %d %s have more than length = %d tokens (the longest %d) and are"
      " left out",
      dropped,
      count,
      name,
      length,
      sizes.max(),
    )
  return kept


def too_long_error(name: str, tokens: int, settings: Any) -> ValueError:
  """The error of a text that does not fit.

  Args:
    name: which text.
    tokens: how many it has.
    settings: has the `length`.

  Returns:
    The error, to be raised.
  """
  return ValueError(
    f"{name} has {tokens} tokens, more than length = {settings.length}: raise"
    " the length, or leave such items out with too_long='drop'"
  )
