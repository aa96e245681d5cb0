from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import recipes
from rl_jax.advantages.gream import bonus_calibrated
from rl_jax.algorithms.components import EveryToken
from rl_jax.algorithms.estimators.gream import BonusCalibrated
from rl_jax.algorithms.policy_records import PolicyBatch

pytestmark = pytest.mark.slow

ROWS, TIME, GROUPS = 12, 3, 3


def batch(extra=True):
  rng = np.random.default_rng(0)
  reward = jnp.asarray(rng.choice([0.0, 0.5, 1.0], ROWS), jnp.float32)
  zero = jnp.zeros((ROWS, TIME))
  # Group 2 has no exact row, and a reward of 1 that is none.
  exact = jnp.asarray([True, *[False] * 3, True, True, *[False] * 6])
  reward = reward.at[8].set(1.0)
  return PolicyBatch(
    log_prob=zero,
    behaviour_log_prob=zero,
    mask=jnp.asarray(rng.uniform(size=(ROWS, TIME)) < 0.8).at[:, 0].set(True),
    reward=reward,
    group=jnp.arange(ROWS) // 4,
    valid=jnp.ones(ROWS, bool).at[3].set(False),
    extra={"exact": exact} if extra else {},
  )


RECIPE = dataclasses.replace(
  recipes.verl_grpo, baseline=BonusCalibrated(k=2), credit=EveryToken()
)


def test_every_token_has_the_calibrated_advantage_and_shares_are_reported():
  own = batch()
  estimated = jax.jit(lambda b: RECIPE.estimate(b, num_groups=GROUPS))(own)
  expected = bonus_calibrated(
    own.reward,
    own.extra["exact"],
    own.group,
    own.valid,
    num_groups=GROUPS,
    k=2,
    ddof=1,
    epsilon=1e-6,
  )
  np.testing.assert_allclose(
    estimated.signals.advantage,
    jnp.where(estimated.signals.mask, expected[:, None], 0.0),
    rtol=1e-6,
  )
  said = {name: float(total.mean()) for name, total in estimated.metric.items()}
  assert said["exact"] == pytest.approx(3 / 11)
  assert said["groups_with_exact"] == pytest.approx(2 / 3)
  alive = len({int(g) for g, a in zip(own.group, expected, strict=True) if a})
  assert said["groups_with_advantage"] == pytest.approx(alive / 3)


def test_the_judge_must_say_what_is_exact():
  with pytest.raises(ValueError, match=r"BonusCalibrated wants \['exact'\]"):
    RECIPE.check_given(frozenset())
  RECIPE.check_given(frozenset({"exact"}))
  with pytest.raises(ValueError, match="exact"):
    RECIPE.signals(batch(extra=False), num_groups=GROUPS)


def test_groups_that_are_too_small_are_refused():
  recipe = dataclasses.replace(RECIPE, baseline=BonusCalibrated(k=5))
  with pytest.raises(ValueError, match=r"k = 5 .* 3 groups share 12"):
    recipe.signals(batch(), num_groups=GROUPS)


@pytest.mark.parametrize("bad", [{"k": 0}, {"ddof": 2}, {"epsilon": -1.0}])
def test_nonsense_is_refused(bad):
  with pytest.raises(ValueError, match="at least 1, ddof 0 or 1"):
    BonusCalibrated(**bad)
