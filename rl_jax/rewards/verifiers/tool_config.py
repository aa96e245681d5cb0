"""Which of ToolRL's published rewards a response earns."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

from rl_jax.rewards.verifiers.tool_calls import (
  ParsedResponse,
  parse_tool_response,
)

__all__ = ["ToolRewardConfig"]

# Loop steps of the schedules of the release.
_SWITCH, _SMOOTH = 30, 150


@dataclasses.dataclass(frozen=True, kw_only=True)
class ToolRewardConfig:
  """Which of the published rewards, and how much a text may ask of the judge.

  Raises:
    ValueError: if a range is empty or not finite, switches contradict each
      other, or a limit is below 1.
  """

  format_range: tuple[float, float] = (0.0, 1.0)
  """Least and most for the form."""
  correct_range: tuple[float, float] = (-3.0, 3.0)
  """Least and most for the calls; (-1, 1) is the ablation of equal maxima."""
  granularity: Literal["fine", "intermediate", "coarse", "strict"] = "fine"
  """What earns a part of the points: names, names of parameters and values;
  whole calls; nothing but all calls; or as "fine" with names in order."""
  schedule: Literal["none", "two_stage", "smooth"] = "none"
  """Whether the ranges change with the loop step, see `ranges`."""
  length: Literal["none", "fixed", "dynamic"] = "none"
  """Whether long thinking is paid: up to 512 words, or up to a number that
  grows from 384 by 256 every 105 steps."""
  matching: Literal["greedy", "optimal"] = "greedy"
  """How predicted calls find theirs: in order, each taking the best of those
  that are left (the release), or so that the sum is largest."""
  strict_types: bool = False
  """Whether true differs from 1 in a value, as in JSON; in Python, and in the
  release, they are equal. 1 and 1.0 are the same number in both."""
  end: tuple[str, ...] = ("<|im_end|>", "<|endoftext|>", "<|eot_id|>")
  """Texts that end a response, removed before all else."""
  longest: int = 100_000
  """Most characters of a block of calls."""
  deepest: int = 64
  """Most brackets inside of one another."""
  most: int = 256
  """Most calls."""

  def __post_init__(self) -> None:
    for name in ("format_range", "correct_range"):
      low, high = getattr(self, name)
      if not (all(map(math.isfinite, (low, high))) and low < high):
        raise ValueError(
          f"{name} must be a smaller and a larger number, got {low}, {high}"
        )
    if min(self.longest, self.deepest, self.most) < 1:
      raise ValueError(
        "longest, deepest and most must be at least 1, got"
        f" {self.longest}, {self.deepest}, {self.most}"
      )
    if self.matching == "optimal" and self.granularity == "coarse":
      raise ValueError(
        'granularity="coarse" matches nothing: matching="greedy"'
      )
    self._check_smooth()

  def _check_smooth(self) -> None:
    (worst, best), (low, high) = self.correct_range, self.format_range
    fits = -3 <= worst <= -2 and 2 <= best <= 3 and low >= -2 and high <= 2
    if self.schedule == "smooth" and not fits:
      raise ValueError(
        'schedule="smooth" moves correct_range from (-2, 2) out to at most'
        " (-3, 3), and format_range inwards from (-2, 2): it cannot end at"
        f" {self.correct_range} and {self.format_range}"
      )

  @property
  def depends_on_step(self) -> bool:
    """Whether the same response earns different rewards in the run."""
    return self.schedule != "none" or self.length == "dynamic"

  def ranges(
    self, step: int
  ) -> tuple[tuple[float, float], tuple[float, float]]:
    """The ranges of the form and of the calls at a loop step.

        two_stage:  f, c / 3 before step 30;  f / 2, c from it
        smooth, s = step / 150:
          f_max = max(1, 2 - (2 - f_max) s)
          f_min = min(-1, -2 + (2 + f_min) s)
          c_max = min(3, 2 + (c_max - 2) s)
          c_min = max(-3, -2 + (c_min + 2) s)

    The least for the form ends at -1 in "smooth", not at its default of 0:
    that is what the release does.

    Args:
      step: loop step, from 0.

    Returns:
      (least, most) for the form, (least, most) for the calls.

    Raises:
      ValueError: if the step is negative.

    >>> ToolRewardConfig(schedule="smooth").ranges(75)
    ((-1.0, 1.5), (-2.5, 2.5))
    """
    if step < 0:
      raise ValueError(f"step must not be negative, got {step}")
    (low, high), (worst, best) = self.format_range, self.correct_range
    if self.schedule == "two_stage":
      if step < _SWITCH:
        worst, best = worst / 3, best / 3
      else:
        low, high = low / 2, high / 2
    elif self.schedule == "smooth":
      high = max(1.0, 2 - (2 - high) * step / _SMOOTH)
      low = min(-1.0, -2 + (2 + low) * step / _SMOOTH)
      best = min(3.0, (best - 2) * step / _SMOOTH + 2)
      worst = max(-3.0, (worst + 2) * step / _SMOOTH - 2)
    return (low, high), (worst, best)

  def text(self, text: str) -> str:
    """A response without what ends it and without space around it."""
    text = text.strip()
    while ended := next((e for e in self.end if e and text.endswith(e)), None):
      text = text.removesuffix(ended).rstrip()
    return text

  def parse(self, text: str) -> ParsedResponse:
    """The parts of a response; see `parse_tool_response`."""
    return parse_tool_response(
      self.text(text),
      longest=self.longest,
      deepest=self.deepest,
      most=self.most,
    )
