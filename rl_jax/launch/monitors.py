"""What shows that a language policy pleases its reward and nobody else."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from rl_jax.launch.figures import Panel, series_of

if TYPE_CHECKING:
  from collections.abc import Sequence

  from rl_jax.training.loop import Row

__all__ = ["Monitors", "monitors"]

_EVALUATION = "evaluation/"
_CHARTS = (
  ("Reward, trained on and evaluated", ("reward",)),
  ("Length of responses, tokens", ("length",)),
  ("Share of responses that ended", ("ended",)),
  ("Repetition, share of 4-grams", ("repetition",)),
  ("Entropy, nats per token", ("entropy",)),
  ("Share of groups without a signal", ("dead_groups",)),
  ("Share without a verdict", ("no_verdict", "no_verdict_")),
  ("KL to the reference, nats", ("kl_reference",)),
  ("Verifier processes replaced", ("workers_replaced",)),
)
# Metrics of these names there are in language runs alone.
_SIGNS = {"length", "repetition", "dead_groups", "no_verdict", "kl_reference"}


class Monitors(NamedTuple):
  """The charts, and what is in none.

  Attributes:
    panel: charts with the training's and the evaluation's numbers together.
    quiet: metrics that are 0 all the time and have no chart; of one that is
      so in training and in evaluations the bare name.
    rest: metrics that are in no chart and not quiet.
  """

  panel: list[Panel]
  quiet: list[str]
  rest: list[str]


def monitors(rows: Sequence[Row]) -> Monitors | None:
  """The monitors of a run.

  Args:
    rows: of the run.

  Returns:
    None for a run of something else than language.
  """
  series, spread = series_of(rows)
  if not {name.removeprefix(_EVALUATION) for name in series} & _SIGNS:
    return None
  found, quiet, used = [], [], set()
  for title, names in _CHARTS:
    own = [name for name in series if _is_of(name, names)]
    silent = [
      name
      for name in own
      if _may_be_quiet(name) and not np.any(series[name][1])
    ]
    used |= {*own}
    quiet += silent
    shown = sorted(
      (name for name in own if name not in silent),
      key=lambda name: (name.startswith(_EVALUATION), own.index(name)),
    )
    if shown:
      found.append(
        Panel(
          title,
          {name: series[name] for name in shown},
          None,
          {name: spread[name] for name in shown if name in spread},
        )
      )
  # A term of the reward that was trained on and evaluated is one chart too.
  for name in [n for n in series if f"{_EVALUATION}{n}" in series]:
    if name not in used:
      both = (name, f"{_EVALUATION}{name}")
      used |= {*both}
      found.append(Panel(name, {n: series[n] for n in both}, None))
  both = {name for name in quiet if f"{_EVALUATION}{name}" in quiet}
  quiet = [n for n in quiet if n.removeprefix(_EVALUATION) not in both - {n}]
  return Monitors(found, quiet, [n for n in series if n not in used])


def _is_of(name: str, names: tuple[str, ...]) -> bool:
  bare = name.removeprefix(_EVALUATION)
  return any(
    bare.startswith(own) if own.endswith("_") else bare == own for own in names
  )


def _may_be_quiet(name: str) -> bool:
  bare = name.removeprefix(_EVALUATION)
  return bare.startswith("no_verdict") or bare == "workers_replaced"
