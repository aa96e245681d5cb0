"""Learning curves and sample grids as PNGs, for light and for dark pages."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

if TYPE_CHECKING:
  from matplotlib.axes import Axes

  from rl_jax.launch.records import Picture
  from rl_jax.training.loop import Row

__all__ = [
  "DARK",
  "LIGHT",
  "Panel",
  "Theme",
  "curve",
  "empty_axes",
  "grid",
  "legend",
  "panels",
  "png",
  "series_of",
]

# Metrics whose names hold one of a family's words share a panel, in this order.
_FAMILIES = (
  ("Reward", ("reward",)),
  ("KL divergence", ("kl",)),
  ("Loss", ("loss",)),
  ("Ratio", ("ratio",)),
  ("Clipped", ("clip",)),
  ("Advantage", ("advantage",)),
  ("Gradient norm", ("gradient", "norm")),
)
_INTERVAL = "_interval"
_CROWDED = 120  # points from which on a running mean is drawn over them


class Theme(NamedTuple):
  """Colours of a figure.

  Attributes:
    paper: background.
    ink: text.
    faint: grid lines and axes.
    lines: of the series, distinguishable without seeing red and green apart.
    right: frame of a sample that is what was asked for.
    wrong: frame of one that is not.
  """

  paper: str
  ink: str
  faint: str
  lines: tuple[str, ...]
  right: str
  wrong: str


LIGHT = Theme(
  paper="#ffffff",
  ink="#1f2328",
  faint="#d5d9de",
  lines=("#0b62c4", "#c4540b", "#0a7d5c", "#8a3fa8", "#7a6000", "#5a6570"),
  right="#0b7fb8",
  wrong="#e0661a",
)
DARK = Theme(
  paper="#16191d",
  ink="#e4e7eb",
  faint="#3a4048",
  lines=("#6cb0ff", "#ff9a5c", "#4fd0a5", "#d39bea", "#e0c35a", "#a9b3bd"),
  right="#45b4ea",
  wrong="#ff8f47",
)


class Panel(NamedTuple):
  """One chart.

  Attributes:
    title: what it is about.
    series: name -> (steps, values).
    band: the values in which the last one is expected, if it says so.
    spread: name -> half the width of an interval around each value.
  """

  title: str
  series: dict[str, tuple[np.ndarray, np.ndarray]]
  band: tuple[float, float] | None
  spread: Mapping[str, np.ndarray] = {}


def panels(
  rows: Sequence[Row], bands: Mapping[str, tuple[float, float]]
) -> list[Panel]:
  """The charts of a run: each evaluated metric, then families of the others.

  Args:
    rows: of the run.
    bands: metric -> (low, high), where one is expected; such a metric has a
      chart of its own.

  Returns:
    Charts in the order in which a person wants them.
  """
  series, spread = series_of(rows)
  alone = [*bands]
  for row in rows:
    if row.kind == "evaluation":
      alone += [name for name in row.metrics if name not in alone]
  charts = [
    Panel(
      name,
      {name: series.pop(name)},
      bands.get(name),
      {name: spread[name]} if name in spread else {},
    )
    for name in alone
    if name in series
  ]
  for title, words in _FAMILIES:
    names = [n for n in series if any(w in n.split("/")[-1] for w in words)]
    if title == "Loss":  # Terms of the loss are named loss/<term>.
      names = [n for n in series if n.split("/")[0] == "loss" or n in names]
    names = [n for n in names if "not_finite" not in n]
    if names:
      charts.append(Panel(title, {n: series.pop(n) for n in names}, None))
  charts += [
    Panel(name, {name: points}, None) for name, points in series.items()
  ]
  return charts


def series_of(
  rows: Sequence[Row],
) -> tuple[dict[str, tuple[np.ndarray, np.ndarray]], dict[str, np.ndarray]]:
  """Metrics over steps.

  A metric called like another one with `_interval` behind it is half the
  width of an interval around that one's values, and no series of its own.

  Args:
    rows: of a run.

  Returns:
    Name -> (steps, values), and name -> half widths at the same steps.
  """
  found: dict[str, dict[int, float]] = {}
  for row in rows:
    for name, value in row.metrics.items():
      found.setdefault(name, {})[row.step] = value
  widths = {
    name: found.pop(name + _INTERVAL)
    for name in list(found)
    if name + _INTERVAL in found
  }
  series = {
    name: (np.array([*points]), np.array([*points.values()]))
    for name, points in found.items()
  }
  spread = {
    name: np.array([own.get(int(step), np.nan) for step in series[name][0]])
    for name, own in widths.items()
  }
  return series, spread


def curve(panel: Panel, theme: Theme, steps: tuple[int, int]) -> bytes:
  """A chart as PNG.

  Args:
    panel: what to draw.
    theme: its colours.
    steps: first and last step, the same for every chart of a run.

  Returns:
    The file's content.
  """
  figure = Figure(figsize=(4.6, 2.7), dpi=160, facecolor=theme.paper)
  many = len(panel.series) > 1
  axes = empty_axes(figure, theme, panel.title, 0.62 if many else 0.72)
  values = np.concatenate(
    [v for _, v in panel.series.values()]
    + [
      panel.series[name][1] + sign * half
      for name, half in panel.spread.items()
      for sign in (-1, 1)
    ]
  )
  finite = values[np.isfinite(values)]
  low, high = (finite.min(), finite.max()) if finite.size else (0.0, 1.0)
  if panel.band is None and low > 0 and high > 100 * low:
    axes.set_yscale("log")
  else:
    edges = [edge for edge in panel.band or () if np.isfinite(edge)]
    low, high = min(low, *edges, low), max(high, *edges, high)
    pad = 0.06 * (high - low) or 0.05 * abs(high) or 0.5
    axes.set_ylim(low - pad, high + pad)
    # An exponent above the axis would lie on the title.
    axes.yaxis.set_major_formatter(lambda y, _: f"{y:.4g}")
  if panel.band is not None:
    inside = np.clip(panel.band, *axes.get_ylim())
    axes.axhspan(*inside, color=theme.lines[2], alpha=0.16, linewidth=0)
  for i, (name, (step, value)) in enumerate(panel.series.items()):
    colour = theme.lines[i % len(theme.lines)]
    style = ("-", "--", ":")[i // len(theme.lines) % 3]
    if name in panel.spread:
      half = panel.spread[name]
      axes.fill_between(
        step, value - half, value + half, color=colour, alpha=0.18, linewidth=0
      )
    few = step.size <= 40
    if step.size > _CROWDED:
      axes.plot(step, value, color=colour, alpha=0.3, linewidth=0.7)
      value = _running_mean(value, step.size // 40)
    axes.plot(
      step,
      value,
      style,
      color=colour,
      linewidth=1.6,
      marker="o" if few else None,
      markersize=2.6,
      label=name,
    )
  margin = 0.01 * (steps[1] - steps[0]) or 1.0
  axes.set_xlim(steps[0] - margin, steps[1] + margin)
  axes.xaxis.set_major_locator(MaxNLocator(integer=True))
  axes.set_xlabel("step", color=theme.ink, fontsize=8, labelpad=1)
  if many:
    legend(axes, theme, min(3, len(panel.series)))
  return png(figure)


def grid(picture: Picture, theme: Theme) -> bytes:
  """Samples as PNG: rows are classes, a frame says whether it is the class.

  Args:
    picture: its image is [row, column, height, width] in [-1, 1].
    theme: colours.

  Returns:
    The file's content.

  Raises:
    ValueError: if the image has another number of axes.
  """
  if picture.image.ndim != 4:
    raise ValueError(
      "a grid needs [row, column, height, width], got shape"
      f" {picture.image.shape}"
    )
  rows, columns, height, width = picture.image.shape
  scale = max(1, round(56 / max(height, width)))
  frame, gap = 4, 4
  cell = scale * np.array([height, width]) + 2 * frame + gap
  size = cell * [rows, columns]
  canvas = np.empty((*size, 3))
  canvas[:] = to_rgb(theme.paper)
  grey = np.clip((picture.image.astype(np.float64) + 1) / 2, 0, 1)
  grey = grey.repeat(scale, axis=2).repeat(scale, axis=3)
  for r in range(rows):
    for c in range(columns):
      tile = canvas[
        r * cell[0] : (r + 1) * cell[0] - gap,
        c * cell[1] : (c + 1) * cell[1] - gap,
      ]
      if picture.correct is not None:
        right = bool(picture.correct[r, c])
        tile[:] = to_rgb(theme.right if right else theme.wrong)
      tile[frame:-frame, frame:-frame] = grey[r, c, :, :, None]
  margin, dpi = 30, 100
  whole = size[1] + margin
  figure = Figure(
    figsize=(whole / dpi, size[0] / dpi), dpi=dpi, facecolor=theme.paper
  )
  axes = figure.add_axes((margin / whole, 0, size[1] / whole, 1))
  axes.set_axis_off()
  axes.imshow(canvas, interpolation="nearest", aspect="auto")
  for r in range(rows):
    figure.text(
      0.45 * margin / whole,
      1 - (r + 0.5 - gap / cell[0] / 2) / rows,
      str(r),
      color=theme.ink,
      fontsize=13,
      ha="center",
      va="center",
    )
  return png(figure)


def empty_axes(figure: Figure, theme: Theme, title: str, height: float) -> Axes:
  """Axes below a title, with nothing in them yet.

  Args:
    figure: where they are put.
    theme: colours.
    title: of the figure.
    height: share of the figure.

  Returns:
    The axes.
  """
  axes = figure.add_axes((0.125, 0.15, 0.85, height))
  axes.set_facecolor(theme.paper)
  axes.grid(color=theme.faint, linewidth=0.6)
  axes.set_axisbelow(True)
  axes.spines[:].set_visible(False)
  axes.tick_params(colors=theme.ink, labelsize=8, length=0)
  figure.text(0.02, 0.925, title, color=theme.ink, fontsize=10, weight="bold")
  return axes


def legend(axes: Axes, theme: Theme, columns: int) -> None:
  """What the colours mean, between the title and the axes.

  Args:
    axes: from `empty_axes`, with labelled series.
    theme: colours.
    columns: names beside each other.
  """
  axes.legend(
    loc="lower left",
    bbox_to_anchor=(-0.02, 1.0),
    ncols=columns,
    fontsize=7.5,
    frameon=False,
    labelcolor=theme.ink,
    borderpad=0.1,
    columnspacing=1.2,
    handlelength=1.4,
  )


def _running_mean(value: np.ndarray, width: int) -> np.ndarray:
  # Near the ends fewer points are averaged, so that nothing is made up.
  ones = np.ones(2 * (width // 2) + 1)
  return np.convolve(value, ones, "same") / np.convolve(
    np.ones_like(value), ones, "same"
  )


def png(figure: Figure) -> bytes:
  """A figure as the content of a file.

  Args:
    figure: drawn.

  Returns:
    PNG.
  """
  buffer = io.BytesIO()
  FigureCanvasAgg(figure).print_png(buffer)
  return buffer.getvalue()
