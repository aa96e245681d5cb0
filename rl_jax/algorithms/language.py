"""Online policy optimisation of a language model, by any recipe."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Literal

from rl_jax.algorithms.language_program import policy_program
from rl_jax.algorithms.recipe import PolicyRecipe
from rl_jax.algorithms.responses import Scoring
from rl_jax.models.scalar_head import ScalarHead
from rl_jax.sampling.autoregressive import Autoregressive
from rl_jax.training.optimisers import AdamW

if TYPE_CHECKING:
  from collections.abc import Callable

  from jaxtyping import PyTree

  from rl_jax.training.state import Program

__all__ = ["Critic", "PolicyOptimisation"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Critic:
  """A value network beside the policy, for recipes that ask for one."""

  model: ScalarHead
  """The network; see `rl_jax.models.ScalarHead`."""
  optimiser: AdamW
  """Its own optimiser."""
  start: Any = None
  """What all of it starts from, such as `Trained(by=reward_model)`."""
  from_policy: bool = True
  """Otherwise, whether its body starts as the policy does."""
  warm_up: int = 0
  """Loop steps at the start in which only the critic learns."""

  def __post_init__(self) -> None:
    if self.warm_up < 0:
      raise ValueError(f"warm_up must not be negative, got {self.warm_up}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PolicyOptimisation:
  """Sample responses, have them judged, follow the recipe's gradient.

  Raises:
    ValueError: if a count is below 1, `behaviour="same"` while the policy
      that is trained is not the one that sampled, or the recipe does not go
      with the critic, the sampler or the size of groups.
  """

  recipe: PolicyRecipe
  """What is minimised."""
  sampler: Autoregressive
  """How responses are drawn; over the whole vocabulary."""
  group_size: int
  """Responses to each prompt."""
  optimiser: AdamW
  """The policy's optimiser."""
  epochs: int = 1
  """Passes over the rows of a rollout."""
  minibatches: int = 1
  """Optimiser steps of a pass; each sees its part of the rows."""
  micro_batches: int = 1
  """Parts that the rows of an optimiser step are split into."""
  behaviour: Literal["same", "interleaved", "recomputed", "sampler"] = (
    "recomputed"
  )
  """Whose log-probabilities ratios are taken to: those of the very forward
  pass that is differentiated, for the only optimiser step of a rollout; the
  same for every step of one pass, though the policy of the later ones has not
  sampled (EasyLM); those of a pass before the updates; or those that the
  sampler reported."""
  temperature: float | None = None
  """Of log-probabilities; None: the sampler's, whose policy it then is that
  is trained."""
  estimated_over: Literal["rollout", "minibatch"] = "rollout"
  """Rows that group statistics and whitening are taken over."""
  reference: bool = False
  """Whether the policy at the start is kept, for recipes with a KL to it."""
  refresh: int = 1
  """Loop steps for which one policy acts; with more than 1 rollouts are of
  an older policy than the one that is trained."""
  refill: bool = False
  """Dynamic sampling: groups whose rewards are all the same are left out, and
  an update waits until there are as many others as a batch has prompts."""
  critic: Critic | None = None
  """Value network, for recipes whose `credit` asks for one."""
  scoring: Scoring = Scoring()
  """Blocks that log-probabilities are computed in."""

  def __post_init__(self) -> None:
    counts = (
      self.group_size,
      self.epochs,
      self.minibatches,
      self.micro_batches,
      self.refresh,
    )
    if min(counts) < 1:
      raise ValueError(
        "group_size, epochs, minibatches, micro_batches and refresh must be"
        f" at least 1, got {counts}"
      )
    if self.sampler.support.truncates:
      raise ValueError(
        "responses to learn from are drawn from the whole vocabulary: top_k,"
        " top_p and min_p are for evaluation, and a gradient needs the"
        " probabilities of the others too"
      )
    if self.sampler.greedy:
      raise ValueError(
        "greedy responses to a prompt are all the same, and not drawn with the"
        " log-probabilities that come with them: greedy is for evaluation"
      )
    self._check_recipe()
    if self.behaviour == "same" and self.epochs * self.minibatches > 1:
      raise ValueError(
        f"{self.epochs} epochs of {self.minibatches} minibatches change the"
        ' policy between updates: behaviour="recomputed"'
      )
    if self.behaviour == "interleaved" and self.epochs > 1:
      raise ValueError(
        f"{self.epochs} epochs with a ratio that is always one would not"
        ' notice how far the policy has gone: behaviour="recomputed"'
      )
    fresh = self.behaviour in ("same", "interleaved")
    if fresh and (self.refresh > 1 or self.refill):
      raise ValueError(
        f"with refresh = {self.refresh} and refill = {self.refill} another"
        ' policy has sampled: behaviour="recomputed"'
      )

  def _check_recipe(self) -> None:
    """Refuses a recipe that asks for something else than there is."""
    if self.critic is None and self.recipe.value is not None:
      raise ValueError("the recipe trains a critic: say which, critic=Critic()")
    if self.critic is not None and self.recipe.value is None:
      raise ValueError("the recipe has no loss for a critic: critic=None")
    if self.estimated_over == "minibatch" and self.recipe.init(1):
      raise ValueError(
        "the recipe remembers from one rollout to the next, and would do so"
        ' once per minibatch: estimated_over="rollout"'
      )
    if self.group_size == 1 and (self.recipe.compares or self.refill):
      raise ValueError(
        "group_size = 1: in a group of one a response has no others to be"
        " compared with; use 2 or more"
      )

  def build(self, experiment: Any, load: Callable[[Any], PyTree]) -> Program:
    """The program of an experiment; see `rl_jax.training.state.Program`."""
    return policy_program(self, experiment, load)
