"""A program compiled once for a mesh: shardings, donation, no second trace."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
from jax.sharding import Mesh

from rl_jax.training.sharding import (
  batch_sharding,
  check_rows,
  replicated,
  shard_like,
  state_sharding,
)
from rl_jax.training.state import Program, State

if TYPE_CHECKING:
  from jaxtyping import PyTree

__all__ = ["Compiled"]


class Compiled:
  """A program on a mesh.

  Every function is compiled ahead of its first call from shapes alone, so a
  later call with other shapes is an error and not a silent recompilation.

  Args:
    program: what the algorithm built.
    mesh: devices, with axes data, fsdp and tensor.
    start: parameters to start from, or None.
    items: shapes of the items of one step, `jax.ShapeDtypeStruct`s by name.
    seed: of the run.
  """

  def __init__(
    self,
    program: Program,
    mesh: Mesh,
    *,
    start: PyTree | None,
    items: Mapping[str, jax.ShapeDtypeStruct],
    seed: int,
  ) -> None:
    self._program, self._mesh, self._start = program, mesh, start
    self._key = jax.random.key(seed)
    self.first_step = program.first_step
    self.evaluate_every = program.evaluate_every
    self._rows, self._whole = batch_sharding(mesh), replicated(mesh)
    shapes = jax.eval_shape(program.init, self._key, start)
    self.state_sharding = state_sharding(shapes, program.params_axes, mesh)
    self.abstract_state = _placed(shapes, self.state_sharding)
    self.frozen = self._place_frozen(program)
    # Prompts are few: where they do not divide, every device gets them all.
    self._items = {
      name: self._rows if _divides(x.shape[0], mesh) else self._whole
      for name, x in items.items()
    }
    items = _placed(dict(items), self._items)

    def collect(state: State, frozen: Any, items: Any) -> Any:
      batch = program.collect(state, frozen, items)
      return jax.lax.with_sharding_constraint(batch, self._rows)

    out = jax.eval_shape(program.collect, shapes, program.frozen, items)
    for x in jax.tree.leaves(out):
      check_rows(x.shape[0], mesh)
    rows = jax.tree.map(lambda _: self._rows, out)
    self._collect = self._compile(
      collect, (self.abstract_state, self.frozen, items), rows
    )
    batch = _placed(out, rows)
    self._signals = None
    if program.signals is not None:
      more = jax.eval_shape(program.signals, shapes, program.frozen, out)
      rows = jax.tree.map(lambda _: self._rows, more)
      self._signals = self._compile(
        program.signals, (self.abstract_state, self.frozen, batch), rows
      )
      batch = batch, _placed(more, rows)
    self._update = self._compile(
      program.update,
      (self.abstract_state, self.frozen, batch),
      (self.state_sharding, self._whole),
      donate=(0,),
    )
    self.inspect = program.inspect
    self._evaluate = None
    if program.evaluate is not None:
      self._evaluate = self._compile(
        program.evaluate, (self.abstract_state, self.frozen), self._whole
      )

  def init(self) -> State:
    """A fresh state, made where it lives."""
    make = jax.jit(self._program.init, out_shardings=self.state_sharding)
    # The start is needed once; a large model must not be kept twice.
    start, self._start = self._start, None
    return make(self._key, start)

  def put(self, items: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
    """Rows on their devices."""
    return jax.device_put(dict(items), self._items)

  def put_scalars(self, tree: PyTree) -> PyTree:
    """Small host values, copied to every device."""
    return jax.device_put(tree, self._whole)

  def collect(self, state: State, items: Any) -> Any:
    """The batch of a step, scored."""
    batch = self._collect(state, self.frozen, items)
    more = None
    if self._signals is not None:
      # Only begun here: the devices compute while the host scores.
      more = self._signals(state, self.frozen, batch)
    if self._program.score is not None:
      scored = self._program.score(jax.device_get(batch))
      batch = jax.device_put(scored, self._rows)
    return batch if more is None else (batch, more)

  def update(self, state: State, batch: Any) -> tuple[State, Any]:
    """One step; `state` is gone afterwards."""
    return self._update(state, self.frozen, batch)

  def evaluate(self, state: State) -> tuple[Any, Any] | None:
    """Metrics and pictures, or None where the experiment wants none."""
    if self._evaluate is None:
      return None
    return self._evaluate(state, self.frozen)

  def _place_frozen(self, program: Program) -> PyTree:
    """Frozen arrays on their devices; shapes of such, where they are to go."""
    sharding = jax.tree.map(lambda _: self._whole, program.frozen)
    if program.frozen_axes is not None:
      sharding = shard_like(program.frozen_axes, program.frozen, self._mesh)

    def place(x: Any, where: jax.sharding.Sharding) -> Any:
      if isinstance(x, jax.ShapeDtypeStruct):
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where)
      return jax.device_put(x, where)

    return jax.tree.map(place, program.frozen, sharding)

  def _compile(
    self,
    function: Callable[..., Any],
    arguments: tuple[Any, ...],
    out: Any,
    *,
    donate: tuple[int, ...] = (),
  ) -> Callable[..., Any]:
    jitted = jax.jit(function, out_shardings=out, donate_argnums=donate)
    with jax.set_mesh(self._mesh):
      return jitted.lower(*arguments).compile()


def _divides(rows: int, mesh: Mesh) -> bool:
  return rows % (mesh.shape["data"] * mesh.shape["fsdp"]) == 0


def _placed(shapes: PyTree, shardings: PyTree) -> PyTree:
  return jax.tree.map(
    lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
    shapes,
    shardings,
  )
