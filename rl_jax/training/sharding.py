"""Logical axis rules: from names of axes to a placement on a mesh.

A model names the axes of its parameters ("embed", "mlp"); `RULES` says which
axis of the mesh each name is split over. The same experiment then runs on one
device, eight simulated ones, or a pod, by its mesh alone.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

if TYPE_CHECKING:
  from collections.abc import Sequence

__all__ = [
  "RULES",
  "Unsharded",
  "batch_sharding",
  "check_rows",
  "make_mesh",
  "over_rows",
  "replicated",
  "shard_like",
  "state_sharding",
  "unsharded",
]

RULES: dict[str, tuple[str, ...]] = {
  "batch": ("data", "fsdp"),
  "embed": ("fsdp",),
  "mlp": ("tensor",),
  "heads": ("tensor",),
  "vocab": ("tensor",),
  "head": (),
  "patch": (),
  "layers": (),
  "classes": (),
}
"""Axes of the mesh that each logical axis is split over; () keeps it whole."""


class Unsharded(NamedTuple):
  """An axis that a rule wants split and that does not divide.

  Attributes:
    path: where the array stands in its tree.
    axis: which axis of the array.
    name: its logical name.
    size: its length.
    devices: how many parts were wanted.
  """

  path: str
  axis: int
  name: str
  size: int
  devices: int


def make_mesh(
  *,
  data: int = -1,
  fsdp: int = 1,
  tensor: int = 1,
  devices: Sequence[jax.Device] | None = None,
) -> Mesh:
  """A mesh with the axes data, fsdp, tensor.

  Args:
    data: copies of the model, each with a part of the batch.
    fsdp: parts that both the parameters and the batch are split in.
    tensor: parts that each layer is split in.
    devices: the devices to use; None takes all of them.

  Returns:
    A mesh whose axes the compiler places on its own (`AxisType.Auto`). At
    most one size may be -1: it takes the devices that are left.

  Raises:
    ValueError: if the sizes do not multiply to the number of devices.
  """
  devices = jax.devices() if devices is None else list(devices)
  sizes = {"data": data, "fsdp": fsdp, "tensor": tensor}
  free = [name for name, size in sizes.items() if size == -1]
  fixed = math.prod(size for size in sizes.values() if size != -1)
  if len(free) > 1 or any(size < 1 for size in sizes.values() if size != -1):
    raise ValueError(
      f"mesh sizes must be at least 1, and one of them may be -1, got {sizes}"
    )
  for name in free:
    sizes[name] = len(devices) // fixed
  if math.prod(sizes.values()) != len(devices):
    raise ValueError(
      f"a mesh of data={data}, fsdp={fsdp}, tensor={tensor} does not fit"
      f" {len(devices)} devices: {fixed} "
      + ("does not divide that" if free else "is not that")
      + "; change a size, or set one to -1 to fill"
    )
  return jax.make_mesh(
    tuple(sizes.values()),
    tuple(sizes),
    axis_types=(AxisType.Auto,) * len(sizes),
    devices=devices,
  )


def shard_like(axes: Any, shapes: Any, mesh: Mesh) -> Any:
  """Where each array of a tree lives.

  Args:
    axes: a tuple of logical names (None: whole) for each array.
    shapes: the arrays, or their shapes.
    mesh: from `make_mesh`.

  Returns:
    A tree of `NamedSharding` like `shapes`. An axis that the mesh does not
    divide stays whole; `unsharded` says which do.

  Raises:
    ValueError: for a name that `RULES` lacks, names that do not match the
      rank, or two axes of one array on the same axis of the mesh.
  """
  return jax.tree.map(
    lambda array, names: NamedSharding(mesh, _spec(names, array.shape, mesh)),
    shapes,
    axes,
  )


def unsharded(axes: Any, shapes: Any, mesh: Mesh) -> list[Unsharded]:
  """All axes that `shard_like` had to keep whole against their rule.

  Args:
    axes: a tuple of logical names (None: whole) for each array.
    shapes: the arrays, or their shapes.
    mesh: from `make_mesh`.

  Returns:
    One record for each such axis; empty when every rule was followed.
  """
  found = []

  def visit(path, array, names):
    for axis, (name, size) in enumerate(zip(names, array.shape, strict=True)):
      parts = _parts(_rule(name), mesh)
      if size % parts:
        where = jax.tree_util.keystr(path, simple=True, separator="/")
        found.append(Unsharded(where, axis, name, size, parts))

  jax.tree_util.tree_map_with_path(visit, shapes, axes)
  return found


def state_sharding(state: Any, axes: Any, mesh: Mesh) -> Any:
  """Where a whole training state lives.

  Every subtree with the structure of the parameters and the ranks that their
  names say (optimiser moments, averages, a reference) is placed as the
  parameters are; everything else is on all devices.

  Args:
    state: arrays or shapes (`jax.eval_shape` of the function that makes it).
    axes: logical names of the parameters.
    mesh: from `make_mesh`.

  Returns:
    A tree of `NamedSharding` like `state`.

  Raises:
    ValueError: if no subtree looks like the parameters.
  """
  names, structure = jax.tree.flatten(axes, is_leaf=_is_names)
  matched = 0

  def like_params(node):
    if jax.tree.structure(node) != structure:
      return False
    return all(
      len(array.shape) == len(own)
      for array, own in zip(jax.tree.leaves(node), names, strict=True)
    )

  def place(node):
    nonlocal matched
    if like_params(node):
      matched += 1
      return shard_like(axes, node, mesh)
    return replicated(mesh)

  placed = jax.tree.map(place, state, is_leaf=like_params)
  if not matched:
    raise ValueError(
      f"no part of the state has the structure of the parameters, {structure}"
    )
  return placed


def batch_sharding(mesh: Mesh) -> NamedSharding:
  """First axis (rows) split over data and fsdp, the others whole.

  Args:
    mesh: the devices, with axes `data` and `fsdp`.

  Returns:
    The sharding of every array of a batch.
  """
  return NamedSharding(mesh, PartitionSpec(RULES["batch"]))


def replicated(mesh: Mesh) -> NamedSharding:
  """The whole array on every device.

  Args:
    mesh: the devices.

  Returns:
    The sharding of scalars and of what every row needs.
  """
  return NamedSharding(mesh, PartitionSpec())


def check_rows(rows: int, mesh: Mesh) -> None:
  """Refuse a batch that the mesh cannot split evenly.

  Args:
    rows: of the whole batch, over all devices.
    mesh: the devices, with axes `data` and `fsdp`.

  Raises:
    ValueError: if `rows` is not a multiple of data x fsdp.
  """
  parts = _parts(RULES["batch"], mesh)
  if rows < 1 or rows % parts:
    raise ValueError(
      f"a batch of {rows} rows does not split over {parts} devices"
      f" (data={mesh.shape['data']} x fsdp={mesh.shape['fsdp']}): use a"
      f" multiple of {parts} rows or a smaller mesh"
    )


def _spec(
  names: tuple[str | None, ...], shape: tuple[int, ...], mesh: Mesh
) -> PartitionSpec:
  if len(names) != len(shape):
    raise ValueError(f"axes {names} do not name the axes of shape {shape}")
  wanted = [
    _rule(name) if size % _parts(_rule(name), mesh) == 0 else ()
    for name, size in zip(names, shape, strict=True)
  ]
  used = [axis for rule in wanted for axis in rule]
  if len(set(used)) != len(used):
    raise ValueError(f"two axes of {names} are split over the same mesh axis")
  return PartitionSpec(*(rule or None for rule in wanted))


def _rule(name: str | None) -> tuple[str, ...]:
  if name is None:
    return ()
  if name not in RULES:
    raise ValueError(f"no rule for the axis {name!r}; known: {sorted(RULES)}")
  return RULES[name]


def _parts(rule: tuple[str, ...], mesh: Mesh) -> int:
  return math.prod(mesh.shape[axis] for axis in rule)


def _is_names(node: Any) -> bool:
  return isinstance(node, tuple) and all(
    name is None or isinstance(name, str) for name in node
  )


def over_rows(tree: Any) -> Any:
  """Asks the compiler to split the rows of every array over the mesh.

  Without a mesh in scope (one estimator under test, seeds under `vmap`)
  nothing is asked for.

  Args:
    tree: arrays with rows first.

  Returns:
    The same arrays.
  """
  if jax.sharding.get_abstract_mesh().empty:
    return tree
  return jax.lax.with_sharding_constraint(tree, PartitionSpec(RULES["batch"]))
