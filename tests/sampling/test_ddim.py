from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax import sampling

ROWS = 4


def _case():
  keys = jax.random.split(jax.random.key(0), 2)
  clean, noise = (jax.random.normal(k, (ROWS, 3)) for k in keys)
  here = jnp.array([0.1, 0.3, 0.5, 0.9])
  there = jnp.array([0.2, 0.35, 0.95, 0.99])
  return clean, noise, here, there


def _latent(clean, noise, alpha_bar):
  signal, spread = jnp.sqrt(alpha_bar), jnp.sqrt(1 - alpha_bar)
  return signal[:, None] * clean + spread[:, None] * noise


@pytest.mark.parametrize("kind", ["noise", "clean", "velocity", "flow"])
def test_every_prediction_stands_for_the_same_pair(kind):
  clean, noise, here, _ = _case()
  signal, spread = jnp.sqrt(here)[:, None], jnp.sqrt(1 - here)[:, None]
  output = {
    "noise": noise,
    "clean": clean,
    "velocity": signal * noise - spread * clean,
    "flow": noise - clean,
  }[kind]
  found = sampling.noise_and_clean(
    _latent(clean, noise, here), output, here, prediction=kind
  )
  np.testing.assert_allclose(found[0], noise, atol=1e-5)
  np.testing.assert_allclose(found[1], clean, atol=1e-5)


def test_moments_against_the_formulas():
  clean, noise, here, there = _case()
  mean, std = sampling.ddim_moments(
    noise, clean, here, there, eta=0.8, clip=None
  )
  for row in range(ROWS):
    ab, nxt = float(here[row]), float(there[row])
    s = 0.8 * np.sqrt((1 - nxt) / (1 - ab) * (1 - ab / nxt))
    mu = np.sqrt(nxt) * np.asarray(clean[row], np.float64)
    mu = mu + np.sqrt(1 - nxt - s * s) * np.asarray(noise[row], np.float64)
    np.testing.assert_allclose(std[row], s, rtol=1e-5)
    np.testing.assert_allclose(mean[row], mu, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_the_next_level_has_its_variance(eta):
  """Weights of data and of all noise are those of the level stepped to."""
  clean, noise, here, there = _case()
  zero = jnp.zeros_like(clean)
  of_clean, std = sampling.ddim_moments(
    zero, clean, here, there, eta=eta, clip=None
  )
  of_noise, _ = sampling.ddim_moments(
    noise, zero, here, there, eta=eta, clip=None
  )
  np.testing.assert_allclose(
    of_clean, jnp.sqrt(there)[:, None] * clean, rtol=1e-5
  )
  kept = (of_noise / noise)[:, 0] ** 2
  np.testing.assert_allclose(kept + std**2, 1 - there, rtol=1e-4)


def test_clipping_bounds_the_clean_sample_and_leaves_the_noise():
  clean, noise, here, there = _case()
  clipped, _ = sampling.ddim_moments(
    noise, 10 * clean, here, there, eta=1.0, clip=0.5
  )
  by_hand, _ = sampling.ddim_moments(
    noise, jnp.clip(10 * clean, -0.5, 0.5), here, there, eta=1.0, clip=None
  )
  np.testing.assert_array_equal(clipped, by_hand)


@pytest.mark.slow
def test_replay_of_a_step_gives_its_log_prob():
  clean, noise, here, there = _case()
  keys = sampling.row_keys(jax.random.key(1), jnp.arange(ROWS))
  drawn = sampling.ddim_step(
    noise, clean, here, there, keys, eta=1.0, clip=None
  )
  again = sampling.ddim_replay(
    noise, clean, here, there, drawn.x_next, eta=1.0, clip=None
  )
  for one, other in zip(drawn, again, strict=True):
    np.testing.assert_array_equal(one, other)
  z = (drawn.x_next - drawn.mean) / drawn.std[:, None]
  density = -0.5 * z**2 - jnp.log(drawn.std)[:, None] - 0.5 * np.log(2 * np.pi)
  np.testing.assert_allclose(drawn.log_prob, density.mean(-1), rtol=1e-5)


class TestSchedule:
  def test_scaled_linear_by_a_loop(self):
    alpha_bar = sampling.scaled_linear_alpha_bar(
      training_steps=1000, beta_first=0.00085, beta_last=0.012
    )
    product, expected = 1.0, []
    for n in range(1000):
      root = 0.00085**0.5 + n / 999 * (0.012**0.5 - 0.00085**0.5)
      product *= 1 - root**2
      expected.append(product)
    np.testing.assert_allclose(alpha_bar, expected, rtol=1e-6)

  def test_visited_levels(self):
    fifty = sampling.Ddim(steps=50, prediction="noise")
    np.testing.assert_array_equal(fifty.visited, np.arange(981, 0, -20))
    here, at, to = fifty._levels()
    np.testing.assert_array_equal(at, fifty.alpha_bar[here])
    np.testing.assert_array_equal(to[:-1], fifty.alpha_bar[here[1:]])
    assert to[-1] == fifty.alpha_bar[0]
    assert (to > at).all()

  @pytest.mark.slow
  def test_without_offset_the_last_step_has_no_noise(self):
    noise = jax.random.normal(jax.random.key(0), (ROWS, 3))
    keys = sampling.row_keys(jax.random.key(1), jnp.arange(ROWS))
    sampler = sampling.Ddim(steps=4, prediction="noise", offset=0)
    log_prob = sampler(lambda x, _: x, noise, keys).log_prob
    np.testing.assert_array_equal(
      np.isfinite(log_prob), [[True, True, True, False]] * ROWS
    )


@pytest.mark.slow
def test_the_network_is_told_its_training_step():
  seen = []

  def network(x, t):
    jax.debug.callback(lambda t: seen.append(float(t)), t[0])
    return x

  keys = sampling.row_keys(jax.random.key(1), jnp.arange(1))
  sampler = sampling.Ddim(steps=4, prediction="noise")
  jax.block_until_ready(sampler(network, jnp.ones((1, 2)), keys).x0)
  jax.effects_barrier()
  assert sorted(seen, reverse=True) == [751.0, 501.0, 251.0, 1.0]


@pytest.mark.slow
def test_a_flow_is_sampled_at_the_time_of_equal_signal_to_noise():
  """Data N(m, s^2) with its exact velocity: mean and spread come out."""
  m, s = 0.5, 0.3

  def velocity_fn(x, t):
    t = t[:, None]
    variance = ((1 - t) * s) ** 2 + t**2
    slope = (t - (1 - t) * s**2) / variance
    return -m + slope * (x - (1 - t) * m)

  rows = 4096
  keys = sampling.row_keys(jax.random.key(1), jnp.arange(rows))
  noise = jax.random.normal(jax.random.key(0), (rows, 1))
  sampler = sampling.Ddim(steps=500, prediction="flow")
  x0 = jax.jit(lambda x, k: sampler(velocity_fn, x, k).x0)(noise, keys)
  # Level 0 still holds noise: x = sqrt(ab) x_0 + sqrt(1 - ab) e.
  ab = sampler.alpha_bar[0]
  np.testing.assert_allclose(x0.mean(), np.sqrt(ab) * m, atol=0.02)
  np.testing.assert_allclose(x0.std(), np.sqrt(ab * s**2 + 1 - ab), atol=0.015)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize(
  ("bad", "name"),
  [
    ({"eta": 0.0}, "eta"),
    ({"eta": 1.5}, "eta"),
    ({"clip": 0.0}, "clip"),
    ({"prediction": "x0"}, "prediction"),
    ({"steps": 0}, "steps"),
    ({"steps": 1001}, "steps"),
    ({"offset": 300}, "offset"),
    ({"offset": -1}, "offset"),
    ({"beta_first": 0.0}, "beta_first"),
    ({"training_steps": 3}, "steps"),
  ],
)
def test_nonsense_is_refused(bad, name):
  with pytest.raises(ValueError, match=name):
    sampling.Ddim(**({"steps": 4, "prediction": "noise"} | bad))


def test_log_probs_need_noise():
  clean, noise, here, there = _case()
  keys = sampling.row_keys(jax.random.key(1), jnp.arange(ROWS))
  with pytest.raises(ValueError, match="eta"):
    sampling.ddim_step(noise, clean, here, there, keys, eta=0.0, clip=None)
  with pytest.raises(ValueError, match="eta"):
    sampling.ddim_replay(noise, clean, here, there, clean, eta=0.0, clip=None)


@pytest.mark.slow
def test_the_floor_raises_the_noise_and_leaves_the_mean():
  """DPPO's floor, in sampling and likelihood alike."""
  noise, clean = jnp.array([[0.5, -0.25]]), jnp.array([[0.25, 1.0]])
  here, there = jnp.array([0.95]), jnp.array([0.99])
  options = {"eta": 1.0, "clip": None}
  mean, std = sampling.ddim_moments(noise, clean, here, there, **options)
  floored_mean, floored = sampling.ddim_moments(
    noise, clean, here, there, least_std=0.5, **options
  )
  np.testing.assert_array_equal(floored_mean, mean)
  assert float(std[0]) < 0.5
  assert floored.tolist() == [0.5]
  key = jax.random.split(jax.random.key(0), 1)
  taken = sampling.ddim_step(
    noise, clean, here, there, key, least_std=0.5, **options
  )
  again = sampling.ddim_replay(
    noise, clean, here, there, taken.x_next, least_std=0.5, **options
  )
  # log N of the drawn latent at standard deviation 1/2, per dimension.
  z = (np.asarray(taken.x_next) - np.asarray(mean)) / 0.5
  expected = np.mean(-0.5 * z**2 - np.log(0.5 * np.sqrt(2 * np.pi)))
  np.testing.assert_allclose(taken.log_prob, [expected], rtol=1e-5)
  np.testing.assert_allclose(again.log_prob, [expected], rtol=1e-5)


def test_a_floor_gives_the_last_step_a_density():
  bare = sampling.Ddim(steps=4, prediction="flow", offset=0)
  floored = sampling.Ddim(steps=4, prediction="flow", offset=0, least_std=0.1)
  assert (bare.scored_steps, floored.scored_steps) == (3, 4)


def test_a_negative_floor_is_refused(unchecked):
  one = jnp.ones((1, 1))
  with pytest.raises(
    ValueError, match="least_std must not be negative, got -1"
  ):
    sampling.ddim_moments(
      one, one, one[0] * 0.5, one[0] * 0.75, eta=1.0, clip=None, least_std=-1.0
    )
