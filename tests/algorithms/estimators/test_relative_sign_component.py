from __future__ import annotations

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import recipes
from rl_jax.advantages import group_relative
from rl_jax.algorithms.components import WithinGroup
from rl_jax.algorithms.estimators.relative_sign import (
  LinearWeight,
  OutcomeSign,
  RelativeSign,
)
from rl_jax.algorithms.policy_records import PolicyBatch, Remembered
from rl_jax.losses import policy_gradient_loss
from rl_jax.reduce import over_tokens

pytestmark = pytest.mark.slow

ROWS, TIME, GROUPS = 8, 5, 2
GRPO = WithinGroup(
  estimator=partial(group_relative, scale="group", ddof=1, epsilon=1e-6)
)


def batch(step=0, reward=(1, 0, 0, 1, 0, 0, 0, 1)):
  rng = np.random.default_rng(0)
  mask = np.arange(TIME)[None] < rng.integers(1, TIME + 1, ROWS)[:, None]
  zero = jnp.asarray(rng.normal(size=(ROWS, TIME)), jnp.float32)
  return PolicyBatch(
    log_prob=zero,
    behaviour_log_prob=zero,
    mask=jnp.asarray(mask),
    reward=jnp.asarray(reward, jnp.float32),
    group=jnp.arange(ROWS) % GROUPS,
    valid=jnp.ones(ROWS, bool).at[5].set(False),
    step=jnp.full(ROWS, step),
  )


def called(component, own):
  return jax.jit(partial(component, num_groups=GROUPS))(own, own.reward)


@pytest.mark.parametrize("weight", [0.0, 0.25, 1.0])
def test_one_is_the_base_and_zero_its_negative_part(weight):
  own = batch()
  base = np.asarray(called(GRPO, own))
  found = called(RelativeSign(base=GRPO, pos_weight=weight), own)
  expected = weight * np.maximum(base, 0) + np.minimum(base, 0)
  np.testing.assert_allclose(found, expected, atol=1e-7)
  assert (np.asarray(found) < 0).any()


def test_a_schedule_follows_the_newest_row():
  weight = LinearWeight(first=0.0, last=1.0, begin=10, end=30)
  component = RelativeSign(base=GRPO, schedule=weight)
  apply = jax.jit(partial(component, num_groups=GROUPS))
  base = np.asarray(called(GRPO, batch()))
  for step, expected in ((0, 0.0), (10, 0.0), (15, 0.25), (30, 1.0), (99, 1.0)):
    own = batch(step)
    # Refilled rows are older than the step.
    own = own._replace(step=own.step.at[2].set(0))
    found = np.asarray(apply(own, own.reward))
    np.testing.assert_allclose(found[base > 0], expected * base[base > 0])
    np.testing.assert_allclose(found[base < 0], base[base < 0])
  with pytest.raises(ValueError, match="step"):
    component(batch()._replace(step=None), batch().reward, num_groups=GROUPS)


RECIPE = dataclasses.replace(
  recipes.verl_grpo,
  loss=lambda log_prob, _, advantage, mask: policy_gradient_loss(
    log_prob, advantage, mask
  ),
  reduction=over_tokens,
)


@pytest.mark.parametrize(
  "kind",
  [
    partial(RelativeSign, base=GRPO),
    partial(OutcomeSign, mode="negative"),
    partial(OutcomeSign, mode="positive"),
  ],
)
def test_renormalized_is_the_batch_without_the_other_rows(kind):
  """Value and slope of the loss; otherwise all tokens divide."""
  own = batch()

  def loss(log_prob, renormalize, kept=None):
    component = kind(renormalize=renormalize)
    recipe = dataclasses.replace(RECIPE, baseline=component)
    mask = own.mask if kept is None else own.mask & kept[:, None]
    totals = recipe.totals(
      own._replace(log_prob=log_prob, mask=mask), num_groups=GROUPS
    )
    return totals.policy.mean()

  component = kind(renormalize=False)
  active = np.asarray(called(component, own)) != 0
  assert 0 < active.sum() < ROWS
  value = jax.jit(jax.value_and_grad(loss), static_argnums=1)
  dropped = value(own.log_prob, False, jnp.asarray(active))
  whole, scaled = (value(own.log_prob, flag) for flag in (False, True))
  for a, b in zip(scaled, dropped, strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)
  tokens = np.asarray(own.mask & own.valid[:, None]).sum(axis=1)
  share = tokens[active].sum() / tokens.sum()
  np.testing.assert_allclose(whole[0], share * scaled[0], rtol=1e-5)
  recipe = dataclasses.replace(RECIPE, baseline=component)
  said = recipe.estimate(own, num_groups=GROUPS).metric["active_tokens"]
  np.testing.assert_allclose(said.mean(), share, rtol=1e-6)


def test_a_batch_that_teaches_nothing_is_nothing():
  own = batch(reward=[0.0] * ROWS)
  for component in (
    RelativeSign(base=GRPO, renormalize=True),
    OutcomeSign(mode="positive", renormalize=True),
  ):
    assert not np.any(called(component, own))


def test_outcomes_of_the_sheet_and_rewards_that_are_none():
  """W-REINFORCE of (1, 0, 0, 1) with 0.1; the sixth row does not count."""
  found = called(OutcomeSign(mode="weighted"), batch())
  expected = np.array([0.1, -1, -1, 0.1, -1, 0, -1, 0.1], np.float32)
  np.testing.assert_allclose(found, expected)
  graded = batch(reward=(1, 0.5, 0, 1, 0, 7, 0, 1))
  found = np.asarray(called(OutcomeSign(mode="negative"), graded))
  assert np.isnan(found).tolist() == [False, True] + [False] * 6


def test_the_memory_of_the_base_is_kept():
  @dataclasses.dataclass(frozen=True)
  class Counting:
    def init(self, num_groups):
      return jnp.zeros(())

    def __call__(self, batch, reward, *, num_groups, memory):
      return Remembered(reward - 0.5, memory + 1)

  recipe = dataclasses.replace(RECIPE, baseline=RelativeSign(base=Counting()))
  memory = recipe.init(GROUPS)
  assert set(memory) == {"baseline"}
  for expected in (1, 2):
    estimated = recipe.estimate(batch(), num_groups=GROUPS, memory=memory)
    memory = estimated.memory
    assert memory["baseline"] == expected
  assert estimated.signals.advantage.max() == 0
  assert estimated.signals.advantage.min() == -0.5
  plain = dataclasses.replace(RECIPE, baseline=RelativeSign(base=GRPO))
  assert not plain.init(GROUPS)


@pytest.mark.parametrize(
  ("call", "words"),
  [
    (lambda: RelativeSign(base=GRPO, pos_weight=-0.1), "negative: -0.1"),
    (lambda: OutcomeSign(mode="weighted", pos_weight=-1.0), "negative: -1.0"),
    (lambda: OutcomeSign(mode="both"), "no such mode: 'both'"),
    (lambda: LinearWeight(first=-1.0, last=0.0, end=1), "got -1.0 and 0.0"),
    (lambda: LinearWeight(first=1.0, last=0.0, begin=3, end=3), r"\[3, 3\)"),
  ],
)
def test_nonsense_is_refused(call, words):
  with pytest.raises(ValueError, match=words):
    call()
