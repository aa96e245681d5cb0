"""The filter of advantages that stand out."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.advantages.sigma_filter import filtered_whiten, sigma_filter


def white(advantage, mask=None, reference_bounds=False, ddof=0):
  advantage = jnp.asarray(advantage, jnp.float32)
  mask = jnp.ones(advantage.shape, bool) if mask is None else mask
  return filtered_whiten(
    advantage, mask, bound=3.0, ddof=ddof, reference_bounds=reference_bounds
  )


@pytest.mark.slow
def test_one_wrong_answer_among_many_is_dropped():
  """Sheet: 255 ones and a zero; the zero is at -15.968720."""
  reward = np.ones(256)
  reward[17] = 0.0
  found = white(reward)
  assert found.value[17] == 0
  assert found.dropped.sum() == 1
  assert bool(found.dropped[17])
  np.testing.assert_allclose(np.delete(found.value, 17), 0.062622, atol=1e-6)
  kept = sigma_filter(
    jnp.asarray((reward - reward.mean()) / reward.std(), jnp.float32),
    jnp.ones(256, bool),
    bound=16.0,
  )
  np.testing.assert_allclose(kept.value[17], -15.968720, rtol=1e-5)


@pytest.mark.slow
def test_one_of_eight_is_kept():
  """Sheet: 7 to 1 is -2.645751 and its opposite's share."""
  found = white([1.0] * 7 + [0.0])
  np.testing.assert_allclose(found.value[7], -2.645751, atol=1e-6)
  assert not found.dropped.any()


@pytest.mark.slow
def test_against_the_formulas():
  rng = np.random.default_rng(0)
  advantage = rng.standard_t(2, size=(32, 8)) + 0.5
  mask = rng.uniform(size=advantage.shape) < 0.7
  counted = advantage[mask]
  z = (advantage - counted.mean()) / counted.std()
  low, high = counted.mean() - 3, counted.mean() + 3
  inside = (z >= low) & (z <= high) & (np.abs(z) <= 10)
  hidden = np.where(mask, advantage, np.nan)
  for reference, kept in ((False, np.abs(z) <= 3), (True, inside)):
    assert not kept[mask].all(), "the case has something to drop"
    found = white(hidden, jnp.asarray(mask), reference_bounds=reference)
    np.testing.assert_allclose(
      found.value, np.where(mask & kept, z, 0.0), atol=1e-5
    )
    np.testing.assert_array_equal(found.dropped, mask & ~kept)


def test_doing_it_twice_is_doing_it_once():
  z = jnp.array([0.5, -3.5, 3.0, -3.0, 9.0])
  mask = jnp.array([True, True, True, True, False])
  once = sigma_filter(z, mask, bound=3.0)
  assert once.value.tolist() == [0.5, 0.0, 3.0, -3.0, 0.0]
  assert once.dropped.tolist() == [False, True, False, False, False]
  again = sigma_filter(once.value, mask, bound=3.0)
  np.testing.assert_array_equal(again.value, once.value)
  assert float(once.value.sum()) != float(z[mask].sum())


def test_the_codes_interval_drops_what_it_should_not():
  """Mean advantage 2: it keeps -1 to 5 of something around 0."""
  reward = jnp.array([2.0] * 6 + [2.0 - 1.5, 2.0 + 1.5])
  paper, code = white(reward), white(reward, reference_bounds=True)
  assert not paper.dropped.any()
  assert code.dropped.tolist() == [False] * 6 + [True, False]


@pytest.mark.slow
def test_nan_stays_visible_unless_the_code_is_asked_for():
  z = jnp.array([jnp.nan, 1.0, -1.0])
  mask = jnp.ones(3, bool)
  assert jnp.isnan(sigma_filter(z, mask, bound=3.0).value[0])
  code = white(z, reference_bounds=True)
  assert code.dropped.all()
  assert not code.value.any()


def test_bad_input():
  with pytest.raises(ValueError, match=r"bound .*got 0\.0"):
    sigma_filter(jnp.ones(2), jnp.ones(2, bool), bound=0.0)
  with pytest.raises(ValueError, match="got 0 of 2"):
    white([1.0, 2.0], jnp.zeros(2, bool))
