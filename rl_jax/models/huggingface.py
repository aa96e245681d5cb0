"""Weights of public decoders: Hugging Face folders, read and written.

A folder holds `config.json` and weights as safetensors, in one file or in
several with an index. What is written is an ordinary folder of that kind.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import shutil
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from rl_jax.models import huggingface_config
from rl_jax.models.decoder_weights import Weight

if TYPE_CHECKING:
  from collections.abc import Callable, Iterator

  from rl_jax.models.decoder import Decoder
  from rl_jax.models.protocol import Params

__all__ = ["assembled", "load", "read_model", "save"]

_FILE, _INDEX = "model.safetensors", "model.safetensors.index.json"

_NAMES = {
  "query": "self_attn.q_proj.weight",
  "query_bias": "self_attn.q_proj.bias",
  "key": "self_attn.k_proj.weight",
  "key_bias": "self_attn.k_proj.bias",
  "value": "self_attn.v_proj.weight",
  "value_bias": "self_attn.v_proj.bias",
  "out": "self_attn.o_proj.weight",
  "query_norm": "self_attn.q_norm.weight",
  "key_norm": "self_attn.k_norm.weight",
  "gate": "mlp.gate_proj.weight",
  "up": "mlp.up_proj.weight",
  "down": "mlp.down_proj.weight",
  "attention_norm": "input_layernorm.weight",
  "mlp_norm": "post_attention_layernorm.weight",
}
# Gemma's norm after attention has the name that others give to the MLP's.
_POST_NAMES = {
  "attention_post_norm": "post_attention_layernorm.weight",
  "mlp_norm": "pre_feedforward_layernorm.weight",
  "mlp_post_norm": "post_feedforward_layernorm.weight",
}
_TOP_NAMES = {
  "embedding": "model.embed_tokens.weight",
  "final_norm": "model.norm.weight",
  "output": "lm_head.weight",
}


def read_model(folder: pathlib.Path | str) -> Decoder:
  """The decoder that a folder's `config.json` describes.

  Args:
    folder: a Hugging Face folder.

  Returns:
    The decoder; `dataclasses.replace` sets its precision, remat and so on.

  Raises:
    ValueError: if there is no `config.json`, or as in `read_config`.
  """
  return huggingface_config.read_config(
    json.loads(_existing(pathlib.Path(folder) / "config.json").read_text())
  )


def load(
  folder: pathlib.Path | str,
  model: Decoder,
  *,
  dtype: str,
  sharding: Params | None = None,
) -> Params:
  """The parameters that a folder holds.

  Names and shapes of all weights are checked before the first is read.

  Args:
    folder: a Hugging Face folder.
    model: from `read_model`.
    dtype: of the parameters, such as float32.
    sharding: where each array lives, a tree like the parameters; None for
      the default device. At most one stacked array is whole on the host.

  Returns:
    Parameters as `model.init` makes them.

  Raises:
    ValueError: if a file or weight is missing, a weight is left over, or a
      shape is not what the model asks for; with all such names.
  """
  with _opened(pathlib.Path(folder)) as weights:
    shapes = {name: tuple(x.get_shape()) for name, x in weights.items()}
    return assembled(
      model,
      shapes,
      lambda name: np.asarray(weights[name][...]),
      dtype=dtype,
      sharding=sharding,
    )


def assembled(
  model: Decoder,
  shapes: dict[str, tuple[int, ...]],
  read: Callable[[str], np.ndarray],
  *,
  dtype: str,
  sharding: Params | None = None,
) -> Params:
  """Parameters from weights with the names and layouts of Hugging Face.

  Args:
    model: the decoder they are for.
    shapes: of every weight that there is.
    read: gives one of them by its name.
    dtype: of the parameters.
    sharding: where each array lives; None for the default device.

  Returns:
    Parameters as `model.init` makes them.

  Raises:
    ValueError: if `shapes` is not what the model asks for.
  """
  described = model.weights()
  _check(model, described, shapes, read)

  def one(path, weight: Weight, place: Any) -> jax.Array:
    names = _names(model, path)
    parts = (_ours(read(name), weight, path) for name in names)
    if path[0] == "blocks":
      whole = np.empty(weight.shape, jnp.dtype(dtype))
      for layer, part in enumerate(parts):
        whole[layer] = part
    else:
      whole = next(parts).astype(jnp.dtype(dtype))
    return jax.device_put(whole, place)

  places = sharding or jax.tree.map(
    lambda _: None, described, is_leaf=_is_weight
  )
  found: Params = {"blocks": {}}
  for path, weight in _leaves(described):
    node, place = found, places
    for key in path[:-1]:
      node, place = node[key], place[key]
    node[path[-1]] = one(path, weight, place[path[-1]])
  return found


def save(
  folder: pathlib.Path | str,
  model: Decoder,
  params: Params,
  *,
  dtype: str,
  config: dict[str, Any] | None = None,
  shard_bytes: int = 4 << 30,
) -> None:
  """Writes an ordinary Hugging Face folder.

  It appears whole or not at all.

  Args:
    folder: must not exist yet.
    model: the decoder.
    params: its parameters; `model.merged` adds an adapter to them.
    dtype: of the weights in the files.
    config: more keys for `config.json`, such as `eos_token_id`.
    shard_bytes: how many bytes of weights a file may have.

  Raises:
    ValueError: if the folder exists, no public family has the features of
      this decoder, the parameters are not its, or `config` sets a key that
      the model sets.
  """
  folder = pathlib.Path(folder)
  if folder.exists():
    raise ValueError(f"{folder} exists already; name a new folder")
  model.logical_axes(params)  # checks names and shapes
  described = huggingface_config.write_config(model) | {"torch_dtype": dtype}
  clash = sorted(set(described) & set(config or {}))
  if clash:
    raise ValueError(f"config sets {clash}, which the model sets")
  partial = folder.with_name(f".{folder.name}.{os.getpid()}")
  partial.mkdir(parents=True)
  try:
    text = json.dumps(described | (config or {}), indent=2)
    (partial / "config.json").write_text(text + "\n")
    _write(partial, _theirs(model, params, dtype), shard_bytes)
    partial.rename(folder)
  except BaseException:
    shutil.rmtree(partial, ignore_errors=True)
    raise


def _write(folder, weights, shard_bytes) -> None:
  try:
    from safetensors.numpy import save_file
  except ImportError as error:
    raise ImportError(
      "weights are written by safetensors, which is not installed:"
      " pip install rl-jax[language]"
    ) from error
  shards: list[dict[str, int]] = [{}]
  total = 0
  held: dict[str, np.ndarray] = {}

  def flush() -> None:
    name = folder / f"part-{len(shards)}"
    save_file(held, name, metadata={"format": "pt"})
    shards[-1] = {key: value.nbytes for key, value in held.items()}

  for name, array in weights:
    size = sum(value.nbytes for value in held.values())
    if held and size + array.nbytes > shard_bytes:
      flush()
      held.clear()
      shards.append({})
    held[name] = array
    total += array.nbytes
  flush()
  if len(shards) == 1:
    (folder / "part-1").rename(folder / _FILE)
    return
  where = {}
  for number, names in enumerate(shards, start=1):
    file = f"model-{number:05d}-of-{len(shards):05d}.safetensors"
    (folder / f"part-{number}").rename(folder / file)
    where |= dict.fromkeys(names, file)
  index = {"metadata": {"total_size": total}, "weight_map": where}
  (folder / _INDEX).write_text(json.dumps(index, indent=2) + "\n")


def _theirs(
  model: Decoder, params: Params, dtype: str
) -> Iterator[tuple[str, np.ndarray]]:
  """Every weight by its name there, in its layout there, one at a time."""
  for path, weight in _leaves(model.weights()):
    node: Any = params
    for key in path:
      node = node[key]
    stacked = path[0] == "blocks"
    inputs = weight.inputs
    for layer, name in enumerate(_names(model, path)):
      part = np.asarray(node[layer] if stacked else node, jnp.dtype(dtype))
      if inputs:
        part = part.reshape(int(np.prod(part.shape[:inputs])), -1).T
      elif stacked:
        part = part.reshape(-1)
      yield name, np.ascontiguousarray(part)


def _ours(
  array: np.ndarray, weight: Weight, path: tuple[str, ...]
) -> np.ndarray:
  shape = weight.shape[1:] if path[0] == "blocks" else weight.shape
  return (array.T if weight.inputs else array).reshape(shape)


def _their_shape(weight: Weight, stacked: bool) -> tuple[int, ...]:
  shape = weight.shape[1:] if stacked else weight.shape
  if weight.inputs:
    ends = shape[weight.inputs :], shape[: weight.inputs]
    return tuple(int(np.prod(end)) for end in ends)
  return (int(np.prod(shape)),) if stacked else shape


def _check(model, described, shapes, read) -> None:
  wanted = {
    name: _their_shape(weight, path[0] == "blocks")
    for path, weight in _leaves(described)
    for name in _names(model, path)
  }
  head = _TOP_NAMES["output"]
  # Buffers of old Llama files, computed from the config.
  present = {
    name for name in shapes if not name.endswith("rotary_emb.inv_freq")
  }
  if model.tied and head in present:
    table = _TOP_NAMES["embedding"]
    if table in shapes and not np.array_equal(read(head), read(table)):
      raise ValueError(
        f"{head} differs from {table}, but the config says they are tied"
      )
    present.discard(head)
  missing = sorted(set(wanted) - present)
  surplus = sorted(present - set(wanted))
  wrong = {
    name: {"expected": shape, "found": shapes[name]}
    for name, shape in wanted.items()
    if name in present and shapes[name] != shape
  }
  if missing or surplus or wrong:
    raise ValueError(
      "these weights are not those of this model:"
      f" missing {missing}, left over {surplus}, of wrong shape {wrong}"
    )


def _names(model: Decoder, path: tuple[str, ...]) -> list[str]:
  if path[0] != "blocks":
    return [_TOP_NAMES[path[0]]]
  names = _NAMES | (_POST_NAMES if model.post_norms else {})
  return [f"model.layers.{n}.{names[path[1]]}" for n in range(model.layers)]


def _leaves(described) -> Iterator[tuple[tuple[str, ...], Weight]]:
  for name, node in described.items():
    if _is_weight(node):
      yield (name,), node
    else:
      yield from (((name, own), weight) for own, weight in node.items())


def _is_weight(node: Any) -> bool:
  return isinstance(node, Weight)


@contextlib.contextmanager
def _opened(folder: pathlib.Path) -> Iterator[dict[str, Any]]:
  """Every weight of a folder by its name, not read yet."""
  try:
    from safetensors import safe_open
  except ImportError as error:
    raise ImportError(
      "weights are read by safetensors, which is not installed:"
      " pip install rl-jax[language]"
    ) from error
  files = [_FILE]
  if (folder / _INDEX).exists():
    index = json.loads((folder / _INDEX).read_text())["weight_map"]
    files = sorted(set(index.values()))
  with contextlib.ExitStack() as stack:
    found = {}
    for file in files:
      path = str(_existing(folder / file))
      opened = stack.enter_context(safe_open(path, framework="numpy"))
      found |= {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118
    yield found


def _existing(path: pathlib.Path) -> pathlib.Path:
  if not path.is_file():
    raise ValueError(f"there is no {path.name} in {path.parent}")
  return path
