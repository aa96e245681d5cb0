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
  """AdamW with a global-norm clip and an optional cosine decay."""

  learning_rate: float
  """Step size."""
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
  cosine_steps: int | None = None
  """Optimiser steps over which the rate falls to zero; None = constant."""

  def __post_init__(self) -> None:
    if not self.learning_rate > 0:
      raise ValueError(f"learning_rate must be > 0, got {self.learning_rate}")
    if self.clip_norm is not None and not self.clip_norm > 0:
      raise ValueError(f"clip_norm must be > 0 or None, got {self.clip_norm}")

  def __call__(self) -> optax.GradientTransformation:
    """The optax transformation."""
    rate = self.learning_rate
    if self.cosine_steps is not None:
      rate = optax.cosine_decay_schedule(rate, self.cosine_steps)
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
