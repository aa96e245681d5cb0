"""Losses of policy optimisation as the papers say them, for a whole batch.

Advantages in float64 by numpy, losses from all logits, no blocks, no Totals.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from algorithms.language import letters
from algorithms.steps import adam, moved
from experiments import recipes
from rl_jax.algorithms import Scoring
from rl_jax.algorithms.components import Overlong

__all__ = [
  "CASES",
  "Case",
  "begun",
  "expected_update",
  "mean_of_tokens",
  "relative",
]

OPTIMISER = letters.OPTIMISER
# Blocks smaller than anything, so that they cannot be what makes it right.
SCORING = Scoring(chunk_tokens=5, chunk_vocabulary=2)
DAPO = dataclasses.replace(
  recipes.dapo, shaping=(Overlong(soft=1.0, hard=3.0, factor=0.5),)
)


def relative(reward, group, epsilon):
  """(r - mean) / (std + epsilon) within groups; None does not divide."""
  found = np.zeros(len(reward))
  for g in set(group.tolist()):
    own = reward[group == g]
    if len(own) == 1:
      continue  # with nothing to be compared with
    spread = 1.0 if epsilon is None else own.std(ddof=1) + epsilon
    found[group == g] = (own - own.mean()) / spread
  return found


def whitened(value, mask):
  value = np.asarray(value, np.float64)
  counted = value[mask]
  scale = np.sqrt(counted.var(ddof=1) + 1e-8)
  return np.where(mask, (value - counted.mean()) / scale, 0.0)


def to_go(reward, mask):
  """Sum of this and all later rewards of the row, time first to last."""
  kept = np.where(mask, reward, 0.0)
  return np.cumsum(kept[:, ::-1], axis=1)[:, ::-1]


def at_end(reward, mask):
  found = np.zeros(mask.shape)
  found[np.arange(len(mask)), mask.sum(1) - 1] = reward
  return found


def generalized(reward, value, mask, trace):
  """delta_t + trace delta_{t+1} + ..., token by token from the last one."""
  found = np.zeros(mask.shape)
  for row, own in enumerate(mask):
    later, after = 0.0, 0.0
    for t in range(own.sum() - 1, -1, -1):
      delta = reward[row, t] + after - value[row, t]
      later = delta + trace * later
      found[row, t], after = later, value[row, t]
  return found


def clipped(log_ratio, advantage, low, high):
  ratio = jnp.exp(log_ratio)
  return jnp.maximum(
    -advantage * ratio, -advantage * jnp.clip(ratio, 1 - low, 1 + high)
  )


def mean_of_tokens(value, mask):
  return jnp.sum(jnp.where(mask, value, 0.0)) / jnp.sum(mask)


def mean_of_rows(value, mask):
  count = jnp.sum(mask, axis=1)
  rows = jnp.sum(jnp.where(mask, value, 0.0), axis=1) / jnp.maximum(count, 1)
  return jnp.sum(rows) / jnp.sum(count > 0)


class Case:
  """What the papers say of a batch: advantages once, a loss of its rows."""

  def __init__(self, r, old, reference, value):
    self.mask, self.group = np.asarray(r.mask), np.asarray(r.group)
    self.reward = np.asarray(r.reward, np.float64)
    self.old, self.reference, self.value = old, reference, value

  def broadcast(self, number):
    return np.broadcast_to(number[:, None], self.mask.shape)

  def tokens(self, low, high, advantage, mask=None, mean=mean_of_tokens):
    mask = self.mask if mask is None else mask
    a = jnp.asarray(advantage, jnp.float32)

    def loss(log_prob, rows):
      value = clipped(log_prob - self.old[rows], a[rows], low, high)
      return mean(value, mask[rows])

    return loss

  def trl_grpo(self):
    a = self.broadcast(relative(self.reward, self.group, 1e-4))
    return self.tokens(0.2, 0.2, a)

  def dapo(self):
    length = self.mask.sum(1)
    shaped = self.reward - 0.5 * np.clip((length - 1) / 2, 0, 1)
    alive = np.array(
      [np.ptp(self.reward[self.group == g]) > 0 for g in self.group]
    )
    assert not alive.all()
    a = self.broadcast(relative(shaped, self.group, 1e-6))
    return self.tokens(0.2, 0.28, a, mask=self.mask & alive[:, None])

  def dr_grpo(self):
    a = self.broadcast(relative(self.reward, self.group, None))

    def mean(value, mask):
      return jnp.sum(jnp.where(mask, value, 0.0)) / 3000.0 / len(mask)

    return self.tokens(0.2, 0.2, a, mean=mean)

  def grpo(self):
    a = self.broadcast(relative(self.reward, self.group, 1e-6))
    policy = self.tokens(0.2, 0.2, a, mean=mean_of_rows)

    def loss(log_prob, rows):
      gap = self.reference[rows] - log_prob
      kl = mean_of_rows(jnp.exp(gap) - gap - 1, self.mask[rows])
      return policy(log_prob, rows) + 0.04 * kl

    return loss

  def gspo(self):
    a = jnp.asarray(relative(self.reward, self.group, 1e-6), jnp.float32)

    def loss(log_prob, rows):
      mask = self.mask[rows]
      change = jnp.where(mask, log_prob - self.old[rows], 0.0)
      mean = jnp.sum(change, axis=1) / jnp.sum(mask, axis=1)
      return jnp.mean(clipped(mean, a[rows], 3e-4, 4e-4))

    return loss

  def reinforce_plus_plus(self):
    nats = np.asarray(self.old - self.reference, np.float64)
    a = to_go(at_end(self.reward, self.mask) - 0.01 * nats, self.mask)
    return self.tokens(0.2, 0.2, whitened(a, self.mask))

  def ppo(self):
    nats = np.asarray(self.old - self.reference, np.float64)
    reward = at_end(self.reward, self.mask) - 0.05 * nats
    a = generalized(reward, np.asarray(self.value), self.mask, 0.95)
    self.target = np.where(self.mask, a + np.asarray(self.value), 0.0)
    return self.tokens(0.2, 0.2, whitened(a, self.mask))


CASES = {
  "trl_grpo": {},
  "dapo": {"recipe": DAPO},
  "dr_grpo": {},
  "gspo": {},
  "grpo": {"reference": True},
  "reinforce_plus_plus": {"reference": True},
  "ppo": {
    "reference": True,
    "critic": dataclasses.replace(
      letters.CRITIC, model=letters.ScalarHead(body=letters.BIGRAM, start=0.25)
    ),
  },
}


def begun(name, model=letters.BIGRAM, **changes):
  """A program whose reference and critic are not where the policy is."""
  settings = {"recipe": getattr(recipes, name), "scoring": SCORING}
  settings |= CASES[name] | changes
  experiment = letters.experiment(
    dataclasses.replace(letters.GRPO, **settings), model=model
  )
  made = letters.Begun(experiment)
  memory = dict(made.state.memory)
  if "reference" in memory:
    memory["reference"] = moved(made.state.params, 0.3, seed=1)
  if "critic" in memory:
    critic = memory["critic"]
    memory["critic"] = critic | {"params": moved(critic["params"], 0.3, 2)}
  made.state = made.state._replace(memory=memory)
  rollouts = made.collect()
  # One group has nothing to compare.
  dead = rollouts.group == 1
  reward = jnp.where(dead, 0.5, rollouts.reward)
  return made, rollouts._replace(reward=reward)


def values(model, params, r):
  """The number at the column before each token of the response."""
  token = jnp.concatenate([r.prompt, r.token], axis=1)
  mask = jnp.concatenate([r.prompt_mask, r.mask], axis=1).astype(jnp.int32)
  h = model.body.hidden(params["body"], token, mask)
  v = h @ params["head"]["weight"] + params["head"]["bias"]
  return v[:, r.prompt.shape[1] - 1 : -1]


def expected_update(name, made, rollouts, batches):
  """Parameters after one gradient for each of some lists of rows."""
  model, memory = made.experiment.model, made.state.memory

  @jax.jit
  def log_prob(params):
    return letters.full_log_prob(model, params, rollouts)

  reference = value = critic = None
  if "reference" in memory:
    reference = log_prob(memory["reference"])
  if "critic" in memory:
    head = made.experiment.algorithm.critic.model
    critic = memory["critic"]["params"]
    value = values(head, critic, rollouts)
  case = Case(rollouts, log_prob(made.state.params), reference, value)
  loss = getattr(case, name)()

  def gradient(rows):
    return jax.jit(jax.grad(lambda params: loss(log_prob(params)[rows], rows)))

  policy = adam(made.state.params, map(gradient, batches), OPTIMISER)
  if critic is None:
    return policy, None

  def critic_loss(params, rows):
    v, old = values(head, params, rollouts)[rows], value[rows]
    target = jnp.asarray(case.target, jnp.float32)[rows]
    near = jnp.clip(v, old - 0.2, old + 0.2)
    error = jnp.maximum((v - target) ** 2, (near - target) ** 2) / 2
    return 0.1 * mean_of_tokens(error, rollouts.mask[rows])

  slopes = [
    jax.jit(jax.grad(lambda params, rows=rows: critic_loss(params, rows)))
    for rows in batches
  ]
  return policy, adam(critic, slopes, OPTIMISER)
