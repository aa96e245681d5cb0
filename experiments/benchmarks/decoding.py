"""Tokens per second of the sampler, alone and against transformers.

A Llama of the shape of SmolLM2-135M with random weights samples at temperature
one, in float32, responses of a fixed length; reading the prompts is part of
the time, compiling is not. Medians of several runs. With the interpreter of
an environment that has torch and transformers the same work is done there
too, in a process of its own after ours: on a busy machine run it twice.

    python -m experiments.benchmarks.decoding                 some minutes
    python -m experiments.benchmarks.decoding --quick         seconds
    python -m experiments.benchmarks.decoding --transformers-python PATH
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import tyro

from rl_jax.models.huggingface_config import read_config
from rl_jax.sampling import Autoregressive, row_keys

__all__ = ["CONFIGS", "Size", "main", "measure"]

_SMOLLM2 = {
  "model_type": "llama",
  "vocab_size": 49152,
  "hidden_size": 576,
  "num_hidden_layers": 30,
  "intermediate_size": 1536,
  "num_attention_heads": 9,
  "num_key_value_heads": 3,
  "max_position_embeddings": 8192,
  "rms_norm_eps": 1e-5,
  "rope_theta": 1e5,
  "hidden_act": "silu",
  "tie_word_embeddings": True,
}
CONFIGS: dict[str, dict[str, Any]] = {
  "smollm2": _SMOLLM2,
  "tiny": _SMOLLM2
  | {
    "vocab_size": 512,
    "hidden_size": 36,
    "num_hidden_layers": 2,
    "intermediate_size": 96,
  },
}
"""Each model as its config.json has it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Size:
  """What is measured."""

  model: Literal["smollm2", "tiny"] = "smollm2"
  """Shape of the decoder."""
  batches: tuple[int, ...] = (1, 8, 64)
  """Rows that are sampled at once."""
  prompt: int = 32
  """Tokens of every prompt."""
  length: int = 64
  """Tokens of every response."""
  repeats: int = 3
  """Timed runs of each; their median counts."""
  unroll: bool = True
  """Whether each layer of a step is compiled; see `Autoregressive.unroll`."""
  transformers_python: pathlib.Path | None = None
  """Interpreter of an environment with torch and transformers."""
  quick: bool = False
  """Start from a size that takes seconds."""


QUICK = Size(
  model="tiny", batches=(1, 4), prompt=4, length=8, repeats=3, quick=True
)


def main(arguments: Sequence[str] | None = None) -> None:
  """Parse the command line, measure and print the table.

  Args:
    arguments: the command line; that of the process if None.
  """
  arguments = sys.argv[1:] if arguments is None else arguments
  size = tyro.cli(
    Size,
    args=arguments,
    default=QUICK if "--quick" in arguments else Size(),
    description=__doc__,
  )
  print("\n".join(measure(size)), flush=True)


def measure(size: Size) -> list[str]:
  """Time sampling at every number of rows.

  Args:
    size: shapes and how often to time.

  Returns:
    The lines of the table.
  """
  ours = [_seconds(size, rows) for rows in size.batches]
  peer = _peer(size)
  lines = [
    f"{size.model}, prompts of {size.prompt}, responses of {size.length},"
    f" {jax.devices()[0].device_kind}; median tokens/s of {size.repeats} runs",
    f"{'rows':>6}{'ours':>12}"
    + (f"{'transformers':>14}{'times':>8}" * bool(peer)),
  ]
  for place, rows in enumerate(size.batches):
    tokens = rows * size.length
    speed = tokens / statistics.median(ours[place])
    line = f"{rows:6}{speed:12.1f}"
    if peer:
      other = tokens / statistics.median(peer[place])
      line += f"{other:14.1f}{speed / other:8.2f}"
    lines.append(line)
  if not peer:
    lines.append("transformers: skipped, give --transformers-python")
  return lines


def _seconds(size: Size, rows: int) -> list[float]:
  model = read_config(CONFIGS[size.model])
  params = model.init(jax.random.key(0))
  sampler = Autoregressive(length=size.length, unroll=size.unroll)
  shape = (rows, size.prompt)
  prompt = jax.random.randint(jax.random.key(1), shape, 0, model.vocabulary)
  keys = row_keys(jax.random.key(2), jnp.arange(rows))
  found = []
  # One more than asked for: the first one compiles.
  for _ in range(size.repeats + 1):
    start = time.perf_counter()
    jax.block_until_ready(
      sampler(model, params, prompt, jnp.ones(shape, bool), keys, samples=1)
    )
    found.append(time.perf_counter() - start)
  return found[1:]


def _peer(size: Size) -> list[list[float]] | None:
  if size.transformers_python is None:
    return None
  work = {
    "config": CONFIGS[size.model],
    "batches": size.batches,
    "prompt": size.prompt,
    "length": size.length,
    "repeats": size.repeats,
  }
  script = pathlib.Path(__file__).with_name("peer_transformers.py")
  done = subprocess.run(
    [str(size.transformers_python), str(script)],
    input=json.dumps(work),
    capture_output=True,
    text=True,
    check=False,
  )
  if done.returncode:
    raise RuntimeError(f"{script.name} failed:\n{done.stderr}")
  return json.loads(done.stdout)


if __name__ == "__main__":
  main()
