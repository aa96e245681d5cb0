"""Optimisers as values: optax underneath, hyper-parameters in the open."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp
import optax

from rl_jax.reduce import Total
from rl_jax.training.step import Loss, accumulated_gradient

if TYPE_CHECKING:
  from jaxtyping import PyTree

__all__ = ["AdamW", "Learner", "optimise"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class AdamW:
  """AdamW with a global-norm clip and a schedule of its rate.

      rate(n) = learning_rate * rise(n) * fall(n - warm_up_steps)

  of optimiser step n, from 0: rise goes from 0 to 1 in a line, and fall from
  1 to 0 in a line or half a cosine, once the rise is over.
  """

  learning_rate: float
  """Step size, the largest one."""
  b1: float = 0.9
  """Decay of the first moment."""
  b2: float = 0.999
  """Decay of the second moment."""
  epsilon: float = 1e-8
  """Added to the root of the second moment."""
  weight_decay: float = 1e-4
  """Decoupled weight decay."""
  clip_norm: float | None = 1.0
  """Largest global norm of the gradient; None does not clip."""
  warm_up_steps: int = 0
  """Optimiser steps over which the rate rises."""
  cosine_steps: int | None = None
  """Optimiser steps over which the rate then falls; None = constant."""
  linear_steps: int | None = None
  """The same, in a line."""

  def __post_init__(self) -> None:
    if not self.learning_rate > 0:
      raise ValueError(f"learning_rate must be > 0, got {self.learning_rate}")
    if self.clip_norm is not None and not self.clip_norm > 0:
      raise ValueError(f"clip_norm must be > 0 or None, got {self.clip_norm}")
    falls = [n for n in (self.cosine_steps, self.linear_steps) if n is not None]
    if self.warm_up_steps < 0 or min(falls, default=1) < 1 or len(falls) > 1:
      raise ValueError(
        f"warm_up_steps = {self.warm_up_steps} must not be negative, and one"
        f" of cosine_steps = {self.cosine_steps} and linear_steps ="
        f" {self.linear_steps} may be given, at least 1"
      )

  def schedule(self) -> optax.Schedule:
    """The rate of each optimiser step."""
    rate = self.learning_rate
    fall = optax.constant_schedule(rate)
    if self.cosine_steps is not None:
      fall = optax.cosine_decay_schedule(rate, self.cosine_steps)
    if self.linear_steps is not None:
      fall = optax.linear_schedule(rate, 0.0, self.linear_steps)
    if not self.warm_up_steps:
      return fall
    rise = optax.linear_schedule(0.0, rate, self.warm_up_steps)
    return optax.join_schedules([rise, fall], [self.warm_up_steps])

  def __call__(self) -> optax.GradientTransformation:
    """The optax transformation."""
    constant = self.cosine_steps is None and self.linear_steps is None
    rate = self.learning_rate
    # A constant needs no count in the optimiser's state.
    if self.warm_up_steps or not constant:
      rate = self.schedule()
    adamw = optax.adamw(
      rate,
      b1=self.b1,
      b2=self.b2,
      eps=self.epsilon,
      weight_decay=self.weight_decay,
    )
    if self.clip_norm is None:
      return adamw
    return optax.chain(optax.clip_by_global_norm(self.clip_norm), adamw)


class Learner(NamedTuple):
  """What an optimiser step changes.

  Attributes:
    params: what is trained.
    optimiser: the optimiser's state.
  """

  params: PyTree
  optimiser: PyTree


def optimise(
  loss: Loss,
  weights: Mapping[str, float],
  optimiser: optax.GradientTransformation,
  learner: Learner,
  batches: PyTree,
  *,
  micro_batches: int,
) -> tuple[Learner, dict[str, Total]]:
  """One optimiser step for each of several batches, in order.

  Args:
    loss: (params, rows) -> (terms, metrics); see `accumulated_gradient`.
    weights: weight of each term.
    optimiser: from `AdamW()` or any optax transformation.
    learner: where to start.
    batches: arrays [updates, rows, ...].
    micro_batches: how many parts each batch is split into.

  Returns:
    The learner after the last update and the metrics of each, stacked along
    a first axis; `gradient_norm` is the norm before clipping.
  """

  def one(learner: Learner, batch: PyTree) -> tuple[Learner, dict[str, Total]]:
    gradient, metrics = accumulated_gradient(
      loss, weights, learner.params, batch, micro_batches=micro_batches
    )
    change, state = optimiser.update(
      gradient, learner.optimiser, learner.params
    )
    params = optax.apply_updates(learner.params, change)
    norm = Total(optax.tree.norm(gradient), jnp.ones(()))
    return Learner(params, state), metrics | {"gradient_norm": norm}

  return jax.lax.scan(one, learner, batches)
