"""Reference log-probabilities that were stored before training."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from typing import TYPE_CHECKING, Any

import jax

from rl_jax.data.reference_scores import read_reference

if TYPE_CHECKING:
  from jaxtyping import PyTree

__all__ = ["check_reference", "policy_digest"]

# How a decoder is computed or what is added to it, not what it says.
_FREE = frozenset({"context", "lora", "scan", "remat"})


def policy_digest(model: Any, params: PyTree) -> str:
  """What tells one policy from another: its model and all of its parameters.

  Args:
    model: a decoder; its low-rank change does not count.
    params: of the decoder itself, on any mesh.

  Returns:
    64 hex digits; others if any bit of a parameter or any field of the model
    that has a say in the result is another, the precision included.
  """
  # Imported here: Orbax takes its time, and whoever has parameters has it.
  from rl_jax.training.checkpoints import digest

  fields = {
    field.name: repr(getattr(model, field.name))
    for field in dataclasses.fields(model)
    if field.name not in _FREE
  }
  shapes = [
    (jax.tree_util.keystr(path), x.shape, str(x.dtype))
    for path, x in jax.tree_util.tree_leaves_with_path(params)
  ]
  sums = {
    name: words.tolist()
    for name, words in jax.device_get(jax.jit(digest)(params)).items()
  }
  text = json.dumps([fields, shapes, sums], sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()


def check_reference(path: str, model: Any, params: PyTree) -> None:
  """Refuses stored log-probabilities of another policy.

  Args:
    path: of the file; see `rl_jax.data.reference_scores`.
    model: of the policy that training starts from.
    params: its parameters. Where they are only shapes, as for compiling an
      experiment of which nothing is here, nothing is read.

  Raises:
    ValueError: if the file cannot be used, or is of another policy.
  """
  if any(isinstance(x, jax.ShapeDtypeStruct) for x in jax.tree.leaves(params)):
    return
  there, here = read_reference(path).policy, policy_digest(model, params)
  if there != here:
    raise ValueError(
      f"{path} is of another policy (digest {there[:12]}) than this experiment"
      f" starts from ({here[:12]}): remove it, and write it anew with"
      f" `rl-jax reference FILE {path}`, or name the start it is of"
    )
