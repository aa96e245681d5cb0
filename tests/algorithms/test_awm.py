"""Advantage weighted matching against an update written from its paper."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from algorithms.steps import adam, close, first, moved, program
from rl_jax.algorithms import SlowCopy
from rl_jax.training.state import step_key
from training import tiny

pytestmark = pytest.mark.slow

OPTIMISER = dataclasses.replace(
  tiny.OPTIMISER, epsilon=1e-3, weight_decay=0.1, clip_norm=0.05
)
FULL = dataclasses.replace(
  tiny.AWM,
  optimiser=OPTIMISER,
  base_weight=0.3,
  slow_weight=0.7,
  advantage_maximum=0.5,
)


def with_algorithm(**changes):
  return tiny.experiment(algorithm=dataclasses.replace(FULL, **changes))


def advantages(batch, *, clip, maximum):
  """Group mean, standard deviation over everything, clipped and rescaled."""
  reward = np.asarray(batch.reward, np.float64)
  group = np.asarray(batch.group)
  centred = np.array(
    [r - reward[group == g].mean() for r, g in zip(reward, group, strict=True)]
  )
  value = centred / (reward.std() + 1e-4)
  return np.clip(value, -clip, clip) * (maximum / clip)


def draws(state, update, rows, experiment):
  """Times and noise of one update; both come of the key of the step."""
  key = step_key(state, 1 + update)
  algorithm = experiment.algorithm
  t = algorithm.times(
    jax.random.fold_in(key, 0), algorithm.sampler.schedule, rows
  )
  keys = jax.random.split(jax.random.fold_in(key, 1), rows)
  shape = (t.shape[1], *experiment.model.event_shape)
  return t, jax.vmap(lambda k: jax.random.normal(k, shape))(keys)


def paper_loss(params, experiment, state, batch, update, behaviour):
  """Equations of sections 4 to 6 of the specification, one by one."""
  model, algorithm = experiment.model, experiment.algorithm
  t, noise = draws(state, update, batch.reward.shape[0], experiment)
  x_0 = batch.sample[:, None]
  time = t[..., None]
  x_t = (1 - time) * x_0 + time * noise

  def log_prob(weights):
    v = model.apply(weights, x_t, t, batch.condition)
    error = jnp.mean((v - (noise - x_0)) ** 2, axis=-1)
    p = algorithm.power
    return v, -(t / p) * ((error + 1e-10) ** p - 1e-10**p)

  v, now = log_prob(params)
  _, old = log_prob(behaviour)
  ratio = jnp.exp(now - jax.lax.stop_gradient(old))
  advantage = jnp.asarray(
    advantages(
      batch,
      clip=algorithm.advantage_clip,
      maximum=algorithm.advantage_maximum,
    ),
    jnp.float32,
  )[:, None]
  e = algorithm.clip_range
  policy = jnp.maximum(
    -advantage * ratio, -advantage * jnp.clip(ratio, 1 - e, 1 + e)
  )

  def distance(name):
    other = model.apply(state.memory[name], x_t, t, batch.condition)
    return jnp.mean((v - other) ** 2)

  return (
    jnp.mean(policy)
    + algorithm.base_weight * distance("base")
    + algorithm.slow_weight * distance("slow")
  )


@pytest.mark.parametrize("micro_batches", [1, 4])
@pytest.mark.parametrize(
  ("updates", "behaviour"), [(1, "current"), (2, "current"), (2, "slow")]
)
def test_an_update_is_that_of_the_paper(updates, behaviour, micro_batches):
  experiment = with_algorithm(
    updates=updates, behaviour=behaviour, micro_batches=micro_batches
  )
  parts, state, batch = first(experiment)
  # Away from the base and the slow copy, so that both distances pull.
  memory = dict(state.memory)
  memory["base"] = moved(state.params, seed=1)
  memory["slow"] = moved(state.params, seed=2)
  state = state._replace(memory=memory)
  new, metrics = jax.jit(parts.update)(state, parts.frozen, batch)

  acting = memory["slow"] if behaviour == "slow" else state.params
  losses = [
    lambda params, i=i: paper_loss(params, experiment, state, batch, i, acting)
    for i in range(updates)
  ]
  expected = adam(state.params, map(jax.grad, losses), OPTIMISER)
  close(new.params, expected)
  if updates == 1:
    np.testing.assert_allclose(
      metrics["loss"].mean(), losses[0](state.params), rtol=1e-4
    )
  # Both averages count the optimiser steps that were taken.
  slow, average = min(0.3, 0.001 * updates), (1 + updates) / (10 + updates)
  for name, decay in (("slow", slow), ("average", average)):
    mixed = jax.tree.map(
      lambda old, now, d=decay: d * old + (1 - d) * now,
      memory[name],
      expected,
    )
    close(new.memory[name], mixed)
  close(new.memory["base"], memory["base"], rtol=0, atol=0)
  assert int(new.step) == 1


def test_both_ratio_levels_have_one_gradient_on_policy():
  found = []
  for level in ("element", "sample"):
    parts, state, batch = first(with_algorithm(ratio_level=level))
    found.append(jax.jit(parts.update)(state, parts.frozen, batch)[0].params)
  close(*found, rtol=1e-5)


def test_loss_of_the_first_step_is_minus_the_mean_advantage():
  parts, state, batch = first(with_algorithm())
  _, metrics = jax.jit(parts.update)(state, parts.frozen, batch)
  assert metrics["first_ratio"].mean().item() == 1.0
  assert metrics["loss/kl_base"].mean().item() == 0.0
  assert metrics["loss/kl_slow"].mean().item() == 0.0
  expected = -advantages(batch, clip=5.0, maximum=0.5).mean()
  np.testing.assert_allclose(metrics["loss/policy"].mean(), expected, atol=1e-6)


CALLS = []


@dataclasses.dataclass(frozen=True, kw_only=True)
class Counted(tiny.Field):
  """A model that says how often it is asked."""

  def apply(self, params, x, t, condition):
    CALLS.append(x.shape)
    return super().apply(params, x, t, condition)


def forward_passes(algorithm):
  experiment = tiny.experiment(algorithm=algorithm, model=Counted())
  parts = program(experiment)
  state = jax.eval_shape(parts.init, jax.random.key(0), None)
  items = {"condition": jax.ShapeDtypeStruct((4,), jnp.int32)}
  batch = jax.eval_shape(parts.collect, state, parts.frozen, items)
  CALLS.clear()
  jax.make_jaxpr(parts.update)(state, parts.frozen, batch)
  return len(CALLS), set(state.memory)


@pytest.mark.parametrize(
  ("changes", "networks", "kept"),
  [
    ({}, 1, set()),
    ({"base_weight": 0.1}, 2, {"base"}),
    ({"slow_weight": 0.1}, 2, {"slow"}),
    ({"base_weight": 0.1, "slow_weight": 0.1}, 3, {"base", "slow"}),
    ({"behaviour": "slow"}, 2, {"slow"}),
    ({"behaviour": "slow", "slow_weight": 0.1}, 2, {"slow"}),
    ({"average_maximum": 0.9}, 1, {"average"}),
    ({"updates": 2}, 2, set()),
  ],
)
def test_what_has_no_weight_costs_no_pass_and_no_memory(
  changes, networks, kept
):
  nothing = {"base_weight": 0.0, "slow_weight": 0.0, "average_maximum": None}
  plain = dataclasses.replace(tiny.AWM, **nothing)
  once, _ = forward_passes(plain)
  calls, memory = forward_passes(dataclasses.replace(plain, **changes))
  assert calls == networks * once
  assert memory == kept | {"advantage"}


def test_the_slow_copy_acts_in_the_off_policy_variant():
  experiment = with_algorithm(behaviour="slow")
  parts, state, batch = first(experiment)
  other = moved(state.params)
  memory = dict(state.memory) | {"slow": other}
  rows = {"condition": np.asarray(batch.condition[::4])}
  acted = parts.collect(state._replace(memory=memory), parts.frozen, rows)
  swapped = parts.collect(state._replace(params=other), parts.frozen, rows)
  assert not np.allclose(acted.sample, batch.sample)
  np.testing.assert_allclose(swapped.sample, batch.sample, rtol=1e-5)


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"updates": 0}, "updates = 0"),
    ({"micro_batches": 0}, "micro_batches = 0"),
    ({"base_weight": -0.5}, "base -0.5"),
    ({"slow_weight": -0.5}, "slow -0.5"),
  ],
)
def test_values_that_cannot_be(changes, message):
  with pytest.raises(ValueError, match=message):
    with_algorithm(**changes)


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"group_size": 1}, "group_size = 1: a group of one"),
    ({"micro_batches": 3}, "4 prompts x 4 rows = 16.*3 micro-batches"),
    (
      {"times": dataclasses.replace(tiny.TIMES, count=4)},
      "4 training times asked, but 4 steps.*only 3",
    ),
  ],
)
def test_values_that_do_not_fit_the_experiment(changes, message):
  """Refused when the program is built, before anything is compiled."""
  with pytest.raises(ValueError, match=message):
    program(with_algorithm(**changes))


def test_an_experiment_without_a_reward_is_refused():
  with pytest.raises(ValueError, match="tiny: an online algorithm needs a"):
    program(tiny.experiment(algorithm=FULL, reward=None))


def test_a_constant_slow_copy():
  algorithm = {"slow": SlowCopy(slope=float("inf"), maximum=0.25)}
  parts, state, batch = first(with_algorithm(**algorithm))
  new, _ = jax.jit(parts.update)(state, parts.frozen, batch)
  expected = jax.tree.map(
    lambda old, now: 0.25 * old + 0.75 * now, state.params, new.params
  )
  close(new.memory["slow"], expected)
