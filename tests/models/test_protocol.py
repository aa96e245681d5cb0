import dataclasses
import inspect

import jax
import jax.numpy as jnp
import pytest

from rl_jax.data import ClassPrompts, Data, Digits
from rl_jax.models import (
  Classifier,
  FlowTransformer,
  VelocityMLP,
  VelocityModel,
)

VELOCITY = [
  VelocityMLP(event=6, classes=3, width=4, blocks=1, time_features=4),
  FlowTransformer(
    height=2, width_pixels=2, channels=1, width=4, layers=1, heads=1, classes=3
  ),
]
COMPONENTS = [*VELOCITY, Classifier(), Digits(rows=2), ClassPrompts()]


def members(protocol):
  return {
    name: value
    for name, value in vars(protocol).items()
    if not name.startswith("_") and (callable(value) or type(value) is property)
  }


@pytest.mark.parametrize("model", VELOCITY, ids=lambda m: type(m).__name__)
def test_velocity_models_answer_everything_a_step_may_ask(model):
  expected = members(VelocityModel)
  assert set(expected) == {"event_shape", "init", "apply", "logical_axes"}
  for name, value in expected.items():
    found = inspect.getattr_static(type(model), name)
    assert type(found) is type(value) or callable(found)
    if callable(value):
      own = inspect.signature(found).parameters
      assert list(own) == list(inspect.signature(value).parameters)


@pytest.mark.parametrize(
  "data", COMPONENTS[-2:], ids=lambda d: type(d).__name__
)
def test_data_components_answer_everything_the_loop_may_ask(data):
  expected = members(Data)
  assert set(expected) == {"rows", "shuffle", "source"}
  assert all(hasattr(data, name) for name in expected)


@pytest.mark.slow
@pytest.mark.parametrize("model", VELOCITY, ids=lambda m: type(m).__name__)
@pytest.mark.parametrize("batch", [(), (3,), (3, 2), (2, 1, 2)])
def test_velocity_has_the_shape_of_the_latent(model, batch):
  params = jax.eval_shape(model.init, jax.random.key(0))
  x = jax.ShapeDtypeStruct(batch + model.event_shape, jnp.bfloat16)
  t = jax.ShapeDtypeStruct(batch, jnp.float32)
  label = jax.ShapeDtypeStruct(batch[:1], jnp.int32)
  out = jax.eval_shape(model.apply, params, x, t, label)
  assert (out.shape, out.dtype) == (x.shape, jnp.float32)


@pytest.mark.parametrize(
  "component", COMPONENTS, ids=lambda c: type(c).__name__
)
def test_components_are_frozen_hashable_values(component):
  copy = dataclasses.replace(component)
  assert copy == component
  assert hash(copy) == hash(component)
  name = dataclasses.fields(component)[0].name
  with pytest.raises(dataclasses.FrozenInstanceError):
    setattr(component, name, 3)
