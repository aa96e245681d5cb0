"""Flow-GRPO against an update written from its paper; DDPO's history."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from algorithms.steps import adam, close, first, moved, program
from rl_jax import sampling
from rl_jax.algorithms import Average, PromptStatistics
from rl_jax.training.state import step_key
from training import tiny

pytestmark = pytest.mark.slow

FULL = dataclasses.replace(
  tiny.GRPO,
  optimiser=dataclasses.replace(tiny.OPTIMISER, epsilon=1e-3),
  base_weight=0.3,
  clip_range=1e-3,
)
ALL_PROMPTS = tiny.Prompts(rows=6, shuffle=False)
HISTORY = dataclasses.replace(
  tiny.GRPO, advantage=PromptStatistics(buffer_size=6, min_count=5), updates=1
)


def with_algorithm(**changes):
  return tiny.experiment(algorithm=dataclasses.replace(FULL, **changes))


def advantages(batch, clip):
  reward = np.asarray(batch.reward, np.float64)
  group = np.asarray(batch.group)
  centred = [
    r - reward[group == g].mean() for r, g in zip(reward, group, strict=True)
  ]
  return np.clip(np.array(centred) / (reward.std() + 1e-4), -clip, clip)


def paper_loss(params, experiment, state, batch, advantage, rows):
  """Equations 4 to 6 of Flow-GRPO, one step of the chain after another."""
  model, algorithm = experiment.model, experiment.algorithm
  schedule = algorithm.sampler.schedule
  a, trained = algorithm.sampler.noise_level, int(4 * algorithm.fraction)
  losses, distances = [], []
  for k in range(trained):
    t, dt = float(schedule[k]), float(schedule[k] - schedule[k + 1])
    # At pure noise the sampler takes the next time in 1 - t.
    sigma = a * math.sqrt(t / (1 - (float(schedule[1]) if k == 0 else t)))
    x, x_next = batch.trajectory.x[rows, k], batch.trajectory.x[rows, k + 1]

    def mean(weights, x=x, t=t, dt=dt, sigma=sigma):
      time = jnp.full(x.shape[:1], t)
      v = model.apply(weights, x, time, batch.condition[rows])
      drift = sigma**2 / (2 * t)
      return x * (1 - drift * dt) - v * (1 + drift * (1 - t)) * dt

    def log_prob(mu, x_next=x_next, sigma=sigma, dt=dt):
      variance = sigma**2 * dt
      square = (x_next - mu) ** 2 / (2 * variance)
      return -jnp.mean(square + 0.5 * math.log(2 * math.pi * variance), axis=-1)

    mu = mean(params)
    old = log_prob(mean(state.params))
    ratio = jnp.exp(log_prob(mu) - jax.lax.stop_gradient(old))
    e = algorithm.clip_range
    losses.append(
      jnp.maximum(
        -advantage[rows] * ratio,
        -advantage[rows] * jnp.clip(ratio, 1 - e, 1 + e),
      )
    )
    spread = sigma**2 * (dt if algorithm.kl_normalisation == "exact" else 1.0)
    gap = (mu - mean(state.memory["base"])) ** 2
    distances.append(jnp.mean(gap, axis=-1) / (2 * spread))
  return jnp.mean(jnp.stack(losses)) + algorithm.base_weight * jnp.mean(
    jnp.stack(distances)
  )


@pytest.mark.parametrize(
  ("kl", "fraction", "micro_batches"),
  [("reference", 0.99, 1), ("exact", 1.0, 4)],
)
def test_two_updates_are_those_of_the_paper(kl, fraction, micro_batches):
  experiment = with_algorithm(
    kl_normalisation=kl, fraction=fraction, micro_batches=micro_batches
  )
  parts, state, batch = first(experiment)
  memory = dict(state.memory) | {"base": moved(state.params)}
  state = state._replace(memory=memory)
  new, metrics = jax.jit(parts.update)(state, parts.frozen, batch)

  advantage = jnp.asarray(advantages(batch, clip=5.0), jnp.float32)
  order = np.asarray(jax.random.permutation(step_key(state, 1), 16))
  losses = [
    lambda params, rows=order[part::2]: paper_loss(
      params, experiment, state, batch, advantage, rows
    )
    for part in range(2)
  ]
  expected = adam(
    state.params, map(jax.grad, losses), experiment.algorithm.optimiser
  )
  close(new.params, expected, rtol=1e-3, atol=1e-5)
  np.testing.assert_allclose(metrics["first_ratio"].mean(), 1.0, atol=1e-5)


def test_the_history_of_a_prompt_outlives_the_step():
  """Two batches of four rewards into six slots: the oldest two are gone."""
  experiment = tiny.experiment(algorithm=HISTORY, data=ALL_PROMPTS)
  parts, state, batch = first(experiment)
  assert state.memory["advantage"].count.tolist() == [0] * 6
  update, collect = jax.jit(parts.update), jax.jit(parts.collect)
  one, metrics = update(state, parts.frozen, batch)
  assert one.memory["advantage"].count.tolist() == [4] * 6
  again = collect(one, parts.frozen, {"condition": batch.condition[::4]})
  two, later = update(one, parts.frozen, again)
  history = two.memory["advantage"]
  assert history.count.tolist() == [8] * 6
  old = np.asarray(batch.reward).reshape(6, 4)
  new = np.asarray(again.reward).reshape(6, 4)
  for mine, before, now in zip(history.reward, old, new, strict=True):
    kept = sorted([*before[2:], *now])
    np.testing.assert_allclose(sorted(mine.tolist()), kept, rtol=1e-6)
  assert metrics["absolute_advantage"].mean() > 0
  assert later["absolute_advantage"].mean() > 0


@pytest.mark.parametrize(
  "data",
  [
    tiny.Prompts(rows=6, shuffle=True),
    tiny.Prompts(rows=3, shuffle=False),
  ],
)
def test_a_history_needs_the_same_prompts_in_every_batch(data):
  with pytest.raises(ValueError, match=r"6 prompts, rows = \d, shuffle = "):
    program(tiny.experiment(algorithm=HISTORY, data=data))


CALLS = []


@dataclasses.dataclass(frozen=True, kw_only=True)
class Counted(tiny.Field):
  def apply(self, params, x, t, condition):
    CALLS.append(x.shape)
    return super().apply(params, x, t, condition)


def forward_passes(algorithm):
  parts = program(tiny.experiment(algorithm=algorithm, model=Counted()))
  state = jax.eval_shape(parts.init, jax.random.key(0), None)
  items = {"condition": jax.ShapeDtypeStruct((4,), jnp.int32)}
  batch = jax.eval_shape(parts.collect, state, parts.frozen, items)
  CALLS.clear()
  jax.make_jaxpr(parts.update)(state, parts.frozen, batch)
  return len(CALLS), set(state.memory)


def test_what_has_no_weight_costs_no_pass_and_no_memory():
  once, memory = forward_passes(tiny.GRPO)
  assert memory == {"advantage"}
  twice, memory = forward_passes(FULL)
  assert (twice, memory) == (2 * once, {"advantage", "base"})
  averaged = dataclasses.replace(tiny.GRPO, average=Average(maximum=0.5))
  again, memory = forward_passes(averaged)
  assert (again, memory) == (once, {"advantage", "average"})


def test_the_average_moves_when_it_is_due():
  """Every second step; two updates a step, so n = 4: decay 5/14."""
  parts, state, batch = first(
    with_algorithm(average=Average(maximum=0.9, every=2))
  )
  update = jax.jit(parts.update)
  one, _ = update(state, parts.frozen, batch)
  close(one.memory["average"], state.params, rtol=0, atol=0)
  two, _ = update(one, parts.frozen, batch)
  decay = 5 / 14
  close(
    two.memory["average"],
    jax.tree.map(
      lambda old, now: decay * old + (1 - decay) * now,
      state.params,
      two.params,
    ),
  )


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"fraction": 0.0}, r"fraction must be in \(0, 1\], got 0.0"),
    ({"fraction": 1.5}, r"fraction must be in \(0, 1\], got 1.5"),
    ({"updates": 0}, "updates = 0"),
    ({"micro_batches": 0}, "micro_batches = 0"),
    ({"base_weight": -0.1}, "base_weight must not be negative, got -0.1"),
  ],
)
def test_values_that_cannot_be(changes, message):
  with pytest.raises(ValueError, match=message):
    with_algorithm(**changes)


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"group_size": 1, "updates": 1}, "group_size = 1: a group of one"),
    ({"updates": 3}, "4 prompts x 4 rows = 16.*3 updates of 1"),
    ({"micro_batches": 5}, "16 cannot be split into 2 updates of 5"),
    ({"fraction": 0.2}, "fraction = 0.2 of 4 steps leaves none"),
    ({"sampler": tiny.ODE}, "EulerOde has no log-probabilities"),
  ],
)
def test_values_that_do_not_fit_the_experiment(changes, message):
  with pytest.raises(ValueError, match=message):
    program(with_algorithm(**changes))


@pytest.mark.parametrize("level", [0.0, -0.7])
def test_log_probs_need_noise(level):
  with pytest.raises(ValueError, match=str(level)):
    sampling.FlowSde(steps=4, shift=1.0, noise_level=level)
