"""Training a language model on stored text: imitation and preferences."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from rl_jax.algorithms.language_parts import trainable
from rl_jax.algorithms.offline_program import Offline, offline_program
from rl_jax.algorithms.parts import evaluation_of, params_axes
from rl_jax.algorithms.responses import Scoring, answer_score, by_parts
from rl_jax.algorithms.stored_reference import check_reference
from rl_jax.algorithms.texts import (
  Text,
  over_valid,
  text_scores,
  unchanged,
)
from rl_jax.log_probs import sequence_log_prob_sum
from rl_jax.losses import (
  bradley_terry_loss,
  implicit_reward,
  log_ratio,
  negative_log_likelihood,
  per_token,
)
from rl_jax.reduce import over_tokens
from rl_jax.training.optimisers import AdamW

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float, PyTree

  from rl_jax.training.state import Program, State

__all__ = ["FineTuning", "PreferenceOptimisation", "RewardModelling"]


class _Pairs(NamedTuple):
  """Two answers to a prompt; see `rl_jax.data.Preferences`."""

  chosen: Text
  rejected: Text
  margin: Float[Array, "row"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class FineTuning:
  """Supervised fine-tuning: the likelihood of given answers.

  See `rl_jax.losses.negative_log_likelihood`; a mean over tokens, whatever
  rows they stand in, so that packing changes nothing.
  """

  optimiser: AdamW
  """The optimiser."""
  updates: int = 1
  """Optimiser steps for each step of the loop; the rows are split over them."""
  micro_batches: int = 1
  """Parts that each update's rows are split into."""
  scoring: Scoring = Scoring()
  """Blocks that log-probabilities are computed in."""

  def build(self, experiment: Any, load: Callable[..., PyTree]) -> Program:
    """The program of an experiment; see `rl_jax.training.state.Program`."""
    policy = trainable(
      experiment.model, experiment.start, load, reference=False
    )

    def rows(state: State, items: Any) -> Text:
      del state
      return Text(items["token"], items["segment"], items["mask"])

    def loss(trained: PyTree, frozen: PyTree, text: Text) -> tuple[dict, dict]:
      scores, mask = text_scores(self.scoring, policy, trained, frozen, text)
      value = negative_log_likelihood(scores.log_prob, mask)
      entropy = jax.lax.stop_gradient(over_tokens(scores.entropy, mask))
      return {"imitation": over_tokens(value, mask)}, {"entropy": entropy}

    return offline_program(
      Offline(
        algorithm=self,
        init=policy.init,
        axes=policy.axes,
        rows=rows,
        loss=loss,
        weights={"imitation": 1.0},
        frozen=policy.frozen,
        frozen_axes=policy.frozen_axes,
        evaluated=policy.parts,
      ),
      experiment,
      evaluation_of(experiment, load),
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class PreferenceOptimisation:
  """Learn from pairs of answers directly: DPO and its kin.

      h = log pi(y|x) - log ref(y|x)   or   log pi(y|x) without a reference
      loss(h_w, h_l) + imitation * (-log pi(y_w|x) per token)

  Any pairwise loss of `rl_jax.losses` fits. Where the data's `reference` names
  what `rl-jax reference` wrote, log ref(y|x) is read from there: the result is
  the same to rounding, and no second tree of parameters is held or run. A file
  of other pairs, or of another policy than the start, is refused.
  """

  loss: Callable
  """(chosen, rejected, valid) -> one loss per pair, such as
  `partial(logistic_preference_loss, beta=0.1)`."""
  beta: float
  """Reward per nat that metrics are reported in; as in the loss."""
  optimiser: AdamW
  """The optimiser."""
  reference: bool = True
  """Whether log-probs are taken relative to the policy at the start."""
  averaged: bool = False
  """Whether they are means over tokens instead of sums."""
  imitation: float = 0.0
  """Weight of the likelihood of chosen answers beside the loss."""
  updates: int = 1
  """Optimiser steps for each step of the loop; the rows are split over them."""
  micro_batches: int = 1
  """Parts that each update's rows are split into."""
  scoring: Scoring = Scoring()
  """Blocks that log-probabilities are computed in."""

  def __post_init__(self) -> None:
    if self.imitation < 0 or not self.beta > 0:
      raise ValueError(
        f"imitation = {self.imitation} must not be negative and beta ="
        f" {self.beta} must be positive"
      )

  def build(self, experiment: Any, load: Callable[..., PyTree]) -> Program:
    """The program of an experiment; see `rl_jax.training.state.Program`."""
    stored = _stored(experiment)
    if stored is not None and not self.reference:
      raise ValueError(
        f"the data's reference = {stored!r} is of no use where reference ="
        " False: leave one of them out"
      )
    asked = self.reference and stored is None
    policy = trainable(
      experiment.model, experiment.start, load, reference=asked
    )
    if self.reference and policy.random:
      raise ValueError(
        "the reference is the policy at the start, and a random one says"
        " nothing: start=Trained(...), Checkpoint(...) or Pretrained(...)"
      )
    if stored is not None:
      check_reference(stored, experiment.model, load(experiment.start))

    def rows(state: State, items: Any) -> Any:
      pairs = _pairs(state, items)
      if stored is None:
        return pairs
      sides = ("chosen", "rejected")
      return pairs, {side: items[f"{side}_reference"] for side in sides}

    def score(trained, frozen, pairs: _Pairs):
      return [
        text_scores(self.scoring, policy, trained, frozen, text)
        for text in (pairs.chosen, pairs.rejected)
      ]

    def signals(state: State, frozen: PyTree, pairs: _Pairs) -> dict:
      del state
      # Without its change, a changed model is what it started from.
      kept = unchanged(policy, frozen)

      def ask(pairs: _Pairs) -> dict:
        chosen, rejected = (
          sequence_log_prob_sum(scores.log_prob, mask)
          for scores, mask in score(kept, frozen, pairs)
        )
        return {"chosen": chosen, "rejected": rejected}

      return by_parts(ask, pairs, self.updates * self.micro_batches)

    def loss(trained: PyTree, frozen: PyTree, rows: Any) -> tuple[dict, dict]:
      pairs, reference = rows if self.reference else (rows, None)
      (good, good_mask), (bad, bad_mask) = score(trained, frozen, pairs)
      chosen, rejected = (
        self._whole(sequence_log_prob_sum(side.log_prob, mask), mask)
        for side, mask in ((good, good_mask), (bad, bad_mask))
      )
      valid = jnp.any(good_mask, axis=-1) & jnp.any(bad_mask, axis=-1)
      nats = over_tokens(-good.log_prob, good_mask)
      if reference is not None:
        kept = self._whole(reference["chosen"], good_mask)
        chosen = log_ratio(chosen, kept, valid)
        kept = self._whole(reference["rejected"], bad_mask)
        rejected = log_ratio(rejected, kept, valid)
      terms = {
        "preference": over_valid(self.loss(chosen, rejected, valid), valid)
      }
      if self.imitation:
        terms["imitation"] = nats
      reward = implicit_reward(chosen, rejected, valid, beta=self.beta)
      metrics = {
        "margin": over_valid(reward.margin, valid),
        "chosen_reward": over_valid(reward.chosen, valid),
        "rejected_reward": over_valid(reward.rejected, valid),
        "correct": over_valid(reward.correct.astype(jnp.float32), valid),
        "chosen_nats": jax.lax.stop_gradient(nats),
      }
      return terms, metrics

    weights = {"preference": 1.0}
    weights |= {"imitation": self.imitation} if self.imitation else {}
    return offline_program(
      Offline(
        algorithm=self,
        init=policy.init,
        axes=policy.axes,
        rows=rows,
        signals=signals if asked else None,
        loss=loss,
        weights=weights,
        frozen=policy.frozen,
        frozen_axes=policy.frozen_axes,
        evaluated=policy.parts,
        first_step={"margin": (0.0, 1e-3)} if self._starts_at_zero else {},
      ),
      experiment,
      evaluation_of(experiment, load),
    )

  @property
  def _starts_at_zero(self) -> bool:
    # Several updates are averaged in the numbers of a step.
    return self.reference and self.updates == 1

  def _whole(
    self, total: Float[Array, "row"], mask: Bool[Array, "row time"]
  ) -> Float[Array, "row"]:
    """One log-probability per answer, of its sum."""
    if not self.averaged:
      return total
    count = jnp.sum(mask, axis=-1)
    return per_token(total, count, count > 0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RewardModelling:
  """A reward model from pairs of answers: the Bradley-Terry likelihood.

  The model is a `rl_jax.models.ScalarHead`; an answer's score is its value at
  the last token. See `rl_jax.losses.bradley_terry_loss`.
  """

  optimiser: AdamW
  """The optimiser."""
  margin: bool = False
  """Whether the data's margins are asked for; the data must have them."""
  centring: float = 0.0
  """Weight of the squared sum of a pair's scores."""
  body: Any = None
  """What the body starts from, such as the policy's `Trained(...)`; None =
  as the experiment's start says, which is of the whole reward model."""
  updates: int = 1
  """Optimiser steps for each step of the loop; the rows are split over them."""
  micro_batches: int = 1
  """Parts that each update's rows are split into."""

  def build(self, experiment: Any, load: Callable[..., PyTree]) -> Program:
    """The program of an experiment; see `rl_jax.training.state.Program`."""
    model, stored = experiment.model, _stored(experiment)
    if stored is not None:
      raise ValueError(
        f"the data's reference = {stored!r} is of no use to a reward model:"
        " leave it out"
      )
    body = None if self.body is None else load(self.body, model.body)

    def init(key: Any, start: Any) -> PyTree:
      whole, body = start
      return model.init(key, body=body) if whole is None else whole

    def rows(state: State, items: Any) -> _Pairs:
      if self.margin and "margin" not in items:
        raise ValueError(
          "margin=True asks for the data's margins, and it gives none: say"
          " margin=True to the preferences too"
        )
      return _pairs(state, items)

    def loss(trained: PyTree, frozen: PyTree, pairs: _Pairs):
      del frozen
      chosen, rejected = (
        answer_score(model, trained, text.token, text.segment)
        for text in (pairs.chosen, pairs.rejected)
      )
      valid = jnp.any(pairs.chosen.mask, -1) & jnp.any(pairs.rejected.mask, -1)
      value = bradley_terry_loss(
        chosen,
        rejected,
        valid,
        margin=pairs.margin if self.margin else 0.0,
        centring=self.centring,
      )
      reward = implicit_reward(chosen, rejected, valid, beta=1.0)
      metrics = {
        "margin": over_valid(reward.margin, valid),
        "correct": over_valid(reward.correct.astype(jnp.float32), valid),
      }
      return {"ranking": over_valid(value, valid)}, metrics

    return offline_program(
      Offline(
        algorithm=self,
        init=init,
        axes=params_axes(model),
        rows=rows,
        loss=loss,
        weights={"ranking": 1.0},
        start=lambda whole: (whole, body),
      ),
      experiment,
      evaluation_of(experiment, load),
    )


def _stored(experiment: Any) -> str | None:
  """Path of log-probabilities under a reference; data of others have none."""
  return getattr(experiment.data, "reference", None)


def _pairs(state: State, items: Any) -> _Pairs:
  del state

  def side(name: str) -> Text:
    return Text(items[name], items[f"{name}_segment"], items[f"{name}_mask"])

  margin = items.get("margin", jnp.zeros(items["chosen"].shape[0]))
  return _Pairs(side("chosen"), side("rejected"), margin)
