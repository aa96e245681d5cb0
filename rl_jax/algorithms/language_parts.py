"""What every program that trains a language model is put together from."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from rl_jax.advantages import informative_groups
from rl_jax.algorithms.parts import params_axes
from rl_jax.reduce import Total

if TYPE_CHECKING:
  from collections.abc import Callable, Mapping

  from jaxtyping import Key, PyTree

  from rl_jax.types import TextRollouts

__all__ = [
  "Trainable",
  "critic_state",
  "other_models",
  "separately",
  "text_metrics",
  "trainable",
]


class Trainable(NamedTuple):
  """Which parameters of a decoder are trained, and which stand beside them.

  Attributes:
    model: the decoder.
    random: whether the experiment starts from random parameters.
    frozen: arrays that are used and never trained: `base` where a low-rank
      change of it is trained, `reference` where one is kept and the start is
      not random.
    frozen_axes: names of their axes.
    axes: names of the axes of what is trained.
  """

  model: Any
  random: bool
  frozen: dict[str, PyTree]
  frozen_axes: dict[str, PyTree]
  axes: PyTree

  @property
  def adapts(self) -> bool:
    """Whether a low-rank change is trained and the model itself is not."""
    return self.model.lora is not None

  def init(self, key: Key[Any, ""], start: PyTree | None) -> PyTree:
    """What is trained, at the beginning."""
    if self.adapts:
      return self.model.init_adapter(key)
    return self.model.init(key) if start is None else start

  def parts(
    self, trained: PyTree, frozen: Mapping[str, PyTree]
  ) -> tuple[PyTree, PyTree | None]:
    """Parameters of the decoder and its low-rank change, if there is one."""
    if self.adapts:
      return frozen["base"], trained
    return trained, None


def trainable(
  model: Any,
  start: Any,
  load: Callable[[Any], PyTree],
  *,
  reference: bool,
) -> Trainable:
  """What of a decoder an experiment trains.

  Args:
    model: a decoder; with `lora` its low-rank change is trained.
    start: where the experiment starts from.
    load: parameters of that; None from scratch.
    reference: whether the policy at the start is needed all along.

  Returns:
    That and what is frozen.

  Raises:
    ValueError: if a low-rank change is to be trained of random parameters.
  """
  params = load(start)
  frozen, frozen_axes = {}, {}
  if model.lora is not None:
    if params is None:
      raise ValueError(
        "a model with lora trains a change of weights that stay as they are:"
        " say which ones with start=Pretrained(...), Trained(...) or"
        " Checkpoint(...)"
      )
    frozen["base"] = params
    frozen_axes["base"] = model.logical_axes(params)
    shapes = jax.eval_shape(model.init_adapter, jax.random.key(0))
    return Trainable(
      model, False, frozen, frozen_axes, model.adapter_axes(shapes)
    )
  if reference and params is not None:
    frozen["reference"] = params
    frozen_axes["reference"] = model.logical_axes(params)
  # Not the parameters: whoever holds a program would hold them to its end.
  return Trainable(
    model, params is None, frozen, frozen_axes, params_axes(model)
  )


def other_models(
  starts: Mapping[str, Any], load: Callable[[Any], PyTree]
) -> tuple[dict[str, PyTree], dict[str, PyTree]]:
  """Parameters of models that are asked and never trained.

  Args:
    starts: by name; `Trained(by=...)` and its like.
    load: parameters of those.

  Returns:
    Parameters and names of their axes, by name.
  """
  params = {name: load(start) for name, start in starts.items()}
  return params, {
    name: start.by.model.logical_axes(params[name])
    for name, start in starts.items()
  }


def critic_state(
  critic: Any, key: Key[Any, ""], policy: PyTree, start: PyTree | None
) -> dict[str, PyTree]:
  """A critic before its first step.

  Args:
    critic: has `model`, `optimiser` and `from_policy`.
    key: of its random parameters.
    policy: parameters of the policy at the start.
    start: parameters of the whole critic, or None.

  Returns:
    `params` and `optimiser`.

  Raises:
    ValueError: if its body cannot start as the policy does.
  """
  key = jax.random.fold_in(key, 1)
  body = None
  if start is None and critic.from_policy:
    own = jax.eval_shape(critic.model.body.init, key)
    if jax.tree.map(jnp.shape, own) != jax.tree.map(jnp.shape, policy):
      raise ValueError(
        "the critic's body has other parameters than what the policy trains:"
        " from_policy=False, or a body like the policy's model"
      )
    body = policy
  params = critic.model.init(key, body=body) if start is None else start
  return {"params": params, "optimiser": critic.optimiser().init(params)}


def separately(
  optimisers: Mapping[str, optax.GradientTransformation],
) -> optax.GradientTransformation:
  """One optimiser for each entry of a dict of parameters.

  Args:
    optimisers: by the names of the entries.

  Returns:
    A transformation whose state is a dict of theirs.
  """

  def init(params: Any) -> Any:
    return {name: own.init(params[name]) for name, own in optimisers.items()}

  def update(updates: Any, state: Any, params: Any = None) -> Any:
    found = {
      name: own.update(updates[name], state[name], params[name])
      for name, own in optimisers.items()
    }
    changes = {name: change for name, (change, _) in found.items()}
    return changes, {name: after for name, (_, after) in found.items()}

  return optax.GradientTransformation(init, update)


def text_metrics(
  rollouts: TextRollouts, *, num_groups: int
) -> dict[str, Total]:
  """Numbers that every online program reports of what was written.

  Args:
    rollouts: judged.
    num_groups: prompts of the batch.

  Returns:
    `reward`, its standard deviation, the share of rows with a verdict, the
    share of groups whose rewards are all the same, the share of responses
    that came to their end, and the mean of each metric over rows that count.
  """
  valid, reward = rollouts.valid, rollouts.reward
  count = jnp.sum(valid, dtype=jnp.float32)
  one = jnp.ones(())

  def mean(value: jax.Array) -> Total:
    return Total(jnp.sum(jnp.where(valid, value, 0.0)), count)

  centre = mean(reward).mean()
  informative = informative_groups(
    reward, rollouts.group, valid, num_groups=num_groups
  )
  alive = jnp.zeros(num_groups).at[rollouts.group].max(informative * 1.0)
  found = {
    "reward": mean(reward),
    "reward_std": Total(jnp.sqrt(mean((reward - centre) ** 2).mean()), one),
    "valid": Total.of(valid.astype(jnp.float32)),
    "dead_groups": Total.of(1.0 - alive),
  }
  return found | {name: mean(x) for name, x in rollouts.metric.items()}
