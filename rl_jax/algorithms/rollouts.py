"""How a batch of responses comes about, before it is judged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp

from rl_jax.algorithms.responses import shares
from rl_jax.training.sharding import over_rows
from rl_jax.training.state import State, step_key
from rl_jax.types import TextRollouts

if TYPE_CHECKING:
  from jaxtyping import PyTree

__all__ = ["PROMPT", "found_by_judge", "rollouts_of", "shared_prompts"]

PROMPT = ("prompt", "prompt_mask", "item")
"""What data gives of every prompt; arrays of other names go to `extra`."""


def found_by_judge(
  sampler: Any, reward: Any
) -> dict[str, tuple[tuple[int, ...], Any]]:
  """What a judge finds in responses besides their reward.

  Args:
    sampler: has the `length` of responses.
    reward: has `extras(length)` if it finds anything.

  Returns:
    Shape after the row and dtype of each array, by name.
  """
  extras = getattr(reward, "extras", None)
  return {} if extras is None else extras(sampler.length)


def rollouts_of(
  settings: Any,
  experiment: Any,
  acting: tuple[PyTree, PyTree | None],
  items: Any,
  state: State,
) -> TextRollouts:
  """Responses of a policy to a batch of prompts.

  Args:
    settings: a `PolicyOptimisation`.
    experiment: has `model`, `data` and `reward`.
    acting: parameters of the policy, and a low-rank change of them or None.
    items: of the data.
    state: its key and step are used.

  Returns:
    What was written, group by group, with blanks for the judge to fill.
  """
  data, reward, samples = (
    experiment.data,
    experiment.reward,
    settings.group_size,
  )
  rows = data.rows * samples
  keys = jax.random.split(step_key(state), rows)
  params, adapter = acting
  written = settings.sampler(
    experiment.model,
    params,
    items["prompt"],
    items["prompt_mask"],
    over_rows(keys),
    samples=samples,
    adapter=adapter,
    item=items["item"],
  )

  def each(x: jax.Array) -> jax.Array:
    return jnp.repeat(x, samples, axis=0)

  blank = jnp.zeros(rows, jnp.float32)
  given = {
    name: each(value) for name, value in items.items() if name not in PROMPT
  }
  found = {
    name: jnp.zeros((rows, *shape), dtype)
    for name, (shape, dtype) in found_by_judge(settings.sampler, reward).items()
  }
  return TextRollouts(
    prompt=each(items["prompt"]),
    prompt_mask=each(items["prompt_mask"]),
    token=written.token,
    mask=written.mask,
    present=written.present,
    log_prob=written.log_prob,
    ended=written.ended,
    item=each(items["item"]),
    group=each(jnp.arange(data.rows)),
    step=jnp.full(rows, state.step),
    key=jax.random.key_data(keys),
    reward=blank,
    valid=jnp.ones(rows, bool),
    metric=dict.fromkeys(reward.metrics, blank),
    extra=given | found,
  )


def shared_prompts(settings: Any, model: Any, *, prompt: int) -> int:
  """Responses that are scored behind one copy of their prompt.

  Args:
    settings: a `PolicyOptimisation`.
    model: the policy.
    prompt: columns of a prompt.

  Returns:
    As many of a group as a part of the rows has, where that is less work and
    they stand together; rows that are mixed do not. Otherwise 1.
  """
  responses, rest = divmod(settings.group_size, settings.micro_batches)
  if settings.epochs * settings.minibatches > 1 or rest:
    return 1
  time = settings.sampler.length
  cheaper = shares(model, prompt=prompt, time=time, responses=responses)
  return responses if cheaper else 1
