"""The page at the end of a run: what came out, against what was expected."""

from __future__ import annotations

import html
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from rl_jax.launch import figures
from rl_jax.launch.comparison import before_and_after
from rl_jax.launch.monitors import monitors
from rl_jax.launch.page import STYLE, figure, section, slug, soft
from rl_jax.launch.records import Picture, read_pictures, read_records
from rl_jax.launch.text import duration, leaves, number, signal_name
from rl_jax.launch.texts import read_texts

if TYPE_CHECKING:
  from rl_jax.experiment import Band, Experiment
  from rl_jax.launch.monitors import Monitors
  from rl_jax.training.loop import Outcome, Row

__all__ = ["Judged", "Report", "judge", "verdict", "write_report"]


class Judged(NamedTuple):
  """A band and the last value of its metric.

  Attributes:
    band: what was expected.
    value: the last one measured; None if it never was.
    step: when.
  """

  band: Band
  value: float | None
  step: int | None

  @property
  def inside(self) -> bool:
    """Whether it came out as expected."""
    return self.value is not None and self.band.holds(self.value)


class Report:
  """An observer that writes the report when its run ends.

  Args:
    workdir: of the run; its records are read from there.
    experiment: what runs.
  """

  def __init__(self, workdir: Path, experiment: Experiment) -> None:
    self._workdir, self._experiment = Path(workdir), experiment
    self.verdict = ""
    self.path: Path | None = None

  def started(self, *, step: int, steps: int) -> None:
    """Nothing yet."""

  def measured(self, row: Row) -> None:
    """Records are read from disk at the end."""

  def saved(self, step: int) -> None:
    """Nothing to do."""

  def ended(self, outcome: Outcome) -> None:
    """Writes the page; whoever writes the records must have ended before."""
    self.path = write_report(self._workdir, self._experiment, outcome)
    judged = judge(read_records(self._workdir), self._experiment.expected)
    self.verdict = verdict(judged, self._experiment.steps, outcome)


def judge(rows: Sequence[Row], expected: Sequence[Band]) -> list[Judged]:
  """Holds the last value of each expected metric against its band.

  Args:
    rows: of the run.
    expected: bands, by metric.

  Returns:
    One per band, in order.
  """
  last = {
    name: (value, row.step)
    for row in rows
    for name, value in row.metrics.items()
  }
  return [Judged(b, *last.get(b.metric, (None, None))) for b in expected]


def verdict(judged: Sequence[Judged], steps: int, outcome: Outcome) -> str:
  """One line that says how a run came out.

  Args:
    judged: the final numbers beside what was expected of them.
    steps: how many steps the run was asked for.
    outcome: how it ended.

  Returns:
    A sentence that names every number outside its band.
  """
  outside = [item for item in judged if not item.inside]
  if not judged:
    said = "no numbers were expected"
  elif not outside:
    said = f"as expected: {len(judged)} of {len(judged)} numbers in their bands"
  else:
    faults = "; ".join(
      f"{j.band.metric} is {_value(j)}, expected {_band(j.band)}"
      for j in outside
    )
    said = f"not as expected: {faults}"
  if outcome.error is not None:
    return f"Failed: {outcome.error}; until then {said}."
  if outcome.signal is not None:
    return (
      f"Stopped by {signal_name(outcome.signal)} at step {outcome.step} of"
      f" {steps}; so far {said}."
    )
  return f"Finished, {said}."


def write_report(
  workdir: Path, experiment: Experiment, outcome: Outcome
) -> Path:
  """Writes `report.html`, which needs no other file, and its pictures.

  Args:
    workdir: of the run, with its records.
    experiment: what ran.
    outcome: how it ended.

  Returns:
    The page. The pictures stand beside it in `figures/`.

  Raises:
    ValueError: if the records cannot be read.
  """
  workdir = Path(workdir)
  directory = workdir / "figures"
  directory.mkdir(parents=True, exist_ok=True)
  for old in directory.glob("*.png"):
    old.unlink()
  rows, pictures = read_records(workdir), read_pictures(workdir)
  judged = judge(rows, experiment.expected)
  state = "plain" if not judged else "good"
  if any(not item.inside for item in judged):
    state = "bad"
  title = html.escape(experiment.name)
  line = html.escape(verdict(judged, experiment.steps, outcome))
  page = f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>{STYLE}</style>
</head>
<body>
<header>
<h1>{title}</h1>
<p class="verdict {state}">{line}</p>
</header>
<main>
{_bands(judged)}
{_samples(pictures, directory)}
{before_and_after(read_texts(workdir), directory)}
{_curves(rows, experiment.expected, directory)}
{_facts(workdir, experiment, outcome, rows)}
{_configuration(experiment)}
</main>
</body>
</html>
"""
  path = workdir / "report.html"
  draft = path.with_name("report.html.partial")
  draft.write_text(page, encoding="utf-8")
  os.replace(draft, path)
  return path


def _bands(judged: Sequence[Judged]) -> str:
  if not judged:
    return ""
  lines = [
    f'<tr class="{"good" if j.inside else "bad"}">'
    f'<th scope="row">{soft(j.band.metric)}</th>'
    f"<td>{_value(j)}</td><td>{_band(j.band)}</td>"
    f'<td class="mark">{"inside" if j.inside else "outside"}</td></tr>'
    for j in judged
  ]
  return section(
    "Expected and measured",
    '<table class="bands"><thead><tr><th scope="col">metric</th>'
    '<th scope="col">last value</th><th scope="col">expected</th>'
    '<th scope="col">band</th></tr></thead><tbody>'
    + "".join(lines)
    + "</tbody></table>",
  )


def _samples(pictures: dict[str, list[Picture]], directory: Path) -> str:
  parts = []
  for name, kept in pictures.items():
    if any(picture.image.ndim != 4 for picture in kept):
      shape = "x".join(map(str, kept[-1].image.shape))
      parts.append(f"<p>{soft(name)} has shape {shape}: not drawn here.</p>")
      continue
    ends = [kept[0], kept[-1]] if len(kept) > 1 else kept
    shown = []
    for word, picture in zip(("before", "after"), ends, strict=False):
      said = f"{name}, step {picture.step}"
      if picture.correct is not None:
        right, all_of = int(picture.correct.sum()), picture.correct.size
        said += f": {right} of {all_of} are what their row asks for"
      count = f"{picture.image.shape[0]} rows of {picture.image.shape[1]}"
      shown.append(
        figure(
          directory / f"{slug(name)}_{word}.png",
          [
            figures.grid(picture, theme)
            for theme in (figures.LIGHT, figures.DARK)
          ],
          alt=f"Grid of samples, {count}, one row per class. {said}.",
          caption=said,
        )
      )
    legend = ""
    if ends[0].correct is not None:
      legend = (
        '<p class="legend">Each row asks for one class. Frame: '
        '<span class="right">what the row asks for</span>, '
        '<span class="wrong">something else</span>, as the judge of the'
        " reward sees it.</p>"
      )
    parts.append(f'{legend}<div class="pair">{"".join(shown)}</div>')
  heading = "Samples before and after"
  return section(heading, "".join(parts)) if parts else ""


def _curves(
  rows: Sequence[Row], expected: Sequence[Band], directory: Path
) -> str:
  if not rows:
    return section("Learning curves", "<p>Nothing was recorded.</p>")
  bands = {b.metric: (b.low, b.high) for b in expected}
  steps = (rows[0].step, rows[-1].step)
  watched, rest = monitors(rows), rows
  parts = []
  if watched is not None:
    parts.append(_monitors(watched, steps, directory))
    kept = {*watched.rest, *bands}
    kept |= {f"{name}_interval" for name in kept}
    rest = [
      row._replace(metrics={k: v for k, v in row.metrics.items() if k in kept})
      for row in rows
    ]
  note = "<p>Shaded: where the last value is expected.</p>" if bands else ""
  charts = _charts(figures.panels(rest, bands), steps, directory)
  if charts:
    parts.append(section("Learning curves", note + charts))
  return "\n".join(parts)


def _monitors(
  watched: Monitors, steps: tuple[int, int], directory: Path
) -> str:
  said = "Whether what is rewarded is still what is meant."
  if any(panel.spread for panel in watched.panel):
    said += " Around an evaluated reward: its 95 % interval."
  note = f"<p>{said}</p>"
  if watched.quiet:
    names = ", ".join(soft(name) for name in watched.quiet)
    note += f'<p class="quiet">0 all the time: {names}.</p>'
  return section("Monitors", note + _charts(watched.panel, steps, directory))


def _charts(
  panels: Sequence[figures.Panel], steps: tuple[int, int], directory: Path
) -> str:
  shown = []
  for panel in panels:
    ends = "; ".join(
      f"{name} {number(value[0])} to {number(value[-1])}"
      + (f" ± {number(panel.spread[name][-1])}" if name in panel.spread else "")
      for name, (_, value) in panel.series.items()
    )
    alt = f"{panel.title} over steps {steps[0]} to {steps[1]}. {ends}."
    if panel.band is not None:
      alt += " The expected band is shaded."
    shown.append(
      figure(
        directory / f"{slug(panel.title)}.png",
        [
          figures.curve(panel, theme, steps)
          for theme in (figures.LIGHT, figures.DARK)
        ],
        alt=alt,
        caption=ends,
      )
    )
  return f'<div class="curves">{"".join(shown)}</div>' if shown else ""


def _facts(
  workdir: Path, experiment: Experiment, outcome: Outcome, rows: Sequence[Row]
) -> str:
  total = max(outcome.seconds, rows[-1].seconds if rows else 0.0)
  facts = {
    "Experiment": f"{experiment.name}, {experiment.hash}",
    "Steps": f"{outcome.step} of {experiment.steps}",
    "Time in the loop": f"{duration(total)}, of which this process"
    f" {duration(outcome.seconds)}",
    "Seed": str(experiment.seed),
  }
  facts |= _origin(workdir / "experiment.json")
  lines = "".join(
    f"<dt>{html.escape(k)}</dt><dd>{soft(v)}</dd>" for k, v in facts.items()
  )
  return section("Run", f"<dl>{lines}</dl>")


def _origin(path: Path) -> dict[str, str]:
  """Command and versions, where the launcher has written them down."""
  if not path.exists():
    return {}
  stored: dict[str, Any] = json.loads(path.read_text())
  versions = {"python": stored["python"]} | stored["versions"]
  return {
    "Command": " ".join(stored["command"]) or "from Python",
    "Versions": ", ".join(f"{k} {v}" for k, v in versions.items()),
  }


def _configuration(experiment: Experiment) -> str:
  lines = "".join(
    f'<tr><th scope="row">{soft(path)}</th><td>{soft(value)}</td></tr>'
    for path, value in leaves(experiment)
    if path
  )
  return (
    "<section><details><summary>Configuration, every value</summary>"
    f'<table class="values"><tbody>{lines}</tbody></table>'
    "</details></section>"
  )


def _value(judged: Judged) -> str:
  return "not measured" if judged.value is None else number(judged.value)


def _band(band: Band) -> str:
  if band.high == float("inf"):
    return f"at least {number(band.low)}"
  if band.low == -float("inf"):
    return f"at most {number(band.high)}"
  return f"{number(band.low)} to {number(band.high)}"
