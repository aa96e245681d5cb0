from __future__ import annotations

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax.advantages import group_relative, whiten
from rl_jax.advantages.spae import (
  checking_tokens,
  difference_shaping,
  saturation_factor,
  spae_advantage,
  step_differences,
  step_potential,
  step_segments,
)

PAPER = {
  "alpha": 0.5,
  "xi": 0.5,
  "threshold": 0.9,
  "tail_mode": "outcome",
  "apply_to": "all",
}
WHITEN = {
  "ddof": 0,
  "epsilon": 1e-8,
  "guard": "outside_root",
  "shift_mean": True,
}
ROWS, TIME, STEPS = 8, 14, 5


@partial(jax.jit, static_argnames=tuple(PAPER))
def advantages(
  compared,
  potential,
  valid,
  index,
  mask,
  *,
  alpha,
  xi,
  threshold,
  tail_mode,
  apply_to,
):
  """All of the method up to the whitening."""
  return spae_advantage(
    compared,
    difference_shaping(potential, valid, epsilon=1e-8),
    saturation_factor(potential, valid, alpha=alpha, threshold=threshold),
    index,
    mask,
    xi=xi,
    tail_mode=tail_mode,
    apply_to=apply_to,
  )


def some_of(steps):
  return jnp.arange(STEPS)[None] < steps.count[:, None]


MODES = [
  {},
  {"alpha": 0.3, "xi": 0.8, "tail_mode": "last_step"},
  {"apply_to": "positive"},
]


@pytest.fixture(scope="module")
def batch():
  """Rows of none to more steps than there is room for, and an empty one."""
  rng = np.random.default_rng(1)
  token = rng.integers(0, 4, (ROWS, TIME))  # 1 ends a step, 3 the thinking
  token[0] = 0
  token[1] = np.resize([0, 1], TIME)
  token[2, 5:] = 2
  mask = np.arange(TIME) < rng.integers(6, TIME + 1, ROWS)[:, None]
  mask[3] = False
  mask[1] = True
  group = np.array([0, 0, 0, 0, 1, 1, 1, 1])
  return {
    "token": token,
    "mask": mask,
    "potential": rng.uniform(-1, 1, (ROWS, STEPS)) + 0.5,
    "compared": rng.normal(size=ROWS),
    "group": group,
  }


@pytest.fixture(scope="module")
def steps(batch):
  return step_segments(
    jnp.asarray(np.where(batch["mask"], batch["token"], 10**6)),
    jnp.asarray(batch["mask"]),
    jnp.array([False, True, False, False]),
    think_end=3,
    num_segments=STEPS,
  )


def _oracle_steps(token, mask):
  index, found, thinking = np.full(len(token), -1), 0, 0
  open_, ended = [], False
  for t in np.flatnonzero(mask):
    ended = ended or token[t] == 3
    thinking += not ended
    open_.append(t)
    if token[t] == 1 and not ended:
      if found < STEPS:
        index[open_] = found
      found, open_ = found + 1, []
  return index, min(found, STEPS), found, thinking


@pytest.mark.slow
def test_steps_equal_a_scan_of_the_tokens(batch, steps):
  for row in range(ROWS):
    expected = _oracle_steps(batch["token"][row], batch["mask"][row])
    for own, other in zip(steps, expected, strict=True):
      np.testing.assert_array_equal(own[row], other)
  assert int(steps.found[1]) > STEPS == int(steps.count[1])


@pytest.mark.slow
def test_no_step_begins_after_the_thinking_has_ended():
  """A row whose thinking ends at once, and one with no end in sight."""
  found = step_segments(
    jnp.array([[3, 1, 0, 1], [1, 0, 1, 0]]),
    jnp.ones((2, 4), bool),
    jnp.arange(4) == 1,
    think_end=3,
    num_segments=2,
  )
  assert found.index.tolist() == [[-1, -1, -1, -1], [0, 1, 1, -1]]
  assert found.thinking.tolist() == [0, 4]
  everything = step_segments(
    jnp.array([[3, 1, 0, 1]]),
    jnp.ones((1, 4), bool),
    jnp.arange(4) == 1,
    think_end=None,
    num_segments=2,
  )
  assert everything.index.tolist() == [[0, 0, 1, 1]]


@pytest.mark.slow
def test_worked_potentials():
  """From the spec; the slope in Conf is 1.5 Acc - 1."""
  acc = jnp.array([1, 0, 0, 1, 0.5, 0.9])
  conf = jnp.array([1, 1, 0, 0, 0.5, 0.95])
  np.testing.assert_allclose(
    step_potential(acc, conf), [1, -1, 0, 0.5, 0.125, 0.7825], rtol=1e-6
  )
  slope = jax.vmap(jax.grad(step_potential, argnums=1))(
    jnp.array([0.6, 2 / 3, 0.7]), jnp.full(3, 0.4)
  )
  np.testing.assert_allclose(slope, [-0.1, 0, 0.05], atol=1e-6)
  grid = np.linspace(0, 1, 21, dtype=np.float32)
  everywhere = step_potential(*map(jnp.asarray, np.meshgrid(grid, grid)))
  assert np.abs(everywhere).max() <= 1.0


@pytest.mark.slow
def test_worked_factors():
  """From the spec: C = 0..3 with alpha .5."""
  f = saturation_factor(
    jnp.ones((1, 4)), jnp.arange(4)[None] < 3, alpha=0.5, threshold=0.9
  )
  np.testing.assert_allclose(
    f[0], [1, 0.683940, 0.567668, 0.524894, 0.524894], atol=1e-6
  )


@pytest.mark.slow
def test_worked_response():
  """From the spec: C = [0, 0, 0, 1, 2]; every number of it, unwhitened."""
  potential = jnp.array([[0.0, 0.3, 0.95, 0.97, 0.6]])
  valid = jnp.ones((1, 5), bool)
  f = saturation_factor(potential, valid, alpha=0.5, threshold=0.9)
  np.testing.assert_allclose(
    f[0], [1, 1, 1, 0.683940, 0.567668, 0.567668], atol=1e-6
  )
  g = difference_shaping(potential, valid, epsilon=1e-8)
  np.testing.assert_allclose(
    g[0], [-0.272733, 0.218729, 1.008279, -0.244273, -0.710002], atol=1e-6
  )
  np.testing.assert_allclose(
    step_differences(potential, valid)[0],
    [0, 0.3, 0.65, 0.02, -0.37],
    atol=1e-6,
  )
  advantage = advantages(
    jnp.array([0.5]), potential, valid, jnp.arange(5)[None], valid, **PAPER
  )
  np.testing.assert_allclose(
    advantage[0], [0.363633, 0.609365, 1.004140, 0.219833, -0.071167], atol=1e-6
  )


def _oracle(batch, index, alpha, xi, threshold, tail_mode, apply_to):
  """Response by response, from items 7 to 9 of the method."""
  differences, factors, tails = [], [], []
  for row in range(ROWS):
    count = max([-1, *index[row][batch["mask"][row]]]) + 1
    phi = batch["potential"][row, :count]
    differences.append(
      [0.0 if k == 0 else phi[k] - phi[k - 1] for k in range(count)]
    )
    settled = [int(np.sum(phi[:k] > threshold)) for k in range(count + 1)]
    factors.append([1 - alpha * (1 - np.exp(-c)) for c in settled])
    tails.append(factors[-1][-1] if tail_mode == "last_step" else 1.0)
  every = np.concatenate(differences)
  span = every.max() - every.min() + 1e-8
  raised = [np.exp((np.array(d) - every.min()) / span) for d in differences]
  middle = np.concatenate(raised).mean()
  out = np.zeros((ROWS, TIME))
  for row, t in np.argwhere(batch["mask"]):
    own, k = batch["compared"][row], index[row, t]
    f, g = (tails[row], 0.0)
    if k >= 0:
      f, g = factors[row][k], raised[row][k] - middle
    if apply_to == "positive" and own <= 0:
      f = 1.0
    out[row, t] = own * f + xi * g
  return out


@pytest.mark.slow
@pytest.mark.parametrize("changes", MODES)
def test_advantage_equals_a_slow_oracle(batch, steps, changes):
  """NaN where there is no step and in the row without a token."""
  settings = PAPER | changes
  some = some_of(steps)
  empty = ~batch["mask"].any(axis=1)
  found = advantages(
    jnp.asarray(np.where(empty, np.nan, batch["compared"]), jnp.float32),
    jnp.asarray(np.where(some, batch["potential"], np.nan), jnp.float32),
    some,
    steps.index,
    jnp.asarray(batch["mask"]),
    **settings,
  )
  expected = _oracle(batch, np.asarray(steps.index), **settings)
  np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def _whitened(batch, steps, white, **changes):
  mask = jnp.asarray(batch["mask"])
  reward = jnp.asarray(batch["compared"] > 0, jnp.float32)
  compared = group_relative(
    reward,
    jnp.asarray(batch["group"]),
    jnp.any(mask, axis=1),
    num_groups=2,
    scale="none",
    ddof=0,
    epsilon=0.0,
  )
  advantage = advantages(
    compared,
    jnp.asarray(batch["potential"], jnp.float32),
    some_of(steps),
    steps.index,
    mask,
    **(PAPER | changes),
  )
  return compared, whiten(advantage, mask, **(WHITEN | white))


@pytest.mark.slow
def test_without_both_terms_it_is_reinforce_with_a_group_baseline(batch, steps):
  """Group mean, then whitening; ddof 1 differs by sqrt((n - 1) / n)."""
  mask = batch["mask"]
  compared, own = _whitened(batch, steps, {}, alpha=0.0, xi=0.0)
  every = np.broadcast_to(np.asarray(compared)[:, None], mask.shape)[mask]
  expected = (every - every.mean()) / (every.std() + 1e-8)
  np.testing.assert_allclose(own[mask], expected, rtol=1e-5, atol=1e-6)
  sheet = {"ddof": 1, "guard": "inside_root"}
  _, other = _whitened(batch, steps, sheet, alpha=0.0, xi=0.0)
  n = mask.sum()
  np.testing.assert_allclose(
    other, np.asarray(own) * np.sqrt((n - 1) / n), rtol=1e-5, atol=1e-6
  )


@pytest.mark.slow
def test_whitened_tokens_have_mean_zero_and_spread_one(batch, steps):
  _, found = _whitened(batch, steps, {})
  every = np.asarray(found)[batch["mask"]]
  assert every.mean() == pytest.approx(0.0, abs=1e-6)
  assert every.std() == pytest.approx(1.0, rel=1e-5)


@pytest.mark.slow
def test_factor_falls_within_its_range_and_differences_sum_to_zero(
  batch, steps
):
  potential = jnp.asarray(batch["potential"], jnp.float32)
  valid = some_of(steps)
  f = saturation_factor(potential, valid, alpha=0.4, threshold=0.9)
  assert np.all(np.diff(f, axis=1) <= 0)
  assert 0.6 < f.min() <= f.max() == 1.0
  never = saturation_factor(potential, valid, alpha=0.4, threshold=9.0)
  np.testing.assert_array_equal(never, 1.0)
  g = difference_shaping(potential, valid, epsilon=1e-8)
  assert float(g.sum()) == pytest.approx(0.0, abs=1e-5)


@pytest.mark.slow
def test_equal_differences_shape_nothing():
  """One step each, steps of one height, none at all: nothing to compare."""
  for valid in (
    jnp.arange(3)[None] < jnp.array([[1], [1]]),
    jnp.ones((2, 3), bool),
    jnp.zeros((2, 3), bool),
  ):
    g = difference_shaping(jnp.full((2, 3), 0.3), valid, epsilon=1e-8)
    np.testing.assert_array_equal(g, 0.0)


@pytest.mark.slow
def test_one_extreme_step_presses_the_others_together():
  valid = jnp.ones((1, 5), bool)
  calm = jnp.array([[0.0, 0.1, 0.0, 0.1, 0.0]])
  wild = calm.at[0, 4].set(-1.0)
  span = [
    float(np.ptp(difference_shaping(x, valid, epsilon=1e-8)[0, :4]))
    for x in (calm, wild)
  ]
  assert span[1] < 0.5 * span[0]
  assert np.ptp(step_differences(wild, valid)) > 5 * 0.2


def test_a_step_without_potential_shows():
  advantage = advantages(
    jnp.ones(1),
    jnp.zeros((1, 2)),
    jnp.ones((1, 2), bool),
    jnp.array([[0, 1, 2]]),
    jnp.ones((1, 3), bool),
    **PAPER,
  )
  np.testing.assert_array_equal(np.isnan(advantage), [[False, False, True]])


@pytest.mark.slow
def test_checking_tokens_of_worked_rows():
  """Settled at step 1 of 3, at no step, settled where there is no step."""
  index = jnp.array(
    [[0, 0, 1, 1, 2, -1, -1]] * 2 + [[0, 0, -1, -1, -1, -1, -1]]
  )
  potential = jnp.array([[0.2, 0.95, 0.1], [0.2, 0.9, 0.1], [0.1, 0.95, 0.99]])
  mask = jnp.arange(7)[None] < 6
  solving, checking, settled = checking_tokens(
    potential,
    index,
    jnp.array([5, 6, 3]),
    jnp.broadcast_to(mask, index.shape),
    threshold=0.9,
  )
  assert solving.tolist() == [4, 0, 0]
  assert checking.tolist() == [1, 0, 0]
  assert settled.tolist() == [True, False, False]


@pytest.mark.slow
def test_no_gradient_flows(batch, steps):
  def total(compared, potential):
    return advantages(
      compared,
      potential,
      some_of(steps),
      steps.index,
      jnp.asarray(batch["mask"]),
      **PAPER,
    ).sum()

  slopes = jax.grad(total, argnums=(0, 1))(
    jnp.ones(ROWS), jnp.asarray(batch["potential"], jnp.float32)
  )
  for slope in slopes:
    np.testing.assert_array_equal(slope, 0.0)


def test_nonsense_is_refused():
  row = jnp.ones((1, 2)), jnp.ones((1, 2), bool)
  for alpha in (-0.1, 1.1):
    with pytest.raises(ValueError, match=r"alpha must be in \[0, 1\]"):
      saturation_factor(*row, alpha=alpha, threshold=0.9)
  with pytest.raises(ValueError, match="epsilon"):
    difference_shaping(*row, epsilon=-1.0)
  with pytest.raises(ValueError, match="num_segments"):
    step_segments(
      jnp.zeros((1, 2), int),
      jnp.ones((1, 2), bool),
      jnp.zeros(3, bool),
      think_end=None,
      num_segments=0,
    )
