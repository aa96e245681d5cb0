"""Rewards of the steps of a response, and what keeps them from being hacked.

A process reward model scores every prefix of a response that ends with a
step. The sum of such scores grows with the number of steps: a policy learns
to write steps that say nothing. `clip_process_reward` makes every step cost
or nothing, `delta_process_reward` makes the sum telescope.

Rows are responses; steps are numbered from 0, without gaps, as
`advantages.segment_index` of `segment_steps` numbers them. To pay on the last
token of each step, use `advantages.at_segment_ends`; what is still to come
from each step is `advantages.suffix_sums`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import jax
import jax.numpy as jnp
import numpy as np

from rl_jax.masks import keep, last_valid, widened

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float, Int

__all__ = [
  "Refine",
  "check_step_scores",
  "clip_process_reward",
  "combine_success_process",
  "delta_process_reward",
  "refined_process_reward",
  "segment_steps",
]

Refine = Literal["none", "clip", "delta", "clip_delta", "mean", "orm"]


def segment_steps(
  token: Int[Array, "row time"],
  mask: Bool[Array, "row time"],
  *,
  delimiter: tuple[int, ...],
  blank: tuple[int, ...] = (),
) -> Bool[Array, "row time"]:
  """Where steps end: at delimiters, and where the response does.

  A step without content is none: a run of delimiters ends one step, those
  before the first content belong to the first step, and what follows the last
  content to the last one.

  Args:
    token: ids of the response; anything where the mask is false.
    mask: true = a token of the response.
    delimiter: ids that end a step, such as those with a newline.
    blank: other ids that are no content, such as the one that ends the
      response, which would be a step of its own after a newline.

  Returns:
    True on the last token of each step; every row with tokens has at least
    one. `segment_index` of it says which step a token is in.

  Raises:
    ValueError: if there is no delimiter.

  Clip and Delta, arXiv:2410.15115, where steps are lines.

  >>> token = jnp.array([[5, 0, 0, 6, 0, 9]])
  >>> mask = jnp.ones((1, 6), bool)
  >>> segment_steps(token, mask, delimiter=(0,), blank=(9,)).tolist()
  [[False, False, True, False, False, True]]
  """
  if not delimiter:
    raise ValueError("steps need a delimiter: give the ids that end them")
  place = jnp.arange(token.shape[-1])[None]

  def latest(here):
    return jax.lax.cummax(jnp.where(here, place, -1), axis=1)

  ends = mask & jnp.isin(token, jnp.array(delimiter))
  empty = jnp.isin(token, jnp.array((*delimiter, *blank)))
  content = latest(mask & ~empty)
  closed = (content >= 0) & (latest(ends) > content)
  # The next token, wherever it is, begins something: so this one ends a step.
  begins = jnp.where(mask & ~empty, place, token.shape[-1])
  others = jnp.where(mask & empty, place, token.shape[-1])
  begins, others = (
    jnp.pad(
      jax.lax.cummin(x, axis=1, reverse=True)[:, 1:],
      ((0, 0), (0, 1)),
      constant_values=token.shape[-1],
    )
    for x in (begins, others)
  )
  final = place == last_valid(mask)[:, None]
  return mask & (final | (closed & (begins < others)))


def clip_process_reward(
  reward: Float[Array, "row step"],
  mask: Bool[Array, "row step"],
  *,
  eta: float | Float[Array, ""],
) -> Float[Array, "row step"]:
  """A step that is good enough earns nothing, another one costs.

      r'_k = min(r_k - eta, 0)

  However many steps are added, their sum does not grow.

  Args:
    reward: r_k in [0, 1]; anything where the mask is false.
    mask: true = there is such a step.
    eta: what is good enough, in [0, 1]; a number, or one read from
      the data.

  Returns:
    r'_k <= 0, and 0 where the mask is false. No gradient flows.

  Raises:
    ValueError: if an `eta` that is a number is not in [0, 1].

  Clip and Delta, arXiv:2410.15115, section 4.

  >>> clip_process_reward(
  ...   jnp.array([[0.75, 0.25]]), jnp.ones((1, 2), bool), eta=0.5
  ... ).tolist()
  [[0.0, -0.25]]
  """
  if isinstance(eta, int | float) and not 0 <= eta <= 1:
    raise ValueError(
      f"eta must be in [0, 1], as the scores it is compared with, got {eta}"
    )
  reward = jax.lax.stop_gradient(keep(reward, mask))
  return keep(jnp.minimum(reward - eta, 0.0), mask)


def delta_process_reward(
  reward: Float[Array, "row step"], mask: Bool[Array, "row step"]
) -> Float[Array, "row step"]:
  """The difference of a step's score and the next one's.

      r'_k = r_k - r_{k+1}  (k < K-1),   r'_{K-1} = r_{K-1},   r'_K = 0

  with K the last step, which the outcome judges already. What is still to
  come from step k is r_k, and 0 from the last, however many there are. A step
  that is not the last still earns its score: see the clip.

  Args:
    reward: r_k, any unit; anything where the mask is false.
    mask: true = there is such a step.

  Returns:
    r'_k, 0 where the mask is false. No gradient flows.

  Clip and Delta, arXiv:2410.15115, section 4.

  >>> delta_process_reward(
  ...   jnp.array([[0.75, 0.25, 1.0]]), jnp.ones((1, 3), bool)
  ... ).tolist()
  [[0.5, 0.25, 0.0]]
  """
  inner = jax.lax.stop_gradient(keep(reward, mask & ~_last(mask)))
  later = jnp.roll(inner, -1, axis=-1).at[:, -1:].set(0.0)
  return keep(inner - later, mask)


def refined_process_reward(
  reward: Float[Array, "row step"],
  mask: Bool[Array, "row step"],
  *,
  refine: Refine,
  eta: float | Float[Array, ""],
) -> Float[Array, "row step"]:
  """Scores of steps as one of the rewards that were compared.

      none        r_k
      clip        min(r_k - eta, 0)
      delta       r_k - r_{k+1}, as in `delta_process_reward`
      clip_delta  the delta of the clip
      mean        r_k / K
      orm         r_K at the last step, 0 before

  Args:
    reward: r_k in [0, 1]; anything where the mask is false.
    mask: true = there is such a step.
    refine: which.
    eta: of the clip; unused without one.

  Returns:
    r'_k, 0 where the mask is false. No gradient flows.

  Raises:
    ValueError: for an unknown `refine`, or a clip whose `eta` is a number
      outside of [0, 1].

  Clip and Delta, arXiv:2410.15115; "mean" and "orm" were reconstructed.

  >>> refined_process_reward(
  ...   jnp.array([[0.75, 0.25]]),
  ...   jnp.ones((1, 2), bool),
  ...   refine="mean",
  ...   eta=0.5,
  ... ).tolist()
  [[0.375, 0.125]]
  """
  if refine not in ("none", "clip", "delta", "clip_delta", "mean", "orm"):
    raise ValueError(
      "refine must be 'none', 'clip', 'delta', 'clip_delta', 'mean' or 'orm',"
      f" got {refine!r}"
    )
  reward = jax.lax.stop_gradient(keep(reward, mask))
  if refine in ("clip", "clip_delta"):
    reward = clip_process_reward(reward, mask, eta=eta)
  if refine in ("delta", "clip_delta"):
    return delta_process_reward(reward, mask)
  if refine == "mean":
    count = jnp.sum(mask, axis=-1, keepdims=True)
    return reward / jnp.maximum(count, 1).astype(reward.dtype)
  if refine == "orm":
    return keep(reward, _last(mask))
  return reward


def combine_success_process(
  process: Float[Array, "row step"],
  success: Float[Array, "row"],
  mask: Bool[Array, "row step"],
  *,
  refine: Refine,
  alpha: float,
  eta: float | Float[Array, ""],
  success_coef: float,
) -> Float[Array, "row step"]:
  """The reward of each step: its refined score, and the outcome at the end.

      R_k = alpha r'_k + 1[k = K] success_coef success

  Args:
    process: scores in [0, 1]; anything where the mask is false.
    success: 1 if the response is right, else 0.
    mask: true = there is such a step.
    refine: as in `refined_process_reward`.
    alpha: units of reward for a score of one.
    eta: as in `refined_process_reward`.
    success_coef: units of reward for success.

  Returns:
    R_k, 0 where the mask is false: a response without a step earns nothing.
    No gradient flows.

  Raises:
    ValueError: as `refined_process_reward`, or for a negative `alpha` or
      `success_coef`.

  Clip and Delta, arXiv:2410.15115, eq. 1.

  >>> combine_success_process(
  ...   jnp.array([[0.75, 0.25]]),
  ...   jnp.array([1.0]),
  ...   jnp.ones((1, 2), bool),
  ...   refine="none",
  ...   alpha=0.5,
  ...   eta=0.5,
  ...   success_coef=1.0,
  ... ).tolist()
  [[0.375, 1.125]]
  """
  for name, value in {"alpha": alpha, "success_coef": success_coef}.items():
    if not 0 <= value < math.inf:
      raise ValueError(f"{name} must be finite and not negative, got {value}")
  refined = refined_process_reward(process, mask, refine=refine, eta=eta)
  success = jax.lax.stop_gradient(widened(success))[:, None]
  return alpha * refined + jnp.where(_last(mask), success_coef * success, 0.0)


def check_step_scores(
  score: Float[np.ndarray, "row step"], mask: Bool[np.ndarray, "row step"]
) -> None:
  """Refuse what cannot be the scores of the steps of responses.

  For the host, where scores are made: on the device their values are not
  known before the program runs.

  Args:
    score: r_k; anything where the mask is false.
    mask: true = there is such a step.

  Raises:
    ValueError: with the first row that has no step, a gap between its steps,
      or a score that is NaN or outside of [0, 1], such as a logit.
  """
  for row, (own, there) in enumerate(zip(score, mask, strict=True)):
    count = int(there.sum())
    if count == 0:
      raise ValueError(f"row {row} has no step: a response has at least one")
    if not there[:count].all():
      raise ValueError(
        f"row {row}: steps must follow each other from 0, got"
        f" {np.flatnonzero(there).tolist()}"
      )
    # NaN is not in any interval.
    wrong = there & ~((own >= 0) & (own <= 1))
    if wrong.any():
      step = int(np.argmax(wrong))
      raise ValueError(
        f"row {row}, step {step}: a score must be in [0, 1], got {own[step]};"
        " give probabilities, not logits"
      )


def _last(mask: Bool[Array, "row step"]) -> Bool[Array, "row step"]:
  return jnp.arange(mask.shape[-1])[None] == last_valid(mask)[:, None]
