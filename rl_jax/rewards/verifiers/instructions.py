"""Checks of form: what can be asked of a text and seen without reading it.

Every check is a frozen value, `check(text) -> bool`, linear in the text. Their
kinds are those of IFEval (Zhou et al. 2023, arXiv:2311.07911); words and
sentences are counted by simple rules of their own, stated below, where the
original asks a tokenizer of nltk. Their published
schema is read by `rl_jax.rewards.verifiers.ifeval`.
"""

from __future__ import annotations

import dataclasses
import re
import sys
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from rl_jax.rewards.verifiers.judgement import Judgement, no_verdict
from rl_jax.rewards.verifiers.structured import fenced, parsed_json

if TYPE_CHECKING:
  from collections.abc import Sequence

__all__ = [
  "Bullets",
  "CapitalWords",
  "Check",
  "EndsWith",
  "Forbidden",
  "Format",
  "Highlights",
  "IsJson",
  "Keywords",
  "Letters",
  "Lowercase",
  "Mentions",
  "NoCommas",
  "OneOf",
  "Paragraphs",
  "Placeholders",
  "Postscript",
  "Quoted",
  "Sections",
  "Sentences",
  "StartsWith",
  "Tagged",
  "Title",
  "TwoAnswers",
  "Uppercase",
  "Words",
]

_WORD = re.compile(r"\w+(?:['’-]\w+)*")
_SENTENCE = re.compile(r"[.!?]+[\"'”’)\]]*(?=\s|\Z)")
_ANY = sys.maxsize


@runtime_checkable
class Check(Protocol):
  """Something that is true or false of a text."""

  def __call__(self, text: str) -> bool:
    """Whether the text does as it was told."""
    ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Counted:
  at_least: int = 0
  """Fewest."""
  at_most: int = _ANY
  """Most."""

  def __post_init__(self):
    if not 0 <= self.at_least <= self.at_most:
      raise ValueError(
        f"no count is at least {self.at_least} and at most {self.at_most}"
      )

  def _holds(self, count: int) -> bool:
    return self.at_least <= count <= self.at_most


class Words(_Counted):
  """So many words: runs of letters and digits, joined by ' or -."""

  def __call__(self, text: str) -> bool:
    """Count; see `Check`."""
    return self._holds(sum(1 for _ in _WORD.finditer(text)))


class Sentences(_Counted):
  """So many sentences: ended by . ! or ? before space or the end.

  A last piece that nothing ends counts too.
  """

  def __call__(self, text: str) -> bool:
    """Count; see `Check`."""
    count, end = 0, 0
    for match in _SENTENCE.finditer(text):
      count, end = count + 1, match.end()
    return self._holds(count + bool(text[end:].strip()))


class CapitalWords(_Counted):
  """So many words written in capitals only."""

  def __call__(self, text: str) -> bool:
    """Count; see `Check`."""
    return self._holds(sum(m.group().isupper() for m in _WORD.finditer(text)))


class Bullets(_Counted):
  """So many lines that begin with * or - and a space."""

  def __call__(self, text: str) -> bool:
    """Count; see `Check`."""
    lines = (line.lstrip() for line in text.splitlines())
    return self._holds(sum(line.startswith(("* ", "- ")) for line in lines))


class Highlights(_Counted):
  """So many pieces *between stars*, single or double, within a line."""

  def __call__(self, text: str) -> bool:
    """Count; see `Check`."""
    found = re.findall(r"\*\*([^*\n]+)\*\*|\*([^*\n]+)\*", text)
    return self._holds(sum(bool("".join(pair).strip()) for pair in found))


class Placeholders(_Counted):
  """So many [placeholders] in brackets."""

  def __call__(self, text: str) -> bool:
    """Count; see `Check`."""
    return self._holds(len(re.findall(r"\[[^\[\]\n]+\]", text)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Letters(_Counted):
  """So many times one letter, in either case."""

  letter: str
  """One character."""

  def __call__(self, text: str) -> bool:
    """Count; see `Check`."""
    return self._holds(text.lower().count(self.letter.lower()))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mentions(_Counted):
  """So many times one word or phrase, whole words only, in either case."""

  phrase: str
  """What is counted."""

  def __call__(self, text: str) -> bool:
    """Count; see `Check`."""
    return self._holds(_mentions(text, self.phrase))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Keywords:
  """Every phrase occurs, whole words only, in either case."""

  phrases: tuple[str, ...]
  """What must occur."""

  def __call__(self, text: str) -> bool:
    """Look for each; see `Check`."""
    return all(_mentions(text, phrase) for phrase in self.phrases)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Forbidden:
  """No phrase occurs, whole words only, in either case."""

  phrases: tuple[str, ...]
  """What must not occur."""

  def __call__(self, text: str) -> bool:
    """Look for each; see `Check`."""
    return not any(_mentions(text, phrase) for phrase in self.phrases)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Paragraphs:
  """Exactly so many paragraphs, none of them empty."""

  count: int
  """How many."""
  separator: str = "\n\n"
  """What stands between two; IFEval also uses "***"."""

  def __call__(self, text: str) -> bool:
    """Count; see `Check`."""
    parts = text.strip().split(self.separator)
    return len(parts) == self.count and all(part.strip() for part in parts)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sections(_Counted):
  """So many headings like "Section 1", each at the start of a line."""

  word: str
  """The word before the number."""

  def __call__(self, text: str) -> bool:
    """Count; see `Check`."""
    heading = re.compile(rf"^\W{{0,8}}{re.escape(self.word)}\s{{1,4}}\d", re.M)
    return self._holds(sum(1 for _ in heading.finditer(text)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class StartsWith:
  """The text begins with a phrase, case and space before it aside."""

  phrase: str
  """The beginning."""

  def __call__(self, text: str) -> bool:
    """Compare; see `Check`."""
    return text.lstrip().lower().startswith(self.phrase.strip().lower())


@dataclasses.dataclass(frozen=True, kw_only=True)
class EndsWith:
  """The text ends with a phrase; case, space and quotes after it aside."""

  phrase: str
  """The end."""

  def __call__(self, text: str) -> bool:
    """Compare; see `Check`."""
    return text.rstrip(' \t\r\n"').lower().endswith(self.phrase.strip().lower())


@dataclasses.dataclass(frozen=True, kw_only=True)
class Postscript:
  """After the beginning comes a postscript that says something."""

  mark: str = "P.S."
  """What it begins with."""

  def __call__(self, text: str) -> bool:
    """Look for it; see `Check`."""
    before, mark, after = text.lower().rpartition(self.mark.lower())
    return bool(mark and before.strip() and after.strip())


@dataclasses.dataclass(frozen=True, kw_only=True)
class OneOf:
  """The text contains one of some fixed answers."""

  options: tuple[str, ...]
  """The answers."""

  def __call__(self, text: str) -> bool:
    """Look for each; see `Check`."""
    return any(option in text for option in self.options)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tagged:
  """The text is blocks <tag>...</tag> in this order, and nothing else.

  >>> Tagged(tags=("think", "answer"))("<think>6</think> <answer>7</answer>")
  True
  """

  tags: tuple[str, ...]
  """Names of the blocks, each exactly once."""

  def __call__(self, text: str) -> bool:
    """Take off one block after the other; see `Check`."""
    for tag in self.tags:
      first, last = f"<{tag}>", f"</{tag}>"
      if text.count(first) != 1 or text.count(last) != 1:
        return False
      text = text.lstrip()
      if not text.startswith(first):
        return False
      text = text.partition(last)[2]
    return not text.strip()


class _Plain:
  """Checks without parameters are equal if they are of one kind."""

  def __eq__(self, other: object) -> bool:
    return type(self) is type(other)

  def __hash__(self) -> int:
    return hash(type(self))

  def __repr__(self) -> str:
    return f"{type(self).__name__}()"


class NoCommas(_Plain):
  """No comma occurs."""

  def __call__(self, text: str) -> bool:
    """Look for one; see `Check`."""
    return "," not in text


class Lowercase(_Plain):
  """There are letters and none is a capital."""

  def __call__(self, text: str) -> bool:
    """Look; see `Check`."""
    return text.islower()


class Uppercase(_Plain):
  """There are letters and all are capitals."""

  def __call__(self, text: str) -> bool:
    """Look; see `Check`."""
    return text.isupper()


class Quoted(_Plain):
  """The whole text stands between double quotes."""

  def __call__(self, text: str) -> bool:
    """Look; see `Check`."""
    text = text.strip()
    return len(text) > 1 and text[0] == text[-1] == '"'


class Title(_Plain):
  """A title stands in <<double angles>>."""

  def __call__(self, text: str) -> bool:
    """Look; see `Check`."""
    found = re.findall(r"<<([^<>\n]+)>>", text)
    return any(title.strip() for title in found)


class TwoAnswers(_Plain):
  """Two different answers stand apart by six stars."""

  def __call__(self, text: str) -> bool:
    """Split; see `Check`."""
    parts = [part.strip() for part in text.strip().split("******")]
    return len(parts) == 2 and all(parts) and parts[0] != parts[1]


class IsJson(_Plain):
  """The text is JSON, in a fenced block or bare."""

  def __call__(self, text: str) -> bool:
    """Parse; see `Check`."""
    block = fenced(text)
    try:
      parsed_json(text if block is None else block, longest=100_000, deepest=64)
    except (ValueError, RecursionError):
      return False
    return True


@dataclasses.dataclass(frozen=True, kw_only=True)
class Format:
  """How many of the checks a completion passes.

  The reference is a sequence of checks for that row; those of the verifier
  come on top of it.

  >>> verify = Format(checks=(NoCommas(),), partial=True)
  >>> verify("a b c", (Words(at_least=4),))
  Judgement(reward=0.5, reason='failed: Words')
  """

  checks: tuple[Check, ...] = ()
  """What every completion has to do."""
  partial: bool
  """True: the fraction of checks passed; false: 1 if all are, else 0."""

  def __call__(self, completion: str, reference: Sequence[Check]) -> Judgement:
    """Check; see `Verifier`."""
    checks = (*self.checks, *reference)
    if not checks:
      return no_verdict("bad reference: no checks")
    failed = [type(check).__name__ for check in checks if not check(completion)]
    passed = 1 - len(failed) / len(checks)
    reward = passed if self.partial else float(not failed)
    reason = f"failed: {', '.join(failed)}" if failed else ""
    return Judgement(reward, reason)


def _mentions(text: str, phrase: str) -> int:
  pattern = rf"(?<!\w){re.escape(phrase)}(?!\w)"
  return sum(1 for _ in re.finditer(pattern, text, re.IGNORECASE))
