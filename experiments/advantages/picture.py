"""All estimators on the same rollouts, in one picture.

Two prompts with eight responses each, right ones above wrong ones, in steps of
six tokens: `experiments/advantages/cases.py` makes them up. The first panel
shows what the responses are; each other one what an estimator says of every
token, red where it becomes less likely and blue where more.

    python -m experiments.advantages.picture              half a minute
    python -m experiments.advantages.picture --seed 3
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import jax
import numpy as np
import tyro
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from experiments.advantages.cases import Shape, cases, estimated, written
from rl_jax.algorithms.recipe import PolicyBatch

__all__ = ["Settings", "advantages_of", "draw", "main"]

_COLUMNS = 3
_GREY = "0.88"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
  """What is drawn, and where it is put."""

  seed: int = 0
  """Of the rollouts."""
  out: Path = Path("experiments/advantages/results/estimators.png")
  """The picture."""


def advantages_of(shape: Shape, *, seed: int) -> dict[str, np.ndarray]:
  """What every estimator says of the same rollouts.

  Args:
    shape: of the rollouts.
    seed: of what is made up.

  Returns:
    Advantages [row, time] by name, NaN where there is no token. Estimators
    with a memory have seen one batch before.
  """
  batch, earlier = written(shape, seed=seed), written(shape, seed=seed + 1)
  known = cases(steps=shape.steps)

  @jax.jit
  def every(batch, earlier):
    return {
      case.name: estimated(
        case, batch, earlier, num_groups=shape.prompts
      ).signals.advantage
      for case in known
    }

  found = every(batch, earlier)
  mask = np.asarray(batch.mask)
  return {
    case.name: np.where(mask, np.asarray(found[case.name]), np.nan)
    for case in known
  }


def draw(
  batch: PolicyBatch,
  advantage: Mapping[str, np.ndarray],
  shape: Shape,
  figure: Figure,
) -> None:
  """One panel for each estimator.

  Args:
    batch: the rollouts.
    advantage: [row, time] by name, NaN where nothing is.
    shape: of the rollouts.
    figure: what to draw on, with a constrained layout; its size is set.
  """
  level = {case.name: case.level for case in cases(steps=shape.steps)}
  lines = -(-(len(advantage) + 1) // _COLUMNS)
  figure.set_size_inches(12.5, 2.15 * lines + 0.6)
  axes = figure.subplots(lines, _COLUMNS, sharex=True, sharey=True)
  panels = list(axes.flat)
  assert batch.extra is not None
  _strip(panels[0], np.asarray(_judged(batch)), shape, "PiYG", 1.0)
  panels[0].set_title(
    "the rollouts: score of each step, green is good", fontsize=10
  )
  for axis, (name, value) in zip(panels[1:], advantage.items(), strict=False):
    largest = float(np.nanmax(np.abs(value)))
    image = _strip(axis, value, shape, "RdBu", largest)
    axis.set_title(f"{name}   (by {level[name]}, ±{largest:.2f})", fontsize=10)
  for axis in panels[len(advantage) + 1 :]:
    axis.set_visible(False)
  _label(axes, batch, shape)
  bar = figure.colorbar(
    image, ax=axes, location="bottom", shrink=0.4, aspect=40, pad=0.01
  )
  bar.set_ticks(
    [-largest, 0.0, largest], labels=["less likely", "0", "more likely"]
  )


def _judged(batch: PolicyBatch) -> np.ndarray:
  """Scores of steps in [-1, 1] at their tokens; NaN where there is none."""
  assert batch.extra is not None
  score, step = (np.asarray(batch.extra[n]) for n in ("step_score", "step"))
  at_tokens = np.take_along_axis(score, np.maximum(step, 0), axis=1)
  return np.where(step >= 0, 2 * at_tokens - 1, np.nan)


def _strip(
  axis: Axes, value: np.ndarray, shape: Shape, colours: str, largest: float
):
  axis.set_facecolor(_GREY)
  image = axis.imshow(
    value,
    cmap=colours,
    vmin=-largest,
    vmax=largest,
    aspect="auto",
    interpolation="none",
  )
  for edge in range(shape.segment, shape.time, shape.segment):
    axis.axvline(edge - 0.5, color="black", linewidth=0.4, alpha=0.4)
  for edge in range(shape.samples, len(value), shape.samples):
    axis.axhline(edge - 0.5, color="black", linewidth=1.2)
  return image


def _label(axes: np.ndarray, batch: PolicyBatch, shape: Shape) -> None:
  """The prompts, and which responses are right, on the left."""
  right = np.asarray(batch.reward) > 0
  place, text = [], []
  for prompt in range(shape.prompts):
    rows = np.arange(shape.samples) + prompt * shape.samples
    for good, word in ((True, "right"), (False, "wrong")):
      those = rows[right[rows] == good]
      if len(those):
        place.append(those.mean())
        text.append(f"prompt {prompt + 1}, {word}")
        if good:
          for axis in axes.flat:
            axis.axhline(
              those.max() + 0.5, color="black", linewidth=0.5, linestyle=":"
            )
  for axis in axes[:, 0]:
    axis.set_yticks(place, labels=text, fontsize=8)
    axis.tick_params(axis="y", length=0)
  for axis in axes[-1]:
    axis.set_xlabel("token")


def main(arguments: Sequence[str] | None = None) -> int:
  """Draws the picture.

  Args:
    arguments: of the command line; those of the process when None.

  Returns:
    0.
  """
  settings = tyro.cli(Settings, description=__doc__, args=arguments)
  shape = Shape()
  batch = written(shape, seed=settings.seed)
  found = advantages_of(shape, seed=settings.seed)
  settings.out.parent.mkdir(parents=True, exist_ok=True)
  figure = Figure(layout="constrained")
  draw(batch, found, shape, figure)
  figure.savefig(settings.out, dpi=110)
  print(f"{len(found)} estimators on {len(batch.reward)} responses:")
  print(settings.out)
  return 0


if __name__ == "__main__":
  sys.exit(main())
