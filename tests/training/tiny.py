"""The smallest experiments that are still real: two classes in the plane.

A rectified flow of a few dozen numbers, rewarded by a formula, so that a whole
run compiles in about a second and a test can look at every number of it.
Everything stands at the top level: experiments name their parts by import.
"""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rl_jax import algorithms, evaluation, sampling
from rl_jax.data.source import Arrays
from rl_jax.experiment import Checkpoints, Experiment
from rl_jax.training.optimisers import AdamW

CENTRES = np.array([[1.0, 0.5], [-1.0, -0.5]], np.float32)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Field:
  """v = tanh([x, t, class] W_0) W_1."""

  classes: int = 2
  width: int = 8

  @property
  def event_shape(self):
    return (2,)

  def init(self, key):
    first, second = jax.random.split(key)
    inputs = 3 + self.classes
    return {
      "first": jax.random.normal(first, (inputs, self.width)) * 0.5,
      "second": jax.random.normal(second, (self.width, 2)) * 0.25,
    }

  def apply(self, params, x, t, condition):
    condition = condition.reshape(condition.shape + (1,) * (t.ndim - 1))
    condition = jnp.broadcast_to(condition, t.shape)
    told = jax.nn.one_hot(condition, self.classes)
    joined = jnp.concatenate([x, t[..., None], told], axis=-1)
    return jnp.tanh(joined @ params["first"]) @ params["second"]

  def logical_axes(self, params):
    return {"first": (None, "mlp"), "second": ("mlp", "embed")}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prompts:
  """Class ids, slowly if asked, so that a signal can find a run at work."""

  rows: int = 4
  shuffle: bool = True
  delay: float = dataclasses.field(default=0.0, metadata={"identity": False})

  def source(self):
    return _Slow({"condition": np.arange(6, dtype=np.int32) % 2}, self.delay)


class _Slow(Arrays):
  def __init__(self, columns, delay):
    super().__init__(columns)
    object.__setattr__(self, "delay", delay)

  def __getitem__(self, indices):
    time.sleep(self.delay)
    return super().__getitem__(indices)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Points:
  """Samples around the centre of their class, for pretraining."""

  rows: int = 8
  shuffle: bool = True

  def source(self):
    label = np.arange(16, dtype=np.int32) % 2
    offset = np.random.RandomState(0).normal(size=(16, 2)) * 0.25
    sample = (CENTRES[label] + offset).astype(np.float32)
    return Arrays({"sample": sample, "condition": label})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Near:
  """exp(-|x - centre of the class|^2 / 2), best possible 1; NaN on demand."""

  judge: None = None
  broken_from: int | None = None

  def bind(self, model):
    assert model is None

    def reward(params, sample, condition):
      assert params == ()
      gap = sample - jnp.asarray(CENTRES)[condition]
      value = jnp.exp(-jnp.sum(gap**2, axis=-1) / 2.0)
      if self.broken_from is not None:
        # Only the last rows lose their verdict.
        rows = jnp.arange(value.size)
        value = jnp.where(rows >= self.broken_from, jnp.nan, value)
      return value

    return reward


OPTIMISER = AdamW(learning_rate=0.02)
ODE = sampling.EulerOde(steps=4, shift=1.0)
SDE = sampling.FlowSde(steps=4, shift=1.0, noise_level=0.7)
TIMES = sampling.DiscreteTimes(
  strategy="discrete_wo_init", count=2, fraction=1.0
)
AWM = algorithms.AdvantageWeightedMatching(
  group_size=4, sampler=ODE, times=TIMES, optimiser=OPTIMISER
)
GRPO = algorithms.DenoisingPolicyGradient(
  group_size=4,
  sampler=SDE,
  advantage=algorithms.GroupRelative(scale="global", ddof=0, epsilon=1e-4),
  optimiser=OPTIMISER,
)
FLOW = algorithms.FlowMatching(optimiser=OPTIMISER)
SAMPLES = evaluation.Samples(sampler=ODE, classes=2, rows_per_class=8, every=4)


def experiment(**changes: Any) -> Experiment:
  """Advantage weighted matching, with changes."""
  fields = {
    "name": "tiny",
    "model": Field(),
    "data": Prompts(),
    "reward": Near(),
    "algorithm": AWM,
    "steps": 4,
    "checkpoints": Checkpoints(every=2, keep=3),
  }
  return Experiment(**(fields | changes))


def pretraining(**changes: Any) -> Experiment:
  """Flow matching on `Points`, with changes."""
  fields = {"name": "base", "data": Points(), "algorithm": FLOW, "reward": None}
  return experiment(**(fields | changes))


class Recorder:
  """An observer that remembers everything."""

  def __init__(self):
    self.events = []
    self.rows = []
    self.outcome = None

  def started(self, *, step, steps):
    self.events.append(("started", step, steps))

  def measured(self, row):
    self.events.append((row.kind, row.step))
    self.rows.append(row)

  def saved(self, step):
    self.events.append(("saved", step))

  def ended(self, outcome):
    self.events.append(("ended", outcome.step))
    self.outcome = outcome


def watched():
  """A recorder, and the `observers` argument that uses it for every stage."""
  recorder = Recorder()
  return recorder, lambda experiment, workdir: (recorder,)
