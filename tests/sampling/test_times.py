from __future__ import annotations

import jax
import numpy as np
import pytest
from scipy.stats import norm

from rl_jax.flow import shifted_schedule
from rl_jax.sampling import DiscreteTimes, LogitNormalTimes, UniformTimes

SD3 = shifted_schedule(num_steps=14, shift=3.0, t_min=0.001)
DIGITS = shifted_schedule(num_steps=10, shift=1.0, t_min=None)


def _discrete(strategy, count=6, fraction=0.9):
  return DiscreteTimes(count=count, fraction=fraction, strategy=strategy)


def _draws(sampler, schedule, rows=3, repeats=64):
  keys = jax.random.split(jax.random.key(0), repeats)
  return np.asarray(
    jax.jit(jax.vmap(lambda k: sampler(k, schedule, rows)))(keys)
  )


def _draw(sampler, schedule, rows):
  draw = jax.jit(lambda key: sampler(key, schedule, rows))
  return np.asarray(draw(jax.random.key(0)))


class TestDiscrete:
  def test_strata_worked_by_hand(self):
    """N = 14, K = 6: [1,2) [2,4) [4,6) [6,8) [8,10) [10,12)."""
    lower, upper = _discrete("discrete_wo_init").strata(14)
    np.testing.assert_array_equal(lower, [1, 2, 4, 6, 8, 10])
    np.testing.assert_array_equal(upper, [2, 4, 6, 8, 10, 12])
    lower, upper = _discrete("discrete").strata(14)
    np.testing.assert_array_equal(lower, [0, 2, 4, 6, 8, 10])
    np.testing.assert_array_equal(upper, [2, 4, 6, 8, 10, 12])
    lower, upper = _discrete("discrete_with_init").strata(14)
    np.testing.assert_array_equal(lower, [0, 1, 3, 5, 7, 9])
    np.testing.assert_array_equal(upper, [1, 3, 5, 7, 9, 12])

  @pytest.mark.slow
  @pytest.mark.parametrize(
    "strategy", ["discrete", "discrete_wo_init", "discrete_with_init"]
  )
  @pytest.mark.parametrize("schedule", [SD3, DIGITS], ids=["sd3", "digits"])
  def test_one_draw_from_every_stratum_and_all_of_it(self, strategy, schedule):
    sampler = _discrete(strategy, count=4)
    t = _draws(sampler, schedule, repeats=256)
    assert t.shape == (256, 3, 4)
    np.testing.assert_array_equal(t, np.broadcast_to(t[:, :1], t.shape))
    lower, upper = sampler.strata(schedule.size - 1)
    for stratum in range(4):
      seen = set(t[:, 0, stratum].tolist())
      allowed = schedule[lower[stratum] : upper[stratum]]
      assert seen == set(allowed.tolist())

  @pytest.mark.slow
  def test_pure_noise_always_sometimes_never(self):
    first = {
      name: (_draws(_discrete(name, count=4), SD3)[:, 0] == 1.0).sum(-1)
      for name in ("discrete", "discrete_wo_init", "discrete_with_init")
    }
    assert (first["discrete_with_init"] == 1).all()
    assert (first["discrete_wo_init"] == 0).all()
    assert 0 < first["discrete"].mean() < 1

  def test_an_integer_boundary_is_not_truncated_down(self):
    """Boundaries that are all integers, for every K that divides."""
    for usable in range(1, 40):
      sampler = _discrete("discrete", count=usable, fraction=1.0)
      lower, upper = sampler.strata(usable)
      np.testing.assert_array_equal(lower, np.arange(usable))
      np.testing.assert_array_equal(upper, np.arange(usable) + 1)

  @pytest.mark.slow
  @pytest.mark.parametrize(
    ("strategy", "offered"),
    [("discrete", 9), ("discrete_wo_init", 8), ("discrete_with_init", 9)],
  )
  def test_all_times_may_be_asked_and_no_more(self, strategy, offered):
    times = _draw(_discrete(strategy, count=offered), DIGITS, 1)[0]
    assert len(set(times.tolist())) == offered
    with pytest.raises(ValueError, match=f"only {offered}"):
      _draw(_discrete(strategy, count=offered + 1), DIGITS, 1)

  def test_with_init_and_one_time_is_pure_noise(self):
    t = _draw(_discrete("discrete_with_init", count=1), SD3, 2)
    np.testing.assert_array_equal(t, [[1.0], [1.0]])

  @pytest.mark.usefixtures("unchecked")
  def test_nonsense_is_refused(self):
    with pytest.raises(ValueError, match="count"):
      _discrete("discrete", count=0)
    for fraction in (0.0, 1.1):
      with pytest.raises(ValueError, match="fraction"):
        _discrete("discrete", fraction=fraction)
    with pytest.raises(ValueError, match="strategy"):
      _discrete("random")


class TestUniform:
  @pytest.mark.slow
  def test_stratified_per_row_in_any_order(self):
    sampler = UniformTimes(count=5, shift=3.0)
    t = np.asarray(_draw(sampler, SD3, 64), np.float64)
    u = t / (3.0 - 2.0 * t)  # the shift undone
    stratum = np.floor((u - 0.2) / 0.8 * 5 + 1e-6).astype(int)
    np.testing.assert_array_equal(
      np.sort(stratum, -1), np.broadcast_to(np.arange(5), (64, 5))
    )
    assert len(np.unique(stratum, axis=0)) > 30
    assert len(np.unique(t)) == t.size

  @pytest.mark.slow
  def test_mean_before_the_shift(self):
    t = _draw(UniformTimes(count=8, shift=1.0), SD3, 256)
    np.testing.assert_allclose(t.mean(), 0.6, atol=2e-3)
    assert 0.2 <= t.min() < 0.21
    assert 0.99 < t.max() <= 1.0

  @pytest.mark.slow
  def test_rows_appended_leave_the_others_alone(self):
    sampler = UniformTimes(count=5, shift=3.0)
    few = _draw(sampler, SD3, 3)
    np.testing.assert_array_equal(few, _draw(sampler, SD3, 9)[:3])

  def test_nonsense_is_refused(self):
    with pytest.raises(ValueError, match="count"):
      UniformTimes(count=0, shift=1.0)
    with pytest.raises(ValueError, match="shift"):
      UniformTimes(count=1, shift=0.0)
    with pytest.raises(ValueError, match="low"):
      UniformTimes(count=1, shift=1.0, low=0.0)


class TestLogitNormal:
  @pytest.mark.slow
  def test_stratified_and_shared_by_rows(self):
    t = _draws(LogitNormalTimes(count=4, shift=3.0), SD3).astype(np.float64)
    np.testing.assert_array_equal(t, np.broadcast_to(t[:, :1], t.shape))
    t = t[:, 0]
    u = t / (3.0 - 2.0 * t)
    share = norm.cdf(np.log(u / (1 - u)))
    stratum = np.floor(share * 4 + 1e-5).astype(int)
    np.testing.assert_array_equal(
      np.sort(stratum, -1), np.broadcast_to(np.arange(4), t.shape)
    )
    assert len(np.unique(stratum, axis=0)) > 10

  @pytest.mark.slow
  def test_small_times_are_raised_to_the_lowest(self):
    t = _draw(LogitNormalTimes(count=64, shift=0.05), SD3, 1)
    assert t.min() == np.float32(0.01)
    assert t.max() <= 1.0

  def test_nonsense_is_refused(self):
    with pytest.raises(ValueError, match="count"):
      LogitNormalTimes(count=-1, shift=1.0)
    with pytest.raises(ValueError, match="shift"):
      LogitNormalTimes(count=1, shift=float("nan"))
    with pytest.raises(ValueError, match="low"):
      LogitNormalTimes(count=1, shift=1.0, low=1.0)
