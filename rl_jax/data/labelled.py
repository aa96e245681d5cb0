"""Responses of which each was found right or wrong, on its own."""

from __future__ import annotations

import dataclasses
import functools
import json
import logging
import math
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from rl_jax.data.text import fitting, too_long_error
from rl_jax.data.text_demonstrations import (
  Demonstration,
  answer_ids,
  laid_out,
)
from rl_jax.data.text_files import records
from rl_jax.data.text_wording import Chat, Conversation, Plain, as_text

if TYPE_CHECKING:
  from collections.abc import Sequence

  from jaxtyping import Bool, Int

  from rl_jax.data.source import Layout
  from rl_jax.models.tokenizer import Tokenizer

__all__ = [
  "LabelledResponse",
  "LabelledResponses",
  "balance_indices",
  "labelled_pairs",
  "read_labelled",
]

_log = logging.getLogger(__name__)

_KEYS = ("instruction", "response", "label")

type Balance = Literal["dataset", "instruction"]


class LabelledResponse(NamedTuple):
  """An instruction, a response to it, and whether that is right.

  Attributes:
    instruction: text or conversation.
    response: text.
    label: in [0, 1]: 1 = right.
  """

  instruction: str | Conversation
  response: str
  label: float


def read_labelled(record: dict[str, Any]) -> LabelledResponse:
  """A record of {instruction, response, label}; see `LabelledResponses`.

  Args:
    record: what stands in the file.

  Returns:
    The labelled response.

  Raises:
    ValueError: if a key is missing, the response is no text, or the label is
      no truth value and no number in [0, 1].
  """
  for key in _KEYS:
    if key not in record:
      raise ValueError(f"the record lacks {key!r}; it has {sorted(record)}")
  response = as_text(record["response"], "response")
  if not isinstance(response, str):
    raise ValueError("the response must be text, got messages")
  label = record["label"]
  number = isinstance(label, bool | int | float) and math.isfinite(label)
  if not number or not 0 <= label <= 1:
    raise ValueError(f"the label must be in [0, 1], got {label!r}")
  instruction = as_text(record["instruction"], "instruction")
  return LabelledResponse(instruction, response, float(label))


def balance_indices(
  label: Bool[np.ndarray, "row"],
  instruction: Int[np.ndarray, "row"],
  *,
  mode: Balance,
  rng: np.random.Generator,
) -> Int[np.ndarray, "kept"]:
  """Rows of which as many are right as wrong, drawn without replacement.

  Args:
    label: true = right.
    instruction: which instruction each row answers, any ids.
    mode: as many of each in all, or within each instruction; the latter
      leaves out instructions whose responses are all right or all wrong.
    rng: draws which rows of the more frequent kind stay.

  Returns:
    Row numbers, rising.

  Raises:
    ValueError: if the mode is unknown, lengths differ or nothing is left.

  Yuan et al. 2024, arXiv:2412.01981, section 4.3.

  >>> balance_indices(
  ...   np.array([True, True, False, True]),
  ...   np.array([0, 0, 1, 1]),
  ...   mode="instruction",
  ...   rng=np.random.default_rng(0),
  ... )
  array([2, 3])
  """
  label, instruction = np.asarray(label, bool), np.asarray(instruction)
  if label.shape != instruction.shape:
    raise ValueError(f"{label.shape} labels, {instruction.shape} instructions")
  match mode:
    case "dataset":
      parts = [np.arange(len(label))]
    case "instruction":
      # One sort, so that it costs no more with many instructions.
      order = np.argsort(instruction, kind="stable")
      cuts = np.flatnonzero(np.diff(instruction[order])) + 1
      parts = np.split(order, cuts)
    case _:
      raise ValueError(f"mode must be 'dataset' or 'instruction', got {mode!r}")
  kept = []
  for part in parts:
    sides = part[label[part]], part[~label[part]]
    count = min(map(len, sides))
    kept += [rng.permutation(side)[:count] for side in sides]
  found = np.sort(np.concatenate(kept)) if kept else np.zeros(0, int)
  if not found.size:
    raise ValueError(
      f"{label.sum()} of {label.size} responses are right, and none is left"
      f" with mode={mode!r}"
    )
  return found


def labelled_pairs(
  responses: Sequence[LabelledResponse], *, rng: np.random.Generator
) -> list[dict[str, Any]]:
  """Pairs of a right and a wrong response to the same instruction.

  An instruction with r right and w wrong responses gives min(r, w) pairs, in
  which each response comes once at most; one without both kinds gives none.

  Args:
    responses: with labels of 0 and 1.
    rng: draws who is paired with whom.

  Returns:
    Records for `Preferences`.

  Raises:
    ValueError: if a label is neither 0 nor 1, or there is no pair.
  """
  groups: dict[str, tuple[list[LabelledResponse], list[LabelledResponse]]] = {}
  for one in responses:
    if one.label not in (0.0, 1.0):
      raise ValueError(f"a pair needs labels of 0 and 1, got {one.label}")
    wrong, right = groups.setdefault(_key(one.instruction), ([], []))
    (right if one.label else wrong).append(one)
  pairs = []
  for wrong, right in groups.values():
    chosen = rng.permutation(len(right)).tolist()
    rejected = rng.permutation(len(wrong)).tolist()
    pairs += [
      {
        "prompt": right[good].instruction,
        "chosen": right[good].response,
        "rejected": wrong[bad].response,
      }
      for good, bad in zip(chosen, rejected, strict=False)
    ]
  without = sum(not (wrong and right) for wrong, right in groups.values())
  if not pairs:
    raise ValueError(
      f"none of {len(groups)} instructions has a right and a wrong response"
    )
  if without:
    _log.warning(
      "%d of %d instructions have no pair: all of their responses are right,"
      " or all are wrong",
      without,
      len(groups),
    )
  return pairs


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelledResponses:
  """Responses with a label of their own, such as a verifier gives.

  A record has `instruction`, a text or a conversation, `response`, a text,
  and `label`, a truth value or a number in [0, 1].

  Items are {"token": int32 [row, length], "segment": int32 [row, length],
  "mask": bool [row, length], "label": float32 [row]}: ids padded on the
  right; 1, or 0 in padding; true = a token of the response or its end.

  Raises:
    ValueError: if `rows` or `length` is below 1.
  """

  rows: int
  """Responses of a batch."""
  responses: Any
  """Path of a JSON Lines file; or records, each a dictionary or a tuple of
  instruction, response and label; or a function of no arguments that gives
  them."""
  vocabulary: Any
  """Whose ids; see `rl_jax.models.vocabularies`."""
  length: int
  """Columns: the most tokens of an instruction with a response."""
  balance: Balance | None = None
  """How as many right as wrong ones are kept; see `balance_indices`. None
  keeps all."""
  seed: int = 0
  """Of the draw of those that are kept."""
  too_long: Literal["refuse", "drop"] = "refuse"
  """Longer ones are an error, or are left out and counted."""
  wording: Plain | Chat = Plain()
  """How an instruction is put to the model."""
  end: str | None = None
  """Token behind a response; None: the vocabulary's `eos`."""
  shuffle: bool = True
  """Whether every pass has an order of its own."""

  def __post_init__(self):
    if self.rows < 1 or self.length < 1:
      raise ValueError(
        f"rows and length must be at least 1, got {self.rows} and {self.length}"
      )

  @property
  def layout(self) -> Layout:
    """Shapes and dtypes of a batch, known without reading anything."""
    wide = (self.rows, self.length)
    return {
      "token": (wide, np.int32),
      "segment": (wide, np.int32),
      "mask": (wide, np.bool_),
      "label": (wide[:1], np.float32),
    }

  def source(self) -> LabelledSource:
    """The responses, as text in memory; the same object every time.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if a record is damaged or too long, with its place; or none
        is left.
    """
    return self._source

  @functools.cached_property
  def _source(self) -> LabelledSource:
    source = LabelledSource([], self.vocabulary.load(), self)
    sizes = []
    for place, record in records(self.responses, _KEYS):
      try:
        one = read_labelled(record)
        size = source.demonstration(one).size
      except ValueError as error:
        raise ValueError(f"{place}: {error}") from error
      if size > self.length and self.too_long == "refuse":
        raise too_long_error(place, size, self)
      source.responses.append(one)
      sizes.append(size)
    if not sizes:
      raise ValueError("there is no response")
    kept = fitting(len(sizes), sizes.__getitem__, self.length, "responses")
    left = [source.responses[row] for row in kept]
    if self.balance is not None:
      ids: dict[str, int] = {}
      instruction = [
        ids.setdefault(_key(one.instruction), len(ids)) for one in left
      ]
      rows = balance_indices(
        np.array([_binary(one.label) for one in left]),
        np.array(instruction),
        mode=self.balance,
        rng=np.random.default_rng(self.seed),
      )
      left = [left[row] for row in rows]
    return dataclasses.replace(source, responses=left)


@dataclasses.dataclass(frozen=True, eq=False)
class LabelledSource:
  """See `LabelledResponses`."""

  responses: list[LabelledResponse]
  """What is left of them."""
  tokenizer: Tokenizer
  """What cuts them."""
  settings: LabelledResponses
  """What the rows are made by."""

  def __len__(self) -> int:
    return len(self.responses)

  def __getitem__(
    self, indices: Int[np.ndarray, "row"]
  ) -> dict[str, np.ndarray]:
    chosen = [self.responses[int(index)] for index in indices]
    rows = [[self.demonstration(one)] for one in chosen]
    found = laid_out(rows, self.settings.length, self.tokenizer)
    return found | {
      "label": np.array([one.label for one in chosen], np.float32)
    }

  def demonstration(self, one: LabelledResponse) -> Demonstration:
    """The ids of an instruction and a response, however long.

    Args:
      one: the texts.

    Returns:
      Their ids, the end included.

    Raises:
      ValueError: if the instruction is empty or the tokenizer refuses a text.
    """
    settings = self.settings
    prompt = settings.wording.ids(self.tokenizer, one.instruction)
    if not prompt:
      raise ValueError("the instruction is empty")
    answer = answer_ids(self.tokenizer, one.response, settings.end)
    return Demonstration(prompt, answer)


def _key(instruction: str | Conversation) -> str:
  """Equal for equal instructions."""
  return json.dumps(instruction)


def _binary(label: float) -> bool:
  if label not in (0.0, 1.0):
    raise ValueError(f"balance needs labels of 0 and 1, got {label}")
  return bool(label)
