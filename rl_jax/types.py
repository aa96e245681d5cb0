"""Pytrees that flow between the parts of a program.

Every leaf has the row axis first, so one `jax.tree.map` splits a record into
micro-batches, permutes it or shards it, and nothing is left behind.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float, Int, Key, PyTree, UInt32

__all__ = ["Rollouts", "TextRollouts"]


class Rollouts(NamedTuple):
  """What a policy produced and how well: from `collect` to `update`.

  Attributes:
    sample: the finished latent x_0, `row *event`, in the unit of the data.
    condition: what it was asked for: class ids, embeddings or a pytree of
      them, each `row ...`.
    reward: one number per row, any unit; anything where `valid` is false.
    group: which prompt the row answers, an id in [0, number of groups).
    valid: true = counts; false for padding and for rows without a verdict.
    key: the key that the row was drawn with. Its sample depends on this key,
      its condition and the parameters, on no neighbour and on no mesh.
    trajectory: the sampler's record of how the sample came about, each leaf
      `row ...`, for losses that need its log-probabilities; None for those
      that need only the sample.
    metric: numbers to report by name, one per row, averaged over valid rows.
  """

  sample: Float[Array, "row *event"]
  condition: PyTree[Array]
  reward: Float[Array, "row"]
  group: Int[Array, "row"]
  valid: Bool[Array, "row"]
  key: Key[Array, "row"]
  trajectory: Any
  metric: dict[str, Float[Array, "row"]]


class TextRollouts(NamedTuple):
  """What a language policy wrote and how well: from `collect` to `update`.

  Attributes:
    prompt: token ids, padded on the left.
    prompt_mask: true = a token of the prompt.
    token: ids that the policy chose; anything where `mask` is false.
    mask: true = chosen by the policy, the token that ended it included.
    present: true = chosen by the policy or written by an environment in
      between, which the policy reads and does not learn to write; the same as
      `mask` where there is none.
    log_prob: of those tokens under the distribution they were drawn from, as
      the sampler computed it, nats.
    ended: whether the response came to its end within the limit.
    item: which item of the task the prompt is.
    group: which prompt of the batch the row answers.
    step: step of the loop, from 0, in which the row was drawn.
    key: data of the key that the row was drawn with.
    reward: one number per row, any unit; anything where `valid` is false.
    valid: true = counts; false where there is no verdict.
    metric: numbers to report by name, one per row, averaged over valid rows.
    extra: arrays by name that the data gave besides the prompt, or the judge
      found in what was written, rows first.
  """

  prompt: Int[Array, "row prompt"]
  prompt_mask: Bool[Array, "row prompt"]
  token: Int[Array, "row time"]
  mask: Bool[Array, "row time"]
  present: Bool[Array, "row time"]
  log_prob: Float[Array, "row time"]
  ended: Bool[Array, "row"]
  item: Int[Array, "row"]
  group: Int[Array, "row"]
  step: Int[Array, "row"]
  key: UInt32[Array, "row words"]
  reward: Float[Array, "row"]
  valid: Bool[Array, "row"]
  metric: dict[str, Float[Array, "row"]]
  extra: dict[str, Array]
