"""Every hyper-parameter is read: another value is another program, or raises.

Programs are compared as lowered text, in which every number stands, after
what nothing reads has been dropped.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import pytest

from algorithms.steps import no_stage
from rl_jax import algorithms, sampling
from rl_jax.data.source import start, take
from training import tiny

pytestmark = pytest.mark.slow

AWM = dataclasses.replace(
  tiny.AWM,
  base_weight=0.1,
  updates=2,
  slow=algorithms.SlowCopy(slope=0.5, maximum=0.3),
)
GRPO = dataclasses.replace(
  tiny.GRPO, base_weight=0.1, average=algorithms.Average(maximum=0.9)
)
DDPO = dataclasses.replace(tiny.GRPO, advantage=algorithms.PromptStatistics())
FLOW = dataclasses.replace(tiny.FLOW, updates=2)

# For each part: how it becomes an algorithm, and another value per field.
# A field without one fails the test, so that a new one cannot be forgotten.
PARTS = {
  AWM: (
    lambda part: part,
    {
      "group_size": 8,
      "sampler": sampling.EulerOde(steps=5, shift=1.0),
      "times": dataclasses.replace(tiny.TIMES, count=3),
      "optimiser": dataclasses.replace(tiny.OPTIMISER, learning_rate=0.5),
      "advantage": algorithms.GroupRelative(scale="none", ddof=0, epsilon=1e-4),
      "advantage_clip": 2.0,
      "advantage_maximum": None,
      "weighting": "t",
      "power": 0.5,
      "ratio_level": "sample",
      "clip_range": 0.125,
      "base_weight": 0.25,
      "slow_weight": 0.25,
      "kl_weighting": "elbo",
      "slow": algorithms.SlowCopy(slope=0.25),
      "behaviour": "slow",
      "average_maximum": 0.5,
      "updates": 1,
      "micro_batches": 4,
    },
  ),
  GRPO: (
    lambda part: part,
    {
      "group_size": 8,
      "sampler": sampling.FlowSde(steps=4, shift=1.0, noise_level=0.5),
      "advantage": algorithms.GroupRelative(scale="none", ddof=0, epsilon=1e-4),
      "optimiser": dataclasses.replace(tiny.OPTIMISER, learning_rate=0.5),
      "advantage_clip": 2.0,
      "clip_range": 0.125,
      "base_weight": 0.25,
      "kl_normalisation": "exact",
      "fraction": 0.5,
      "updates": 4,
      "micro_batches": 4,
      "average": None,
    },
  ),
  FLOW: (
    lambda part: part,
    {
      "optimiser": dataclasses.replace(tiny.OPTIMISER, learning_rate=0.5),
      "updates": 4,
      "micro_batches": 4,
      "condition_noise": 0.25,
    },
  ),
  tiny.OPTIMISER: (
    lambda part: dataclasses.replace(FLOW, optimiser=part),
    {
      "learning_rate": 0.5,
      "b1": 0.5,
      "b2": 0.5,
      "epsilon": 0.5,
      "weight_decay": 0.5,
      "clip_norm": None,
      "warm_up_steps": 2,
      "cosine_steps": 10,
      "linear_steps": 10,
    },
  ),
  AWM.slow: (
    lambda part: dataclasses.replace(AWM, slow=part),
    {"slope": 0.25, "maximum": 0.125},
  ),
  GRPO.average: (
    lambda part: dataclasses.replace(GRPO, average=part),
    {"maximum": 0.5, "every": 3},
  ),
  GRPO.advantage: (
    lambda part: dataclasses.replace(GRPO, advantage=part),
    {"scale": "group", "ddof": 1, "epsilon": 0.5},
  ),
  DDPO.advantage: (
    lambda part: dataclasses.replace(DDPO, advantage=part),
    {"buffer_size": 16, "min_count": 5, "epsilon": 0.5},
  ),
}
CASES = [
  (part, field.name) for part in PARTS for field in dataclasses.fields(part)
]


@functools.cache
def text(algorithm):
  """The program of one step, from the key to the new state."""
  data = tiny.Prompts(rows=6, shuffle=False)
  if isinstance(algorithm, algorithms.FlowMatching):
    experiment = tiny.pretraining(algorithm=algorithm)
    data = experiment.data
  else:
    experiment = tiny.experiment(algorithm=algorithm, data=data)
  parts = algorithm.build(experiment, no_stage)
  source = data.source()
  indices, _ = take(len(source), start(), rows=data.rows, seed=0, shuffle=False)

  def step(key, items):
    state = parts.init(key, None)
    # As a state in mid-run: moments and step count are not known to be zero.
    state = jax.lax.optimization_barrier(state)
    return parts.update(
      state, parts.frozen, parts.collect(state, parts.frozen, items)
    )

  return jax.jit(step).lower(jax.random.key(0), source[indices]).as_text()


@pytest.mark.parametrize(
  ("part", "name"),
  CASES,
  ids=[f"{type(part).__name__}.{name}" for part, name in CASES],
)
def test_another_value_is_another_program(part, name):
  whole, values = PARTS[part]
  assert name in values, f"give {name} another value"
  assert values[name] != getattr(part, name)
  changed = dataclasses.replace(part, **{name: values[name]})
  assert text(whole(changed)) != text(whole(part))
