"""How numbers of two or more groups are distributed, as bars."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure

from rl_jax.launch.figures import Theme, empty_axes, legend, png

__all__ = ["Bars", "bars", "histogram"]

_DISTINCT = 8  # values that have bars of their own
_RANGES = 16  # bars of more values than that


class Bars(NamedTuple):
  """A distribution of several groups of numbers.

  Attributes:
    label: of each bar.
    share: group -> the share of its members in each bar.
    edge: where bars begin and end, if they are ranges.
  """

  label: list[str]
  share: dict[str, np.ndarray]
  edge: np.ndarray | None


def bars(groups: Mapping[str, Sequence[float | None]]) -> Bars | None:
  """How numbers are distributed.

  A few different values have a bar each, more are put into ranges of one
  width. What is None has a bar of its own.

  Args:
    groups: name -> numbers.

  Returns:
    Shares of each group; None if there are no numbers.
  """
  known = {
    name: np.array([x for x in given if x is not None], float)
    for name, given in groups.items()
  }
  values = np.unique(np.concatenate([*known.values()]))
  if not values.size or not np.isfinite(values).all():
    return None
  edge = None
  if values.size <= _DISTINCT:
    label = [f"{value:.4g}" for value in values]
    count = {
      name: np.array([np.sum(own == value) for value in values])
      for name, own in known.items()
    }
  else:
    edge = np.linspace(values[0], values[-1], _RANGES + 1)
    label = [f"{a:.3g} to {b:.3g}" for a, b in itertools.pairwise(edge)]
    count = {name: np.histogram(own, edge)[0] for name, own in known.items()}
  missing = {name: len(groups[name]) - own.size for name, own in known.items()}
  if any(missing.values()):
    label.append("no verdict")
    count = {name: np.append(own, missing[name]) for name, own in count.items()}
  return Bars(
    label,
    {name: own / max(1, len(groups[name])) for name, own in count.items()},
    edge,
  )


def histogram(found: Bars, theme: Theme) -> bytes:
  """A distribution as PNG, the bars of all groups beside each other.

  Args:
    found: from `bars`.
    theme: colours.

  Returns:
    The file's content.
  """
  figure = Figure(figsize=(4.6, 2.7), dpi=160, facecolor=theme.paper)
  axes = empty_axes(figure, theme, "Rewards, % of answers", 0.62)
  place, width = np.arange(len(found.label)), 0.84 / len(found.share)
  for i, (name, share) in enumerate(found.share.items()):
    axes.bar(
      place + (i - (len(found.share) - 1) / 2) * width,
      100 * share,
      width,
      # The colour of what was expected before, and of what came of it.
      color=theme.lines[(5, 0)[i] if i < 2 else i],
      label=name,
    )
  if found.edge is None:
    axes.set_xticks(place, found.label)
  else:
    every = range(0, _RANGES + 1, 4)
    ticks = [(i - 0.5, f"{found.edge[i]:.3g}") for i in every]
    ticks += [(i, label) for i, label in enumerate(found.label) if i >= _RANGES]
    # Beside "no verdict" the last edge has no room.
    ticks = [t for t in ticks if len(ticks) == 5 or t[0] != _RANGES - 0.5]
    axes.set_xticks(*zip(*ticks, strict=True))
  axes.grid(visible=False, axis="x")
  axes.yaxis.set_major_formatter(lambda y, _: f"{y:.4g}")
  legend(axes, theme, len(found.share))
  return png(figure)
