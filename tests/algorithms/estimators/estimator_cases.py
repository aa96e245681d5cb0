"""Which estimators there are, and what is done to the rollouts they read."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import pkgutil
from collections.abc import Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import recipes
from experiments.advantages.cases import Case, Shape, cases, written
from rl_jax.algorithms import estimators
from rl_jax.algorithms.estimators.stable_reinforce import StableReinforce
from rl_jax.algorithms.recipe import PolicyBatch, PolicyRecipe

SHAPE = Shape(samples=4, time=12, segment=4, invalid=1)
GROUPS = SHAPE.prompts
CASES = cases(steps=SHAPE.steps)
NAMES = [case.name for case in CASES]
BATCH = written(SHAPE, seed=3)
EARLIER = written(SHAPE, seed=1)


def components() -> dict[str, type]:
  """Every component of the package, by module and name."""
  found = {}
  for module in pkgutil.iter_modules(estimators.__path__):
    path = f"{estimators.__name__}.{module.name}"
    public = importlib.import_module(path)
    for name in public.__all__:
      value = getattr(public, name)
      acts = "__call__" in vars(value) or hasattr(value, "ask")
      if isinstance(value, type) and dataclasses.is_dataclass(value) and acts:
        found[f"{module.name}.{name}"] = value
  return found


def parts(value: Any) -> Iterator[Any]:
  """A component and those inside of it."""
  if isinstance(value, tuple):
    for each in value:
      yield from parts(each)
  elif isinstance(value, functools.partial):
    yield from parts((value.func, *value.args, *value.keywords.values()))
  elif dataclasses.is_dataclass(value) and not isinstance(value, type):
    yield value
    for field in dataclasses.fields(value):
      yield from parts(getattr(value, field.name))


def without_case(known: Iterable[Case]) -> list[str]:
  """Components that stand in no recipe of the cases."""
  used = {type(part) for case in known for part in parts(case.recipe)}
  return [name for name, part in components().items() if part not in used]


def choices(slot: str) -> dict[str, Any]:
  """The different values of a slot, by a name made of what they are."""
  known = [getattr(recipes, name) for name in recipes.__all__]
  known = [value for value in known if isinstance(value, PolicyRecipe)]
  found = {}
  for recipe in (*known, StableReinforce().recipe):
    value = getattr(recipe, slot)
    if isinstance(value, functools.partial):
      given = ",".join(f"{k}={v}" for k, v in sorted(value.keywords.items()))
      found[f"{value.func.__name__}({given})"] = value
    else:
      found[value.__name__] = value
  return found


def there(value: jax.Array) -> np.ndarray:
  """Where an array of `BATCH` holds something that counts."""
  rows = np.asarray(BATCH.valid)
  if value.ndim == 1:
    return rows
  assert BATCH.extra is not None
  inside = BATCH.mask if value.shape[1] == SHAPE.time else None
  if inside is None and value.shape[1] == SHAPE.steps:
    inside = BATCH.extra["turn_mask"]
  if inside is None:
    inside = np.ones(value.shape[:2], bool)
  inside = np.asarray(inside) & rows[:, None]
  more = (1,) * (value.ndim - 2)
  return np.broadcast_to(inside.reshape(*inside.shape, *more), value.shape)


def spoiled(batch: PolicyBatch) -> PolicyBatch:
  """The same with NaN, or something else, wherever nothing counts."""

  def one(value: jax.Array) -> jax.Array:
    counts = there(value)
    if jnp.issubdtype(value.dtype, jnp.floating):
      return jnp.where(counts, value, jnp.nan)
    rows = np.asarray(BATCH.valid).reshape(-1, *(1,) * (value.ndim - 1))
    other = ~value if value.dtype == bool else jnp.zeros_like(value)
    return jnp.where(rows, value, other)

  kept = {"mask": batch.mask, "valid": batch.valid, "group": batch.group}
  return jax.tree.map(one, batch)._replace(**kept)


def with_extra(name: str, value: Any) -> PolicyBatch:
  """The batch with another array."""
  assert BATCH.extra is not None
  old = BATCH.extra[name]
  extra = BATCH.extra | {name: jnp.asarray(value, old.dtype)}
  return BATCH._replace(extra=extra)


def changed(name: str, place: Any, value: Any) -> PolicyBatch:
  """The batch with one number changed, of `extra` or of the reward."""
  if name == "reward":
    return BATCH._replace(reward=BATCH.reward.at[place].set(value))
  assert BATCH.extra is not None
  return with_extra(name, BATCH.extra[name].at[place].set(value))
