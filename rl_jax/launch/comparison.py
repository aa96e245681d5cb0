"""The part of a report that shows what a language policy wrote."""

from __future__ import annotations

import html
import json
import math
import unicodedata
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from rl_jax.launch import figures
from rl_jax.launch.distribution import bars, histogram
from rl_jax.launch.page import figure, section
from rl_jax.launch.text import number
from rl_jax.launch.texts import printable

if TYPE_CHECKING:
  from collections.abc import Iterator, Sequence
  from pathlib import Path

  from rl_jax.launch.texts import Written

__all__ = ["Pair", "before_and_after", "chosen", "marked", "pairs"]

_SHOWN = 8  # prompts
_LONGEST = 1200  # characters of a text on the page


class Pair(NamedTuple):
  """Two answers to one prompt.

  Attributes:
    before: the record of the first evaluation.
    after: that of the last.
  """

  before: dict[str, Any]
  after: dict[str, Any]

  @property
  def change(self) -> float:
    """By how much the later one is judged better; infinite if only one is."""
    old, new = reward(self.before), reward(self.after)
    if old is not None and new is not None:
      return new - old
    if old is new:
      return 0.0
    return math.inf if old is None else -math.inf

  @property
  def word(self) -> str:
    """That in a word: better, worse or alike."""
    if self.change == 0:
      return "alike"
    return "better" if self.change > 0 else "worse"


def reward(record: dict[str, Any]) -> float | None:
  """The reward of an answer; None where there is no verdict."""
  found = record.get("reward")
  if isinstance(found, bool) or not isinstance(found, int | float):
    return None
  return float(found)


def pairs(before: Written, after: Written) -> list[Pair]:
  """Answers to the same prompts, the first to the first and so on.

  Args:
    before: an evaluation.
    after: another.

  Returns:
    Pairs in the order of `after`; prompts that one of them lacks are left
    out.
  """
  earlier = dict(_named(before))
  return [
    Pair(earlier[name], record)
    for name, record in _named(after)
    if name in earlier
  ]


def chosen(found: Sequence[Pair], count: int) -> list[Pair]:
  """Some pairs to look at, of different prompts.

  Half of them are the largest changes for the better, half the largest for
  the worse, as far as there are such; the others are judged alike.

  Args:
    found: from `pairs`.
    count: how many at most.

  Returns:
    Better ones first, then worse ones.
  """
  by_size = sorted(found, key=lambda pair: -abs(pair.change))
  once: dict[str, Pair] = {}
  for pair in by_size:
    once.setdefault(_name(pair.after), pair)
  kinds: dict[str, list[Pair]] = {"better": [], "worse": [], "alike": []}
  for pair in once.values():
    kinds[pair.word].append(pair)
  better, worse, alike = kinds.values()
  few = min(len(worse), max(count // 2, count - len(better)))
  many = min(len(better), count - few)
  return [*better[:many], *worse[:few], *alike[: count - many - few]]


def before_and_after(written: Sequence[Written], directory: Path) -> str:
  """The section with completions and the distribution of their rewards.

  Args:
    written: evaluations, earliest first.
    directory: where figures are put.

  Returns:
    HTML; empty where nothing was written.
  """
  written = [one for one in written if one.record]
  if not written:
    return ""
  first, last = written[0], written[-1]
  if first is last:
    said = f"All answers are in texts/{last.step}.jsonl."
    items = [_item(one, [("", last.step, one)]) for one in _different(last)]
    return section(f"Answers at step {last.step}", _list(said, items))
  both = pairs(first, last)
  words = [pair.word for pair in both]
  said = (
    f"Of {len(both)} answers to the same prompts {words.count('better')} are"
    f" judged better at step {last.step} than at step {first.step},"
    f" {words.count('worse')} worse and {words.count('alike')} alike. Below"
    " are those that changed most, for the better and for the worse, before"
    " others; all are in"
    f" texts/{first.step}.jsonl and texts/{last.step}.jsonl."
  )
  items = [
    _item(
      pair.after,
      [("before", first.step, pair.before), ("after", last.step, pair.after)],
      pair.word,
    )
    for pair in chosen(both, _SHOWN)
  ]
  return section(
    "Before and after", _rewards(first, last, directory) + _list(said, items)
  )


def marked(text: str) -> str:
  """A text as HTML in which everything is to be seen.

  Line ends, tabs and spaces that are at the edge of a line or beside other
  spaces have marks, and what would not show stands as an escape.

  Args:
    text: anything.

  Returns:
    HTML for an element that keeps white space.
  """
  lines = []
  for line in text.split("\n"):
    parts = []
    for i, one in enumerate(line):
      beside = {line[i - 1 : i], line[i + 1 : i + 2]}
      if one == " ":
        parts.append("<i>·</i>" if beside & {"", " "} else " ")
      elif one == "\t":
        parts.append("<i>⇥</i>\t")
      elif unicodedata.category(one) == "Zs":
        parts.append(f"<i>\\u{ord(one):04x}</i>")
      elif (shown := printable(one, keep="")) != one:
        parts.append(f"<i>{shown}</i>")
      else:
        parts.append(html.escape(one))
    lines.append("".join(parts))
  return "<i>↵</i>\n".join(lines)


def _rewards(first: Written, last: Written, directory: Path) -> str:
  groups = {
    f"{word}, step {one.step}": [reward(record) for record in one.record]
    for word, one in (("before", first), ("after", last))
  }
  found = bars(groups)
  if found is None:
    return ""
  ends = "; ".join(
    f"{name}: mean {number(float(np.mean(rewards)))}"
    if (rewards := [r for r in given if r is not None])
    else f"{name}: no verdicts"
    for name, given in groups.items()
  )
  caption = f"Rewards of the evaluation's answers. {ends}"
  shares = "; ".join(
    f"{name}: "
    + ", ".join(
      f"{label} {share:.0%}"
      for label, share in zip(found.label, shares, strict=True)
      if share
    )
    for name, shares in found.share.items()
  )
  drawn = figure(
    directory / "rewards_before_and_after.png",
    [histogram(found, theme) for theme in (figures.LIGHT, figures.DARK)],
    alt=f"Distribution of rewards. {shares}.",
    caption=caption,
  )
  return f'<div class="pair">{drawn}</div>'


def _list(said: str, items: Sequence[str]) -> str:
  legend = (
    f"<p>{html.escape(said)} Marks: <i>·</i> a space, <i>↵</i> a line end,"
    " <i>⇥</i> a tab.</p>"
  )
  return f'{legend}<ol class="answers">{"".join(items)}</ol>'


def _item(
  asked: dict[str, Any],
  answers: Sequence[tuple[str, int, dict[str, Any]]],
  word: str = "alike",
) -> str:
  kinds = [""] * (len(answers) - 1) + ["" if word == "alike" else f" {word}"]
  shown = []
  for (when, step, record), kind in zip(answers, kinds, strict=True):
    own = reward(record)
    judged = "no verdict" if own is None else f"reward {number(own)}"
    head = f"{when}, {judged}" if when else judged
    text = _labelled(head, record["completion"], step, kind)
    shown.append(f"<div>{text}</div>")
  step = answers[-1][1]
  sides = [f"<div>{_prompt(asked['prompt'], step)}</div>"]
  reference = asked.get("reference")
  if reference not in (None, "", "None"):
    sides.append(f"<div>{_labelled('reference', reference, step)}</div>")
  head = "Prompt" if len(answers) == 1 else f"Prompt, judged {word}"
  return (
    f'<li><h3 class="{word}">{head}</h3>'
    f'<div class="pair">{"".join(sides)}</div>'
    f'<div class="pair">{"".join(shown)}</div></li>'
  )


def _prompt(prompt: Any, step: int) -> str:
  if not isinstance(prompt, list):
    return _labelled("prompt", prompt, step)
  said = []
  for message in prompt:
    whole = isinstance(message, dict) and {"role", "content"} <= message.keys()
    role, content = "message", message
    if whole:
      role, content = f"{message['role']}"[:40], message["content"]
    said.append(_labelled(role, content, step))
  return "".join(said)


def _labelled(name: str, text: Any, step: int, kind: str = "") -> str:
  """A text below what it is."""
  if not isinstance(text, str):
    text = json.dumps(text)
  label = html.escape(printable(name, keep=""))
  return f'<p>{label}</p><div class="text{kind}">{_text(text, step)}</div>'


def _text(text: str, step: int) -> str:
  if not text:
    return "<i>(nothing)</i>"
  if len(text) <= _LONGEST:
    return marked(text)
  more = len(text) - _LONGEST
  return (
    f"{marked(text[:_LONGEST])}<i>… {more} more characters in"
    f" texts/{step}.jsonl</i>"
  )


def _different(written: Written) -> list[dict[str, Any]]:
  """The first answers to different prompts."""
  once: dict[str, dict[str, Any]] = {}
  for record in written.record:
    once.setdefault(_name(record), record)
  return list(once.values())[:_SHOWN]


def _named(
  written: Written,
) -> Iterator[tuple[tuple[str, int], dict[str, Any]]]:
  """Records by prompt and by which of its answers they are."""
  seen: dict[str, int] = {}
  for record in written.record:
    name = _name(record)
    seen[name] = seen.get(name, -1) + 1
    yield (name, seen[name]), record


def _name(record: dict[str, Any]) -> str:
  return json.dumps([record["prompt"], record.get("reference")])
