"""Time of the advantage estimators against rlax and loops over tokens.

One batch of ragged responses to prompts: 8 groups of 16 rows, 1024 tokens.
All forms take turns in one process and their medians count: on a busy machine
read the ratios. Ours and rlax's are compiled, rlax's under `vmap` over rows.
The loops are those of `experiments.benchmarks.loops` with numpy, and with
torch where it is installed; what is not installed is skipped and said so.
The second table doubles the tokens: linear means that a token costs the same.

    python -m experiments.benchmarks.estimators          about a minute
    python -m experiments.benchmarks.estimators --quick  seconds
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from experiments.benchmarks.loops import LOOPS
from rl_jax import advantages
from rl_jax.masks import keep
from rl_jax.rewards.shaping import at_last_token

__all__ = ["Size", "main", "measure"]

Batch = dict[str, Any]
Forms = dict[str, dict[str, Callable[[], Any]]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Size:
  """What is measured."""

  groups: int = 8
  """Prompts."""
  group_size: int = 16
  """Responses to each."""
  tokens: int = 1024
  """Longest response."""
  doublings: int = 3
  """How often the tokens are doubled for the second table."""
  repeats: int = 31
  """Timed calls of each form; their median counts."""
  quick: bool = False
  """Start from a size that takes seconds."""


QUICK = Size(
  groups=2, group_size=4, tokens=32, doublings=1, repeats=3, quick=True
)


def main(arguments: Sequence[str] | None = None) -> None:
  """Parse the command line, measure and print the tables.

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
  """Time every form of every estimator.

  Args:
    size: shapes and how often to time.

  Returns:
    The lines of both tables.
  """
  peers = {name: _installed(name) for name in ("rlax", "torch")}
  lines = [
    f"{name} is not installed: skipped"
    for name, module in peers.items()
    if module is None
  ]
  lines.append(
    f"{size.groups} x {size.group_size} rows, {size.tokens} tokens,"
    f" {jax.devices()[0].device_kind}; ms, and times ours"
  )
  for name, forms in _forms(size, peers).items():
    seconds = _interleaved(forms, size.repeats)
    ours = seconds["ours"]
    cells = [
      f"{form} {x * 1e3:8.3f} ({x / ours:5.1f}x)" for form, x in seconds.items()
    ]
    lines.append(f"{name:24}" + "  ".join(cells))
  lines.append("nanoseconds per token as the tokens double")
  sizes = [
    dataclasses.replace(size, tokens=size.tokens * 2**k)
    for k in range(size.doublings + 1)
  ]
  by_size = [_forms(x, {}) for x in sizes]
  for name in by_size[0]:
    forms = {
      str(x.tokens): forms[name]["ours"]
      for x, forms in zip(sizes, by_size, strict=True)
    }
    seconds = _interleaved(forms, size.repeats)
    rows = size.groups * size.group_size
    cells = [
      f"{tokens}: {x * 1e9 / rows / int(tokens):7.2f}"
      for tokens, x in seconds.items()
    ]
    lines.append(f"{name:24}" + "  ".join(cells))
  return lines


def _installed(name: str) -> Any:
  try:
    return importlib.import_module(name)
  except ImportError:
    return None


def _batch(size: Size) -> Batch:
  rng = np.random.default_rng(0)
  rows = size.groups * size.group_size
  length = rng.integers(size.tokens // 2, size.tokens + 1, rows)
  time = np.arange(size.tokens)
  mask = jnp.asarray(time[None] < length[:, None])
  last = jnp.asarray(time[None] == length[:, None] - 1)
  score = jnp.asarray(rng.normal(size=rows), jnp.float32)
  value = rng.normal(size=mask.shape).astype(np.float32)
  value = keep(jnp.asarray(value), mask)
  ratio = np.exp(rng.normal(size=mask.shape, scale=0.1)).astype(np.float32)
  return {
    "reward": at_last_token(score, mask),
    "score": score,
    "value": value,
    "next_value": advantages.next_values(value, mask, last=last),
    "ratio": jnp.asarray(ratio),
    "mask": mask,
    "last": last,
    "group": jnp.asarray(np.arange(rows) // size.group_size, jnp.int32),
  }


def _forms(size: Size, peers: dict[str, Any]) -> Forms:
  batch = _batch(size)
  forms: Forms = {
    name: {"ours": _compiled(function, batch)}
    for name, function in _ours(size).items()
  }
  if peers.get("rlax"):
    for name, function in _rlax(peers["rlax"]).items():
      forms[name]["rlax"] = _compiled(jax.vmap(function), batch)
  if not peers:
    return forms
  kept = {k: np.asarray(v) for k, v in batch.items()}
  kept["counted"] = kept["mask"].astype(np.float32)
  kept["owner"] = kept["group"].tolist()
  for name, loop in LOOPS.items():
    forms[name]["numpy"] = functools.partial(loop, np, kept)
    if torch := peers["torch"]:
      tensors = {
        k: torch.tensor(v) if isinstance(v, np.ndarray) else v
        for k, v in kept.items()
      }
      forms[name]["torch"] = functools.partial(loop, torch, tensors)
  return forms


def _compiled(function: Callable, batch: Batch) -> Callable[[], Any]:
  program = jax.jit(function).lower(batch).compile()
  return lambda: jax.block_until_ready(program(batch))


def _ours(size: Size) -> dict[str, Callable[[Batch], Any]]:
  """What a training step would call, the broadcast to tokens included."""

  def ends(b):
    return {"terminated": b["last"], "last": b["last"]}

  def to_tokens(advantage, b):
    spread = jnp.broadcast_to(advantage[:, None], b["mask"].shape)
    return keep(spread, b["mask"])

  def grouped(b):
    return b["score"], b["group"], jnp.ones_like(b["group"], bool)

  return {
    "generalized_advantage": lambda b: advantages.generalized_advantage(
      *(b[k] for k in ("reward", "value", "next_value", "mask")),
      **ends(b),
      discount=1.0,
      trace=0.95,
    ),
    "lambda_returns": lambda b: advantages.lambda_returns(
      *(b[k] for k in ("reward", "next_value", "mask")),
      **ends(b),
      discount=1.0,
      trace=0.95,
    ),
    "discounted_returns": lambda b: advantages.discounted_returns(
      b["reward"], b["mask"], last=b["last"], discount=0.99
    ),
    "n_step_returns": lambda b: advantages.n_step_returns(
      *(b[k] for k in ("reward", "next_value", "mask")),
      **ends(b),
      discount=0.99,
      steps=8,
    ),
    "vtrace": lambda b: advantages.vtrace(
      *(b[k] for k in ("reward", "value", "next_value", "ratio", "mask")),
      **ends(b),
      discount=1.0,
      trace=0.95,
      max_ratio=1.0,
      max_trace=1.0,
    ),
    "group_relative": lambda b: to_tokens(
      advantages.group_relative(
        *grouped(b),
        num_groups=size.groups,
        scale="group",
        ddof=1,
        epsilon=1e-6,
      ),
      b,
    ),
    "leave_one_out": lambda b: to_tokens(
      advantages.leave_one_out(*grouped(b), num_groups=size.groups), b
    ),
    "whiten": lambda b: advantages.whiten(
      b["value"],
      b["mask"],
      ddof=1,
      epsilon=1e-8,
      guard="inside_root",
      shift_mean=True,
    ),
  }


def _rlax(rlax: Any) -> dict[str, Callable[[Batch], Any]]:
  """The same numbers of one row; its discount is 0 where a record ends."""

  def discount(b, by=1.0):
    return by * (1.0 - b["last"])

  return {
    "generalized_advantage": (
      lambda b: rlax.truncated_generalized_advantage_estimation(
        b["reward"],
        discount(b),
        0.95,
        jnp.append(b["value"], 0.0),
        stop_target_gradients=True,
      )
    ),
    "lambda_returns": lambda b: rlax.lambda_returns(
      b["reward"],
      discount(b),
      b["next_value"],
      0.95,
      stop_target_gradients=True,
    ),
    "discounted_returns": lambda b: rlax.discounted_returns(
      b["reward"], discount(b, 0.99), 0.0 * b["value"]
    ),
    "n_step_returns": lambda b: rlax.n_step_bootstrapped_returns(
      b["reward"], discount(b, 0.99), b["next_value"], 8
    ),
    "vtrace": lambda b: rlax.vtrace_td_error_and_advantage(
      b["value"],
      b["next_value"],
      b["reward"],
      discount(b),
      b["ratio"],
      0.95,
    ),
  }


def _interleaved(
  forms: dict[str, Callable[[], Any]], repeats: int
) -> dict[str, float]:
  seconds: dict[str, list[float]] = {name: [] for name in forms}
  for turn in range(repeats + 1):
    for name, form in forms.items():
      start = time.perf_counter()
      form()
      if turn:  # the first call of each also allocates
        seconds[name].append(time.perf_counter() - start)
  return {name: statistics.median(x) for name, x in seconds.items()}


if __name__ == "__main__":
  main()
