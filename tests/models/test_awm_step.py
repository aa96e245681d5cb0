"""The AWM step is written once: it must serve every velocity model."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rl_jax import reduce
from rl_jax.flow import interpolate
from rl_jax.losses import awm_loss, matching_log_prob
from rl_jax.models import FlowTransformer, VelocityMLP
from rl_jax.training.sharding import batch_sharding, make_mesh, shard_like

pytestmark = pytest.mark.slow

MODELS = [
  pytest.param(
    VelocityMLP(event=8, classes=4, width=8, blocks=1, time_features=4),
    id="mlp",
  ),
  pytest.param(
    FlowTransformer(
      height=2,
      width_pixels=4,
      channels=2,
      width=8,
      layers=2,
      heads=2,
      mlp_ratio=2,
      classes=4,
    ),
    id="transformer",
    marks=pytest.mark.slow,
  ),
]
ROWS, TIMES = 8, 3


@pytest.fixture(params=MODELS)
def model(request):
  return request.param


def setting(model):
  rng = np.random.RandomState(0)

  def normal(*shape):
    return jnp.asarray(rng.normal(size=shape), jnp.float32)

  params = jax.tree.map(
    lambda leaf: normal(*leaf.shape) * 0.3,
    jax.eval_shape(model.init, jax.random.key(0)),
  )
  batch = {
    "x0": normal(ROWS, *model.event_shape),
    "noise": normal(ROWS, TIMES, *model.event_shape),
    "t": jnp.asarray(rng.uniform(0.1, 0.9, (ROWS, TIMES)), jnp.float32),
    "condition": jnp.asarray(rng.randint(4, size=ROWS)),
    "advantage": normal(ROWS),
  }
  return params, batch


@functools.partial(jax.jit, static_argnums=0)
@functools.partial(jax.value_and_grad, argnums=1, has_aux=True)
def step(model, params, batch):
  x_t, target = interpolate(batch["x0"], batch["noise"], batch["t"])
  velocity = model.apply(params, x_t, batch["t"], batch["condition"])
  log_prob = matching_log_prob(
    velocity, target, batch["t"], weighting="ghuber", power=0.25
  )
  mask = jnp.ones(batch["t"].shape, bool)
  result = awm_loss(
    log_prob,
    jax.lax.stop_gradient(log_prob),
    batch["advantage"],
    mask,
    clip_low=0.2,
    clip_high=0.2,
    ratio_level="element",
  )
  return reduce.over_tokens(result.loss, mask).mean(), result.ratio


def test_first_step_is_on_policy(model):
  """Ratio one and loss -mean A, with a gradient that is not zero."""
  params, batch = setting(model)
  (loss, ratio), gradient = step(model, params, batch)
  np.testing.assert_array_equal(ratio, np.ones((ROWS, TIMES)))
  np.testing.assert_allclose(loss, -np.mean(batch["advantage"]), atol=1e-6)
  square = sum(float(jnp.sum(leaf**2)) for leaf in jax.tree.leaves(gradient))
  assert square > 0


def test_rows_without_advantage_move_nothing(model):
  params, batch = setting(model)
  batch["advantage"] = jnp.zeros(ROWS)
  _, gradient = step(model, params, batch)
  assert not any(np.any(leaf) for leaf in jax.tree.leaves(gradient))


def test_gradient_is_that_of_the_weighted_pretraining_loss(model):
  """d(-A r)/dw = -A dlogp/dw at r = 1: the paper's equivalence."""
  params, batch = setting(model)
  (_, _), gradient = step(model, params, batch)

  @jax.jit
  @jax.grad
  def weighted(params):
    event = (1,) * len(model.event_shape)
    t = batch["t"].reshape(ROWS, TIMES, *event)
    x0, noise = batch["x0"][:, None], batch["noise"]
    x_t, target = (1 - t) * x0 + t * noise, noise - x0
    velocity = model.apply(params, x_t, batch["t"], batch["condition"])
    axes = tuple(range(2, velocity.ndim))
    error = jnp.mean((velocity - target) ** 2, axes)
    # ghuber: log p = -t ((l + 1e-10)^p - 1e-10^p) / p.
    log_prob = -batch["t"] * ((error + 1e-10) ** 0.25 - 1e-10**0.25) / 0.25
    return -jnp.mean(batch["advantage"][:, None] * log_prob)

  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
    gradient,
    weighted(params),
  )


def test_eight_devices_take_the_step_of_one(model):
  params, batch = setting(model)
  mesh = make_mesh(data=2, fsdp=2, tensor=2)
  placed = jax.device_put(
    params, shard_like(model.logical_axes(params), params, mesh)
  )
  (loss, _), gradient = step(model, params, batch)
  (split_loss, _), split = step(
    model, placed, jax.device_put(batch, batch_sharding(mesh))
  )
  np.testing.assert_allclose(loss, split_loss, rtol=1e-5, atol=1e-6)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
    gradient,
    split,
  )
