"""What offline programs share: rows of text, their scores and their means."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp

from rl_jax.log_probs import TokenScores, chunked_log_prob, next_token
from rl_jax.reduce import Total

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float, Int, PyTree

  from rl_jax.algorithms.language_parts import Trainable
  from rl_jax.algorithms.responses import Scoring

__all__ = ["Text", "over_valid", "text_scores", "unchanged"]


class Text(NamedTuple):
  """Token ids in rows; see `rl_jax.data.Demonstrations`."""

  token: Int[Array, "row time"]
  segment: Int[Array, "row time"]
  mask: Bool[Array, "row time"]


def text_scores(
  scoring: Scoring,
  policy: Trainable,
  trained: PyTree,
  frozen: PyTree,
  text: Text,
) -> tuple[TokenScores, Bool[Array, "row time"]]:
  """Scores at the columns that choose each token, and which of them count.

  Args:
    scoring: blocks that log-probabilities are computed in.
    policy: the decoder, and which of its parameters are trained.
    trained: those.
    frozen: the others.
    text: rows.

  Returns:
    Log-probability and entropy at temperature 1, and where a token that is to
    be learned is chosen.
  """
  params, adapter = policy.parts(trained, frozen)
  model = policy.model
  target = next_token(text.token, text.mask, text.segment)
  hidden = model.hidden(params, text.token, text.segment, adapter=adapter)
  scores = chunked_log_prob(
    hidden,
    model.output(params),
    target.token,
    target.mask,
    chunk_tokens=scoring.chunk_tokens,
    chunk_vocabulary=scoring.chunk_vocabulary,
    temperature=1.0,
    soft_cap=model.soft_cap,
  )
  return scores, target.mask


def over_valid(value: Float[Array, "row"], valid: Bool[Array, "row"]) -> Total:
  """The sum of the rows that count, over their number.

  Args:
    value: one for each row.
    valid: which count.

  Returns:
    The Total.
  """
  count = jnp.sum(valid, dtype=jnp.float32)
  return Total(jnp.sum(jnp.where(valid, value, 0.0)), count)


def unchanged(policy: Trainable, frozen: PyTree) -> PyTree:
  """What stands for the trained parameters before they were trained.

  Args:
    policy: made with a reference.
    frozen: its frozen parameters.

  Returns:
    The parameters at the start, or a low-rank change of nothing.
  """
  if not policy.adapts:
    return frozen["reference"]
  shapes = jax.eval_shape(policy.model.init_adapter, jax.random.key(0))
  return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
