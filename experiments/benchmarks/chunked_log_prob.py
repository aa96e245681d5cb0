"""Memory and time of chunked log-probabilities against the full logits.

Both forms compute the mean log-probability (and, with --entropy, the mean
entropy) of random tokens and its gradient by the features and by the output
embedding. Memory is what XLA plans for temporaries of that program, so it is
exact and needs no run. Times are medians of calls that take turns in one
process, elapsed and of the processor: on a busy machine read the ratio of the
latter.

    python -m experiments.benchmarks.chunked_log_prob          about 2 minutes
    python -m experiments.benchmarks.chunked_log_prob --quick  seconds
"""

from __future__ import annotations

import dataclasses
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import tyro

from rl_jax.log_probs import (
  chunked_log_prob,
  token_entropy,
  token_log_prob,
)

__all__ = ["Size", "main", "measure"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Size:
  """What is measured."""

  rows: int = 8
  """Sequences of the batch."""
  time: int = 256
  """Tokens of each sequence."""
  width: int = 576
  """Features of each token; 576 in SmolLM2-135M."""
  vocabulary: int = 49152
  """Entries of the output embedding; 49152 there."""
  chunk_tokens: int = 1024
  """Most tokens of a block."""
  chunk_vocabulary: int = 512
  """Most entries of a block."""
  dtype: Literal["float32", "bfloat16"] = "float32"
  """Of features and embedding."""
  entropy: bool = False
  """Whether the entropy of each token is computed too."""
  repeats: int = 9
  """Timed calls of each form; their median counts."""
  quick: bool = False
  """Start from a size that takes seconds."""


QUICK = Size(
  rows=2,
  time=32,
  width=64,
  vocabulary=4096,
  chunk_tokens=64,
  chunk_vocabulary=128,
  repeats=3,
  quick=True,
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
  """Compile and time both forms.

  Args:
    size: shapes, blocks and how often to time.

  Returns:
    The lines of a table.
  """
  full, chunked = _forms(size)
  inputs = _inputs(size)
  programs = {"full logits": full, "chunked": chunked}
  compiled = {k: _compile(v, inputs) for k, v in programs.items()}
  seconds = _interleaved(compiled, inputs, size.repeats)
  memory = {k: _temporary(v) for k, v in compiled.items()}
  lines = [
    f"{size.rows} x {size.time} tokens, width {size.width}, vocabulary"
    f" {size.vocabulary}, {size.dtype}, entropy {size.entropy},",
    f"blocks of {size.chunk_tokens} tokens x {size.chunk_vocabulary} entries,"
    f" {jax.devices()[0].device_kind}",
    f"{'':14}{'temporaries':>14}{'of full':>9}{'elapsed':>12}{'of full':>9}"
    f"{'CPU':>12}{'of full':>9}",
  ]
  for name in compiled:
    line = f"{name:14}{memory[name] / 1e6:11.1f} MB"
    line += f"{memory[name] / memory['full logits']:9.3f}"
    for mine, full_s in zip(seconds[name], seconds["full logits"], strict=True):
      line += f"{mine:10.3f} s{mine / full_s:9.2f}"
    lines.append(line)
  larger = dataclasses.replace(size, vocabulary=2 * size.vocabulary)
  _, chunked = _forms(larger)
  shapes = jax.eval_shape(lambda: _inputs(larger))
  twice = _temporary(_compile(chunked, shapes))
  lines.append(
    f"chunked at vocabulary {larger.vocabulary}: {twice / 1e6:.1f} MB, "
    f"{twice / memory['chunked']:.2f} times that at {size.vocabulary}"
  )
  return lines


def _forms(size):
  scale: dict[str, Any] = {"temperature": 1.0, "soft_cap": None}
  blocks = {
    "chunk_tokens": size.chunk_tokens,
    "chunk_vocabulary": size.chunk_vocabulary,
  }

  def full(hidden, embedding, token, mask):
    logits = jnp.einsum(
      "btd,vd->btv", hidden, embedding, preferred_element_type=jnp.float32
    )
    log_prob = token_log_prob(logits, token, mask, **scale)
    if not size.entropy:
      return jnp.mean(log_prob)
    return jnp.mean(log_prob + token_entropy(logits, mask, **scale))

  def chunked(*inputs):
    log_prob, nats = chunked_log_prob(*inputs, **blocks, **scale)
    return jnp.mean(log_prob + nats if size.entropy else log_prob)

  return tuple(jax.value_and_grad(form, (0, 1)) for form in (full, chunked))


def _inputs(size):
  keys = jax.random.split(jax.random.key(0), 3)
  shape = size.rows, size.time
  hidden = jax.random.normal(keys[0], (*shape, size.width))
  embedding = jax.random.normal(keys[1], (size.vocabulary, size.width))
  token = jax.random.randint(keys[2], shape, 0, size.vocabulary)
  embedding = embedding / size.width**0.5
  mask = jnp.ones(shape, bool)
  return hidden.astype(size.dtype), embedding.astype(size.dtype), token, mask


def _compile(form: Callable, inputs: Any) -> Any:
  return jax.jit(form).lower(*inputs).compile()


def _temporary(program: Any) -> int:
  return program.memory_analysis().temp_size_in_bytes


def _interleaved(programs, inputs, repeats):
  """Median seconds elapsed and of processor time, by program."""
  seconds = {name: [] for name in programs}
  for turn in range(repeats + 1):
    for name, program in programs.items():
      start = time.perf_counter(), time.process_time()
      jax.block_until_ready(program(*inputs))
      end = time.perf_counter(), time.process_time()
      if turn:  # the first call of each also allocates
        seconds[name].append((end[0] - start[0], end[1] - start[1]))
  return {
    name: tuple(map(statistics.median, zip(*x, strict=True)))
    for name, x in seconds.items()
  }


if __name__ == "__main__":
  main()
