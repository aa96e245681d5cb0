"""Text from JSON Lines files, from memory, or from a function."""

from __future__ import annotations

import dataclasses
import gzip
import json
import pathlib
from typing import TYPE_CHECKING, Any

from rl_jax.data.text_wording import as_text
from rl_jax.environments.texts import listed

if TYPE_CHECKING:
  from collections.abc import Callable, Iterable, Iterator

  from rl_jax.data.source import Source

  type Origin = str | tuple[Any, ...] | Callable[[], Iterable[Any]]

__all__ = ["Texts", "records"]


def records(
  origin: Origin, names: tuple[str, ...]
) -> Iterator[tuple[str, dict[str, Any]]]:
  """Records with the place where each stands, for errors.

  Args:
    origin: path of a JSON Lines file, gzipped or not; or the records; or a
      function of no arguments that gives them.
    names: a record that is a tuple has these keys, the last of which it may
      lack.

  Yields:
    The place ("file:line" or "record 3") and the record.

  Raises:
    FileNotFoundError: if there is no such file.
    ValueError: if a record is damaged, with its place.
  """
  if isinstance(origin, str):
    path = pathlib.Path(origin)
    opened = gzip.open if path.suffix == ".gz" else open
    with opened(path, "rb") as lines:
      for number, line in enumerate(lines, 1):
        if line.strip():
          place = f"{path}:{number}"
          try:
            yield place, _record(json.loads(line), names)
          except ValueError as error:  # no UTF-8, no JSON, no record
            raise ValueError(f"{place}: {error}") from error
    return
  for number, record in enumerate(origin() if callable(origin) else origin):
    place = f"record {number}"
    try:
      yield place, _record(record, names)
    except ValueError as error:
      raise ValueError(f"{place}: {error}") from error


def _record(value: Any, names: tuple[str, ...]) -> dict[str, Any]:
  if isinstance(value, dict):
    return value
  if isinstance(value, tuple) and len(names) - 1 <= len(value) <= len(names):
    return dict(zip(names, value, strict=False))
  raise ValueError(f"a record has the keys {names}, got {value!r:.200}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Texts:
  """Prompts with or without an answer: a task that nobody judges.

  A record has a text or messages under `prompt`. Without a key for the answer
  messages that end with the assistant's are split there, which is how chat
  data are published ("messages").

  Raises:
    ValueError: if `rows` is below 1.

  >>> task = Texts(rows=1, origin=(("1 + 1 =", " 2"),), answer="answer")
  >>> task.source()[np.array([0])]["reference"].tolist()
  [' 2']
  """

  rows: int
  """Rows of a batch."""
  origin: Any
  """Path of a JSON Lines file; or records, each a dictionary or a tuple of
  prompt and answer; or a function of no arguments that gives them."""
  prompt: str = "prompt"
  """Key of the prompt."""
  answer: str | None = None
  """Key of the answer; None if it stands in the messages or nowhere."""
  shuffle: bool = True
  """Whether every pass has an order of its own."""

  def __post_init__(self):
    if self.rows < 1:
      raise ValueError(f"rows must be at least 1, got {self.rows}")

  def source(self) -> Source:
    """The texts, in memory; the reference is the answer or None.

    Raises:
      FileNotFoundError: if there is no such file.
      ValueError: if a record is damaged, with its place.
    """
    names = (self.prompt, "answer" if self.answer is None else self.answer)
    items = []
    for place, record in records(self.origin, names):
      try:
        items.append(self._item(record))
      except KeyError as error:
        raise ValueError(f"{place}: the record lacks {error}") from error
      except ValueError as error:
        raise ValueError(f"{place}: {error}") from error
    return listed(items)

  def _item(self, record: dict[str, Any]) -> tuple[Any, str | None]:
    prompt = as_text(record[self.prompt], self.prompt)
    if self.answer is not None:
      answer = as_text(record[self.answer], self.answer)
      if not isinstance(answer, str):
        raise ValueError(f"{self.answer} must be text, got messages")
      return prompt, answer
    if isinstance(prompt, str) or prompt[-1]["role"] != "assistant":
      return prompt, None
    *before, last = prompt
    if not before:
      raise ValueError("the messages hold an answer but no prompt")
    return before, last["content"]
