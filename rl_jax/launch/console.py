"""What a person watches while a run goes: a moving display, or plain lines."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

import rich.console
import rich.live
import rich.progress
from rich.text import Text

from rl_jax.launch.text import duration, number, signal_name

if TYPE_CHECKING:
  from collections.abc import Mapping, Sequence

  from rl_jax.training.loop import Outcome, Row

__all__ = ["Console"]

# What most runs have and most people want.
_SHOW = (
  "reward",
  "loss/kl_base",
  "loss/kl_slow",
  "loss",
  "kl_reference",
  "length",
  "accuracy",
  "evaluation/reward",
  "evaluation/held_out",
  "evaluation/accuracy",
  "evaluation/length",
)
_INTERVAL = "_interval"  # behind a name: half the width of one around it
_LINES = 15  # plain lines of a run, besides evaluations
_PAUSE = 0.1  # seconds between two updates of the moving display


class Console:
  """An observer that tells a person how a run is doing.

  On a terminal: a bar with the step, the time left and a few numbers. Anywhere
  else (a file, a pipe, a scheduler's log): one plain line now and then and one
  per evaluation. Stages that follow each other take one Console each.

  Args:
    title: what is running.
    show: names of the metrics a person wants, most wanted first; those that
      a run does not have are left out.
    screen: where to write; standard output when None.
  """

  def __init__(
    self,
    title: str,
    *,
    show: tuple[str, ...] = _SHOW,
    screen: rich.console.Console | None = None,
  ) -> None:
    self._title, self._show = title, show
    self._screen = screen or rich.console.Console()
    self._steps = self._every = 1
    self._numbers: dict[str, str] = {}
    self._pace: tuple[int, float] | None = None
    self._updated = -math.inf
    self._bar: rich.progress.Progress | None = None
    self._live: rich.live.Live | None = None

  def started(self, *, step: int, steps: int) -> None:
    """Opens the display."""
    self._steps, self._pace = steps, None
    self._every = max(1, math.ceil(steps / _LINES))
    if step >= steps:
      return
    if self._screen.is_terminal and not self._screen.is_dumb_terminal:
      self._open(step)
    elif step:
      self._say(f"{self._title}: goes on at step {step} of {steps}")
    else:
      self._say(f"{self._title}: {steps} steps")

  def measured(self, row: Row) -> None:
    """Shows the numbers, unless they come faster than anybody reads."""
    self._numbers.update(self._chosen(row.metrics))
    if row.kind == "train" and self._pace is None:
      self._pace = (row.step, row.seconds)
    last = row.step == self._steps
    if self._live is not None:
      now = time.monotonic()
      if last or now - self._updated >= _PAUSE:
        self._updated = now
        self._move(row)
    elif row.kind == "evaluation":
      few = list(row.metrics)[:4]
      numbers = self._chosen(row.metrics) or _said(row.metrics, few)
      short = {k.removeprefix("evaluation/"): v for k, v in numbers.items()}
      self._say(f"{self._at(row)}  evaluation: {_text(short)}")
    elif last or row.step % self._every == 0:
      numbers = self._chosen(row.metrics)
      self._say(f"{self._at(row)}  {self._left(row)}  {_text(numbers)}")

  def saved(self, step: int) -> None:
    """Saving is the normal case; nothing is said."""

  def ended(self, outcome: Outcome) -> None:
    """Closes the display and says how it went."""
    self.close()
    if outcome.signal is not None:
      how = (
        f"stopped by {signal_name(outcome.signal)} at step {outcome.step} of"
        f" {self._steps}, saved"
      )
    elif outcome.error is not None:
      how = f"failed after step {outcome.step} of {self._steps}"
    else:
      how = f"finished, step {outcome.step}"
    numbers = _text(self._chosen(outcome.evaluation))
    line = f"{self._title}: {how}, {duration(outcome.seconds)}"
    self._say(f"{line}; {numbers}" if numbers else line)

  def close(self) -> None:
    """Takes a moving display off the screen; may be repeated."""
    if self._live is not None:
      self._live.stop()
      self._live = self._bar = None

  def _open(self, step: int) -> None:
    self._bar = rich.progress.Progress(
      rich.progress.TextColumn("{task.description}", markup=False),
      rich.progress.BarColumn(bar_width=None),
      rich.progress.MofNCompleteColumn(),
      rich.progress.TextColumn("{task.fields[left]}", markup=False),
      console=self._screen,
      expand=True,
    )
    self._bar.add_task(
      self._title, total=self._steps, completed=step, left="compiled"
    )
    self._live = rich.live.Live(
      get_renderable=self._render,
      console=self._screen,
      refresh_per_second=4,
      transient=True,
    )
    self._live.start()

  def _render(self) -> rich.console.RenderableType:
    if self._bar is None:
      return Text("")
    numbers = Text(_text(self._numbers), style="dim")
    return rich.console.Group(self._bar.get_renderable(), numbers)

  def _move(self, row: Row) -> None:
    if self._bar is not None:
      task = self._bar.task_ids[0]
      self._bar.update(task, completed=row.step, left=self._left(row))

  def _chosen(self, metrics: Mapping[str, float]) -> dict[str, str]:
    return _said(metrics, [name for name in self._show if name in metrics])

  def _at(self, row: Row) -> str:
    width = len(str(self._steps))
    return f"{self._title}  step {row.step:{width}d}/{self._steps}"

  def _left(self, row: Row) -> str:
    if self._pace is None or row.step <= self._pace[0]:
      return duration(row.seconds)
    step, seconds = self._pace
    each = (row.seconds - seconds) / (row.step - step)
    left = each * (self._steps - row.step)
    if row.step == self._steps:
      return duration(row.seconds)
    return f"{duration(row.seconds)}, {duration(left)} left"

  def _say(self, line: str) -> None:
    self._screen.print(
      line.rstrip(), markup=False, highlight=False, soft_wrap=True, emoji=False
    )


def _said(metrics: Mapping[str, float], names: Sequence[str]) -> dict[str, str]:
  """Numbers as text, with an interval where there is one."""
  said = {name: number(metrics[name]) for name in names}
  for name in names:
    if name + _INTERVAL in metrics:
      said[name] += f" ± {metrics[name + _INTERVAL]:.2g}"
  return said


def _text(numbers: Mapping[str, str]) -> str:
  return "  ".join(f"{name} {said}" for name, said in numbers.items())
