"""Rank, velocity and acceleration of 500 random walks of growing dimension.

  python -m experiments.advantages.verl_metrics

Each response has a length, directions that are open at first, and a rate at
which new ones open: in proportion to time, to its logarithm, or ever fewer.
The paper says of real responses that rank and velocity are nearly uncorrelated,
and that acceleration stays small while rank grows with length. Found here:
rank goes with length under every law, and velocity with rank (correlations .80
to .93), so such walks do not show that independence; results/verl/metrics.md.
"""

from __future__ import annotations

import pathlib
from typing import Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np

from rl_jax.advantages.effective_rank import (
  effective_rank,
  prefix_effective_ranks,
  rank_acceleration,
  rank_velocity,
)

__all__ = ["measured", "table", "walks"]

OUT = pathlib.Path(__file__).parent / "results" / "verl"
type Law = Literal["linear", "logarithmic", "saturating"]
LONGEST, WIDTH, STRIDE = 200, 48, 20
NAMES = ("rank", "velocity", "acceleration")


def walks(rows: int, law: Law, seed: int) -> tuple[np.ndarray, np.ndarray]:
  """Random walks in the directions that are open so far.

  Args:
    rows: how many.
    law: how the number of open directions grows.
    seed: of all random numbers.

  Returns:
    Features [row, time, width] and which of the tokens there are.
  """
  rng = np.random.default_rng(seed)
  length = np.exp(rng.uniform(np.log(24), np.log(LONGEST), rows)).astype(int)
  first = rng.integers(2, 12, rows)
  time = np.arange(LONGEST)
  grown = {
    "linear": 0.2 * time,
    "logarithmic": 7.5 * np.log1p(time / 20),
    "saturating": 20 * (1 - np.exp(-time / 20)),
  }
  open_ = first[:, None] + rng.uniform(0.5, 1.5, (rows, 1)) * grown[law]
  inside = np.arange(WIDTH) < np.minimum(open_, WIDTH)[..., None]
  steps = rng.normal(size=(rows, LONGEST, WIDTH)) * inside
  walk = np.zeros_like(steps)
  for t in range(LONGEST):
    walk[:, t] = 0.9 * walk[:, t - 1] + steps[:, t]
  return walk.astype(np.float32), time < length[:, None]


def measured(
  law: Law, *, rows: int = 500, seed: int = 0
) -> dict[str, np.ndarray]:
  """The three numbers and the length of each walk.

  Args:
    law: how the number of open directions grows.
    rows: how many walks.
    seed: of all random numbers.

  Returns:
    By name, one for each walk.
  """
  hidden, mask = walks(rows, law, seed)

  @jax.jit
  def ask(hidden: jax.Array, mask: jax.Array) -> tuple[jax.Array, ...]:
    prefix, valid = prefix_effective_ranks(
      hidden, mask, stride=STRIDE, max_length=LONGEST
    )
    return (
      effective_rank(hidden, mask),
      rank_velocity(prefix, valid),
      rank_acceleration(prefix, valid),
    )

  said = ask(jnp.asarray(hidden), jnp.asarray(mask))
  found = dict(zip(NAMES, map(np.asarray, said), strict=True))
  return found | {"length": mask.sum(axis=1).astype(float)}


def table() -> str:
  """Correlations over walks, and means of short and of long ones.

  Returns:
    Markdown.
  """
  heads = [
    "directions grow",
    "corr(rank, velocity)",
    "corr(rank, log length)",
    *(f"{name}, short / long" for name in NAMES),
  ]
  lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
  for law in get_args(Law.__value__):
    found = measured(law)
    rank, length = found["rank"], np.log(found["length"])
    long = length > np.median(length)
    cells = [
      law,
      f"{np.corrcoef(rank, found['velocity'])[0, 1]:.2f}",
      f"{np.corrcoef(rank, length)[0, 1]:.2f}",
    ]
    for name in NAMES:
      short, rest = found[name][~long].mean(), found[name][long].mean()
      cells.append(f"{short:.2f} / {rest:.2f}")
    lines.append("| " + " | ".join(cells) + " |")
  return "\n".join(lines) + "\n"


if __name__ == "__main__":
  OUT.mkdir(parents=True, exist_ok=True)
  text = table()
  (OUT / "metrics.md").write_text(text)
  print(text)
