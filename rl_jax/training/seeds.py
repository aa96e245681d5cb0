"""Several seeds of one program side by side, as one vectorised run."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import numpy as np

from rl_jax.data.source import start, take

if TYPE_CHECKING:
  from jaxtyping import Float, Int, PyTree

  from rl_jax.data.source import Data
  from rl_jax.training.state import Program, State

__all__ = ["Curves", "run_seeds"]


class Curves(NamedTuple):
  """What several seeds measured.

  Attributes:
    step: loop steps at each evaluation, the first one 0.
    seconds: time spent training until then, all seeds together, compilation
      and evaluation excluded.
    metrics: name -> one value per seed and evaluation.
    pictures: pictures of the last evaluation, seeds first.
    state: the last states, seeds first.
  """

  step: Int[np.ndarray, "evaluation"]
  seconds: Float[np.ndarray, "evaluation"]
  metrics: dict[str, Float[np.ndarray, "seed evaluation"]]
  pictures: dict[str, np.ndarray]
  state: State


def run_seeds(
  program: Program,
  params: PyTree | None,
  data: Data,
  *,
  seeds: Sequence[int],
  steps: int,
) -> Curves:
  """Trains all seeds at once with `vmap`, each as the loop would alone.

  Args:
    program: what an algorithm built; its scores must be made on the device.
    params: where every seed starts, or None.
    data: where items come from; each seed reads in its own order.
    seeds: one run each.
    steps: how many loop steps; a multiple of `program.evaluate_every`.

  Returns:
    The curves of all evaluations.

  Raises:
    ValueError: if the program scores on the host, evaluates nothing, or
      `steps` does not divide.
  """
  every = program.evaluate_every
  host = program.score is not None or program.inspect is not None
  if host or program.evaluate is None:
    raise ValueError(
      "seeds can be vectorised only if rewards are computed on the device"
      " and the program evaluates something"
    )
  if steps % every:
    raise ValueError(f"steps = {steps} is not a multiple of every = {every}")

  def one_step(state: State, items: Any) -> tuple[State, None]:
    batch = program.collect(state, program.frozen, items)
    if program.signals is not None:
      batch = batch, program.signals(state, program.frozen, batch)
    return program.update(state, program.frozen, batch)[0], None

  def train(state: State, items: Any) -> State:
    return jax.lax.scan(one_step, state, items)[0]

  def evaluate(state: State) -> Any:
    totals, pictures = program.evaluate(state, program.frozen)
    return {name: total.mean() for name, total in totals.items()}, pictures

  keys = jax.vmap(jax.random.key)(np.asarray(seeds, np.uint32))
  state = jax.jit(jax.vmap(program.init, (0, None)))(keys, params)
  source = data.source()
  cursors = [start() for _ in seeds]
  items = _items(source, data, list(cursors), seeds, every)
  # Compiled, from the shapes of the first items, before the clock starts.
  train = jax.jit(jax.vmap(train)).lower(state, items).compile()
  evaluate = jax.jit(jax.vmap(evaluate)).lower(state).compile()
  means, pictures = evaluate(state)
  rows, seconds = [jax.device_get(means)], [0.0]
  for _ in range(steps // every):
    items = _items(source, data, cursors, seeds, every)
    before = time.perf_counter()
    state = jax.block_until_ready(train(state, items))
    seconds.append(seconds[-1] + time.perf_counter() - before)
    means, pictures = evaluate(state)
    rows.append(jax.device_get(means))
  metrics = {
    name: np.stack([row[name] for row in rows], axis=1) for name in rows[0]
  }
  return Curves(
    step=np.arange(0, steps + 1, every),
    seconds=np.asarray(seconds),
    metrics=metrics,
    pictures=jax.device_get(pictures),
    state=state,
  )


def _items(source, data, cursors, seeds, steps):
  """The next items of every seed, [seed, step, row, ...]; moves cursors."""
  per_seed = []
  for place, seed in enumerate(seeds):
    taken = []
    for _ in range(steps):
      indices, cursors[place] = take(
        len(source),
        cursors[place],
        rows=data.rows,
        seed=seed,
        shuffle=data.shuffle,
      )
      taken.append(source[indices])
    per_seed.append(jax.tree.map(lambda *x: np.stack(x), *taken))
  return jax.tree.map(lambda *x: np.stack(x), *per_seed)
