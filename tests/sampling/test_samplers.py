from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax import sampling

ROWS, EVENT = 5, (3,)
SAMPLERS = {
  "euler": sampling.EulerOde(steps=4, shift=1.0),
  "flow_sde": sampling.FlowSde(steps=4, shift=3.0, noise_level=0.7),
  "cps": sampling.FlowSde(steps=4, shift=1.0, noise_level=0.7, kind="cps"),
  "sa": sampling.SaSolver(steps=4, shift=3.0, order=2, noise_level=0.4),
  "ddim": sampling.Ddim(steps=4, prediction="flow"),
}


def velocity_fn(x, t):
  return jnp.tanh(x) - x * t[:, None]


def _inputs(ids=range(ROWS)):
  ids = jnp.asarray(list(ids))
  noise_key, sample_key = jax.random.split(jax.random.key(0))
  noise = sampling.row_normal(sampling.row_keys(noise_key, ids), EVENT)
  return noise, sampling.row_keys(sample_key, ids)


@pytest.fixture(scope="module")
def results():
  return {
    name: jax.jit(lambda x, k, s=s: s(velocity_fn, x, k))(*_inputs())
    for name, s in SAMPLERS.items()
  }


@pytest.mark.parametrize("name", SAMPLERS)
class TestEverySampler:
  @pytest.mark.slow
  def test_a_row_does_not_see_its_neighbours(self, name, results):
    """Other rows, another order, one row more: the same up to rounding.

    Not bit for bit: a vector loop rounds its remainder differently.
    """
    sampler = jax.jit(lambda x, k: SAMPLERS[name](velocity_fn, x, k))
    ids = [3, 0, 17, 1, 4, 2]
    other = sampler(*_inputs(ids))
    for place, row in enumerate(ids):
      if row < ROWS:
        for one, two in zip(other, results[name], strict=True):
          if one is not None:
            np.testing.assert_allclose(
              one[place], two[row], rtol=1e-6, atol=1e-6
            )

  @pytest.mark.slow
  def test_sharding_rows_changes_nothing(self, name):
    """Eight rows on eight devices and on one."""
    noise, keys = _inputs(range(8))
    sampler = jax.jit(lambda x, k: SAMPLERS[name](velocity_fn, x, k).x0)
    mesh = jax.make_mesh(
      (8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,)
    )
    rows = jax.NamedSharding(mesh, jax.P("data"))
    spread = sampler(jax.device_put(noise, rows), jax.device_put(keys, rows))
    np.testing.assert_allclose(
      spread, sampler(noise, keys), rtol=1e-6, atol=1e-6
    )

  @pytest.mark.slow
  def test_shapes(self, name, results):
    x0, x, log_prob = results[name]
    assert x0.shape == (ROWS, *EVENT)
    assert np.isfinite(x0).all()
    assert (x is None) == (log_prob is None) == (name in ("euler", "sa"))
    if x is not None:
      assert x.shape == (ROWS, 5, *EVENT)
      assert log_prob.shape == (ROWS, 4)
      np.testing.assert_array_equal(x[:, -1], x0)
      np.testing.assert_array_equal(x[:, 0], _inputs()[0])


@pytest.mark.slow
@pytest.mark.parametrize("name", ["flow_sde", "cps", "ddim"])
def test_replay_of_a_trajectory_gives_its_log_probs(name, results):
  _, x, log_prob = results[name]
  # Every row at another step, as when steps are shuffled per row.
  step = jnp.arange(ROWS) % 4
  rows = np.arange(ROWS)
  replay = jax.jit(lambda *stored: SAMPLERS[name].replay(velocity_fn, *stored))
  again = replay(x[rows, step], x[rows, step + 1], step)
  np.testing.assert_allclose(
    again.log_prob, log_prob[rows, step], rtol=1e-5, atol=1e-5
  )


@pytest.mark.slow
def test_replay_maps_over_the_steps_of_all_rows(results):
  _, x, log_prob = results["flow_sde"]
  step = jnp.broadcast_to(jnp.arange(4)[:, None], (4, ROWS))
  replay = jax.jit(
    jax.vmap(
      lambda here, there, step: (
        SAMPLERS["flow_sde"].replay(velocity_fn, here, there, step).log_prob
      ),
      in_axes=(1, 1, 0),
      out_axes=1,
    )
  )
  np.testing.assert_allclose(
    replay(x[:, :-1], x[:, 1:], step), log_prob, rtol=1e-5, atol=1e-5
  )


def test_euler_against_a_loop():
  noise, keys = _inputs()
  sampler = SAMPLERS["euler"]
  x = np.asarray(noise, np.float64)
  for t, t_next in zip(
    sampler.schedule[:-1], sampler.schedule[1:], strict=True
  ):
    velocity = np.tanh(x) - x * float(t)
    x = x + (float(t_next) - float(t)) * velocity
  np.testing.assert_allclose(
    sampler(velocity_fn, noise, keys).x0, x, rtol=1e-5, atol=1e-6
  )


def test_euler_is_exact_where_lines_are_straight():
  """All data at one point: every line ends there, in one step or in many."""
  noise, keys = _inputs()
  for steps in (1, 3):
    sampler = sampling.EulerOde(steps=steps, shift=2.0, t_min=0.001)
    x0 = sampler(lambda x, t: (x - 2.0) / t[:, None], noise, keys).x0
    np.testing.assert_allclose(x0, np.full_like(x0, 2.0), atol=1e-6)


@pytest.mark.slow
def test_sde_against_its_own_steps(results):
  noise, keys = _inputs()
  x, schedule = noise, SAMPLERS["flow_sde"].schedule
  for index in range(4):
    t = jnp.full(ROWS, schedule[index])
    step = sampling.flow_sde_step(
      x,
      velocity_fn(x, t),
      t,
      jnp.full(ROWS, schedule[index + 1]),
      jax.vmap(lambda key, i=index: jax.random.fold_in(key, i))(keys),
      t_first=float(schedule[1]),
      noise_level=0.7,
      kind="flow_sde",
    )
    x = step.x_next
    np.testing.assert_allclose(
      results["flow_sde"].log_prob[:, index], step.log_prob, atol=1e-5
    )
  np.testing.assert_allclose(results["flow_sde"].x0, x, atol=1e-5)


def test_the_last_step_of_cps_alone_has_no_log_prob(results):
  finite = np.isfinite(results["cps"].log_prob)
  np.testing.assert_array_equal(finite, [[True, True, True, False]] * ROWS)
  assert np.isfinite(results["flow_sde"].log_prob).all()


@pytest.mark.parametrize("bad", [0.0, -1.0])
def test_a_stochastic_sampler_without_noise_is_refused(bad):
  with pytest.raises(ValueError, match="EulerOde"):
    sampling.FlowSde(steps=4, shift=1.0, noise_level=abs(bad) * 0)
  with pytest.raises(ValueError, match="noise_level"):
    sampling.FlowSde(steps=4, shift=1.0, noise_level=bad)


@pytest.mark.parametrize(
  "schedule", [[1.0], [1.0, 0.5, 0.5, 0.0], [0.0, 1.0], [1.5, 0.0], [1.0, -0.1]]
)
def test_a_schedule_that_cannot_be_walked_is_refused(schedule):
  noise, keys = _inputs()
  schedule = np.asarray(schedule, np.float32)
  with pytest.raises(ValueError, match="schedule"):
    sampling.ode_euler(velocity_fn, noise, schedule)
  with pytest.raises(ValueError, match="schedule"):
    sampling.flow_sde(
      velocity_fn, noise, keys, schedule, noise_level=0.7, kind="flow_sde"
    )


def test_components_refuse_what_their_schedule_refuses():
  with pytest.raises(ValueError, match="num_steps"):
    sampling.EulerOde(steps=0, shift=1.0)
  with pytest.raises(ValueError, match="shift"):
    sampling.FlowSde(steps=4, shift=-1.0, noise_level=0.7)


class TestGuidance:
  def _parts(self):
    x, t = _inputs()[0], jnp.full(ROWS, 0.5)
    return (lambda x, _: 3.0 * x), (lambda x, t: x * t[:, None]), x, t

  @pytest.mark.parametrize(
    ("weight", "factor"), [(0.0, 0.5), (1.0, 3.0), (4.5, 0.5 + 4.5 * 2.5)]
  )
  def test_it_extrapolates_from_the_unconditional(self, weight, factor):
    conditional, unconditional, x, t = self._parts()
    guided = sampling.guided(conditional, unconditional, weight=weight)
    np.testing.assert_allclose(guided(x, t), factor * x, rtol=1e-6)

  @pytest.mark.slow
  def test_the_unconditional_branch_is_stopped(self):
    _, _, x, t = self._parts()

    def total(scale):
      guided = sampling.guided(
        lambda x, _: scale[0] * x, lambda x, _: scale[1] * x, weight=4.5
      )
      return guided(x, t).sum()

    gradient = jax.grad(total)(jnp.ones(2))
    np.testing.assert_allclose(gradient[0], 4.5 * x.sum(), rtol=1e-5)
    assert gradient[1] == 0.0
