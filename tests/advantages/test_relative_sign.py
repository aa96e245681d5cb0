from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.advantages import relative_sign

negative = jax.jit(
  partial(relative_sign.relative_negative, scale="group", ddof=1, epsilon=1e-6),
  static_argnames="num_groups",
)


@pytest.mark.slow
def test_worked_example_of_the_sheet():
  """Rewards (1, 0, 0, 1), four rows, sample standard deviation."""
  reward, group = jnp.array([1.0, 0.0, 0.0, 1.0]), jnp.zeros(4, int)
  found = negative(reward, group, group == 0, num_groups=1)
  np.testing.assert_allclose(found, [0, -0.866024, -0.866024, 0], atol=1e-6)
  weighted = relative_sign.psr_nsr(
    reward == 1, group == 0, mode="weighted", pos_weight=0.1
  )
  np.testing.assert_allclose(weighted, [0.1, -1.0, -1.0, 0.1], atol=1e-7)


def test_the_parts_of_both_signs_add_up():
  advantage = jnp.asarray(np.random.default_rng(0).normal(size=(3, 5)))
  above, below = relative_sign.split_relative_advantage(advantage)
  np.testing.assert_array_equal(above + below, advantage)
  assert above.min() == 0 == below.max()
  for weight, expected in (
    (0.0, below),
    (1.0, advantage),
    (jnp.ones(()), None),
  ):
    found = relative_sign.weighted_relative(advantage, pos_weight=weight)
    np.testing.assert_array_equal(
      found, advantage if expected is None else expected
    )


@pytest.mark.slow
def test_a_wrong_answer_weighs_more_on_an_easy_prompt():
  """-sqrt(p / (1 - p)) of the population, by success rate; 0 at 0 and 1."""
  size = 8
  right = np.arange(size)[None] < np.arange(size + 1)[:, None]
  group = np.repeat(np.arange(size + 1), size)
  found = relative_sign.relative_negative(
    jnp.asarray(right.reshape(-1), jnp.float32),
    jnp.asarray(group),
    jnp.ones(group.size, bool),
    num_groups=size + 1,
    scale="group",
    ddof=0,
    epsilon=0.0,
  ).reshape(size + 1, size)
  rate = np.arange(size + 1) / size
  for own, count, p in zip(found, range(size + 1), rate, strict=True):
    assert not np.any(own[:count])
    expected = 0.0 if p in (0, 1) else -np.sqrt(p / (1 - p))
    np.testing.assert_allclose(own[count:], expected, rtol=1e-5)
  # The outcome alone does not spare a prompt that nobody solves.
  alone = relative_sign.psr_nsr(
    jnp.asarray(right.reshape(-1)),
    jnp.ones(group.size, bool),
    mode="negative",
    pos_weight=0.0,
  ).reshape(size + 1, size)
  assert alone[0].tolist() == [-1.0] * size
  assert not np.any(alone[size])


@pytest.mark.parametrize(
  ("mode", "expected"),
  [
    ("positive", [1, 0, 1, 0]),
    ("negative", [0, -1, 0, 0]),
    ("weighted", [0.25, -1, 0.25, 0]),
  ],
)
def test_signs_of_outcomes(mode, expected):
  """The last row does not count."""
  found = relative_sign.psr_nsr(
    jnp.array([True, False, True, False]),
    jnp.array([True, True, True, False]),
    mode=mode,
    pos_weight=0.25,
  )
  assert found.tolist() == expected


def test_dividing_by_active_tokens_is_dropping_the_others():
  rng = np.random.default_rng(0)
  advantage = np.minimum(rng.normal(size=16), 0).astype(np.float32)
  mask = rng.uniform(size=(16, 5)) < 0.6
  mask[3] = False
  loss = rng.normal(size=(16, 5)) * advantage[:, None]
  dirty = np.where(np.arange(16) == 3, np.nan, advantage)
  share = jax.jit(relative_sign.active_tokens)(dirty, mask)
  kept = mask & (advantage != 0)[:, None]
  assert (share.value, share.weight) == (kept.sum(), mask.sum())
  np.testing.assert_allclose(
    loss[mask].mean() / share.mean(), loss[kept].mean(), rtol=1e-5
  )


def test_nonsense_is_refused(unchecked):
  row = jnp.ones(2, bool)
  with pytest.raises(ValueError, match="must not be negative, got -1"):
    relative_sign.weighted_relative(jnp.ones(2), pos_weight=-1.0)
  with pytest.raises(ValueError, match="must not be negative, got -1"):
    relative_sign.psr_nsr(row, row, mode="weighted", pos_weight=-1.0)
  with pytest.raises(ValueError, match=r"mode must be one of .* got 'both'"):
    relative_sign.psr_nsr(row, row, mode="both", pos_weight=0.1)
