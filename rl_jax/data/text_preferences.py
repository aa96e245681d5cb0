"""Pairs of answers of which one was preferred."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import logging
import math
import re
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from rl_jax.data.reference_scores import (
  ReferenceScores,
  pair_key,
  read_reference,
)
from rl_jax.data.text import fitting, too_long_error
from rl_jax.data.text_demonstrations import (
  Demonstration,
  answer_ids,
  laid_out,
)
from rl_jax.data.text_files import records
from rl_jax.data.text_wording import Chat, Conversation, Plain, as_text

if TYPE_CHECKING:
  from jaxtyping import Int

  from rl_jax.data.source import Layout
  from rl_jax.models.tokenizer import Tokenizer

__all__ = ["Pair", "Preferences", "read_pair"]

_log = logging.getLogger(__name__)

_KEYS = ("prompt", "chosen", "rejected", "margin")
_TURN = re.compile(r"\n\n(Human|Assistant):")
_ROLES = {"Human": "user", "Assistant": "assistant"}


class Pair(NamedTuple):
  """A prompt and two answers.

  Attributes:
    prompt: text or conversation.
    chosen: the preferred answer.
    rejected: the other one.
    margin: by how much, in the unit of whoever judged; None if not said.
  """

  prompt: str | Conversation
  chosen: str
  rejected: str
  margin: float | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preferences:
  """Pairs of answers to one prompt, as published preference data hold them.

  A record is one of

  - `prompt`, `chosen`, `rejected`: text (opinions, summaries);
  - `chosen`, `rejected`: conversations that differ in their last message,
    which is the assistant's (UltraFeedback), or the last messages alone with
    `prompt` a text or the conversation before them;
  - `chosen`, `rejected`: transcripts of "Human:" and "Assistant:" turns (HH),
    whose prompt is what they share up to an "Assistant:".

  Items are, for chosen and rejected alike, {"chosen": int32 [row, length],
  "chosen_segment": int32 [row, length], "chosen_mask": bool [row, length]}:
  ids padded on the right; 1, or 0 in padding; true = a token of the answer or
  its end. Both begin with the same prompt. All are cut once at the start. With
  `reference` there are also {"chosen_reference": float32 [row],
  "rejected_reference": float32 [row]}, sums of log-probabilities in nats.

  Raises:
    ValueError: if `rows` or `length` is below 1.
  """

  rows: int
  """Pairs of a batch."""
  pairs: Any
  """Path of a JSON Lines file; or records, each a dictionary or a tuple of
  prompt, chosen, rejected and possibly margin; or a function of no arguments
  that gives them."""
  vocabulary: Any
  """Whose ids; see `rl_jax.models.vocabularies`."""
  length: int
  """Columns: the most tokens of a prompt with an answer."""
  identical: Literal["refuse", "drop"]
  """Pairs of two equal answers, from which nothing can be learned, are an
  error, or are left out and counted."""
  too_long: Literal["refuse", "drop"] = "refuse"
  """Pairs with a longer side are an error, or are left out and counted."""
  margin: bool = False
  """Whether items have {"margin": float32 [row]}: the record's `margin`, else
  its `score_chosen` - `score_rejected`."""
  wording: Plain | Chat = Plain()
  """How a prompt is put to the model."""
  end: str | None = None
  """Token behind an answer; None: the vocabulary's `eos`."""
  shuffle: bool = True
  """Whether every pass has an order of its own."""
  # It says how the reference is come by, not which one it is.
  reference: str | None = dataclasses.field(
    default=None, metadata={"identity": False}
  )
  """Path of what `rl-jax reference` wrote of these pairs, for algorithms that
  would score them under the policy at the start in each step; None: none."""

  def __post_init__(self):
    if self.rows < 1 or self.length < 1:
      raise ValueError(
        f"rows and length must be at least 1, got {self.rows} and {self.length}"
      )

  @property
  def layout(self) -> Layout:
    """Shapes and dtypes of a batch, known without reading anything."""
    wide = (self.rows, self.length)
    found: Layout = {}
    for side in ("chosen", "rejected"):
      found |= {
        side: (wide, np.int32),
        f"{side}_segment": (wide, np.int32),
        f"{side}_mask": (wide, np.bool_),
      }
    more = ["margin"] if self.margin else []
    if self.reference is not None:
      more += ["chosen_reference", "rejected_reference"]
    return found | dict.fromkeys(more, (wide[:1], np.float32))

  def source(self) -> PreferenceSource:
    """The pairs, as text in memory; the same object every time.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if a record is damaged, identical or too long, with its
        place; or none is left; or the reference is damaged or of other pairs.
    """
    return self._source

  @functools.cached_property
  def _source(self) -> PreferenceSource:
    source = self._cut()
    if self.reference is None:
      return source
    found = read_reference(self.reference)
    for what, there, here in (
      ("pairs", len(found.chosen), len(source)),
      ("data of digest", found.data[:12], source.digest[:12]),
    ):
      if there != here:
        raise ValueError(
          f"{self.reference} is of {what} {there}, and these are {what} {here}:"
          " remove it, and write it anew of these pairs with `rl-jax reference"
          f" FILE {self.reference}`"
        )
    return dataclasses.replace(source, reference=found)

  def _cut(self) -> PreferenceSource:
    source = PreferenceSource(
      pairs=[], keys=[], tokenizer=self.vocabulary.load(), settings=self
    )
    places, sizes, identical = [], [], []
    for place, record in records(self.pairs, _KEYS):
      try:
        pair = read_pair(record, chat=isinstance(self.wording, Chat))
        if self.margin and pair.margin is None:
          raise ValueError("neither a margin nor two scores")
        chosen, rejected = source.sides(pair)
      except ValueError as error:
        raise ValueError(f"{place}: {error}") from error
      if pair.chosen == pair.rejected:
        identical.append(place)
      else:
        source.pairs.append(pair)
        source.keys.append(
          pair_key(chosen.prompt, chosen.answer, rejected.answer)
        )
        places.append(place)
        sizes.append(max(chosen.size, rejected.size))
    self._judge_identical(identical, len(sizes))
    if self.too_long == "drop":
      kept = fitting(len(sizes), sizes.__getitem__, self.length, "pairs")
      return dataclasses.replace(
        source,
        pairs=[source.pairs[row] for row in kept],
        keys=[source.keys[row] for row in kept],
      )
    worst = int(np.argmax(sizes))
    if sizes[worst] > self.length:
      raise too_long_error(places[worst], sizes[worst], self)
    return source

  def _judge_identical(self, places: list[str], others: int) -> None:
    count = len(places)
    if count and (self.identical == "refuse" or not others):
      raise ValueError(
        f"{count} of {count + others} pairs have two equal answers, the first"
        f" at {places[0]}; identical='drop' leaves them out"
      )
    if not others:
      raise ValueError("there is no pair")
    if count:
      _log.warning(
        "%d of %d pairs have two equal answers (the first at %s) and are left"
        " out",
        count,
        count + others,
        places[0],
      )


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class PreferenceSource:
  """See `Preferences`."""

  pairs: list[Pair]
  """What is left of them."""
  keys: list[bytes]
  """A digest of each, as ids."""
  tokenizer: Tokenizer
  """What cuts them."""
  settings: Preferences
  """What the rows are made by."""
  reference: ReferenceScores | None = None
  """What a reference says of each."""

  def __len__(self) -> int:
    return len(self.pairs)

  @property
  def digest(self) -> str:
    """64 hex digits of the ids of all pairs, in their order."""
    return hashlib.sha256(b"".join(self.keys)).hexdigest()

  def __getitem__(
    self, indices: Int[np.ndarray, "row"]
  ) -> dict[str, np.ndarray]:
    pairs = [self.pairs[int(index)] for index in indices]
    sides = [self.sides(pair) for pair in pairs]
    columns = {}
    for side, name in enumerate(("chosen", "rejected")):
      rows = [[both[side]] for both in sides]
      made = laid_out(rows, self.settings.length, self.tokenizer)
      columns[name] = made["token"]
      columns[f"{name}_segment"] = made["segment"]
      columns[f"{name}_mask"] = made["mask"]
    if self.settings.margin:
      columns["margin"] = np.array([pair.margin for pair in pairs], np.float32)
    if self.reference is not None:
      columns["chosen_reference"] = self.reference.chosen[indices]
      columns["rejected_reference"] = self.reference.rejected[indices]
    return columns

  def sides(self, pair: Pair) -> tuple[Demonstration, Demonstration]:
    """The prompt with each of the answers, however long.

    Args:
      pair: the texts.

    Returns:
      The ids with the chosen and with the rejected answer.

    Raises:
      ValueError: if the prompt is empty or the tokenizer refuses a text.
    """
    prompt = self.settings.wording.ids(self.tokenizer, pair.prompt)
    if not prompt:
      raise ValueError("the prompt is empty")
    chosen, rejected = (
      Demonstration(prompt, answer_ids(self.tokenizer, text, self.settings.end))
      for text in (pair.chosen, pair.rejected)
    )
    return chosen, rejected


def read_pair(record: dict[str, Any], *, chat: bool) -> Pair:
  """A record of one of the published schemas; see `Preferences`.

  Args:
    record: what stands in the file.
    chat: whether the prompt of a transcript is to be a conversation; it stays
      the transcript's text otherwise.

  Returns:
    Prompt, answers and margin.

  Raises:
    ValueError: if the record has none of the schemas.
  """
  for key in ("chosen", "rejected"):
    if key not in record:
      raise ValueError(f"the record lacks {key!r}; it has {sorted(record)}")
  chosen, rejected = (as_text(record[k], k) for k in ("chosen", "rejected"))
  prompt = record.get("prompt")
  prompt = None if prompt is None else as_text(prompt, "prompt")
  margin = _margin(record)
  match chosen, rejected:
    case str(), str():
      if prompt is None:
        return _transcripts(chosen, rejected, margin, chat=chat)
      return Pair(prompt, chosen, rejected, margin)
    case list(), list():
      return _conversations(chosen, rejected, prompt, margin)
  raise ValueError("one of the answers is text, the other messages")


def _margin(record: dict[str, Any]) -> float | None:
  found = record.get("margin")
  if found is None:
    scores = [record.get(f"score_{side}") for side in ("chosen", "rejected")]
    if None in scores:
      return None
    found = _number(scores[0]) - _number(scores[1])
  return _number(found)


def _number(value: Any) -> float:
  if isinstance(value, int | float) and math.isfinite(value):
    return float(value)
  raise ValueError(f"a margin or score must be a finite number, got {value!r}")


def _transcripts(
  chosen: str, rejected: str, margin: float | None, *, chat: bool
) -> Pair:
  mark = "\n\nAssistant:"
  # Not up to the last mark of each: in a few of the published pairs an answer
  # goes on with turns of its own.
  pairs = zip(chosen, rejected, strict=False)
  shared = itertools.takewhile(lambda pair: pair[0] == pair[1], pairs)
  before, found, _ = "".join(one for one, _ in shared).rpartition(mark)
  if not found:
    raise ValueError(
      "without a prompt the answers must be transcripts that are the same up"
      f" to a {mark!r}"
    )
  one, other = (text[len(before + mark) :] for text in (chosen, rejected))
  if not chat:
    return Pair(before + mark, one, other, margin)
  first, *turns = _TURN.split(before)
  if first.strip() or not turns or turns[-2] != "Human":
    raise ValueError("the transcript is not turns that end with a Human's")
  messages = [
    {"role": _ROLES[who], "content": text.strip()}
    for who, text in zip(turns[::2], turns[1::2], strict=True)
  ]
  return Pair(messages, one.strip(), other.strip(), margin)


def _conversations(
  chosen: Conversation,
  rejected: Conversation,
  prompt: str | Conversation | None,
  margin: float | None,
) -> Pair:
  (*before, one), (*before_rejected, other) = chosen, rejected
  if before != before_rejected:
    raise ValueError("the conversations differ before their last message")
  if not one["role"] == other["role"] == "assistant":
    raise ValueError("the last message of a conversation is the assistant's")
  answers = one["content"], other["content"]
  if not before:
    if prompt is None:
      raise ValueError("the record has answers but no prompt")
    return Pair(prompt, *answers, margin)
  said = [message["content"] for message in before]
  if isinstance(prompt, str) and prompt not in said:
    raise ValueError("the prompt is no message of the conversations")
  if isinstance(prompt, list) and prompt != before:
    raise ValueError("the prompt is not how the conversations begin")
  return Pair(before, *answers, margin)
