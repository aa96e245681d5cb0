"""What a person sees, on a terminal and anywhere else."""

from __future__ import annotations

import io
import re
import time

import pytest
import rich.console

from rl_jax.launch.console import Console
from rl_jax.training.loop import Outcome


def plain() -> rich.console.Console:
  return rich.console.Console(
    file=io.StringIO(), force_terminal=False, width=60
  )


def terminal() -> rich.console.Console:
  return rich.console.Console(
    file=io.StringIO(), force_terminal=True, width=90, legacy_windows=False
  )


def text(screen: rich.console.Console) -> str:
  return screen.file.getvalue()


def watch(screen, row, *, steps: int, title: str = "toy", first: int = 0, **kw):
  console = Console(title, screen=screen, **kw)
  console.started(step=first, steps=steps)
  for step in range(first + 1, steps + 1):
    console.measured(row(step, reward=step / 8, loss=1.0, odd=2.0))
    if step % (steps // 4) == 0:
      console.measured(row(step, "evaluation", evaluation__reward=0.25))
    console.saved(step)
  console.ended(Outcome("finished", steps, None, 75.0, {"odd": 1.0}))
  return console


@pytest.mark.parametrize("steps", [4, 60, 1000])
def test_plain_lines_are_few_and_name_every_evaluation(row, steps) -> None:
  screen = plain()
  watch(screen, row, steps=steps)
  lines = text(screen).splitlines()
  assert len([line for line in lines if "evaluation:" in line]) == 4
  assert len(lines) - 4 <= 20
  assert lines[0] == f"toy: {steps} steps"
  assert lines[-1] == f"toy: finished, step {steps}, 1 min 15 s"


def test_plain_lines_have_no_escape_codes(row) -> None:
  screen = plain()
  watch(screen, row, steps=20, title="[red]a[/red] :smile:")
  assert not re.search(r"[\x00-\x09\x0b-\x1f]", text(screen))
  assert "[red]a[/red] :smile:" in text(screen)


def test_long_lines_are_not_wrapped(row) -> None:
  screen = plain()
  watch(screen, row, steps=4, title="x" * 70)
  assert all(line.startswith("x" * 70) for line in text(screen).splitlines())


def test_only_chosen_metrics_are_shown_in_the_chosen_order(row) -> None:
  screen = plain()
  watch(screen, row, steps=4, show=("odd", "absent", "reward"))
  (last,) = [x for x in text(screen).splitlines() if "4/4  2.0 s  " in x]
  assert last == "toy  step 4/4  2.0 s  odd 2  reward 0.5"
  assert text(screen).splitlines()[-1].endswith("; odd 1")


def test_an_evaluation_without_chosen_metrics_shows_what_it_has(row) -> None:
  screen = plain()
  watch(screen, row, steps=4, show=("odd",))
  assert "evaluation: reward 0.25" in text(screen)


def test_time_left_is_the_pace_since_the_first_step(row) -> None:
  """Rows are half a second apart, so 15 of 20 steps leave 2.5 s."""
  screen = plain()
  watch(screen, row, steps=20)
  (line,) = [x for x in text(screen).splitlines() if " 14/20" in x]
  assert "7.0 s, 3.0 s left" in line


def test_resumed_and_already_finished_runs(row) -> None:
  screen = plain()
  watch(screen, row, steps=8, first=4)
  assert text(screen).startswith("toy: goes on at step 4 of 8\n")
  screen = plain()
  watch(screen, row, steps=8, first=8)
  assert text(screen) == "toy: finished, step 8, 1 min 15 s\n"


def test_a_signal_is_named() -> None:
  screen = plain()
  console = Console("toy", screen=screen)
  console.started(step=0, steps=9)
  console.ended(Outcome("stopped", 3, 15, 1.0, {}))
  assert "toy: stopped by SIGTERM at step 3 of 9, saved, 1.0 s" in text(screen)


def test_a_terminal_gets_a_moving_bar_for_each_stage(row) -> None:
  screen = terminal()
  for title in ("first", "second"):
    watch(screen, row, steps=8, title=title)
    assert f"{title}: finished, step 8" in text(screen)
  assert "\x1b[" in text(screen)
  assert "8/8" in text(screen)
  assert "evaluation:" not in text(screen)


def test_a_run_that_raises_gives_the_terminal_back(row) -> None:
  screen = terminal()
  console = Console("toy", screen=screen)
  console.started(step=0, steps=9)
  console.measured(row(1, loss=1.0))
  console.close()
  console.close()
  assert text(screen).rstrip("\r\n").count("\x1b[?25h") == 1  # cursor shown


def test_the_display_does_not_slow_a_fast_loop(row) -> None:
  """Half a millisecond a row is 5 % of a step of 10 ms."""
  screen = terminal()
  console = Console("toy", screen=screen)
  item = row(1, reward=1.0)
  console.started(step=0, steps=10**6)
  start = time.perf_counter()
  for _ in range(2000):
    console.measured(item)
  took = time.perf_counter() - start
  console.close()
  assert took / 2000 < 5e-4


def test_an_interval_stands_behind_its_number(row) -> None:
  screen = plain()
  console = Console("toy", screen=screen)
  console.started(step=0, steps=4)
  console.measured(
    row(
      4,
      "evaluation",
      evaluation__reward=0.25,
      evaluation__reward_interval=0.03125,
      evaluation__length=7.0,
    )
  )
  said = text(screen).splitlines()[-1]
  assert said.endswith("evaluation: reward 0.25 ± 0.031  length 7")
