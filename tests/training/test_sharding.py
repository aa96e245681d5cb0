import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import AxisType, PartitionSpec

from rl_jax.training.sharding import (
  RULES,
  Unsharded,
  batch_sharding,
  check_rows,
  make_mesh,
  over_rows,
  replicated,
  shard_like,
  state_sharding,
  unsharded,
)

P = PartitionSpec
AXES = {
  "in": {"kernel": ("embed", "mlp"), "bias": ("mlp",)},
  "norm": {"scale": (None,)},
}


def shapes(width=4):
  return {
    "in": {"kernel": jnp.zeros((8, width)), "bias": jnp.zeros(width)},
    "norm": {"scale": jnp.zeros(8)},
  }


@pytest.fixture(scope="module")
def cube():
  return make_mesh(data=2, fsdp=2, tensor=2)


@pytest.mark.parametrize(
  ("sizes", "expected"),
  [
    ({}, (8, 1, 1)),
    ({"fsdp": 2}, (4, 2, 1)),
    ({"data": 1, "fsdp": -1, "tensor": 4}, (1, 2, 4)),
    ({"data": 2, "fsdp": 2, "tensor": 2}, (2, 2, 2)),
    ({"fsdp": 8}, (1, 8, 1)),
  ],
)
def test_mesh_fills_what_is_left(sizes, expected):
  mesh = make_mesh(**sizes)
  assert mesh.axis_names == ("data", "fsdp", "tensor")
  assert tuple(mesh.shape.values()) == expected
  assert set(mesh.axis_types) == {AxisType.Auto}
  assert set(mesh.devices.ravel()) == set(jax.devices())


def test_mesh_on_some_devices():
  mesh = make_mesh(devices=jax.devices()[2:4])
  assert list(mesh.devices.ravel()) == jax.devices()[2:4]


@pytest.mark.parametrize(
  ("sizes", "words"),
  [
    ({"tensor": 3}, "tensor=3 does not fit 8 devices: 3 does not divide"),
    ({"tensor": 16}, "16 does not divide"),
    ({"data": 2}, "data=2, fsdp=1, tensor=1 .* 8 devices: 2 is not that"),
    ({"fsdp": -1}, "one of them may be -1"),
    ({"fsdp": 0}, "at least 1"),
    ({"tensor": -2}, "at least 1"),
  ],
)
def test_mesh_that_does_not_fit_is_refused_with_the_numbers(sizes, words):
  with pytest.raises(ValueError, match=words):
    make_mesh(**sizes)


def test_parameters_follow_the_rules(cube):
  placed = shard_like(AXES, shapes(), cube)
  assert placed["in"]["kernel"].spec == P("fsdp", "tensor")
  assert placed["in"]["bias"].spec == P("tensor")
  assert placed["norm"]["scale"].spec == P(None)
  assert unsharded(AXES, shapes(), cube) == []


def test_each_device_holds_its_part_only(cube):
  value = jnp.arange(32.0).reshape(8, 4)
  placed = shard_like(AXES, shapes(), cube)["in"]["kernel"]
  split = jax.device_put(value, placed)
  assert {shard.data.shape for shard in split.addressable_shards} == {(4, 2)}
  np.testing.assert_array_equal(split, value)


def test_axis_that_does_not_divide_stays_whole_and_is_reported(cube):
  placed = shard_like(AXES, shapes(width=5), cube)
  assert placed["in"]["kernel"].spec == P("fsdp", None)
  assert placed["in"]["bias"].spec == P(None)
  assert unsharded(AXES, shapes(width=5), cube) == [
    Unsharded("in/bias", 0, "mlp", 5, 2),
    Unsharded("in/kernel", 1, "mlp", 5, 2),
  ]


def test_report_and_placement_agree(cube):
  """An axis is split, reported, or has no rule: never a fourth."""
  for width in range(1, 7):
    tree = shapes(width)
    placed = shard_like(AXES, tree, cube)
    reported = {(u.path, u.axis) for u in unsharded(AXES, tree, cube)}
    for group, leaves in tree.items():
      for name, leaf in leaves.items():
        spec = placed[group][name].spec
        for axis in range(leaf.ndim):
          ruled = AXES[group][name][axis] is not None
          split = spec[axis] is not None
          assert ruled == (split or (f"{group}/{name}", axis) in reported)


def test_one_device_follows_every_rule():
  mesh = make_mesh(devices=jax.devices()[:1])
  assert unsharded(AXES, shapes(width=5), mesh) == []
  sharding = shard_like(AXES, shapes(width=5), mesh)["in"]["kernel"]
  assert sharding.is_fully_replicated


@pytest.mark.parametrize("function", [shard_like, unsharded])
def test_unknown_name_is_refused(cube, function):
  with pytest.raises(ValueError, match=r"no rule for the axis 'wide'.*embed"):
    function({"w": ("wide",)}, {"w": jnp.zeros(4)}, cube)


def test_names_must_match_the_rank(cube):
  with pytest.raises(ValueError, match=r"\('mlp',\).*shape \(4, 4\)"):
    shard_like({"w": ("mlp",)}, {"w": jnp.zeros((4, 4))}, cube)


def test_two_axes_on_one_mesh_axis_are_refused(cube):
  with pytest.raises(ValueError, match="over the same mesh axis"):
    shard_like({"w": ("mlp", "heads")}, {"w": jnp.zeros((4, 4))}, cube)


def test_rules_name_axes_of_the_mesh(cube):
  named = {axis for rule in RULES.values() for axis in rule}
  assert named == set(cube.axis_names)


def test_state_moments_and_averages_live_with_their_parameters(cube):
  params = shapes()
  optimiser = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3))
  state = {
    "params": params,
    "optimiser": optimiser.init(params),
    "memory": {"slow": params, "base": (params, params)},
    "step": jnp.zeros((), int),
    "buffer": jnp.zeros((8, 4)),
    "key": jax.random.key(0),
  }
  placed = state_sharding(jax.eval_shape(lambda: state), AXES, cube)
  expected = shard_like(AXES, params, cube)
  adam = placed["optimiser"][1][0]
  for tree in (
    placed["params"],
    adam.mu,
    adam.nu,
    placed["memory"]["slow"],
    *placed["memory"]["base"],
  ):
    assert tree == expected
  for leaf in (adam.count, placed["step"], placed["buffer"], placed["key"]):
    assert leaf == replicated(cube)
  assert jax.tree.structure(placed) == jax.tree.structure(state)


def test_state_is_placeable_and_unchanged(cube):
  params = jax.tree.map(
    lambda a: jnp.arange(a.size, dtype=a.dtype).reshape(a.shape), shapes()
  )
  state = (params, optax.adam(1e-3).init(params))
  placed = jax.device_put(state, state_sharding(state, AXES, cube))
  jax.tree.map(np.testing.assert_array_equal, placed, state)
  assert not placed[1][0].mu["in"]["kernel"].sharding.is_fully_replicated


def test_same_structure_with_other_ranks_is_not_parameters(cube):
  """Factored moments look alike by name and are not split by those names."""
  factored = jax.tree.map(lambda _: jnp.zeros(1), shapes())
  placed = state_sharding({"p": shapes(), "v": factored}, AXES, cube)
  assert set(jax.tree.leaves(placed["v"])) == {replicated(cube)}


def test_state_without_parameters_is_refused(cube):
  with pytest.raises(ValueError, match="no part of the state"):
    state_sharding({"step": jnp.zeros(())}, AXES, cube)


@pytest.mark.slow
def test_batch_rows_are_split_over_data_and_fsdp(cube):
  batch = jax.device_put(jnp.arange(24.0).reshape(8, 3), batch_sharding(cube))
  assert {s.data.shape for s in batch.addressable_shards} == {(2, 3)}
  # Neighbours along tensor hold the same rows.
  held = {
    tuple(cube.device_ids.ravel() == shard.device.id).index(True): float(
      shard.data[0, 0]
    )
    for shard in batch.addressable_shards
  }
  assert [held[place] for place in range(8)] == [0, 0, 6, 6, 12, 12, 18, 18]


def test_rows_that_do_not_divide_are_refused(cube):
  check_rows(8, cube)
  with pytest.raises(
    ValueError, match=r"batch of 6 rows .* 4 devices \(data=2 x fsdp=2\)"
  ):
    check_rows(6, cube)
  with pytest.raises(ValueError, match="batch of 0 rows"):
    check_rows(0, cube)


def test_rows_made_inside_a_step_are_split_too(cube):
  @jax.jit
  def sample():
    made = over_rows({"x": jnp.arange(16.0).reshape(8, 2), "r": jnp.ones(8)})
    return made

  with jax.set_mesh(cube):
    made = sample()
  assert {s.data.shape for s in made["x"].addressable_shards} == {(2, 2)}
  assert {s.data.shape for s in made["r"].addressable_shards} == {(2,)}
  np.testing.assert_array_equal(made["x"].ravel(), np.arange(16.0))


def test_without_a_mesh_nothing_is_asked_for():
  tree = {"x": jnp.ones((3, 2))}
  assert over_rows(tree) is tree
