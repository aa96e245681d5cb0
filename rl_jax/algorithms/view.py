"""The acting policy and responses that it is asked about."""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, Any

from rl_jax.algorithms.responses import Responses, Scoring, response_hidden

if TYPE_CHECKING:
  from jaxtyping import Array, Float, Key, PyTree

  from rl_jax.log_probs import TokenScores

__all__ = ["View"]


@dataclasses.dataclass(frozen=True, eq=False, kw_only=True)
class View:
  """What a component may ask of the policy that acted; see `PolicyRecipe`.

  Features and scores are computed when they are first asked for, and once.
  """

  model: Any
  """A decoder."""
  params: PyTree
  """Its parameters."""
  adapter: PyTree | None
  """Low-rank change of them; None for the base alone."""
  temperature: float
  """What logits are divided by."""
  scoring: Scoring
  """Blocks that log-probabilities are computed in."""
  responses: Responses
  """Prompts and what was written."""
  shared: int
  """Rows that follow each other with one prompt; see `response_hidden`."""
  extra: dict[str, Array]
  """What the data gave besides, rows first."""
  key: Key[Array, "row"]
  """For what is drawn: one for each row, its sampler's own."""
  networks: dict[str, tuple[Any, PyTree]]
  """Other models and their parameters, by the names that components gave."""

  @functools.cached_property
  def hidden(self) -> Float[Array, "row time width"]:
    """Features before the head at the column that chose each token."""
    return response_hidden(
      self.model,
      self.params,
      self.responses,
      adapter=self.adapter,
      shared=self.shared,
    )

  @functools.cached_property
  def scores(self) -> TokenScores:
    """Log-probability and entropy at each token, in nats."""
    return self.scoring.of_features(
      self.model,
      self.params,
      self.hidden,
      self.responses,
      temperature=self.temperature,
    )

  def scores_of(self, responses: Responses) -> TokenScores:
    """The same of other responses, such as probes.

    Args:
      responses: any rows.

    Returns:
      Log-probability and entropy at each token, in nats.
    """
    return self.scoring(
      self.model,
      self.params,
      responses,
      temperature=self.temperature,
      adapter=self.adapter,
    )

  def network_scores(
    self, name: str, responses: Responses | None = None
  ) -> TokenScores:
    """What another model says of the responses, at temperature 1.

    Args:
      name: which of `networks`.
      responses: any rows; None: the view's.

    Returns:
      Log-probability and entropy at each token, in nats.
    """
    model, params = self.networks[name]
    responses = self.responses if responses is None else responses
    return self.scoring(model, params, responses, temperature=1.0)
