"""What every flow policy gradient shares: rollouts in groups, their numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from rl_jax.algorithms.parts import evaluation_of, fresh_state, params_axes
from rl_jax.evaluation.judges import bound
from rl_jax.reduce import Total
from rl_jax.sampling.draw import draw
from rl_jax.training.sharding import over_rows
from rl_jax.training.state import Program, State, step_key
from rl_jax.types import Rollouts

if TYPE_CHECKING:
  from jaxtyping import Array, Float, Key, PyTree

  from rl_jax.algorithms.advantages import Estimate
  from rl_jax.algorithms.parts import Evaluation

__all__ = ["Online", "online_program", "rollout_metrics"]


class Online(NamedTuple):
  """The parts of an online algorithm that the program is made of.

  Attributes:
    sampler: draws the rollouts; see `rl_jax.sampling`.
    group_size: rows that answer each prompt.
    behaviour: name in the state's memory of the parameters that act; None =
      the ones being trained.
    optimiser: of the parameters.
    memory: (parameters at the start) -> the algorithm's memory.
    update: (state, frozen, rollouts) -> (state, metrics).
    first_step: see `Program.first_step`.
  """

  sampler: Any
  group_size: int
  behaviour: str | None
  optimiser: Any
  memory: Callable[[PyTree], dict[str, PyTree]]
  update: Callable[[State, PyTree, Rollouts], tuple[State, Mapping[str, Total]]]
  first_step: Mapping[str, tuple[float, float]]


def online_program(
  parts: Online, experiment: Any, load: Callable[[Any], PyTree]
) -> Program:
  """A program that samples groups, scores them and updates.

  Args:
    parts: what the algorithm is made of.
    experiment: has `model`, `data`, `reward` and `evaluation`.
    load: parameters of an earlier experiment, for the judges.

  Returns:
    The program.

  Raises:
    ValueError: if the experiment has no reward or groups are too small.
  """
  model, reward = experiment.model, experiment.reward
  if reward is None:
    raise ValueError(f"{experiment.name}: an online algorithm needs a reward")
  if parts.group_size < 2:
    raise ValueError(
      f"group_size = {parts.group_size}: a group of one has no mean to be"
      " compared with; use 2 or more"
    )
  score, judge = bound(reward, load)
  evaluation = evaluation_of(experiment, load)
  frozen = {
    "reward": judge,
    "evaluation": evaluation.frozen if evaluation else (),
  }

  def init(key: Key[Array, ""], start: PyTree | None) -> State:
    params = model.init(key) if start is None else start
    return fresh_state(key, params, parts.optimiser, parts.memory(params))

  def collect(state: State, frozen: PyTree, items: Any) -> Rollouts:
    prompts = items["condition"]
    group = jnp.repeat(jnp.arange(prompts.shape[0]), parts.group_size)
    keys = jax.random.split(step_key(state), group.size)
    group, keys = over_rows((group, keys))
    condition = prompts[group]
    behaviour = parts.behaviour
    params = state.memory[behaviour] if behaviour else state.params
    trajectory = draw(parts.sampler, model, params, condition, keys)
    value = score(frozen["reward"], trajectory.x0, condition)
    return Rollouts(
      sample=trajectory.x0,
      condition=condition,
      reward=value,
      group=group,
      valid=jnp.ones(group.shape, bool),
      key=keys,
      trajectory=trajectory,
      metric={},
    )

  return Program(
    init=init,
    collect=collect,
    update=parts.update,
    params_axes=params_axes(model),
    frozen=frozen,
    evaluate=_among(evaluation) if evaluation else None,
    evaluate_every=evaluation.every if evaluation else 1,
    first_step=parts.first_step,
  )


def _among(evaluation: Evaluation) -> Callable[[State, Any], tuple[Any, Any]]:
  """The evaluation, which finds what it needs among other frozen arrays."""

  def evaluate(state: State, frozen: PyTree) -> tuple[Any, Any]:
    return evaluation.function(state, frozen["evaluation"])

  return evaluate


def rollout_metrics(batch: Rollouts, estimate: Estimate) -> dict[str, Total]:
  """Numbers that every online algorithm reports about its rollouts.

  Args:
    batch: the rollouts with their rewards; rows that are not valid count
      nowhere.
    estimate: their advantages.

  Returns:
    `reward`, its standard deviation, how many rewards are not finite, the
    share of rows whose advantage is zero, the mean absolute advantage, and
    the spread of the samples.
  """
  valid, reward = batch.valid, batch.reward
  count = jnp.sum(valid, dtype=jnp.float32)

  def mean(value: Float[Array, "row"]) -> Total:
    return Total(jnp.sum(jnp.where(valid, value, 0.0)), count)

  one = jnp.ones(())
  centre = mean(reward).mean()
  spread = jnp.sqrt(mean((reward - centre) ** 2).mean())
  broken = jnp.sum(valid & ~jnp.isfinite(reward), dtype=jnp.float32)
  return {
    "reward": mean(reward),
    "reward_std": Total(spread, one),
    "rewards_not_finite": Total(broken, one),
    "zero_advantage": mean((estimate.advantage == 0).astype(jnp.float32)),
    "absolute_advantage": mean(jnp.abs(estimate.advantage)),
    "sample_std": Total(jnp.std(batch.sample), one),
  }
