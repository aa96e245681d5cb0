"""Running reward statistics per prompt, kept across batches."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp

from rl_jax.masks import keep, masked_mean

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float, Int

__all__ = [
  "PromptStatistics",
  "init_prompt_statistics",
  "update_prompt_statistics",
]


class PromptStatistics(NamedTuple):
  """The last rewards of every prompt, as a ring buffer.

  Attributes:
    reward: rewards by prompt and slot; slots not yet filled hold 0.
    count: rewards ever seen of each prompt. The next one goes to slot
      count mod slots, and min(count, slots) slots are filled.
  """

  reward: Float[Array, "prompt slot"]
  count: Int[Array, "prompt"]


def init_prompt_statistics(
  *, num_prompts: int, buffer_size: int
) -> PromptStatistics:
  """An empty history for every prompt.

  Args:
    num_prompts: how many prompt ids there are.
    buffer_size: rewards remembered per prompt; 16 or 32 in DDPO.

  Returns:
    The state that `update_prompt_statistics` starts from.

  Raises:
    ValueError: if either number is less than 1.

  >>> init_prompt_statistics(num_prompts=2, buffer_size=3).count.tolist()
  [0, 0]
  """
  if num_prompts < 1 or buffer_size < 1:
    raise ValueError(
      f"num_prompts and buffer_size must be at least 1, got {num_prompts} "
      f"and {buffer_size}"
    )
  return PromptStatistics(
    jnp.zeros((num_prompts, buffer_size), jnp.float32),
    jnp.zeros(num_prompts, jnp.int32),
  )


def update_prompt_statistics(
  state: PromptStatistics,
  reward: Float[Array, "row"],
  prompt: Int[Array, "row"],
  valid: Bool[Array, "row"],
  *,
  min_count: int,
  epsilon: float,
) -> tuple[PromptStatistics, Float[Array, "row"]]:
  r"""Remember a batch's rewards, then standardise them by their history.

      A_i = (r_i - m) / (s + epsilon)

      m, s of the rewards remembered for the prompt of row i, this batch's
      included, if there are min_count of them; else of all valid rewards of
      this batch. Both s are population standard deviations.

  Rows are appended in order; of more rows than slots the last ones stay.

  Args:
    state: the history so far.
    reward: r_i, any unit. No gradient flows through it.
    prompt: which prompt each row answers, in [0, num_prompts).
    valid: false for rows that do not count: they are not remembered and get
      an advantage of 0.
    min_count: how many remembered rewards make a history; 16 in DDPO. At most
      the number of slots.
    epsilon: added to the standard deviation; 1e-6 in DDPO.

  Returns:
    The new history and A_i.

  Raises:
    ValueError: if `min_count` is less than 1 or more than the slots, so that
      a history could never be used, or `epsilon` is negative.

  Black et al. 2023, arXiv:2305.13301 (DDPO), code.

  >>> state = init_prompt_statistics(num_prompts=1, buffer_size=2)
  >>> state, advantage = update_prompt_statistics(
  ...   state,
  ...   jnp.array([1.0, 3.0]),
  ...   jnp.array([0, 0]),
  ...   jnp.ones(2, bool),
  ...   min_count=2,
  ...   epsilon=0.0,
  ... )
  >>> advantage.tolist(), state.count.tolist()
  ([-1.0, 1.0], [2])
  """
  num_prompts, slots = state.reward.shape
  if not 1 <= min_count <= slots:
    raise ValueError(f"min_count must be in [1, {slots}], got {min_count}")
  if not epsilon >= 0:
    raise ValueError(f"epsilon must not be negative, got {epsilon}")
  reward = jax.lax.stop_gradient(keep(reward, valid))
  # Rows that do not count belong to a prompt that does not exist, which
  # scatters drop.
  owner = jnp.where(valid, prompt, num_prompts)
  new = jnp.zeros(num_prompts, jnp.int32).at[owner].add(1, mode="drop")
  place = _place_in_own_prompt(owner)
  survives = valid & (place >= new[prompt] - slots)
  slot = (state.count[prompt] + place) % slots
  history = state.reward.at[jnp.where(survives, prompt, num_prompts), slot].set(
    reward.astype(state.reward.dtype), mode="drop"
  )
  state = PromptStatistics(history, state.count + new)

  filled = jnp.arange(slots)[None] < state.count[:, None]
  own_mean, own_std = (v[prompt] for v in _moments(history, filled))
  batch_mean, batch_std = _moments(reward, valid)
  known = state.count[prompt] >= min_count
  mean = jnp.where(known, own_mean, batch_mean)
  std = jnp.where(known, own_std, batch_std)
  # A spread of exactly zero means that every reward is the mean.
  spread = std + epsilon
  some = valid & (spread > 0)
  advantage = (reward - mean) / jnp.where(some, spread, 1.0)
  return state, jnp.where(some, advantage, 0.0)


def _place_in_own_prompt(owner):
  """How many earlier rows have the same owner."""
  order = jnp.argsort(owner, stable=True)
  ordered = owner[order]
  first = jnp.searchsorted(ordered, ordered, side="left")
  place = jnp.arange(owner.size) - first
  return jnp.zeros_like(order).at[order].set(place.astype(order.dtype))


def _moments(value, mask):
  """Mean and population standard deviation over the last axis."""
  mean = masked_mean(value, mask)
  square = (value - mean[..., None]) ** 2
  return mean, jnp.sqrt(masked_mean(square, mask))
