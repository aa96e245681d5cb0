"""Dynamic sampling: groups that teach nothing wait for others in their place.

The loop keeps its shape: every step samples one batch of prompts, and what is
informative in it is put aside until there is a full batch, which is when an
update is made. What was put aside is part of the state, so a run that is
killed in between resumes exactly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import jax
import jax.numpy as jnp

from rl_jax.advantages import informative_groups
from rl_jax.reduce import Total

if TYPE_CHECKING:
  from collections.abc import Callable

  from jaxtyping import Array, Bool, Int, PyTree

  from rl_jax.training.state import State
  from rl_jax.types import TextRollouts

  type Fresh = tuple[TextRollouts, Any]
  type Learn = Callable[[State, TextRollouts, Any], tuple[State, dict]]

__all__ = ["Refill", "Waiting"]


class Waiting(NamedTuple):
  """Groups put aside.

  Attributes:
    rows: a batch, of which the first `groups` groups are filled.
    groups: how many are.
    rounds: batches sampled since the last update.
  """

  rows: PyTree
  groups: Int[Array, ""]
  rounds: Int[Array, ""]


class Refill(NamedTuple):
  """Filter of groups and their collection.

  Attributes:
    groups: prompts of a batch.
    size: responses to each.
  """

  groups: int
  size: int

  def empty(self, example: Fresh) -> Waiting:
    """Nothing put aside yet.

    Args:
      example: shapes of a batch.
    """
    rows = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), example)
    zero = jnp.zeros((), jnp.int32)
    return Waiting(rows, zero, zero)

  def update(
    self, learn: Learn, state: State, fresh: Fresh
  ) -> tuple[State, dict[str, Total]]:
    """Learns from what waits if that is a full batch now; else does nothing.

    Args:
      learn: (state, rollouts, signals) -> (state, metrics).
      state: `waiting` in its memory was put aside before.
      fresh: rollouts, judged, and their signals.

    Returns:
      The state after, and the metrics: zero of nothing without an update.
    """
    waiting, full = self.add(state.memory["waiting"], fresh)

    def now(state: State) -> tuple[State, dict[str, Total]]:
      return learn(state, *waiting.rows)

    _, shapes = jax.eval_shape(now, state)

    def later(state: State) -> tuple[State, dict[str, Total]]:
      return state, jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

    state, metrics = jax.lax.cond(full, now, later, state)
    memory = dict(state.memory) | {"waiting": self.emptied(waiting, full)}
    return state._replace(memory=memory), metrics | self.metrics(waiting, full)

  def add(
    self, waiting: Waiting, fresh: Fresh
  ) -> tuple[Waiting, Bool[Array, ""]]:
    """Puts the informative groups of a batch behind those that wait.

    Args:
      waiting: put aside before.
      fresh: rollouts, judged, and their signals; the rows of a group stand
        together.

    Returns:
      What waits now, and whether that is a full batch. Groups beyond it are
      left out, as those of DAPO are.
    """
    rollouts = fresh[0]
    kept = informative_groups(
      rollouts.reward,
      rollouts.group,
      rollouts.valid,
      num_groups=self.groups,
    )
    kept = jnp.any(kept.reshape(self.groups, self.size), axis=1)
    place = waiting.groups + jnp.cumsum(kept) - 1
    place = jnp.where(kept, place, self.groups)

    def put(old: jax.Array, new: jax.Array) -> jax.Array:
      shape = (self.groups, self.size, *old.shape[1:])
      both = old.reshape(shape), new.reshape(shape)
      return both[0].at[place].set(both[1], mode="drop").reshape(old.shape)

    rows = jax.tree.map(put, waiting.rows, fresh)
    own = jnp.repeat(jnp.arange(self.groups), self.size)
    rows = rows[0]._replace(group=own), rows[1]
    count = jnp.minimum(waiting.groups + jnp.sum(kept), self.groups)
    count = count.astype(jnp.int32)
    after = Waiting(rows, count, waiting.rounds + 1)
    return after, count == self.groups

  def emptied(self, waiting: Waiting, full: Bool[Array, ""]) -> Waiting:
    """What still waits after an update, if one was made."""
    return waiting._replace(
      groups=jnp.where(full, 0, waiting.groups),
      rounds=jnp.where(full, 0, waiting.rounds),
    )

  def metrics(
    self, waiting: Waiting, full: Bool[Array, ""]
  ) -> dict[str, Total]:
    """Whether there was an update, and what waits for one."""
    one = jnp.ones(())

    def number(value: jax.Array) -> Total:
      return Total(value.astype(jnp.float32), one)

    return {
      "updated": number(full),
      "waiting_groups": number(waiting.groups),
      "rounds": number(waiting.rounds),
    }
