from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from advantages import oracles
from rl_jax.advantages import group_relative, sum_of_relatives, whiten
from rl_jax.rewards import weighted_sum

GRPO = {"scale": "group", "ddof": 1, "epsilon": 1e-4}
normalise_first = jax.jit(
  functools.partial(sum_of_relatives, num_groups=3, **GRPO)
)


@jax.jit
def sum_first(reward, weight, group, valid):
  total, judged = weighted_sum(reward, valid, weight)
  return group_relative(total, group, judged, num_groups=3, **GRPO)


WEIGHT = np.array([1.0, 0.5, 2.0])


@pytest.fixture(scope="module")
def several():
  """Three rewards of 12 rows in 3 ragged groups, some without a verdict."""
  rng = np.random.default_rng(6)
  group = np.array([0, 1, 0, 2, 1, 0, 2, 1, 0, 1, 1, 2])
  reward = rng.normal(size=(12, 3)) * np.array([1.0, 10.0, 0.1])
  valid = rng.uniform(size=(12, 3)) < 0.8
  valid[5] = False
  return reward.astype(np.float32), group, valid


def arrays(reward, group, valid):
  reward = jnp.asarray(np.where(valid, reward, np.nan), jnp.float32)
  weight = jnp.asarray(WEIGHT, jnp.float32)
  return reward, weight, jnp.asarray(group, jnp.int32), jnp.asarray(valid)


@pytest.mark.slow
def test_normalise_then_sum_equals_the_loop(several):
  reward, group, valid = several
  advantage, judged = normalise_first(*arrays(*several))
  expected = sum(
    WEIGHT[k]
    * oracles.relative(
      reward[:, k].astype(np.float64), group, valid[:, k], **GRPO
    )
    for k in range(3)
  )
  np.testing.assert_allclose(advantage, expected, rtol=1e-5, atol=1e-5)
  assert judged.tolist() == valid.any(axis=1).tolist()
  assert not judged[5]
  assert advantage[5] == 0


def test_sum_then_normalise_equals_the_loop(several):
  reward, group, valid = several
  found = sum_first(*arrays(*several))
  expected = oracles.relative(
    reward.astype(np.float64) @ WEIGHT, group, valid.all(axis=1), **GRPO
  )
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def test_gdpo_is_normalise_sum_standardise(several):
  """Both normalisations, against numpy."""
  reward, group, valid = several
  advantage, judged = normalise_first(*arrays(*several))
  found = whiten(
    advantage,
    judged,
    ddof=1,
    epsilon=1e-4,
    guard="outside_root",
    shift_mean=True,
  )
  total = sum(
    WEIGHT[k]
    * oracles.relative(
      reward[:, k].astype(np.float64), group, valid[:, k], **GRPO
    )
    for k in range(3)
  )[valid.any(axis=1)]
  expected = (total - total.mean()) / (total.std(ddof=1) + 1e-4)
  np.testing.assert_allclose(
    np.asarray(found)[valid.any(axis=1)], expected, rtol=1e-5, atol=1e-5
  )


def all_judged(several):
  reward, weight, group, _ = arrays(*several)
  return jnp.nan_to_num(reward), weight, group, jnp.ones((12, 3), bool)


def test_one_reward_is_compared_alike_in_both_orders(several):
  reward, _, group, valid = all_judged(several)
  weight = jnp.array([0.0, 1.0, 0.0])
  np.testing.assert_allclose(
    normalise_first(reward, weight, group, valid)[0],
    sum_first(reward, weight, group, valid),
    rtol=1e-5,
    atol=1e-5,
  )


def test_order_decides_whether_units_matter(several):
  """A reward in other units changes the sum; not what is normalised first."""
  reward, *others = all_judged(several)
  louder = reward * jnp.array([[1.0, 64.0, 1.0]])
  np.testing.assert_allclose(
    normalise_first(louder, *others)[0],
    normalise_first(reward, *others)[0],
    # Epsilon is 1e-4 in one unit of a reward whose spread is near 10.
    atol=1e-4,
  )
  change = sum_first(louder, *others) - sum_first(reward, *others)
  assert np.abs(change).max() > 0.1


def test_no_reward_at_all_raises():
  with pytest.raises(ValueError, match="no rewards"):
    sum_of_relatives(
      jnp.zeros((2, 0)),
      jnp.zeros(0),
      jnp.zeros(2, jnp.int32),
      jnp.zeros((2, 0), bool),
      num_groups=1,
      **GRPO,
    )
