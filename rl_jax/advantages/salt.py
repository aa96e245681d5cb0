"""SALT: an advantage for each step of an agent, from a graph of rollouts.

The graph is made on the host, see `rl_jax.rewards.trajectory_graph`; here an
edge is an integer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import jax
import jax.numpy as jnp

from rl_jax.masks import keep, widened

if TYPE_CHECKING:
  from jaxtyping import Array, Bool, Float, Int

__all__ = [
  "StateBaseline",
  "Weighting",
  "salt_step_advantages",
  "visit_mean",
  "visitor_count",
]

Weighting = Literal["trajectory", "occurrence"]
StateBaseline = Literal["none", "node"]


def visit_mean(
  advantage: Float[Array, "row"],
  edge: Int[Array, "row turn"],
  valid: Bool[Array, "row"],
  *,
  num_edges: int,
  weighting: Weighting,
) -> Float[Array, "row turn"]:
  r"""Mean advantage of the trajectories that pass the same place as a step.

      B_ik = sum_{j in S} A_j / |S|,   S = {j: some step of j has id e_ik}

  With weighting "occurrence" a trajectory counts in both sums once for each
  of its steps with that id, so that sum_ik B_ik = sum_ik A_i.

  Args:
    advantage: A_i of each trajectory, any unit. No gradient flows through it.
    edge: e_ik, an id of what the step is (an edge, or a node) in [0,
      num_edges); negative = no such step. Ids of rows that are not to be
      compared differ.
    valid: false for rows that do not count.
    num_edges: how many ids there may be; static. Rows x turns is enough.
    weighting: whether a trajectory counts once or once per visit.

  Returns:
    B_ik in the unit of A, 0 where there is no step or the row does not count,
    NaN where the id is not below `num_edges`.

  Raises:
    ValueError: if `num_edges` < 1 or the weighting is unknown.

  A loop: the first row passes 0 twice, the second once.

  >>> arguments = jnp.array([1.0, -1.0]), jnp.array([[0, 0, 1], [0, 2, -1]])
  >>> valid = jnp.ones(2, bool)
  >>> visit_mean(
  ...   *arguments, valid, num_edges=6, weighting="trajectory"
  ... ).tolist()
  [[0.0, 0.0, 1.0], [0.0, -1.0, 0.0]]
  """
  if weighting not in ("trajectory", "occurrence"):
    raise ValueError(
      f"weighting must be 'trajectory' or 'occurrence', got {weighting!r}"
    )
  there = (edge >= 0) & valid[:, None]
  counted = there if weighting == "occurrence" else there & _first(edge)
  advantage = jax.lax.stop_gradient(keep(widened(advantage), valid))
  each = jnp.broadcast_to(advantage[:, None], edge.shape)
  total = _by_edge(keep(each, counted), edge, num_edges)
  count = _by_edge(counted.astype(each.dtype), edge, num_edges)
  return _at_steps(total / jnp.maximum(count, 1.0), edge, there)


def visitor_count(
  edge: Int[Array, "row turn"], valid: Bool[Array, "row"], *, num_edges: int
) -> Int[Array, "row turn"]:
  """How many trajectories pass the same place as a step, its own included.

      n_ik = |{j: some step of j has id e_ik}|

  Args:
    edge: e_ik in [0, num_edges); negative = no such step.
    valid: false for rows that do not count.
    num_edges: how many ids there may be; static.

  Returns:
    n_ik, 0 where there is no step or the row does not count, -1 where the id
    is not below `num_edges`.

  Raises:
    ValueError: if `num_edges` < 1.

  >>> edge = jnp.array([[0, 0, 1], [0, 2, -1]])
  >>> visitor_count(edge, jnp.ones(2, bool), num_edges=6).tolist()
  [[2, 2, 1], [2, 1, 0]]
  """
  there = (edge >= 0) & valid[:, None]
  once = (there & _first(edge)).astype(jnp.int32)
  return _at_steps(_by_edge(once, edge, num_edges), edge, there)


def salt_step_advantages(
  advantage: Float[Array, "row"],
  edge: Int[Array, "row turn"],
  node: Int[Array, "row turn"],
  valid: Bool[Array, "row"],
  *,
  num_edges: int,
  weighting: Weighting,
  mix: float,
  min_shared: int,
  baseline: StateBaseline,
) -> Float[Array, "row turn"]:
  r"""Advantages of steps: shared ones get the mean of all who take them.

      B_ik = visit_mean of edges where n_ik >= min_shared, else A_i
      B_ik = B_ik - visit_mean of nodes          (only for baseline "node")
      A_ik = mix B_ik + (1 - mix) A_i

  What good and bad trajectories both do is neither, and goes to 0; what only
  one does keeps the number of that one. With no shared edge, or `mix` 0, it
  is A_i everywhere; for a base that is centred within its group, a step that
  all of a group take has 0.

  Args:
    advantage: A_i of each trajectory by any estimator, any unit. No gradient
      flows through it.
    edge: id of each step's edge in [0, num_edges), from
      `rewards.trajectory_graph`; negative = no such step.
    node: id of the state that each step starts from, in the same way; read
      for baseline "node".
    valid: false for rows that do not count.
    num_edges: how many ids there may be; static.
    weighting: see `visit_mean`.
    mix: share of B, in [0, 1].
    min_shared: trajectories that an edge needs to be shared, at least 1. Both
      1 and 2 average all edges: the mean of one is itself.
    baseline: "none" is SALT; "node" also compares with all who were in the
      state, as anchor-state methods do.

  Returns:
    A_ik in the unit of A, 0 where there is no step or the row does not count,
    NaN where an id is not below `num_edges`.

  Raises:
    ValueError: if a hyper-parameter is out of range or unknown.

  SALT, arXiv:2510.20022; the formulas are a reconstruction from its abstract.

  >>> salt_step_advantages(
  ...   jnp.array([1.0, -1.0]),
  ...   jnp.array([[0, 1], [0, 2]]),
  ...   jnp.array([[0, 1], [0, 1]]),
  ...   jnp.ones(2, bool),
  ...   num_edges=4,
  ...   weighting="trajectory",
  ...   mix=1.0,
  ...   min_shared=2,
  ...   baseline="none",
  ... ).tolist()
  [[0.0, 1.0], [0.0, -1.0]]
  """
  if not 0 <= mix <= 1:
    raise ValueError(f"mix must be in [0, 1], got {mix}")
  if min_shared < 1:
    raise ValueError(f"min_shared must be at least 1, got {min_shared}")
  if baseline not in ("none", "node"):
    raise ValueError(f"baseline must be 'none' or 'node', got {baseline!r}")
  options = {"num_edges": num_edges, "weighting": weighting}
  own = jax.lax.stop_gradient(keep(widened(advantage), valid))
  own = keep(
    jnp.broadcast_to(own[:, None], edge.shape), (edge >= 0) & valid[:, None]
  )
  count = visitor_count(edge, valid, num_edges=num_edges)
  merged = visit_mean(advantage, edge, valid, **options)
  # A count of -1 marks an id that is none, whose mean is NaN.
  step = jnp.where((count >= min_shared) | (count < 0), merged, own)
  if baseline == "node":
    step = step - keep(visit_mean(advantage, node, valid, **options), edge >= 0)
  return mix * step + (1 - mix) * own


def _first(edge):
  """Whether no earlier step of the row has the same id."""
  same = edge[:, :, None] == edge[:, None, :]
  turn = jnp.arange(edge.shape[-1])
  return ~jnp.any(same & (turn[:, None] > turn[None])[None], axis=-1)


def _by_edge(value, edge, num_edges):
  if num_edges < 1:
    raise ValueError(f"num_edges must be at least 1, got {num_edges}")
  # A negative index would count from the end; one too large is dropped.
  place = jnp.where(edge < 0, num_edges, edge)
  return jax.ops.segment_sum(value.ravel(), place.ravel(), num_edges)


def _at_steps(value, edge, there):
  """The number of each step's id; NaN, or -1, where the id is none."""
  count = value.shape[0]
  missing = -1 if jnp.issubdtype(value.dtype, jnp.integer) else jnp.nan
  found = jnp.where(edge < count, value[jnp.clip(edge, 0, count - 1)], missing)
  return jnp.where(there, found, 0)
