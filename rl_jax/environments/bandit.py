"""Tabular softmax policies whose optimal action is rarely drawn.

Small enough that every number of a policy can be looked at, and exact: the
policy gradient of a softmax table needs no network.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, NamedTuple

import jax
import jax.numpy as jnp

from rl_jax.advantages.groups import group_relative
from rl_jax.advantages.relative_sign import weighted_relative

if TYPE_CHECKING:
  from jaxtyping import Array, Float, Int, Key

__all__ = [
  "Course",
  "TwoStageBandit",
  "expected_logit_update",
  "softmax_policy_step",
]


def softmax_policy_step(
  logit: Float[Array, "*batch action"],
  action: Int[Array, "*batch"],
  advantage: Float[Array, "*batch"],
  *,
  rate: float,
) -> Float[Array, "*batch action"]:
  r"""One step of the policy gradient of a softmax, exactly.

      z'_v = z_v + rate A (1[v = a] - pi_v),   pi = softmax(z)

  An action that was good takes from the others in proportion to their own
  mass; the mass of one that was bad goes to the others in the same
  proportion, so that a rare one may fall where a dominant one exists.

  Args:
    logit: z.
    action: a, which was drawn.
    advantage: A.
    rate: of the step.

  Returns:
    z', the same as descending -A log pi_a.

  arXiv:2510.04028, section 3.

  >>> softmax_policy_step(
  ...   jnp.zeros(2), jnp.array(0), jnp.array(1.0), rate=0.5
  ... ).tolist()
  [0.25, -0.25]
  """
  chosen = jax.nn.one_hot(action, logit.shape[-1])
  slope = chosen - jax.nn.softmax(logit, axis=-1)
  return logit + rate * advantage[..., None] * slope


def expected_logit_update(
  probability: Float[Array, "*batch action"],
  advantage: Float[Array, "*batch action"],
  *,
  rate: float,
) -> Float[Array, "*batch action"]:
  r"""The mean of `softmax_policy_step` over the policy's own draws.

      E[z'_v - z_v] = rate pi_v (A_v - sum_u pi_u A_u)

  The speed of an action is its present mass: one that is seldom drawn hardly
  moves, however good it is.

  Args:
    probability: pi.
    advantage: A_v, the expected advantage of each action.
    rate: of the step.

  Returns:
    The change of each logit; they sum to 0.

  arXiv:2510.04028, theorem 1.

  >>> expected_logit_update(
  ...   jnp.array([0.5, 0.5]), jnp.array([1.0, 0.0]), rate=1.0
  ... ).tolist()
  [0.25, -0.25]
  """
  mean = jnp.sum(probability * advantage, axis=-1, keepdims=True)
  return rate * probability * (advantage - mean)


class Course(NamedTuple):
  """What became of a policy, before the first step and after each.

  Attributes:
    high: mean mass on the good action that is often drawn.
    optimal: mean mass on the best action.
    entropy: of the policy, nats, mean over states.
    solved: share of states whose best action has more than half of the mass.
    reward: expected reward, mean over states.
  """

  high: Float[Array, "time"]
  optimal: Float[Array, "time"]
  entropy: Float[Array, "time"]
  solved: Float[Array, "time"]
  reward: Float[Array, "time"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TwoStageBandit:
  """States with one good action that is likely, and a better one that is not.

  Action 0 is the good one, the last one is optimal, those between are bad.
  Rewards are drawn from {0, 1}.

  Raises:
    ValueError: if there is no state or no bad action, or a chance is none.
  """

  states: int = 256
  """Independent copies, which differ in the logits of their bad actions."""
  low_actions: int = 4
  """How many are bad."""
  high_logit: float = 1.0
  """Of the good action, at the start."""
  optimal_logit: float = -1.0
  """Of the optimal one."""
  low_spread: float = 0.3
  """Standard deviation of the logits of the bad ones, around 0."""
  high_reward: float = 0.5
  """Chance of a reward of the good action."""
  optimal_reward: float = 1.0
  """Chance of the optimal one."""
  low_reward: float = 0.05
  """Chance of the bad ones."""

  def __post_init__(self) -> None:
    if self.states < 1 or self.low_actions < 1:
      raise ValueError(
        f"states = {self.states} and low_actions = {self.low_actions} must be"
        " at least 1"
      )
    chances = (self.high_reward, self.optimal_reward, self.low_reward)
    if not 0 <= min(chances) <= max(chances) <= 1:
      raise ValueError(f"chances must be in [0, 1], got {chances}")

  @property
  def chance(self) -> Float[Array, "action"]:
    """Expected reward of each action."""
    low = [self.low_reward] * self.low_actions
    return jnp.array([self.high_reward, *low, self.optimal_reward])

  def init(self, key: Key[Array, ""]) -> Float[Array, "state action"]:
    """The logits at the start."""
    shape = (self.states, self.low_actions)
    low = self.low_spread * jax.random.normal(key, shape)
    ends = jnp.ones((self.states, 1))
    return jnp.concatenate(
      [self.high_logit * ends, low, self.optimal_logit * ends], axis=-1
    )

  def train(
    self,
    key: Key[Array, ""],
    *,
    steps: int,
    group_size: int,
    rate: float,
    pos_weight: float,
    ddof: int = 1,
    epsilon: float = 1e-6,
  ) -> Course:
    """Policy gradient from groups of draws in every state.

        z' = z + rate mean_i A_i (e_{a_i} - pi)

    Args:
      key: of the start and of all draws.
      steps: how many.
      group_size: draws in each state for one step.
      rate: of the step.
      pos_weight: see `weighted_relative`: 1 is GRPO, 0 has relative
        negatives alone.
      ddof: of the spread of a group, see `group_relative`.
      epsilon: added to it.

    Returns:
      The course, steps + 1 entries of each number.

    Raises:
      ValueError: if there is no step, no group or a negative weight, or see
        the functions named above.
    """
    if steps < 1 or group_size < 2:
      raise ValueError(
        f"steps = {steps} must be at least 1 and group_size = {group_size} at"
        " least 2"
      )
    if not pos_weight >= 0:
      raise ValueError(f"pos_weight must not be negative, got {pos_weight}")
    begin, draws = jax.random.split(key)
    return _course(
      self,
      self.init(begin),
      jax.random.split(draws, steps),
      group_size=group_size,
      rate=rate,
      pos_weight=pos_weight,
      ddof=ddof,
      epsilon=epsilon,
    )


@functools.partial(
  jax.jit, static_argnames=("bandit", "group_size", "ddof", "epsilon")
)
def _course(
  bandit, logit, keys, *, group_size, rate, pos_weight, ddof, epsilon
):
  shape = (bandit.states, group_size)
  group = jnp.repeat(jnp.arange(bandit.states), group_size)

  def look(logit):
    probability = jax.nn.softmax(logit, axis=-1)
    nats = -jnp.sum(probability * jax.nn.log_softmax(logit, axis=-1), axis=-1)
    best = probability[:, -1]
    return Course(
      high=jnp.mean(probability[:, 0]),
      optimal=jnp.mean(best),
      entropy=jnp.mean(nats),
      solved=jnp.mean(best > 0.5),
      reward=jnp.mean(probability @ bandit.chance),
    )

  def step(logit, key):
    which, luck = jax.random.split(key)
    action = jax.random.categorical(which, logit[:, None], shape=shape)
    reward = jax.random.bernoulli(luck, bandit.chance[action]) * 1.0
    relative = group_relative(
      reward.reshape(-1),
      group,
      jnp.ones(group.shape, bool),
      num_groups=bandit.states,
      scale="group",
      ddof=ddof,
      epsilon=epsilon,
    )
    advantage = weighted_relative(relative, pos_weight=pos_weight)
    moved = softmax_policy_step(
      jnp.broadcast_to(logit[:, None], (*shape, logit.shape[-1])),
      action,
      advantage.reshape(shape),
      rate=rate,
    )
    logit = jnp.mean(moved, axis=1)
    return logit, look(logit)

  _, course = jax.lax.scan(step, logit, keys)
  first = look(logit)
  return jax.tree.map(
    lambda start, rest: jnp.concatenate([start[None], rest]), first, course
  )
