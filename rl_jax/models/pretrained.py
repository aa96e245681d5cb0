"""Public weights as what an experiment starts from."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from rl_jax.models.vocabularies import Folder, Gguf, SmolLm2

if TYPE_CHECKING:
  from collections.abc import Iterator

  from rl_jax.models.decoder import Decoder
  from rl_jax.models.protocol import Params

__all__ = ["Pretrained"]

# How a decoder is computed or what is added to it, not which one it is.
_FREE = frozenset({"context", "lora", "scan", "remat", "dtype"})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pretrained:
  """Start from the weights of a public model."""

  weights: Folder | Gguf | SmolLm2
  """Where they are."""
  dtype: Literal["float32", "bfloat16"] = "float32"
  """Precision of the parameters."""

  def model(self) -> Decoder:
    """The decoder that the weights are of."""
    return self.weights.model()

  def params(self, model: Decoder, *, sharding: Params | None = None) -> Params:
    """The weights as parameters.

    Args:
      model: like `self.model()`; context, precision, LoRA, scan and remat may
        be others.
      sharding: where each array lives; None for the default device.

    Returns:
      Parameters as `model.init` makes them.

    Raises:
      ValueError: if the model is another one, with every field that differs,
        or a weight is missing, left over, or of a wrong shape.
    """
    other = list(_differences(self.weights.model(), model, ""))
    if other:
      raise ValueError(
        f"{self.weights} holds another model: {'; '.join(other)}"
      )
    return self.weights.weights(model, dtype=self.dtype, sharding=sharding)


def _differences(theirs: Any, ours: Any, name: str) -> Iterator[str]:
  """Fields in which two decoders are not the same function."""
  if dataclasses.is_dataclass(theirs) and type(theirs) is type(ours):
    for field in dataclasses.fields(theirs):
      if name or field.name not in _FREE:
        there, here = getattr(theirs, field.name), getattr(ours, field.name)
        yield from _differences(there, here, f"{name}.{field.name}".lstrip("."))
  # Files hold float32: 1e-5 comes back with other digits behind the eighth.
  elif isinstance(theirs, float) and isinstance(ours, int | float):
    if np.float32(theirs) != np.float32(ours):
      yield f"{name} is {theirs:.9g} there and {ours:.9g} in the experiment"
  elif theirs != ours:
    yield f"{name} is {theirs!r} there and {ours!r} in the experiment"
