"""Process rewards of an implicit PRM as credit."""

from __future__ import annotations

import dataclasses
import types
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from algorithms.language import letters
from rl_jax.advantages import leave_one_out
from rl_jax.algorithms.components import WithinGroup
from rl_jax.algorithms.estimators.implicit_prm import ImplicitPRM
from rl_jax.algorithms.recipe import PolicyBatch
from rl_jax.algorithms.responses import Responses

pytestmark = pytest.mark.slow

ROWS, TIME, BETA, END = 6, 5, 0.5, 9
GROUP = np.array([3, 3, 3, 7, 7, 7])  # ids above the number of groups too


def component(**changes):
  return ImplicitPRM(
    **{"prm": "one", "prm_reference": "other", "beta": BETA} | changes
  )


def case():
  rng = np.random.default_rng(0)
  mask = np.arange(TIME) < np.array([5, 3, 1, 4, 2, 5])[:, None]
  reward = rng.normal(size=(ROWS, TIME)).astype(np.float32)
  return mask, np.where(mask, reward, np.nan)


def batch(mask, process, valid=None):
  blank = jnp.zeros((ROWS, TIME))
  return PolicyBatch(
    log_prob=blank,
    behaviour_log_prob=blank,
    mask=jnp.asarray(mask),
    reward=jnp.arange(ROWS) * 1.0,
    group=jnp.asarray(GROUP),
    valid=jnp.ones(ROWS, bool) if valid is None else jnp.asarray(valid),
    extra={"implicit_reward": jnp.asarray(process)},
  )


@pytest.mark.parametrize("discount", [1.0, 0.5])
def test_credit_against_a_loop(discount):
  mask, process = case()
  compared = np.linspace(-1, 1, ROWS).astype(np.float32)
  credit = jax.jit(component(discount=discount).__call__)
  advantage, target = credit(batch(mask, process), jnp.asarray(compared))
  assert target is None
  for i in range(ROWS):
    others = [
      process[j][mask[j]].mean()
      for j in range(ROWS)
      if GROUP[j] == GROUP[i] and j != i
    ]
    base = np.mean(others)
    own = process[i][mask[i]] - base
    for t in range(mask[i].sum()):
      to_go = sum(discount**s * x for s, x in enumerate(own[t:]))
      np.testing.assert_allclose(
        advantage[i, t], compared[i] + to_go, atol=1e-5
      )


def test_rows_that_do_not_count_are_nobodys_baseline():
  mask, process = case()
  valid = np.array([True, True, False, True, True, True])
  advantage, _ = component()(batch(mask, process, valid), jnp.zeros(ROWS))
  base = process[1][mask[1]].mean()
  np.testing.assert_allclose(
    advantage[0, 0], (process[0][mask[0]] - base).sum(), atol=1e-5
  )


def test_asking_two_models():
  mask, _ = case()
  rng = np.random.default_rng(1)
  one, other = rng.normal(size=(2, ROWS, TIME)).astype(np.float32)
  token = rng.integers(0, END, (ROWS, TIME))
  token[0, [1, 3]] = END
  view = types.SimpleNamespace(
    responses=Responses(None, None, jnp.asarray(token), jnp.asarray(mask)),
    network_scores=lambda name: types.SimpleNamespace(
      log_prob=jnp.asarray({"prm": one, "prm_reference": other}[name])
    ),
  )
  assert component().networks == {"prm": "one", "prm_reference": "other"}
  every = component().ask(view)["implicit_reward"]
  expected = np.where(mask, BETA * (one - other), 0.0)
  np.testing.assert_allclose(every, expected, atol=1e-6)
  steps = np.asarray(component(step_end=END).ask(view)["implicit_reward"])
  np.testing.assert_allclose(
    steps[0],
    [0, expected[0, :2].sum(), 0, expected[0, 2:4].sum(), expected[0, 4]],
    atol=1e-6,
  )
  # The same in all, wherever it is paid.
  np.testing.assert_allclose(steps.sum(axis=1), expected.sum(axis=1), atol=1e-6)


def test_what_it_reports():
  mask, _ = case()
  process = np.zeros((ROWS, TIME), np.float32)
  process[:, 0] = np.arange(ROWS)
  metric = component().watch(batch(mask, process), None, num_groups=2)
  assert metric["implicit_reward"].mean() == 2.5
  np.testing.assert_allclose(metric["implicit_agreement"].mean(), 1, rtol=1e-6)
  same = component().watch(batch(mask, 0 * process), None, num_groups=2)
  assert same["implicit_agreement"].mean() == 0


def test_bad_settings():
  with pytest.raises(ValueError, match="beta must be positive"):
    component(beta=0.0)
  with pytest.raises(ValueError, match="discount"):
    component(discount=1.5)
  mask, process = case()
  bare = batch(mask, process)._replace(extra=None)
  with pytest.raises(ValueError, match="needs `implicit_reward`"):
    component()(bare, jnp.zeros(ROWS))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Frozen:
  """A model as `Trained(by=...)` would find it."""

  seed: int

  @property
  def by(self):
    return self

  @property
  def model(self):
    return letters.BIGRAM

  def params(self, model):
    del model
    return letters.Drawn(seed=self.seed).params(letters.BIGRAM)


@pytest.mark.slow
def test_in_the_program_it_asks_the_frozen_models():
  """What is reported is the log-ratio at temperature 1, computed by hand."""
  prm, reference = Frozen(seed=1), Frozen(seed=2)
  recipe = dataclasses.replace(
    letters.GRPO.recipe,
    baseline=WithinGroup(estimator=leave_one_out),
    credit=component(prm=prm, prm_reference=reference),
  )
  algorithm = dataclasses.replace(letters.GRPO, recipe=recipe)
  made = letters.Begun(letters.experiment(algorithm))
  rollouts = made.collect()
  state, metrics = made.update(rollouts)
  of = partial(
    letters.full_log_prob, letters.BIGRAM, rollouts=rollouts, temperature=1.0
  )
  nats = of(params=prm.params(None)) - of(params=reference.params(None))
  np.testing.assert_allclose(
    letters.means(metrics)["implicit_reward"],
    BETA * np.sum(nats, axis=1).mean(),
    rtol=1e-4,
  )
  change = jax.tree.map(
    lambda new, old: np.abs(new - old).max(), state.params, made.state.params
  )
  assert max(jax.tree.leaves(change)) > 0
