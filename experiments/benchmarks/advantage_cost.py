"""What every estimator costs beside the update of a tiny decoder.

For each paper's estimator: the compiled function from a judged batch to its
signals, memory and metrics, as the training step contains it; and how it grows
with the tokens of a response, whose steps get more and not longer. Told apart:
what it asks the acting policy or another model before (a pass for entropies or
hidden states, probes after every step), and what the host does (graphs,
labels, parsing). The update is the gradient of the policy loss and one AdamW
step of all parameters. Times are the processor's, of all threads, and the
fastest of many calls counts, since others may use the machine. The claims:
less than 2 % of the update, and no more than linear in tokens.

    python -m experiments.benchmarks.advantage_cost          about 3 minutes
    python -m experiments.benchmarks.advantage_cost --repeats 20
"""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
import tyro

from experiments import chains
from experiments.advantages.cases import Case, Shape, cases, written
from experiments.benchmarks.advantage_host import host_work
from rl_jax.algorithms.recipe import PolicyBatch
from rl_jax.algorithms.responses import Responses, Scoring
from rl_jax.algorithms.view import View
from rl_jax.training.optimisers import AdamW

__all__ = ["Cost", "Size", "main", "measure", "table"]

_CLAIM = 0.02
# Growth that still counts as linear: clocks and caches are not exact.
_SLACK = 1.25
_PROMPT = 8
# Room for a demand and an answer behind a response.
_PROBE = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class Size:
  """What is measured."""

  prompts: int = 8
  """Groups of a batch."""
  samples: int = 8
  """Responses of each."""
  time: int = 64
  """Tokens of the longest response."""
  segment: int = 8
  """Tokens of a step."""
  factors: tuple[int, ...] = (1, 2, 4)
  """What the tokens of a response are multiplied with."""
  width: int = 64
  """Of the decoder."""
  layers: int = 2
  """Of the decoder."""
  repeats: int = 10
  """Calls of each function at least, of which the fastest counts."""
  only: tuple[str, ...] = ()
  """Names of estimators; all if none."""
  out: Path = Path("experiments/advantages/results/cost")
  """Where the table is put."""

  def shape(self, factor: int) -> Shape:
    """Of the rollouts."""
    return Shape(
      prompts=self.prompts,
      samples=self.samples,
      time=factor * self.time,
      segment=self.segment,
    )


class Cost(NamedTuple):
  """Milliseconds of the processor for one estimator.

  Attributes:
    name: which.
    advantage: for each factor of the tokens.
    asked: what it asks models, at the first factor; None if nothing.
    host: what the host does for a batch; None if nothing.
  """

  name: str
  advantage: list[float]
  asked: float | None
  host: float | None

  def growth(self) -> float:
    """Time for the most tokens over that for the fewest."""
    return self.advantage[-1] / self.advantage[0]


def measure(size: Size) -> tuple[list[float], list[Cost]]:
  """Time the update and all estimators.

  Args:
    size: of the batch and the decoder.

  Returns:
    Milliseconds of the update for each factor, and of the estimators.
  """
  host = {
    name: 1000 * fastest(function, size.repeats)
    for name, function in host_work(size.shape(1)).items()
  }
  update, advantage, asked = [], {}, {}
  for factor in size.factors:
    shape = size.shape(factor)
    batch, earlier = written(shape), written(shape, seed=1)
    model = chains.decoder(
      context=_PROMPT + shape.time + _PROBE,
      width=size.width,
      layers=size.layers,
    )
    params = model.init(jax.random.key(0))
    responses = _responses(batch)
    update.append(_update(model, params, responses, batch, size))
    for case in _chosen(size, shape):
      advantage.setdefault(case.name, []).append(
        _estimate(case, batch, earlier, size)
      )
      if case.recipe.asks and factor == size.factors[0]:
        asked[case.name] = _ask(case, model, params, responses, batch, size)
  return update, [
    Cost(name, each, asked.get(name), host.get(name))
    for name, each in advantage.items()
  ]


def fastest(function: Callable[[], Any], repeats: int) -> float:
  """Seconds of the processor for the fastest of many calls.

  Args:
    function: is called with nothing; what it returns is waited for.
    repeats: how many calls at least; quick ones are called more often, up to
      a fifth of a second in all.

  Returns:
    Seconds; the first calls, which compile and allocate, are not counted.
  """

  def once() -> float:
    began = time.process_time()
    jax.block_until_ready(function())
    return time.process_time() - began

  once()
  calls = max(repeats, min(int(0.2 / max(once(), 1e-6)), 50 * repeats))
  return min(once() for _ in range(calls))


def _chosen(size: Size, shape: Shape) -> list[Case]:
  known = cases(steps=shape.steps)
  lacking = set(size.only) - {case.name for case in known}
  if lacking:
    raise ValueError(
      f"no such estimator: {sorted(lacking)}; there are"
      f" {[case.name for case in known]}"
    )
  return [case for case in known if not size.only or case.name in size.only]


def _responses(batch: PolicyBatch) -> Responses:
  rows, time = batch.mask.shape
  token = jax.random.randint(
    jax.random.key(1), (rows, _PROMPT + time), 0, len(chains.ALPHABET)
  )
  prompt = token[:, :_PROMPT]
  return Responses(prompt, prompt >= 0, token[:, _PROMPT:], batch.mask)


def _update(
  model: Any, params: Any, responses: Responses, batch: PolicyBatch, size: Size
) -> float:
  """Milliseconds of the gradient and an optimiser step."""
  recipe = cases(steps=1)[0].recipe
  optimiser = AdamW(learning_rate=1e-3)()
  signals = recipe.signals(batch, num_groups=size.prompts)

  @jax.jit
  def update(params, state, responses, batch, signals):
    def loss(params):
      scores = Scoring()(model, params, responses, temperature=1.0)
      own = batch._replace(log_prob=scores.log_prob)
      return recipe.terms(own, signals).objective()

    change, state = optimiser.update(jax.grad(loss)(params), state, params)
    return optax.apply_updates(params, change), state

  state = optimiser.init(params)
  given = params, state, responses, batch._replace(extra=None), signals
  return 1000 * fastest(lambda: update(*given), size.repeats)


def _estimate(
  case: Case, batch: PolicyBatch, earlier: PolicyBatch, size: Size
) -> float:
  """Milliseconds from a judged batch to signals, memory and metrics."""
  groups, recipe = size.prompts, case.recipe

  @jax.jit
  def estimate(batch, memory):
    return recipe.estimate(batch, num_groups=groups, memory=memory)

  begun = jax.tree.map(jnp.asarray, recipe.init(groups))
  memory = estimate(earlier, begun).memory
  return 1000 * fastest(lambda: estimate(batch, memory), size.repeats)


def _ask(
  case: Case,
  model: Any,
  params: Any,
  responses: Responses,
  batch: PolicyBatch,
  size: Size,
) -> float | None:
  """Milliseconds of what is asked of models; None if nothing is."""
  extra = batch.extra or {}
  given = {name: extra[name] for name in ("answer", "answer_mask")}
  key = jax.random.split(jax.random.key(2), len(batch.reward))

  @jax.jit
  def ask(params, responses):
    view = View(
      model=model,
      params=params,
      adapter=None,
      temperature=1.0,
      scoring=Scoring(),
      responses=responses,
      shared=1,
      extra=given,
      key=key,
      networks=dict.fromkeys(case.recipe.networks, (model, params)),
    )
    return case.recipe.ask(view)

  if not jax.eval_shape(ask, params, responses):
    return None
  return 1000 * fastest(lambda: ask(params, responses), size.repeats)


def table(size: Size, update: Sequence[float], costs: Sequence[Cost]) -> str:
  """What was found, in Markdown.

  Args:
    size: what was measured.
    update: milliseconds for each factor.
    costs: of the estimators.

  Returns:
    The table with what it is of.
  """
  rows, share = size.prompts * size.samples, f"{_CLAIM:.0%}"
  heads = [f"ms x{factor}" for factor in size.factors]
  lines = [
    f"{rows} responses of up to {size.time} tokens in steps of"
    f" {size.segment}, a decoder of {size.layers} layers and width"
    f" {size.width}, {jax.devices()[0].device_kind}; fastest of"
    f" {size.repeats} calls or more, in"
    f" milliseconds of the processor. An update takes {_list(update)} at"
    f" {_times(size.factors)} the tokens. Shares are of the first.",
    "",
    f"| estimator | {' | '.join(heads)} | of the update | below {share} |"
    " growth | linear | asked of models | host |",
    "|---" * (len(heads) + 7) + "|",
  ]
  for cost in costs:
    part = cost.advantage[0] / update[0]
    numbers = " | ".join(f"{value:.3f}" for value in cost.advantage)
    lines.append(
      f"| {cost.name} | {numbers} | {part:.2%} | {_said(part < _CLAIM)} |"
      f" {cost.growth():.1f} | {_said(_linear(size, cost))} |"
      f" {_beside(cost.asked, update[0])} | {_beside(cost.host, update[0])} |"
    )
  return "\n".join(lines) + "\n"


def holds(size: Size, update: Sequence[float], costs: Sequence[Cost]) -> bool:
  """Whether both claims hold for all of them."""
  return all(
    cost.advantage[0] < _CLAIM * update[0] and _linear(size, cost)
    for cost in costs
  )


def _linear(size: Size, cost: Cost) -> bool:
  return cost.growth() <= _SLACK * size.factors[-1] / size.factors[0]


def _said(good: bool) -> str:
  return "pass" if good else "FAIL"


def _beside(milliseconds: float | None, update: float) -> str:
  if milliseconds is None:
    return "-"
  return f"{milliseconds:.2f} ms, {milliseconds / update:.1%}"


def _list(values: Sequence[float]) -> str:
  return ", ".join(f"{value:.1f}" for value in values)


def _times(factors: Sequence[int]) -> str:
  return ", ".join(map(str, factors)) + " times"


def main(arguments: Sequence[str] | None = None) -> int:
  """Prints the table and writes it down.

  Args:
    arguments: of the command line; those of the process when None.

  Returns:
    0, or 1 if a claim does not hold here.
  """
  size = tyro.cli(Size, description=__doc__, args=arguments)
  update, costs = measure(size)
  text = table(size, update, costs)
  print(text, end="")
  size.out.mkdir(parents=True, exist_ok=True)
  (size.out / "table.md").write_text(text)
  return 0 if holds(size, update, costs) else 1


if __name__ == "__main__":
  sys.exit(main())
