"""SPAE: probes after every step of a response, as credit of a recipe."""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import jax
import jax.numpy as jnp

from rl_jax import advantages
from rl_jax.advantages import spae, step_probes
from rl_jax.algorithms.components import WithinGroup
from rl_jax.algorithms.estimators.probe_contexts import build_probe_batch
from rl_jax.algorithms.policy_records import PolicyBatch, Signals, found
from rl_jax.algorithms.recipe import PolicyRecipe
from rl_jax.algorithms.responses import Responses, response_hidden
from rl_jax.losses import clipped_policy_terms
from rl_jax.reduce import Total, over_tokens
from rl_jax.sampling.autoregressive import Autoregressive
from rl_jax.sampling.steps import fold_rows

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float, Int

  from rl_jax.algorithms.view import View
  from rl_jax.models.tokenizer import Tokenizer

__all__ = ["SPAE_WHITENING", "Spae", "boundary_ids", "spae_recipe"]

# Keys of a row's sampler are folded with its steps, which are fewer.
_PROBES = 2**31 - 1

SPAE_WHITENING = partial(
  advantages.whiten,
  ddof=0,
  epsilon=1e-8,
  guard="outside_root",
  shift_mean=True,
)


def boundary_ids(
  tokenizer: Tokenizer, *, delimiter: str = ".\n\n"
) -> tuple[int, ...]:
  """Ids whose text ends with the delimiter of steps.

  Several do: a vocabulary merges it with what is before it.

  Args:
    tokenizer: of the model.
    delimiter: what a step ends with.

  Returns:
    The ids, in order.

  Raises:
    ValueError: if there is none: then no token ends a step, and the delimiter
      must be one that a single token can end with.

  arXiv:2601.03823, code.
  """
  found = tuple(
    number
    for number in range(tokenizer.size)
    if tokenizer.decode([number], special=True).endswith(delimiter)
  )
  if not found:
    raise ValueError(f"no token of the vocabulary ends with {delimiter!r}")
  return found


@dataclasses.dataclass(frozen=True, kw_only=True)
class Spae:
  """Step potential advantage estimation; see `advantages.spae_advantage`.

  After each step of the thinking the policy that wrote it is made to answer:
  some short continuations say how sure it is, the true answer how right. That
  costs two passes over the beginning of the response for every step, and one
  per token of a continuation.

  A baseline without a spread and `SPAE_WHITENING` belong to the method;
  `spae_recipe` has both. Extremes and means are those of all rows that are
  valid; with `refill` groups of equal rewards are not among them.

  Raises:
    ValueError: if there is no boundary or no forcing, a count is below 1, or
      `alpha` is not in [0, 1].
  """

  boundary: tuple[int, ...]
  """Ids that end a step; see `boundary_ids`."""
  forcing: tuple[int, ...]
  """Ids that make the policy answer, such as those of a heading and an opened
  box."""
  think_end: int | None
  """Id that ends the thinking; None if all of a response is thinking."""
  steps: int
  """Steps of a response that are probed at most; later ones are part of the
  tail, and `spae_left_out` says how many there are."""
  alpha: float = 0.5
  """Share of the advantage that is lost once the question is settled."""
  xi: float = 0.5
  """Weight of a step's own change of the potential, units of reward."""
  threshold: float = 0.9
  """Potential from which the question is settled."""
  tail_mode: Literal["outcome", "last_step"] = "outcome"
  """What the factor is after the last step."""
  apply_to: Literal["all", "positive"] = "all"
  """Which advantages the factor multiplies."""
  samples: int = 5
  """Continuations of each probe."""
  length: int = 10
  """Tokens of a continuation."""
  end: tuple[int, ...] = ()
  """Ids that end a continuation."""
  aggregation: Literal["equations", "release"] = "equations"
  """How a probe becomes two numbers: as the paper says, or as its published
  script does, which differs; see `advantages.released_probe`."""
  correct: float = 0.5
  """A reward above it is a right response, in what is reported."""

  wants = ("answer", "answer_mask")

  def __post_init__(self) -> None:
    if not self.boundary or not self.forcing:
      raise ValueError(
        "boundary and forcing need an id each at least, got"
        f" {self.boundary} and {self.forcing}"
      )
    if min(self.steps, self.samples, self.length) < 1:
      raise ValueError(
        "steps, samples and length must be at least 1, got"
        f" {self.steps}, {self.samples} and {self.length}"
      )
    if not 0 <= self.alpha <= 1:
      raise ValueError(f"alpha must be in [0, 1], got {self.alpha}")

  def ask(self, view: View) -> dict[str, Array]:
    """Potentials of all steps, and which step each token is in."""
    responses = view.responses
    boundary = jnp.zeros(view.model.vocabulary, bool)
    boundary = boundary.at[jnp.array(self.boundary)].set(True)
    steps = spae.step_segments(
      responses.token,
      responses.mask,
      boundary,
      think_end=self.think_end,
      num_segments=self.steps,
    )
    present = responses.present
    contexts = build_probe_batch(
      responses.prompt,
      responses.prompt_mask,
      responses.token,
      responses.mask if present is None else present,
      steps.index,
      jnp.array(self.forcing, responses.token.dtype),
      num_segments=self.steps,
    )
    key = fold_rows(view.key, _PROBES)

    def probe(one: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
      step, token, mask = one
      nothing = jnp.zeros(key.shape[0])
      # The last steps of the longest response are few rows' or none's.
      return jax.lax.cond(
        jnp.any(mask),
        lambda: self._probe(view, fold_rows(key, step), token, mask),
        lambda: (nothing, nothing),
      )

    # One step of every row at a time, which bounds what is held.
    right, sure = jax.lax.map(
      probe,
      (
        jnp.arange(self.steps),
        jnp.swapaxes(contexts.token, 0, 1),
        jnp.swapaxes(contexts.mask, 0, 1),
      ),
    )
    potential = spae.step_potential(right.T, sure.T)
    valid = jnp.arange(self.steps)[None] < steps.count[:, None]
    return {
      "spae_potential": jnp.where(valid, potential, 0.0),
      "spae_index": steps.index,
      "spae_count": steps.count,
      "spae_found": steps.found,
      "spae_thinking": steps.thinking,
    }

  def __call__(
    self, batch: PolicyBatch, compared: Float[Array, "row"]
  ) -> tuple[Float[Array, "row time"], None]:
    """Advantages, not whitened yet."""
    potential = found(batch, "spae_potential")
    valid = self._valid(batch)
    return spae.spae_advantage(
      compared,
      spae.difference_shaping(potential, valid, epsilon=1e-8),
      spae.saturation_factor(
        potential, valid, alpha=self.alpha, threshold=self.threshold
      ),
      found(batch, "spae_index"),
      batch.mask & batch.valid[:, None],
      xi=self.xi,
      tail_mode=self.tail_mode,
      apply_to=self.apply_to,
    ), None

  def watch(
    self, batch: PolicyBatch, signals: Signals, *, num_groups: int
  ) -> dict[str, Total]:
    """Numbers of steps, potentials, and how much is checked.

    `checking_tokens` and `solving_tokens` are means over right responses,
    `right_to_wrong` is the share of all that were settled and are wrong.
    """
    del signals, num_groups
    potential, valid = found(batch, "spae_potential"), self._valid(batch)
    solving, checking, settled = spae.checking_tokens(
      potential,
      found(batch, "spae_index"),
      found(batch, "spae_thinking"),
      batch.mask,
      threshold=self.threshold,
    )
    right = batch.reward > self.correct
    change = spae.step_differences(potential, valid)
    low = jnp.min(change, where=valid, initial=jnp.inf)
    high = jnp.max(change, where=valid, initial=-jnp.inf)
    count, all_ = found(batch, "spae_count"), found(batch, "spae_found")

    def mean(value: jax.Array, where: jax.Array) -> Total:
      return Total(
        jnp.sum(jnp.where(where, value, 0), dtype=jnp.float32),
        jnp.sum(where, dtype=jnp.float32),
      )

    return {
      "spae_steps": mean(count, batch.valid),
      "spae_left_out": mean(all_ - count, batch.valid),
      "spae_potential": mean(potential, valid),
      "spae_range": Total(
        jnp.where(jnp.any(valid), high - low, 0.0), jnp.ones(())
      ),
      "solving_tokens": mean(solving, batch.valid & right),
      "checking_tokens": mean(checking, batch.valid & right),
      "right_to_wrong": mean(settled & ~right, batch.valid),
    }

  def _valid(self, batch: PolicyBatch) -> Bool[Array, "row segment"]:
    count = jnp.where(batch.valid, found(batch, "spae_count"), 0)
    return jnp.arange(self.steps)[None] < count[:, None]

  def _probe(
    self,
    view: View,
    key: Any,
    token: Int[Array, "row column"],
    mask: Bool[Array, "row column"],
  ) -> tuple[Float[Array, "row"], Float[Array, "row"]]:
    """How right and how sure the policy is after each context."""
    answer, answer_mask = view.extra["answer"], view.extra["answer_mask"]
    rows, samples = token.shape[0], self.samples
    number = jnp.tile(jnp.arange(samples), rows)
    drawn = Autoregressive(
      length=self.length,
      temperature=view.temperature,
      end=self.end,
      entropy=self.aggregation == "equations",
    )(
      view.model,
      view.params,
      token,
      mask,
      jax.vmap(jax.random.fold_in)(jnp.repeat(key, samples), number),
      samples=samples,
      adapter=view.adapter,
    )

    def apart(x: jax.Array) -> jax.Array:
      return x.reshape(rows, samples, *x.shape[1:])

    if drawn.entropy is not None:
      sure = step_probes.probe_confidence(
        apart(drawn.entropy), apart(drawn.mask)
      )
      scores = view.scores_of(Responses(token, mask, answer, answer_mask))
      right = step_probes.probe_correctness(scores.log_prob, answer_mask)
      return right, sure
    written = Responses(
      jnp.repeat(token, samples, axis=0),
      jnp.repeat(mask, samples, axis=0),
      drawn.token,
      drawn.mask,
    )
    hidden = response_hidden(
      view.model, view.params, written, adapter=view.adapter
    )
    logits = view.model.logits(view.params, hidden) / view.temperature
    return step_probes.released_probe(
      apart(logits), apart(drawn.mask), answer, answer_mask
    )


def spae_recipe(
  *, credit: Spae, clip_low: float = 0.2, clip_high: float = 0.28
) -> PolicyRecipe:
  """SPAE on what the paper builds on: DAPO's loss, one whitening per batch.

  Args:
    credit: the estimator.
    clip_low: how far below one a ratio may be.
    clip_high: how far above.

  Returns:
    The recipe; with alpha = xi = 0 it is REINFORCE++ with a baseline.

  arXiv:2601.03823; the clip range is DAPO's.
  """
  return PolicyRecipe(
    reference="SPAE, arXiv:2601.03823",
    baseline=WithinGroup(
      estimator=partial(
        advantages.group_relative, scale="none", ddof=0, epsilon=0.0
      )
    ),
    rows=advantages.informative_groups,
    credit=credit,
    whitening=SPAE_WHITENING,
    loss=partial(clipped_policy_terms, clip_low=clip_low, clip_high=clip_high),
    reduction=over_tokens,
  )
