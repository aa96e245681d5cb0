"""SALT on GRPO and RLOO with a tabular policy, in a maze with key and door.

  python -m experiments.advantages.salt_tabular
  python -m experiments.advantages.salt_tabular --seeds 2

What it shows: the small experiment of the paper's specification, taken
literally. A table of logits by the sign of the maze, the cell and the key;
five actions, twelve turns, eight episodes of each of twelve mazes, 300 updates
by plain gradient descent on the clipped loss, one for each batch. The policy
begins as someone who knows the rules and cannot read the sign: it opens 4 % of
the doors.
Time: 1 minute of one core (10 seeds, 6 arms, 4 settings); 3 on a busy machine.
Expected: corridor steps that all take have an advantage below 3e-8 of SALT, of
GRPO up to .92 (of SALT by occurrences .08). With states by observation fewer
episodes are needed, but only by 2 to 4 % (median 8256 against 8448, a ratio of
.977 where .85 was wanted; .959 to .971 at other rates and where the corridor is
to be learnt), in no seed over 4 % more; with whole prefixes as many. The
variance of the gradient at the corridor is the same to 1 %.
Why: on policy, steps that are merged have one grad log pi. What matters is
then the sum of their factors, and a mean keeps it: what GRPO gives the steps
that all take adds up to 0 as well. SALT by whole prefixes is GRPO here, to
rounding, and so it is by occurrences (distance of gradients below 7e-8);
by observation it differs through episodes that take a step more than once, by
19 % of the gradient at first and by 3 % later. For more, a policy must tell
merged steps apart (one that sees more than the graph), rows of one graph must
weigh unequally, or updates be off policy, where clipping asks for the sign of
each factor.

arXiv:2510.20022, reconstructed from its abstract. Writes table.md,
results.json and curves.png to results/salt_tabular/.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from matplotlib.figure import Figure

from experiments.advantages.salt_tabular_parts import (
  ARMS,
  MAZES,
  OPEN,
  ROWS,
  World,
  base_of,
  enumerated,
  gradient,
  knowing_the_rules,
  learnt,
  rolled,
  seen_by,
)

__all__ = [
  "SETTINGS",
  "Noise",
  "Size",
  "against_base",
  "main",
  "needed",
  "noise",
]

TARGET, WINDOW = 0.8, 5
CHECKPOINTS = (0, 50, 100, 200)
BATCHES = 64
# How much of the first logits is left, and the learning rate. The first was
# chosen on seed 0 of GRPO; in the last the corridor is to be learnt, too.
SETTINGS = ((1.0, 10.0), (1.0, 3.0), (1.0, 30.0), (0.5, 10.0))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Size:
  """What is run, and where it goes."""

  seeds: int = 10
  """How many."""
  updates: int = 300
  """Of a run."""
  out: Path = Path(__file__).parent / "results" / "salt_tabular"
  """Folder of the results."""


class Noise(NamedTuple):
  """The gradient at the logits of the corridor; g_bl of batch b at logit l.

  Attributes:
    variance: sum_l var_b g_bl.
    square: |sum_b g_b / B|^2 - variance / B: of what it is the noise.
    distance: mean over batches of |g_b - g'_b| / |g'_b|, g' that of the base,
      at all logits.
  """

  variance: jax.Array
  square: jax.Array
  distance: jax.Array


@functools.partial(jax.jit, static_argnames=("arm", "batches"))
def noise(
  arm: str, world: World, table: jax.Array, seed: Any, *, batches: int
) -> Noise:
  """How the gradient of one policy differs from batch to batch.

  Args:
    arm: which of `ARMS` makes the gradient.
    world: the mazes.
    table: the policy.
    seed: of the batches, which are the same for all arms.
    batches: how many.

  Returns:
    Variance and more; `distance` is 0 for an arm without SALT.
  """
  place = seen_by(world, jnp.arange(MAZES)[:, None], jnp.arange(OPEN)[None])
  forced = jnp.zeros(len(table), bool)
  forced = forced.at[place].max(world.corridor[:, :OPEN])

  def one(key):
    walked = rolled(world, table, key)
    own = gradient(arm, world, table, walked)[0]
    base = gradient(base_of(arm), world, table, walked)[0]
    off, size = jnp.linalg.norm(own - base), jnp.linalg.norm(base)
    return own * forced[:, None], off / jnp.where(size > 0, size, 1.0)

  each, distance = jax.vmap(one)(
    jax.random.split(jax.random.key(seed), batches)
  )
  variance = jnp.sum(jnp.var(each, axis=0, ddof=1))
  square = jnp.sum(jnp.mean(each, axis=0) ** 2) - variance / batches
  return Noise(variance, square, jnp.mean(distance))


def needed(success: np.ndarray) -> list[int]:
  """Episodes up to the first `WINDOW` updates that reach `TARGET`.

  Args:
    success: by seed and update.

  Returns:
    By seed; all there were where it is not reached.
  """
  found = []
  for row in success:
    mean = np.convolve(row, np.full(WINDOW, 1 / WINDOW), "valid")
    reached = np.flatnonzero(mean >= TARGET - 1e-6)
    updates = reached[0] + WINDOW if reached.size else len(row)
    found.append(int(updates) * ROWS)
  return found


def against_base(success: dict[str, np.ndarray]) -> dict[str, dict[str, Any]]:
  """Success at the end and episodes needed, and both against the base.

  Args:
    success: by arm; of each seed and update.

  Returns:
    By arm: `end` and `needed` by seed; `ratio`, the median needed over the
    base's; `worst`, the greatest ratio of any seed.
  """
  need = {arm: needed(each) for arm, each in success.items()}
  found = {}
  for arm, each in success.items():
    base = need[base_of(arm)]
    found[arm] = {
      "end": each[:, -20:].mean(axis=1).tolist(),
      "needed": need[arm],
      "ratio": statistics.median(need[arm]) / statistics.median(base),
      "worst": max(a / b for a, b in zip(need[arm], base, strict=True)),
    }
  return found


def _runs(size: Size, world: World) -> tuple[list[dict[str, Any]], Any]:
  """What came out of each setting, and of the first one the policies."""
  first, seeds = knowing_the_rules(), np.arange(size.seeds)
  found, tables = [], None
  for share, rate in SETTINGS:
    courses = {
      arm: jax.device_get(
        learnt(arm, world, share * first, rate, seeds, updates=size.updates)
      )
      for arm in ARMS
    }
    success = {arm: course.success for arm, course in courses.items()}
    rows = against_base(success)
    for arm, course in courses.items():
      rows[arm]["common_advantage"] = float(course.common_advantage.max())
      rows[arm]["common"] = float(course.common.mean())
      mean = np.mean(course.success, axis=0, dtype=float)
      rows[arm]["curve"] = mean.round(4).tolist()
    found.append({"start": share, "rate": rate, "arms": rows})
    if tables is None:
      tables = courses["grpo"].table
    print(f"start {share}, rate {rate}: done", flush=True)
  return found, tables


def _noises(size: Size, world: World, tables: Any) -> dict[str, Noise]:
  """`Noise` of every arm for policies of GRPO, by checkpoint and seed."""
  at = [update for update in CHECKPOINTS if update < size.updates]
  found = {}
  for arm in ARMS:
    each = [
      noise(arm, world, tables[seed, update], 1000 + seed, batches=BATCHES)
      for update in at
      for seed in range(size.seeds)
    ]
    found[arm] = jax.tree.map(
      lambda *x: np.array(x).reshape(len(at), size.seeds), *each
    )
  return found


def checks(arms: dict[str, Any]) -> list[tuple[str, str, bool]]:
  """The thresholds of the specification, and what came out.

  Args:
    arms: of one setting.

  Returns:
    What is wanted, what was found, and whether it holds.
  """
  found = []
  for arm in ("salt+grpo", "salt+rloo", "salt+grpo tree"):
    base, own = arms[base_of(arm)], arms[arm]
    off, on = base["common_advantage"], own["common_advantage"]
    found += [
      (
        f"{arm}: corridor steps that all take at most 1e-6, its base's not",
        f"{on:.2g}, {off:.2g}",
        on <= 1e-6 < off,
      ),
      (
        f"{arm}: median episodes at most .85 of its base's",
        f"{own['ratio']:.3f}",
        own["ratio"] <= 0.85,
      ),
      (
        f"{arm}: in no seed more than 1.1 times the episodes of its base",
        f"{own['worst']:.3f}",
        own["worst"] <= 1.1,
      ),
    ]
  return found


def table(settings: Sequence[dict[str, Any]], noises: dict[str, Noise]) -> str:
  """All that came out.

  Args:
    settings: of each, the numbers of all arms.
    noises: of each arm, by checkpoint and seed.

  Returns:
    Tables in Markdown.
  """
  lines = []
  for number, setting in enumerate(settings):
    first = "first logits" if setting["start"] == 1 else "half the first logits"
    lines += [
      f"Learning rate {setting['rate']:g}, {first}"
      + (" (chosen on seed 0 of GRPO):" if number == 0 else ":"),
      "",
      "| arm | success, last 20 updates: mean (least) | median |"
      " episodes to 80 %: mean | median | median of its base's |"
      " greatest ratio of a seed | largest mean advantage of common corridor"
      " steps | share of corridor steps that are common |",
      "|" + "---|" * 9,
    ]
    for arm, own in setting["arms"].items():
      end, need = own["end"], own["needed"]
      lines.append(
        f"| {arm} | {np.mean(end):.3f} ({min(end):.3f})"
        f" | {statistics.median(end):.3f}"
        f" | {np.mean(need):.0f} | {statistics.median(need):.0f}"
        f" | {own['ratio']:.3f} | {own['worst']:.3f}"
        f" | {own['common_advantage']:.2g} | {own['common']:.2f} |"
      )
    lines.append("")
  lines += [
    "The gradient at the logits of the corridor, at policies of GRPO (first"
    f" setting), {BATCHES} fresh batches of each, the same for all arms; mean"
    " over seeds. Square: of the mean gradient, without bias. Distance: of the"
    " whole gradient from that of the base, relative.",
    "",
    "| arm | policy at update | variance | of its base's | square | distance |",
    "|" + "---|" * 6,
  ]
  for arm, each in noises.items():
    base = noises[base_of(arm)]
    for place, at in enumerate(CHECKPOINTS[: len(each.variance)]):
      own = [np.mean(x[place]) for x in each]
      lines.append(
        f"| {arm} | {at} | {own[0]:.3g}"
        f" | {own[0] / np.mean(base.variance[place]):.3f} | {own[1]:.2g}"
        f" | {own[2]:.2g} |"
      )
  lines += ["", "| wanted | found | holds |", "|---|---|---|"]
  for wanted, what, holds in checks(settings[0]["arms"]):
    lines.append(f"| {wanted} | {what} | {'yes' if holds else '**no**'} |")
  seeds = len(settings[0]["arms"]["grpo"]["end"])
  lines += ["", f"{seeds} seeds; updates of {ROWS} episodes."]
  return "\n".join(lines) + "\n"


def picture(
  settings: Sequence[dict[str, Any]], noises: dict[str, Noise]
) -> Figure:
  """Success by episodes, a panel for each setting, and the variance."""
  figure = Figure(figsize=(16, 3.6), layout="constrained")
  axes = figure.subplots(1, len(settings) + 1)
  for axis, setting in zip(axes, settings, strict=False):
    for arm, own in setting["arms"].items():
      episodes = ROWS * np.arange(1, len(own["curve"]) + 1)
      style = {"grpo": "-", "rloo": "-"}.get(arm, "--")
      axis.plot(episodes, own["curve"], style, label=arm, linewidth=1.2)
    title = f"rate {setting['rate']:g}, start {setting['start']:g}"
    axis.set(title=title, xlabel="episodes", ylim=(0, 1))
  axes[0].set_ylabel("success, mean over seeds")
  axes[0].legend(fontsize=7)
  for arm, each in noises.items():
    at = CHECKPOINTS[: len(each.variance)]
    style = {"grpo": "-", "rloo": "-"}.get(arm, "--")
    axes[-1].plot(at, each.variance.mean(axis=1), style, marker=".", label=arm)
  axes[-1].set(title="variance of corridor gradient", xlabel="update")
  return figure


def main(arguments: Sequence[str] | None = None) -> int:
  """Runs all arms and writes what came out.

  Args:
    arguments: of the command line; those of the process when None.

  Returns:
    0: what does not hold is a result.
  """
  size = tyro.cli(Size, description=__doc__, args=arguments)
  world = enumerated()
  settings, tables = _runs(size, world)
  noises = _noises(size, world, tables)
  size.out.mkdir(parents=True, exist_ok=True)
  text = table(settings, noises)
  (size.out / "table.md").write_text(text)
  stored = {
    "settings": settings,
    "noise": {
      arm: {name: x.tolist() for name, x in each._asdict().items()}
      for arm, each in noises.items()
    },
    "checkpoints": CHECKPOINTS,
    "checks": checks(settings[0]["arms"]),
  }
  (size.out / "results.json").write_text(json.dumps(stored) + "\n")
  picture(settings, noises).savefig(size.out / "curves.png", dpi=110)
  print(text)
  return 0


if __name__ == "__main__":
  sys.exit(main())
