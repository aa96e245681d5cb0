"""Weights of Llama decoders (SmolLM 2 among them) from a GGUF file.

Weights are dequantised; the file also holds a tokenizer, see
`models.tokenizer.from_gguf`.
"""

from __future__ import annotations

import functools
import pathlib
from typing import TYPE_CHECKING, Any

import numpy as np

from rl_jax.models import huggingface, huggingface_config

if TYPE_CHECKING:
  from rl_jax.models.decoder import Decoder
  from rl_jax.models.protocol import Params

__all__ = ["load", "opened", "read_metadata", "read_model"]

_LAYER = {
  "attn_q": "self_attn.q_proj",
  "attn_k": "self_attn.k_proj",
  "attn_v": "self_attn.v_proj",
  "attn_output": "self_attn.o_proj",
  "ffn_gate": "mlp.gate_proj",
  "ffn_up": "mlp.up_proj",
  "ffn_down": "mlp.down_proj",
  "attn_norm": "input_layernorm",
  "ffn_norm": "post_attention_layernorm",
}
_TOP = {
  "token_embd": "model.embed_tokens",
  "output_norm": "model.norm",
  "output": "lm_head",
}
# Keys of config.json and, after the architecture's name, those of GGUF.
_KEYS = {
  "hidden_size": "embedding_length",
  "num_hidden_layers": "block_count",
  "intermediate_size": "feed_forward_length",
  "max_position_embeddings": "context_length",
  "num_attention_heads": "attention.head_count",
  "num_key_value_heads": "attention.head_count_kv",
  "rms_norm_eps": "attention.layer_norm_rms_epsilon",
  "rope_theta": "rope.freq_base",
  "head_dim": "attention.key_length",
}
_REQUIRED = ("attention.head_count", "attention.layer_norm_rms_epsilon")


def opened(path: pathlib.Path | str) -> Any:
  """The file, mapped into memory.

  Args:
    path: of a GGUF file.

  Returns:
    A `gguf.GGUFReader`.

  Raises:
    ValueError: if there is no such file.
  """
  try:
    from gguf import GGUFReader
  except ImportError as error:
    raise ImportError(
      "GGUF files are read by gguf, which is not installed:"
      " pip install rl-jax[language]"
    ) from error
  path = pathlib.Path(path)
  if not path.is_file():
    raise ValueError(f"there is no file {path}")
  stat = path.stat()
  return _reader(GGUFReader, str(path), stat.st_mtime_ns, stat.st_size)


# A run asks for the shape, the tokens and the weights, one after the other,
# and each time all tokens would be parsed anew, which takes seconds.
@functools.lru_cache(maxsize=1)
def _reader(kind: Any, path: str, changed: int, size: int) -> Any:
  del changed, size
  return kind(path)


def read_metadata(reader: Any) -> dict[str, Any]:
  """All keys and values of a file.

  Args:
    reader: from `opened`.

  Returns:
    Plain Python values by key.
  """
  return {key: field.contents() for key, field in reader.fields.items()}


def read_model(path: pathlib.Path | str) -> Decoder:
  """The decoder that a file describes.

  Args:
    path: of a GGUF file.

  Returns:
    The decoder, with float32 products.

  Raises:
    ValueError: if the architecture is not llama, a key is missing, or its
      rotary positions are scaled.
  """
  reader = opened(path)
  found = read_metadata(reader)
  family = found.get("general.architecture")
  if family != "llama":
    raise ValueError(f"GGUF architecture {family!r} is not supported: llama is")
  scaling = found.get("llama.rope.scaling.type", "none")
  if scaling != "none":
    raise ValueError(f"GGUF with rotary scaling {scaling!r} is not supported")
  missing = [key for key in _REQUIRED if f"llama.{key}" not in found]
  if missing:
    raise ValueError(f"{path} lacks {missing}")
  names = {tensor.name for tensor in reader.tensors}
  config = {key: found.get(f"llama.{own}") for key, own in _KEYS.items()}
  config = {key: own for key, own in config.items() if own is not None}
  return huggingface_config.read_config(
    {
      "model_type": "llama",
      "vocab_size": len(found["tokenizer.ggml.tokens"]),
      "tie_word_embeddings": "output.weight" not in names,
      **config,
    }
  )


def load(
  path: pathlib.Path | str,
  model: Decoder,
  *,
  dtype: str,
  sharding: Params | None = None,
) -> Params:
  """The parameters that a file holds, dequantised.

  Args:
    path: of a GGUF file.
    model: from `read_model`.
    dtype: of the parameters, such as float32.
    sharding: where each array lives; None for the default device.

  Returns:
    Parameters as `model.init` makes them.

  Raises:
    ValueError: if a weight is missing, left over, or of a wrong shape.
  """
  from gguf.quants import dequantize

  tensors = {
    _their_name(tensor.name): tensor for tensor in opened(path).tensors
  }
  # GGUF writes the axis that varies fastest first.
  shapes = {
    name: tuple(int(n) for n in reversed(tensor.shape))
    for name, tensor in tensors.items()
  }
  heads = {
    "q_proj.weight": model.attention.heads,
    "k_proj.weight": model.attention.groups,
  }

  def read(name: str) -> np.ndarray:
    tensor = tensors[name]
    array = dequantize(tensor.data, tensor.tensor_type)
    array = array.astype(np.float32).reshape(shapes[name])
    for end, count in heads.items():
      if name.endswith(end):
        array = _halves(array, count)
    return array

  return huggingface.assembled(
    model, shapes, read, dtype=dtype, sharding=sharding
  )


def _their_name(name: str) -> str:
  """Name in Hugging Face's layout; unknown ones stay, and are left over."""
  stem, _, end = name.rpartition(".")
  if stem in _TOP:
    return f"{_TOP[stem]}.{end}"
  block, _, rest = stem.removeprefix("blk.").partition(".")
  if stem.startswith("blk.") and rest in _LAYER:
    return f"model.layers.{block}.{_LAYER[rest]}.{end}"
  return name


def _halves(array: np.ndarray, heads: int) -> np.ndarray:
  """Rows of a head from pairs of neighbours to pairs of halves.

  In GGUF features 2k and 2k + 1 of a head turn together; in Hugging Face's
  layout k and k + features/2 do.
  """
  outputs, inputs = array.shape
  pairs = array.reshape(heads, outputs // heads // 2, 2, inputs)
  return pairs.swapaxes(1, 2).reshape(outputs, inputs)
