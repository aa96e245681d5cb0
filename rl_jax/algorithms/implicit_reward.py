"""Training a language model on responses that have a label of their own."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from rl_jax.algorithms.language_parts import trainable
from rl_jax.algorithms.offline_program import Offline, offline_program
from rl_jax.algorithms.parts import evaluation_of
from rl_jax.algorithms.responses import Scoring, by_parts
from rl_jax.algorithms.texts import Text, over_valid, text_scores, unchanged
from rl_jax.log_probs import sequence_log_prob_sum
from rl_jax.losses import log_ratio
from rl_jax.reduce import Total
from rl_jax.training.optimisers import AdamW

if TYPE_CHECKING:
  from jaxtyping import Array, Float, PyTree

  from rl_jax.training.state import Program, State

__all__ = ["LabelOptimisation"]


class _Labelled(NamedTuple):
  """A response and its label; see `rl_jax.data.LabelledResponses`."""

  text: Text
  label: Float[Array, "row"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelOptimisation:
  """Learn from responses that were found right or wrong, one by one.

      h = log pi(y|x) - log ref(y|x)   or   log pi(y|x) without a reference
      loss(h, label)

  With `implicit_ce_loss` the result is an implicit PRM: its log-ratios are
  process rewards (`rl_jax.rewards.implicit`), though it has seen no step.
  """

  loss: Callable
  """(log_ratio, label, valid) -> one loss per response, such as
  `partial(implicit_ce_loss, beta=0.05)`."""
  beta: float
  """Reward per nat that metrics are reported in; as in the loss."""
  optimiser: AdamW
  """The optimiser."""
  reference: bool = True
  """Whether log-probs are taken relative to the model at the start."""
  updates: int = 1
  """Optimiser steps for each step of the loop; the rows are split over them."""
  micro_batches: int = 1
  """Parts that each update's rows are split into."""
  scoring: Scoring = Scoring()
  """Blocks that log-probabilities are computed in."""

  def __post_init__(self) -> None:
    if not self.beta > 0:
      raise ValueError(f"beta must be positive, got {self.beta}")

  def build(self, experiment: Any, load: Callable[..., PyTree]) -> Program:
    """The program of an experiment; see `rl_jax.training.state.Program`."""
    policy = trainable(
      experiment.model, experiment.start, load, reference=self.reference
    )
    if self.reference and policy.random:
      raise ValueError(
        "the reference is the model at the start, and a random one says"
        " nothing: start=Trained(...), Checkpoint(...) or Pretrained(...)"
      )

    def rows(state: State, items: Any) -> _Labelled:
      del state
      text = Text(items["token"], items["segment"], items["mask"])
      return _Labelled(text, items["label"])

    def whole(trained: PyTree, frozen: PyTree, text: Text):
      scores, mask = text_scores(self.scoring, policy, trained, frozen, text)
      log_prob = sequence_log_prob_sum(scores.log_prob, mask)
      return log_prob, jnp.any(mask, axis=-1)

    def signals(state: State, frozen: PyTree, rows: _Labelled) -> PyTree:
      del state
      kept = unchanged(policy, frozen)
      return by_parts(
        lambda rows: whole(kept, frozen, rows.text)[0],
        rows,
        self.updates * self.micro_batches,
      )

    def loss(trained: PyTree, frozen: PyTree, given: Any) -> tuple[dict, dict]:
      rows, reference = given if self.reference else (given, None)
      nats, valid = whole(trained, frozen, rows.text)
      if reference is not None:
        nats = log_ratio(nats, reference, valid)
      value = self.loss(nats, rows.label, valid)
      return {"label": over_valid(value, valid)}, self._metrics(
        nats, rows, valid
      )

    alike = self.reference and self.updates == 1
    return offline_program(
      Offline(
        algorithm=self,
        init=policy.init,
        axes=policy.axes,
        rows=rows,
        signals=signals if self.reference else None,
        loss=loss,
        weights={"label": 1.0},
        frozen=policy.frozen,
        frozen_axes=policy.frozen_axes,
        evaluated=policy.parts,
        first_step={"absolute_reward": (0.0, 1e-3)} if alike else {},
      ),
      experiment,
      evaluation_of(experiment, load),
    )

  def _metrics(
    self, nats: Any, rows: _Labelled, valid: Any
  ) -> dict[str, Total]:
    """Rewards of right and wrong responses, and how many are told apart."""
    reward = self.beta * jax.lax.stop_gradient(nats)
    right = rows.label >= 0.5
    told = (reward > 0) == right
    return {
      "right_reward": over_valid(reward, valid & right),
      "wrong_reward": over_valid(reward, valid & ~right),
      "absolute_reward": over_valid(jnp.abs(reward), valid),
      "told_apart": over_valid(told.astype(jnp.float32), valid),
      "right": over_valid(right.astype(jnp.float32), valid),
      "length": over_valid(
        jnp.sum(rows.text.mask, axis=-1).astype(jnp.float32), valid
      ),
    }
