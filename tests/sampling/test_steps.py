from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax import sampling

KINDS = ("flow_sde", "dance_sde", "cps")


def _case(rows=4, event=(3,)):
  keys = jax.random.split(jax.random.key(0), 4)
  x, velocity = (jax.random.normal(k, (rows, *event)) for k in keys[:2])
  t = jax.random.uniform(keys[2], (rows,), minval=0.3, maxval=0.9)
  return x, velocity, t, t - 0.1


def _settings(**changes):
  return {"t_first": 0.9, "noise_level": 0.7, "kind": "flow_sde"} | changes


def test_worked_by_hand():
  """Flow-GRPO at t = .6, t' = .5, a = .7, x = .8, v = .3."""
  x, velocity = jnp.array([[0.8]]), jnp.array([[0.3]])
  t, t_next = jnp.array([0.6]), jnp.array([0.5])
  mean, sigma, std = sampling.flow_sde_moments(
    x, velocity, t, t_next, **_settings()
  )
  np.testing.assert_allclose(sigma, [0.857321], atol=1e-6)
  np.testing.assert_allclose(mean, [[0.713650]], atol=1e-6)
  np.testing.assert_allclose(std, [0.271109], atol=1e-6)
  step = sampling.flow_sde_replay(
    x, velocity, t, t_next, mean + 0.5 * std[:, None], **_settings()
  )
  np.testing.assert_allclose(step.log_prob, [0.261296], atol=2e-6)
  # The reference velocity .2: the two normalisations of the KL.
  other, _, _ = sampling.flow_sde_moments(
    x, jnp.array([[0.2]]), t, t_next, **_settings()
  )
  square = ((mean - other) ** 2)[:, 0]
  np.testing.assert_allclose(square / (2 * sigma**2), [1.0544e-4], rtol=1e-4)
  np.testing.assert_allclose(square / (2 * std**2), [1.0544e-3], rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_no_noise_is_the_euler_step(kind):
  x, velocity, t, t_next = _case()
  mean, _, std = sampling.flow_sde_moments(
    x, velocity, t, t_next, **_settings(noise_level=0.0, kind=kind)
  )
  euler = sampling.euler_step(x, velocity, t, t_next)
  np.testing.assert_allclose(mean, euler, atol=2e-6)
  np.testing.assert_array_equal(std, jnp.zeros(4))


def test_pure_noise_borrows_the_first_interior_time_for_one_term_alone():
  x, velocity = jnp.array([[0.8]]), jnp.array([[0.3]])
  one = jnp.ones(1)
  mean, sigma, std = sampling.flow_sde_moments(
    x, velocity, one, 0.9 * one, **_settings()
  )
  np.testing.assert_allclose(sigma, 0.7 * np.sqrt(1 / 0.1), rtol=1e-5)
  np.testing.assert_allclose(std, sigma * np.sqrt(0.1), rtol=1e-5)
  # (1 - t) of the drift is the true one: 0.
  expected = 0.8 * (1 - sigma[0] ** 2 / 2 * 0.1) - 0.3 * 0.1
  np.testing.assert_allclose(mean, [[expected]], rtol=1e-5)


def test_constant_noise():
  x, velocity, t, t_next = _case()
  _, sigma, std = sampling.flow_sde_moments(
    x, velocity, t, t_next, **_settings(kind="dance_sde")
  )
  np.testing.assert_allclose(sigma, np.full(4, 0.7), rtol=1e-6)
  np.testing.assert_allclose(std, 0.7 * np.sqrt(t - t_next), rtol=1e-6)


def test_coefficients_are_preserved():
  """CPS keeps the weight of data and the total weight of noise exactly."""
  x0, noise = (jax.random.normal(jax.random.key(k), (4, 3)) for k in (0, 1))
  _, _, t, t_next = _case()
  x = (1 - t)[:, None] * x0 + t[:, None] * noise
  mean, sigma, std = sampling.flow_sde_moments(
    x, noise - x0, t, t_next, **_settings(kind="cps")
  )
  angle = 0.5 * np.pi * 0.7
  expected = (1 - t_next)[:, None] * x0 + np.cos(angle) * (
    t_next[:, None] * noise
  )
  np.testing.assert_allclose(mean, expected, atol=2e-6)
  np.testing.assert_allclose(std, t_next * np.sin(angle), rtol=1e-6)
  np.testing.assert_allclose(sigma * np.sqrt(t - t_next), std, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_replay_of_a_step_gives_its_log_prob(kind):
  x, velocity, t, t_next = _case()
  keys = sampling.row_keys(jax.random.key(1), jnp.arange(4))
  drawn = sampling.flow_sde_step(
    x, velocity, t, t_next, keys, **_settings(kind=kind)
  )
  again = sampling.flow_sde_replay(
    x, velocity, t, t_next, drawn.x_next, **_settings(kind=kind)
  )
  for one, other in zip(drawn, again, strict=True):
    np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_gradient_is_the_score_of_a_fixed_draw():
  """Differentiating through the draw itself would give zero."""
  x, velocity, t, t_next = _case()
  keys = sampling.row_keys(jax.random.key(1), jnp.arange(4))

  def log_prob(step, *inputs):
    return lambda v: step(
      x, v, t, t_next, *inputs, **_settings()
    ).log_prob.sum()

  drawn = sampling.flow_sde_step(x, velocity, t, t_next, keys, **_settings())
  from_draw = jax.grad(log_prob(sampling.flow_sde_step, keys))(velocity)
  replayed = log_prob(sampling.flow_sde_replay, drawn.x_next)
  np.testing.assert_allclose(from_draw, jax.grad(replayed)(velocity), rtol=1e-5)
  length = 0.1 * (1 + drawn.sigma**2 * (1 - t) / (2 * t))
  score = (drawn.x_next - drawn.mean) / drawn.std[:, None] ** 2
  np.testing.assert_allclose(
    from_draw, -score * length[:, None] / 3, rtol=1e-4, atol=1e-5
  )


@pytest.mark.slow
def test_a_step_without_noise_has_no_log_prob_and_no_gradient():
  x, velocity, t, _ = _case()

  def log_prob(v):
    step = sampling.flow_sde_replay(
      x, v, t, jnp.zeros(4), x, **_settings(kind="cps")
    )
    return step.log_prob

  assert np.isnan(log_prob(velocity)).all()
  masked = jax.grad(lambda v: jnp.where(False, log_prob(v), 0.0).sum())
  np.testing.assert_array_equal(masked(velocity), jnp.zeros((4, 3)))


@pytest.mark.parametrize("bad", [0.0, -0.5, float("nan")])
def test_log_probs_need_noise(bad):
  x, velocity, t, t_next = _case()
  keys = sampling.row_keys(jax.random.key(1), jnp.arange(4))
  settings = _settings(noise_level=bad)
  with pytest.raises(ValueError, match="noise_level"):
    sampling.flow_sde_step(x, velocity, t, t_next, keys, **settings)
  with pytest.raises(ValueError, match="noise_level"):
    sampling.flow_sde_replay(x, velocity, t, t_next, x, **settings)


@pytest.mark.usefixtures("unchecked")
def test_unknown_kind_and_too_much_noise_are_refused():
  x, velocity, t, t_next = _case()
  with pytest.raises(ValueError, match="kind"):
    sampling.flow_sde_moments(x, velocity, t, t_next, **_settings(kind="sde"))
  with pytest.raises(ValueError, match="at most 1"):
    sampling.flow_sde_moments(
      x, velocity, t, t_next, **_settings(kind="cps", noise_level=1.5)
    )


@pytest.mark.slow
def test_row_keys_belong_to_ids_and_not_to_places():
  key = jax.random.key(3)
  ids = jnp.array([5, 2, 9])
  noise = sampling.row_normal(sampling.row_keys(key, ids), (2, 2))
  alone = sampling.row_normal(sampling.row_keys(key, ids[1:2]), (2, 2))
  assert noise.shape == (3, 2, 2)
  np.testing.assert_array_equal(noise[1], alone[0])
  assert len(np.unique(noise)) == noise.size
