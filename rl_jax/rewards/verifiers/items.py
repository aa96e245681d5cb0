"""Recommended items, named by the tokens of an index; see `data.item_index`."""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from rl_jax.rewards.verifiers.judgement import Judgement, no_verdict

if TYPE_CHECKING:
  from collections.abc import Callable

  from jaxtyping import Bool, Float, Int

  from rl_jax.types import TextRollouts

__all__ = [
  "ItemAnswer",
  "ItemNotes",
  "ParsedItem",
  "parse_answer",
  "prefix_match_length",
  "residual_sensitive_reward",
]

_TOKEN = r"<\|[a-z]_[1-9][0-9]*\|>"
_ONE = re.compile(_TOKEN)
_RUN = re.compile(f"(?:{_TOKEN})++")
_BLOCK = re.compile(f"<answer>((?:{_TOKEN})++)</answer>")
_END = ("<|endoftext|>", "<|im_end|>")


class ParsedItem(NamedTuple):
  """What a completion says.

  Attributes:
    tokens: of the item it names, as texts; none if it names none.
    well_formed: whether it has all that was asked for, thoughts included.
  """

  tokens: tuple[str, ...]
  well_formed: bool


def parse_answer(
  text: str,
  *,
  mode: Literal["direct", "reasoning"],
  levels: int = 4,
  end: tuple[str, ...] = _END,
) -> ParsedItem:
  """The item that a completion names.

  In "direct" mode it is the first run of at least `levels` tokens of an
  index, cut after levels + 1. In "reasoning" mode it is the first block
  <answer>...</answer> of nothing but such tokens, and there must be a block
  <think>...</think> too, before it or behind.

  Args:
    text: a completion.
    mode: which form was asked for.
    levels: codes of an item that no other shares; 4 in the paper.
    end: what is removed first, wherever it stands.

  Returns:
    Tokens and whether the form is kept. Linear in the text.

  Raises:
    ValueError: for another mode, or levels below 1.

  GREAM, arXiv:2510.20815, code.

  >>> parse_answer("<|a_1|><|b_2|>", mode="direct", levels=2).tokens
  ('<|a_1|>', '<|b_2|>')
  """
  if levels < 1:
    raise ValueError(f"levels must be at least 1, got {levels}")
  for one in end:
    text = text.replace(one, "")
  if mode == "direct":
    for run in _RUN.finditer(text):
      tokens = tuple(_ONE.findall(run.group()))
      if len(tokens) >= levels:
        return ParsedItem(tokens[: levels + 1], True)
    return ParsedItem((), False)
  if mode != "reasoning":
    raise ValueError(f"mode must be 'direct' or 'reasoning', got {mode!r}")
  block = _BLOCK.search(text)
  if block is None:
    return ParsedItem((), False)
  thought = text.find("<think>")
  closed = thought >= 0 and text.find("</think>", thought) >= 0
  return ParsedItem(tuple(_ONE.findall(block.group(1))), closed)


def prefix_match_length(
  predicted: Int[np.ndarray, "*batch code"],
  truth: Int[np.ndarray, "*batch code"],
  mask: Bool[np.ndarray, "*batch code"],
) -> Int[np.ndarray, "*batch"]:
  """How many first codes are right.

      m = max {j: p_i = g_i for all i <= j}

  Args:
    predicted: p.
    truth: g.
    mask: true = both have a code here; codes behind a gap do not count.

  Returns:
    m.

  >>> codes = np.array([[1, 2, 3], [1, 9, 3]])
  >>> truth = np.array([[1, 2, 3], [1, 2, 3]])
  >>> prefix_match_length(codes, truth, codes < 9).tolist()
  [3, 1]
  """
  same = np.asarray(mask) & (np.asarray(predicted) == np.asarray(truth))
  return np.sum(np.cumprod(same, axis=-1), axis=-1)


def residual_sensitive_reward(
  matched: Int[np.ndarray, "*batch"],
  exact: Bool[np.ndarray, "*batch"],
  well_formed: Bool[np.ndarray, "*batch"],
  *,
  levels: tuple[float, ...],
) -> Float[np.ndarray, "*batch"]:
  """More for each code of the beginning that is right, most for the first.

      0 without the form; 1 if exact; else 0 for m = 0, levels_m, and the last
      of the levels for any m beyond

  The first levels of a residual index hold most of an embedding's energy.

  Args:
    matched: m, as from `prefix_match_length`.
    exact: whether the answer is the reference itself, as a text.
    well_formed: whether the form is kept.
    levels: rewards of m = 1, 2, ..; (0.5, 0.707, 0.866, 0.95) in the paper,
      the sines of 30, 45 and 60 degrees first. Where all codes of the levels
      match and only the one that tells doubles apart does not, that last one
      is meant.

  Returns:
    In [0, 1].

  Raises:
    ValueError: if `levels` is empty, falls, or leaves [0, 1].

  GREAM, arXiv:2510.20815, residual-sensitive verifiable reward.

  >>> residual_sensitive_reward(
  ...   np.array([4, 1, 0]),
  ...   np.array([True, False, False]),
  ...   np.array([True, True, True]),
  ...   levels=(0.5, 0.75),
  ... ).tolist()
  [1.0, 0.5, 0.0]
  """
  _check_levels(levels)
  table = np.array([0.0, *levels], np.float32)
  graded = table[np.minimum(matched, len(levels))]
  return np.where(well_formed, np.where(exact, 1.0, graded), 0.0).astype(
    np.float32
  )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ItemAnswer:
  """The reward of `residual_sensitive_reward` for the item that is named.

  The reference is the text of the right item's codes.

  Raises:
    ValueError: see `parse_answer` and `residual_sensitive_reward`.

  >>> judge = ItemAnswer(mode="direct", levels=2, scores=(0.5, 0.75))
  >>> judge("<|a_1|><|b_2|>", "<|a_1|><|b_3|>").reward
  0.5
  """

  mode: Literal["direct", "reasoning"]
  """Which form is asked for."""
  levels: int = 4
  """Codes of an item that no other shares."""
  scores: tuple[float, ...] = (0.5, 0.707, 0.866, 0.95)
  """Rewards of 1, 2, .. codes of the beginning."""
  gated: bool = True
  """Whether the thoughts of "reasoning" must be there; False is the metric
  `match` that the released code filters prompts by."""
  end: tuple[str, ...] = _END
  """Texts that are removed first."""

  def __post_init__(self) -> None:
    self.parsed("")
    _check_levels(self.scores)

  def parsed(self, completion: str) -> ParsedItem:
    """What a completion says, by this form."""
    found = parse_answer(
      completion, mode=self.mode, levels=self.levels, end=self.end
    )
    if self.gated:
      return found
    return found._replace(well_formed=bool(found.tokens))

  def exact(self, completion: str, reference: str) -> bool:
    """Whether the form is kept and the item is the right one."""
    found = self.parsed(completion)
    return found.well_formed and "".join(found.tokens) == reference

  def __call__(self, completion: str, reference: str) -> Judgement:
    """Parse and compare; see `Verifier`."""
    if not _RUN.fullmatch(reference):
      return no_verdict("bad reference: not tokens of an index")
    found, truth = self.parsed(completion), _ONE.findall(reference)
    if not found.well_formed:
      return Judgement(0.0, "no item: the form is not kept")
    matched = 0
    for own, other in zip(found.tokens, truth, strict=False):
      if own != other:
        break
      matched += 1
    reward = residual_sensitive_reward(
      np.array(matched),
      np.array("".join(found.tokens) == reference),
      np.array(found.well_formed),
      levels=self.scores,
    )
    return Judgement(float(reward))


@dataclasses.dataclass(frozen=True, kw_only=True)
class ItemNotes:
  """A note `exact` for each row: whether the answer is the reference itself.

  For `algorithms.estimators.gream.BonusCalibrated`, which must not guess it
  from a reward that happens to be 1.
  """

  answer: ItemAnswer
  """How an answer is read."""

  def shapes(self, time: int) -> dict[str, tuple[tuple[int, ...], Any]]:
    """Names, shapes behind the rows, and dtypes of what is noted."""
    del time
    return {"exact": ((), np.bool_)}

  def bind(self, data: Any) -> Callable[[TextRollouts], dict[str, np.ndarray]]:
    """The notes on answers to the prompts of some data."""

    def note(rollouts: TextRollouts) -> dict[str, np.ndarray]:
      tokenizer = data.vocabulary.load()
      items = np.asarray(rollouts.item)
      references = data.source().columns(items)["reference"]
      token, mask = np.asarray(rollouts.token), np.asarray(rollouts.mask)
      return {
        "exact": np.array(
          [
            self.answer.exact(tokenizer.decode(own[kept].tolist()), reference)
            for own, kept, reference in zip(
              token, mask, references, strict=True
            )
          ],
          bool,
        )
      }

    return note


def _check_levels(levels):
  if not levels or list(levels) != sorted(levels):
    raise ValueError(f"rewards of longer beginnings must not fall: {levels}")
  if not 0 <= levels[0] <= levels[-1] <= 1:
    raise ValueError(f"rewards must be in [0, 1], got {levels}")
