"""Low-rank training: the base stays, the change alone is trained and kept."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from algorithms.language import letters
from algorithms.steps import adam, close
from experiments import recipes
from reliability.runs import arrays
from rl_jax.launch.run import train
from training import tiny

pytestmark = pytest.mark.slow

ALGORITHM = dataclasses.replace(
  letters.GRPO, recipe=recipes.grpo, reference=True, epochs=2
)
EXPERIMENT = letters.experiment(
  ALGORITHM, model=letters.LORA, start=letters.Drawn(), steps=2
)


def test_only_the_change_is_trained_and_the_base_is_its_reference():
  made = letters.Begun(EXPERIMENT)
  base = jax.tree.map(jnp.copy, made.parts.frozen["base"])
  letters.equal(base, letters.Drawn().params(letters.LORA))
  assert jax.tree.structure(made.state.params) == jax.tree.structure(
    letters.LORA.init_adapter(jax.random.key(0))
  )
  rollouts = made.collect()
  state, metrics = made.update(rollouts)
  found = letters.means(metrics)
  assert (found["first_kl"], found["first_ratio"]) == (0.0, 1.0)
  assert found["kl_reference"] > 0
  letters.equal(made.parts.frozen["base"], base)
  letters.equal(state.memory["reference"], made.state.params)

  @jax.jit
  def log_prob(adapter):
    return letters.full_log_prob(letters.LORA, base, rollouts, adapter=adapter)

  # Whatever `down` is, with `up` at zero it is the base that is referred to.
  plain = letters.full_log_prob(letters.MODEL, base, rollouts)
  np.testing.assert_allclose(log_prob(made.state.params), plain, atol=1e-6)
  mask, group = np.asarray(rollouts.mask), np.asarray(rollouts.group)
  advantage = np.zeros(mask.shape, np.float32)
  for g in range(4):
    own = np.asarray(rollouts.reward)[group == g]
    a = (own - own.mean()) / (own.std(ddof=1) + 1e-6)
    advantage[group == g] = a[:, None]

  def mean(value):
    each = jnp.sum(jnp.where(mask, value, 0.0), axis=1) / mask.sum(1)
    return jnp.mean(each)

  @jax.jit
  @jax.grad
  def slope(adapter):
    change = log_prob(adapter) - plain
    ratio = jnp.exp(change)
    worst = jnp.minimum(
      ratio * advantage, jnp.clip(ratio, 0.8, 1.2) * advantage
    )
    return mean(-worst) + 0.04 * mean(jnp.exp(-change) + change - 1)

  expected = adam(made.state.params, [slope, slope], letters.OPTIMISER)
  close(state.params, expected, rtol=1e-4, atol=2e-6)


def test_a_change_of_nothing_is_refused():
  experiment = dataclasses.replace(EXPERIMENT, start=letters.Scratch())
  with pytest.raises(ValueError, match="a model with lora trains a change of"):
    letters.Begun(experiment)


def test_a_checkpoint_holds_the_change_alone(tmp_path, monkeypatch):
  first = jax.devices()[:1]
  monkeypatch.setattr(jax, "devices", lambda *_: first)
  train(EXPERIMENT, workdir=tmp_path / "run", observers=tiny.watched()[1])
  found = arrays(tmp_path / "run", 2)
  params = {path for path in found if path[0] == "params"}
  assert {path[-1] for path in params} == {"down", "up"}
  whole = {
    x.shape for x in jax.tree.leaves(letters.Drawn().params(letters.LORA))
  }
  small = {x.shape for x in found.values()}
  # Norm scales have the shape of nothing else, and the largest array is gone.
  assert (letters.WORDS.size, 16) in whole - small
