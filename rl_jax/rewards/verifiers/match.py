"""Answers that are compared as text."""

from __future__ import annotations

import dataclasses
import re
import unicodedata

from rl_jax.rewards.verifiers.judgement import Judgement, no_verdict

__all__ = [
  "Exact",
  "FirstNumber",
  "boxed",
  "final_answer",
  "normalised",
  "plain_number",
]

_NUMBER = re.compile(
  r"[-+]?\$?\d{1,3}(?:,\d{3})+(?:\.\d+)?|[-+]?\$?\d+(?:\.\d+)?", re.ASCII
)
_LONGEST_DIGITS = 300

# An answer is announced by one of these; the last announcement counts.
_MARKS = ("####", "final answer is", "final answer:", "answer is", "answer:")


def normalised(text: str) -> str:
  """Text without what seldom matters in an answer.

  Compatibility forms are folded (NFKC), case and the space around and between
  words too, and one full stop at the end goes.

  Args:
    text: anything, lone surrogates included.

  Returns:
    The folded text.

  >>> normalised("  The  ANSWER. ")
  'the answer'
  """
  folded = unicodedata.normalize("NFKC", text).casefold()
  return " ".join(folded.split()).removesuffix(".").rstrip()


def boxed(text: str) -> str | None:
  r"""What stands in the last complete \boxed{...}.

  Args:
    text: a completion; braces inside of the box may nest.

  Returns:
    The inside of the box, or None if no box is closed.

  >>> boxed(r"so \boxed{\frac{1}{2}} it is")
  '\\frac{1}{2}'
  """
  # One pass over the braces: the search for every box's end anew would be
  # quadratic in a completion that opens ten thousand of them.
  depth, opened, found = 0, [], None
  for match in re.finditer(r"(\\boxed\s{0,8}\{)|\\.|[{}]", text, re.DOTALL):
    token = match.group()
    if match.group(1):
      opened.append((depth, match.end()))
      depth += 1
    elif token == "{":
      depth += 1
    elif token == "}" and depth:
      depth -= 1
      if opened and opened[-1][0] == depth:
        found = text[opened.pop()[1] : match.start()]
  return found


def final_answer(text: str) -> str | None:
  """The answer that a completion ends in.

  The last closed box; else the rest of the line after the last of "####",
  "answer is" or "answer:"; else None.

  Args:
    text: a completion.

  Returns:
    The answer without space around it, or None if none is announced.

  >>> final_answer("6 x 7 is easy. The answer is 42. ")
  '42'
  """
  inside = boxed(text)
  if inside is not None:
    return inside.strip()
  lowered = text.lower()
  # Lowering may change the length ("İ"): positions would then be off.
  lowered = lowered if len(lowered) == len(text) else text
  end = max(
    (lowered.rfind(mark) + len(mark) for mark in _MARKS if mark in lowered),
    default=None,
  )
  if end is None:
    return None
  line = text[end:].lstrip(" \t:").partition("\n")[0]
  return line.strip().removesuffix(".").strip() or None


def plain_number(text: str) -> str | None:
  """A decimal number in one spelling, whatever its commas and zeros.

  Args:
    text: the number, with space or dollar signs around it.

  Returns:
    The spelling, or None if the text is anything else or has more than 300
    characters.

  >>> plain_number("$1,234.50"), plain_number("1/2")
  ('1234.5', None)
  """
  text = text.strip().strip("$").strip()
  if len(text) > _LONGEST_DIGITS or not _NUMBER.fullmatch(text):
    return None
  digits = text.replace(",", "").replace("$", "").removeprefix("+")
  sign, digits = ("-", digits[1:]) if digits[0] == "-" else ("", digits)
  whole, _, fraction = digits.partition(".")
  whole, fraction = whole.lstrip("0") or "0", fraction.rstrip("0")
  number = f"{whole}.{fraction}" if fraction else whole
  return number if number == "0" else sign + number


@dataclasses.dataclass(frozen=True, kw_only=True)
class FirstNumber:
  """1 if the first number of the completion is the reference, else 0.

  For prompts that end where the answer begins ("17 + 25 ="), after which a
  model may go on with something else.

  >>> FirstNumber()(" 42, and 3 + 4 = 7", "42").reward
  1.0
  """

  def __call__(self, completion: str, reference: str) -> Judgement:
    """Find it and compare; see `Verifier`."""
    wanted = plain_number(reference)
    if wanted is None:
      return no_verdict("bad reference: not a number")
    found = _NUMBER.search(completion)
    if found is None:
      return Judgement(0.0, "no number")
    return Judgement(float(plain_number(found.group()) == wanted))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Exact:
  """1 if the answer is the reference, else 0.

  >>> Exact()("The answer is Paris.", "paris").reward
  1.0
  >>> Exact(extract=False, normalise=False)("Paris", "paris").reward
  0.0
  """

  extract: bool = True
  """Whether only the announced answer counts, see `final_answer`; a
  completion that announces none is compared whole."""
  normalise: bool = True
  """Whether both sides are folded by `normalised` first."""

  def __call__(self, completion: str, reference: str) -> Judgement:
    """Compare; see `Verifier`."""
    answer = final_answer(completion) if self.extract else None
    answer = completion if answer is None else answer
    if self.normalise:
      answer, reference = normalised(answer), normalised(reference)
    return Judgement(float(answer == reference))
