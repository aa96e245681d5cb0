"""Group statistics by integer ids, against loops written from the papers."""

from __future__ import annotations

import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.advantages import groups

RAGGED = np.array([3, 0, 3, 1, 0, 3, 1, 0, 2, 1])
RNG = np.random.default_rng(0)
REWARD = RNG.normal(size=10).astype(np.float32)
VALID = np.array([1, 1, 1, 1, 0, 1, 0, 1, 1, 1], bool)


def oracle(
  reward: np.ndarray,
  group: np.ndarray,
  valid: np.ndarray,
  scale: str,
  ddof: int,
  epsilon: float,
) -> np.ndarray:
  out = np.zeros(reward.size)
  reward = reward.astype(np.float64)
  for i in range(reward.size):
    peers = [
      reward[j] for j in range(reward.size) if group[j] == group[i] and valid[j]
    ]
    if not valid[i] or len(set(peers)) < 2:
      continue
    everyone = peers if scale == "group" else list(reward[valid])
    spread = np.std(everyone, ddof=ddof) + epsilon
    out[i] = reward[i] - np.mean(peers)
    out[i] /= 1.0 if scale == "none" else spread
  return out


def relative(reward, group, valid, **changed):
  options = {"num_groups": 4, "scale": "group", "ddof": 0, "epsilon": 1e-4}
  return groups.group_relative(
    jnp.asarray(reward, jnp.float32),
    jnp.asarray(group),
    jnp.asarray(valid),
    **(options | changed),
  )


@pytest.mark.slow
@pytest.mark.parametrize("scale", ["none", "group", "global"])
@pytest.mark.parametrize("ddof", [0, 1])
@pytest.mark.parametrize("epsilon", [0.0, 1e-4])
def test_against_a_loop(scale: str, ddof: int, epsilon: float) -> None:
  options = {"scale": scale, "ddof": ddof, "epsilon": epsilon}
  reward = np.where(VALID, REWARD, np.nan)
  found = relative(reward, RAGGED, VALID, **options)
  expected = oracle(REWARD, RAGGED, VALID, **options)
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize(
  ("scale", "expected"),
  # The reference sheet (section 7): R = (1, 0, .5), ddof 1, epsilon 1e-6.
  [("group", [0.999998, -0.999998, 0.0]), ("none", [0.5, -0.5, 0.0])],
)
def test_worked_example(scale: str, expected: list[float]) -> None:
  found = relative(
    [1.0, 0.0, 0.5],
    [0, 0, 0],
    [True] * 3,
    scale=scale,
    ddof=1,
    epsilon=1e-6,
  )
  np.testing.assert_allclose(found, expected, atol=1e-6)


def test_group_mean_against_a_loop() -> None:
  found = groups.group_mean(
    jnp.asarray(np.where(VALID, REWARD, np.nan)),
    jnp.asarray(RAGGED),
    jnp.asarray(VALID),
    num_groups=4,
  )
  expected = [REWARD[(g == RAGGED) & VALID].mean() for g in RAGGED]
  np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_group_mean_of_nobody_is_zero() -> None:
  found = groups.group_mean(
    jnp.array([jnp.nan]), jnp.zeros(1, int), jnp.zeros(1, bool), num_groups=1
  )
  assert found.tolist() == [0.0]


@pytest.mark.slow
@pytest.mark.parametrize("scale", ["none", "group", "global"])
@pytest.mark.parametrize("ddof", [0, 1])
def test_singletons_and_ties_are_exactly_zero(scale: str, ddof: int) -> None:
  # The mean of three copies of 0.1 is not 0.1 in float32.
  reward = [0.1, 0.1, 0.1, 0.7, 0.2, 0.9]
  group = [0, 0, 0, 1, 2, 2]
  found = relative(
    reward, group, [True] * 6, scale=scale, ddof=ddof, epsilon=0.0
  )
  assert found[:4].tolist() == [0.0] * 4
  assert (found[4:] != 0).all()


@pytest.mark.slow
def test_affine_rewards_give_the_same_advantage() -> None:
  plain = relative(REWARD, RAGGED, VALID, epsilon=0.0)
  moved = relative(3.0 * REWARD + 2.0, RAGGED, VALID, epsilon=0.0)
  np.testing.assert_allclose(moved, plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("scale", ["none", "group", "global"])
def test_advantages_of_a_group_sum_to_zero(scale: str) -> None:
  found = np.asarray(relative(REWARD, RAGGED, VALID, scale=scale))
  for g in range(4):
    assert found[g == RAGGED].sum() == pytest.approx(0.0, abs=1e-5)


def test_invalid_rows_with_ids_out_of_range_do_not_count() -> None:
  group = np.where(VALID, RAGGED, 99)
  found = relative(REWARD, group, VALID)
  np.testing.assert_array_equal(found, relative(REWARD, RAGGED, VALID))


def test_non_finite_reward_is_not_hidden() -> None:
  """It must reach whoever refuses it, not become a zero."""
  found = relative([1.0, np.nan, 0.0, 1.0], [0, 0, 1, 1], [True] * 4)
  assert jnp.isnan(found[:2]).all()
  assert jnp.isfinite(found[2:]).all()


def test_no_gradient_flows() -> None:
  gradient = jax.grad(lambda r: relative(r, RAGGED, VALID).sum())(
    jnp.asarray(REWARD)
  )
  assert not gradient.any()


@pytest.mark.parametrize(
  ("changed", "said"),
  [
    ({"scale": "batch"}, "'batch'"),
    ({"ddof": 2}, "2"),
    ({"epsilon": -1.0}, r"-1\.0"),
    ({"num_groups": 0}, "0"),
  ],
)
def test_bad_options_are_refused(changed, said: str) -> None:
  options = {"num_groups": 4, "scale": "group", "ddof": 0, "epsilon": 0.0}
  unchecked = inspect.unwrap(groups.group_relative)
  with pytest.raises(ValueError, match=said):
    unchecked(
      jnp.asarray(REWARD),
      jnp.asarray(RAGGED),
      jnp.asarray(VALID),
      **(options | changed),
    )


def test_clip_and_rescale() -> None:
  advantage = jnp.array([-9.0, -2.5, 0.0, 5.0, 6.0])
  found = groups.clip_and_rescale(advantage, clip=5.0, maximum=1.0)
  assert found.tolist() == [-1.0, -0.5, 0.0, 1.0, 1.0]
  kept = groups.clip_and_rescale(advantage, clip=5.0, maximum=None)
  assert kept.tolist() == [-5.0, -2.5, 0.0, 5.0, 5.0]


@pytest.mark.parametrize(
  ("clip", "maximum"),
  [(0.0, 1.0), (-1.0, None), (5.0, 0.0), (float("inf"), 1.0)],
)
def test_clip_and_rescale_refuses(clip: float, maximum: float | None) -> None:
  with pytest.raises(ValueError, match=r"clip|maximum"):
    groups.clip_and_rescale(jnp.ones(1), clip=clip, maximum=maximum)


def test_an_infinite_clip_is_no_clip() -> None:
  found = groups.clip_and_rescale(
    jnp.array([-9.0, 9.0]), clip=float("inf"), maximum=None
  )
  assert found.tolist() == [-9.0, 9.0]
