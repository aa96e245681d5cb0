"""A maze with key and door for a tabular policy, and SALT's arms there.

The world is `KeyDoor`, enumerated once so that episodes are rolled out by
looking up a table; what is learnt is a table of logits by what is seen.
"""

from __future__ import annotations

import collections
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from experiments.advantages.salt_parts import Walks
from rl_jax.advantages import (
  group_relative,
  leave_one_out,
  salt_step_advantages,
  visitor_count,
)
from rl_jax.advantages.salt import Weighting
from rl_jax.environments.key_door import KeyDoor
from rl_jax.losses import clipped_policy_loss
from rl_jax.reduce import over_tokens

__all__ = [
  "ACTIONS",
  "ARMS",
  "GROUP",
  "MAZES",
  "OPEN",
  "ROWS",
  "TASK",
  "Arm",
  "Course",
  "Walked",
  "World",
  "advantages",
  "base_of",
  "edges",
  "enumerated",
  "gradient",
  "knowing_the_rules",
  "learnt",
  "numbered",
  "rolled",
  "seen_by",
]

ACTIONS = "nsewu"
MAZES, SIGNS, GROUP, TURNS = 12, 6, 8, 12
# A state is a cell, with or without the key; and there is the open door.
OPEN = 50
ROWS, NUM_EDGES = MAZES * GROUP, MAZES * (OPEN + 1) * len(ACTIONS)
TASK = KeyDoor(rows=1, length=MAZES, style="letters")


class World(NamedTuple):
  """`TASK` by numbers.

  Attributes:
    next: state that an action leads to; a state that cannot be reached leads
      to itself.
    start: first state.
    sign: number of the sides of key and door, which the prompt says.
    corridor: whether a state is one of the four forced steps.
  """

  next: jax.Array  # [maze state action]
  start: jax.Array  # [maze]
  sign: jax.Array  # [maze]
  corridor: jax.Array  # [maze state]


class Walked(NamedTuple):
  """Episodes of one batch.

  Attributes:
    maze: which, of each row; groups are mazes.
    state: at each turn.
    action: taken there.
    mask: false after the door is open.
    reward: 1 if it was opened.
  """

  maze: jax.Array  # [row]
  state: jax.Array  # [row turn]
  action: jax.Array  # [row turn]
  mask: jax.Array  # [row turn]
  reward: jax.Array  # [row]


class Arm(NamedTuple):
  """An estimator.

  Attributes:
    compared: what compares episodes.
    same: which steps are the same, see `edges`; None without SALT.
    weighting: see `salt_step_advantages`.
  """

  compared: Callable[..., jax.Array]
  same: str | None = None
  weighting: Weighting = "trajectory"


class Course(NamedTuple):
  """A run, by update.

  Attributes:
    success: share of episodes that open the door.
    common_advantage: mean absolute advantage of corridor steps that all
      episodes of a maze take; 0 where there are none.
    common: share of corridor steps that are such.
    table: logits before the update.
  """

  success: jax.Array
  common_advantage: jax.Array
  common: jax.Array
  table: jax.Array


_GRPO = functools.partial(group_relative, scale="group", ddof=1, epsilon=1e-6)
ARMS = {
  "grpo": Arm(_GRPO),
  "rloo": Arm(leave_one_out),
  "salt+grpo": Arm(_GRPO, "edge"),
  "salt+rloo": Arm(leave_one_out, "edge"),
  "salt+grpo tree": Arm(_GRPO, "tree"),
  "salt+grpo occurrence": Arm(_GRPO, "edge", "occurrence"),
}


def numbered(seen: str) -> int:
  """The state of an observation in letters, such as "c-."."""
  return 2 * (ord(seen[0]) - ord("a")) + (seen[1] == "+")


def enumerated() -> World:
  """All states of all mazes, found by asking the environment.

  Returns:
    Its table.
  """
  rows = TASK.source()[np.arange(MAZES)]
  prompts = [str(prompt) for prompt in rows["prompt"]]
  signs = sorted({prompt[:2] for prompt in prompts})
  start = [numbered(prompt[2:]) for prompt in prompts]
  following = np.broadcast_to(
    np.arange(OPEN + 1)[:, None], (MAZES, OPEN + 1, len(ACTIONS))
  ).copy()
  corridor = np.zeros((MAZES, OPEN + 1), bool)

  def after(item: int, path: str) -> int:
    seen = TASK.observe(item, path)
    return OPEN if seen.ended else numbered(seen.text)

  for item in range(MAZES):
    paths, queue = {start[item]: ""}, collections.deque([start[item]])
    while queue:
      state = queue.popleft()
      for number, action in enumerate(ACTIONS):
        path = paths[state] + action
        following[item, state, number] = new = after(item, path)
        if new not in paths and new != OPEN:
          paths[new] = path
          queue.append(new)
    way = str(rows["reference"][item])
    corridor[item, [after(item, way[:turn]) for turn in range(4)]] = True
  sign = np.array([signs.index(prompt[:2]) for prompt in prompts])
  return World(*map(jnp.asarray, (following, start, sign, corridor)))


def knowing_the_rules(walks: int = 2048) -> jax.Array:
  """Logits that imitate `Walks`, who cannot read the sign: log counts.

  Args:
    walks: episodes to count in.

  Returns:
    The table, the same for every sign; see `seen_by`.
  """
  walked = Walks(rows=1, length=walks).source()[np.arange(walks)]
  count = np.ones((OPEN, len(ACTIONS)), np.float32)
  for prompt, text in zip(walked["prompt"], walked["reference"], strict=True):
    # What is seen, in three letters, and the action, in turns.
    turns = prompt[-3:] + text
    for first in range(0, len(turns), 4):
      action = ACTIONS.index(turns[first + 3])
      count[numbered(turns[first : first + 3]), action] += 1
  return jnp.tile(jnp.log(count), (SIGNS, 1))


def seen_by(world: World, maze: jax.Array, state: jax.Array) -> jax.Array:
  """Row of the policy's table: what is seen, and the sign of the maze."""
  # Nothing is done at an open door.
  return world.sign[maze] * OPEN + jnp.minimum(state, OPEN - 1)


def rolled(world: World, table: jax.Array, key: jax.Array) -> Walked:
  """Eight episodes of each maze.

  Args:
    world: the mazes.
    table: logits of the policy.
    key: of all that is random.

  Returns:
    The episodes.
  """
  maze = jnp.repeat(jnp.arange(MAZES), GROUP)

  def turn(state, key):
    action = jax.random.categorical(key, table[seen_by(world, maze, state)])
    return world.next[maze, state, action], (state, action)

  last, (state, action) = jax.lax.scan(
    turn, world.start[maze], jax.random.split(key, TURNS)
  )
  reward = (last == OPEN).astype(jnp.float32)
  return Walked(maze, state.T, action.T, state.T != OPEN, reward)


def edges(walked: Walked, same: str) -> jax.Array:
  """Which steps are the same: the graph of the episodes, by numbers.

  The world is deterministic. A state and an action fix the next state, and
  all actions so far fix all that was seen.

  Args:
    walked: the episodes.
    same: "edge" for equal observation, action and next observation, "tree"
      for all that came before, too.

  Returns:
    An id for each step, -1 where there is none.

  Raises:
    ValueError: if `same` is neither.
  """
  if same == "edge":
    place = walked.maze[:, None] * (OPEN + 1) + walked.state
    return jnp.where(walked.mask, place * len(ACTIONS) + walked.action, -1)
  if same != "tree":
    raise ValueError(f"same must be 'edge' or 'tree', got {same!r}")
  # The id is the place of the first of its group that began in the same way.
  action = walked.action.reshape(-1, GROUP, TURNS)
  alike = jnp.cumprod(action[:, :, None] == action[:, None], axis=-1)
  first = jnp.argmax(alike, axis=2).reshape(-1, TURNS)
  first += walked.maze[:, None] * GROUP
  return jnp.where(walked.mask, first * TURNS + jnp.arange(TURNS)[None], -1)


def advantages(arm: str, walked: Walked) -> jax.Array:
  """What an arm gives to each step.

  Args:
    arm: which of `ARMS`.
    walked: the episodes.

  Returns:
    A number for each turn.
  """
  compared, same, weighting = ARMS[arm]
  valid = jnp.ones(ROWS, bool)
  own = compared(walked.reward, walked.maze, valid, num_groups=MAZES)
  if same is None:
    return jnp.where(walked.mask, own[:, None], 0.0)
  edge = edges(walked, same)
  return salt_step_advantages(
    own,
    edge,
    edge,  # nodes are read for another baseline alone
    valid,
    num_edges=NUM_EDGES,
    weighting=weighting,
    mix=1.0,
    min_shared=2,
    baseline="none",
  )


def gradient(
  arm: str, world: World, table: jax.Array, walked: Walked
) -> tuple[jax.Array, jax.Array]:
  """Of the clipped loss, on policy, in the logits.

  Args:
    arm: which of `ARMS`.
    world: the mazes.
    table: logits of the policy.
    walked: its episodes.

  Returns:
    The gradient, and the advantages that made it.
  """
  advantage = advantages(arm, walked)
  seen = seen_by(world, walked.maze[:, None], walked.state)

  def loss(table):
    log_prob = jnp.take_along_axis(
      jax.nn.log_softmax(table)[seen], walked.action[..., None], axis=-1
    )[..., 0]
    each = clipped_policy_loss(
      log_prob,
      jax.lax.stop_gradient(log_prob),
      advantage,
      walked.mask,
      clip_low=0.2,
      clip_high=0.2,
    )
    return over_tokens(each, walked.mask).mean()

  return jax.grad(loss)(table), advantage


@functools.partial(jax.jit, static_argnames=("arm", "updates"))
def learnt(
  arm: str,
  world: World,
  start: jax.Array,
  rate: Any,
  seed: Any,
  *,
  updates: int,
) -> Course:
  """Runs of one arm; those of a seed begin with the same random numbers.

  Args:
    arm: which of `ARMS`.
    world: the mazes.
    start: logits to begin with.
    rate: of gradient descent.
    seed: of each run.
    updates: how many.

  Returns:
    What happened, by seed.
  """

  def update(table, key):
    walked = rolled(world, table, key)
    slope, advantage = gradient(arm, world, table, walked)
    edge = edges(walked, ARMS[arm].same or "edge")
    count = visitor_count(edge, jnp.ones(ROWS, bool), num_edges=NUM_EDGES)
    forced = walked.mask & world.corridor[walked.maze[:, None], walked.state]
    common = forced & (count == GROUP)
    found = Course(
      jnp.mean(walked.reward),
      over_tokens(jnp.abs(advantage), common).mean(),
      over_tokens(common * 1.0, forced).mean(),
      table,
    )
    return table - rate * slope, found

  def one(seed):
    keys = jax.random.split(jax.random.key(seed), updates)
    return jax.lax.scan(update, start, keys)[1]

  return jax.vmap(one)(seed)


def base_of(arm: str) -> str:
  """The arm that SALT is on top of, or the arm itself."""
  return arm.split()[0].removeprefix("salt+")
