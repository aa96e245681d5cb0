"""What an update of a language policy sees of a rollout, and in which order."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from rl_jax.algorithms.recipe import Estimated, PolicyBatch, Signals
from rl_jax.algorithms.responses import Responses
from rl_jax.training.state import State, step_key
from rl_jax.training.step import split_rows

if TYPE_CHECKING:
  from jaxtyping import PyTree

  from rl_jax.types import TextRollouts

__all__ = ["Rows", "dealt", "measured", "responses_of"]


class Rows(NamedTuple):
  """What the loss needs of each row.

  Attributes:
    responses: prompts and what was written.
    batch: what was measured on them.
    signals: what only the whole batch can say.
  """

  responses: Responses
  batch: PolicyBatch
  signals: Signals


def responses_of(rollouts: TextRollouts) -> Responses:
  """The part of rollouts that a model is asked about.

  Args:
    rollouts: as collected.

  Returns:
    Prompts and responses.
  """
  return Responses(
    rollouts.prompt,
    rollouts.prompt_mask,
    rollouts.token,
    rollouts.mask,
    rollouts.present,
  )


def measured(
  settings: Any,
  rollouts: TextRollouts,
  signals: Any,
  *,
  num_groups: int,
  memory: dict[str, PyTree],
) -> tuple[Rows, Estimated]:
  """The whole batch with what only the whole batch can say.

  Args:
    settings: a `PolicyOptimisation`.
    rollouts: judged.
    signals: what the models said, by name.
    num_groups: prompts of the batch.
    memory: of the recipe's components.

  Returns:
    Its rows, and what the recipe made of them all.
  """
  behaviour = rollouts.log_prob
  if settings.behaviour != "sampler":
    # At the trainer's temperature, as what a KL compares it with is.
    behaviour = signals.get("behaviour_log_prob", behaviour)
  batch = PolicyBatch(
    log_prob=behaviour,
    behaviour_log_prob=behaviour,
    mask=rollouts.mask,
    reward=rollouts.reward,
    group=rollouts.group,
    valid=rollouts.valid,
    sampler_log_prob=rollouts.log_prob,
    reference_log_prob=signals.get("reference_log_prob"),
    behaviour_value=signals.get("behaviour_value"),
    step=rollouts.step,
    extra=rollouts.extra | signals.get("asked", {}),
  )
  whole = settings.recipe.estimate(batch, num_groups=num_groups, memory=memory)
  return Rows(responses_of(rollouts), batch, whole.signals), whole


def dealt(settings: Any, state: State, rows: Rows, *, num_groups: int) -> Rows:
  """The rows of every optimiser step.

  Each epoch deals all rows out in an order of its own, a function of the
  run's key and the step.

  Args:
    settings: a `PolicyOptimisation`.
    state: its key and step are used.
    rows: of the whole batch.
    num_groups: prompts of the batch.

  Returns:
    Arrays [updates, rows, ...], with statistics of the whole batch or of each
    minibatch, as the settings say.
  """
  if settings.epochs * settings.minibatches == 1:
    return split_rows(rows, 1)
  count = rows.batch.reward.shape[0]
  passes = []
  for epoch in range(settings.epochs):
    order = jax.random.permutation(step_key(state, 1 + epoch), count)
    mixed = jax.tree.map(lambda x, order=order: x[order], rows)
    passes.append(split_rows(mixed, settings.minibatches))
  batches = jax.tree.map(lambda *x: jnp.concatenate(x), *passes)
  if settings.estimated_over == "rollout":
    return batches

  def own(batch: PolicyBatch) -> Signals:
    return settings.recipe.signals(batch, num_groups=num_groups)

  return batches._replace(signals=jax.lax.map(own, batches.batch))
