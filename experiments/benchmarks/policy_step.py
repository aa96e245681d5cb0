"""Memory and time of a policy-gradient step against its plain form.

A step is the loss of a recipe, TRL's GRPO, and its gradient, of a batch of
responses, without sampling and without an optimiser. The plain form has the
logits of all response tokens at once and keeps what the backward pass wants.
Ours has them a block at a time and computes each layer again. The lines
between are one of the two alone. Memory is what XLA plans for temporaries:
neither parameters nor gradients, exact, and known from shapes, so no weights
are needed. It is that of the backend this runs on: on a CPU nothing is padded
to tiles, and no kernel is fused that a TPU would fuse. The claim is a tenth of
the plain form, with all parameters trained and with a low-rank change alone.

    python -m experiments.benchmarks.policy_step              some minutes
    python -m experiments.benchmarks.policy_step --quick      a minute, too
                                                              small for it
    python -m experiments.benchmarks.policy_step --repeats 3  with times
"""

from __future__ import annotations

import dataclasses
import statistics
import sys
import time
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import tyro

from experiments import recipes
from experiments.language import smollm2_sums
from rl_jax.algorithms import Scoring
from rl_jax.algorithms.recipe import PolicyBatch
from rl_jax.algorithms.responses import Responses, response_hidden
from rl_jax.log_probs import token_log_prob
from rl_jax.models import Decoder

__all__ = ["FORMS", "Form", "Size", "inputs", "main", "measure", "step"]

_CLAIM = 0.1


class Form(NamedTuple):
  """One way to compute a step.

  Attributes:
    full: whether all logits exist at one time.
    remat: what the backward pass computes again; see `Decoder.remat`.
  """

  full: bool
  remat: Literal["none", "products", "all"]


PLAIN, OURS = "full logits", "blocks, layers again"
FORMS = {
  PLAIN: Form(True, "none"),
  "full logits, layers again": Form(True, "all"),
  "blocks": Form(False, "none"),
  "blocks, all but products again": Form(False, "products"),
  OURS: Form(False, "all"),
}
"""Each way by its name; the claim compares the last with the first."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Size:
  """What is measured."""

  model: Literal["smollm2", "tiny"] = "smollm2"
  """Shape of the decoder; smollm2 is that of SmolLM2-135M."""
  rows: int = 8
  """Responses of the batch."""
  prompt: int = 32
  """Tokens of every prompt."""
  length: int = 224
  """Tokens of every response."""
  group_size: int = 4
  """Responses to each prompt."""
  dtype: Literal["float32", "bfloat16"] = "float32"
  """Precision of the products; parameters are float32."""
  scoring: Scoring = Scoring()
  """Blocks of logits."""
  repeats: int = 0
  """Timed calls of each form, which take turns; 0: memory alone."""
  quick: bool = False
  """Start from a small size."""


QUICK = Size(
  model="tiny",
  rows=4,
  prompt=4,
  length=28,
  scoring=Scoring(chunk_tokens=32, chunk_vocabulary=256),
  repeats=3,
  quick=True,
)


def main(arguments: Sequence[str] | None = None) -> int:
  """Parse the command line, measure and print the table.

  Args:
    arguments: the command line; that of the process if None.

  Returns:
    0, or 1 if the claim does not hold here.
  """
  arguments = sys.argv[1:] if arguments is None else arguments
  size = tyro.cli(
    Size,
    args=arguments,
    default=QUICK if "--quick" in arguments else Size(),
    description=__doc__,
  )
  lines, holds = measure(size)
  print("\n".join(lines), flush=True)
  return 0 if holds else 1


def measure(size: Size) -> tuple[list[str], bool]:
  """Compile every form, and time it where that is asked for.

  Args:
    size: shapes, blocks and how often to time.

  Returns:
    The lines of two tables, and whether the claim holds in both.
  """
  lines = [
    f"{size.model}, {size.rows} rows of {size.prompt} + {size.length} tokens,"
    f" {size.dtype}, {jax.devices()[0].device_kind}; temporaries of XLA",
  ]
  holds = True
  for lora in (False, True):
    compiled = {
      name: _compiled(size, form, lora=lora) for name, form in FORMS.items()
    }
    memory = {
      name: program.memory_analysis().temp_size_in_bytes
      for name, program in compiled.items()
    }
    seconds = _taking_turns(compiled, size, lora=lora)
    what = "a change of rank 16" if lora else "all parameters"
    lines.append(
      f"{what + ' trained':32}{'temporaries':>14}{'of full':>9}"
      + f"{'a step':>12}{'of full':>9}" * bool(seconds)
    )
    for name in FORMS:
      share = memory[name] / memory[PLAIN]
      line = f"{name:32}{memory[name] / 1e6:11.1f} MB{share:9.3f}"
      if seconds:
        line += f"{seconds[name]:10.3f} s{seconds[name] / seconds[PLAIN]:9.2f}"
      lines.append(line)
    holds &= memory[OURS] <= _CLAIM * memory[PLAIN]
  verdict = "holds" if holds else "does not hold"
  lines.append(f"{OURS!r} <= {_CLAIM} of {PLAIN!r} in both: {verdict} here")
  return lines, holds


def step(size: Size, form: Form, *, lora: bool) -> Any:
  """Loss and gradient as one function.

  Args:
    size: shapes and blocks.
    form: how to compute them.
    lora: whether a low-rank change is trained and the model is not.

  Returns:
    (params, adapter, responses, reward, behaviour_log_prob) -> (loss,
    gradient by what is trained); the adapter is None without `lora`.
  """
  model = _model(size, form.remat, lora=lora)
  recipe, groups = recipes.trl_grpo, size.rows // size.group_size

  def log_prob(params, adapter, responses):
    if not form.full:
      scores = size.scoring(
        model, params, responses, temperature=1.0, adapter=adapter
      )
      return scores.log_prob
    hidden = response_hidden(model, params, responses, adapter=adapter)
    return token_log_prob(
      model.logits(params, hidden),
      responses.token,
      responses.mask,
      temperature=1.0,
      soft_cap=None,  # `logits` has applied it
    )

  def whole(params, adapter, responses, reward, behaviour_log_prob):
    batch = PolicyBatch(
      log_prob=behaviour_log_prob,
      behaviour_log_prob=behaviour_log_prob,
      mask=responses.mask,
      reward=reward,
      group=jnp.arange(size.rows) // size.group_size,
      valid=jnp.ones(size.rows, bool),
      sampler_log_prob=behaviour_log_prob,
    )
    signals = recipe.signals(batch, num_groups=groups)

    def loss(trained):
      pair = (params, trained) if lora else (trained, None)
      own = batch._replace(log_prob=log_prob(*pair, responses))
      return recipe.terms(own, signals).policy.mean()

    return jax.value_and_grad(loss)(adapter if lora else params)

  return whole


def inputs(size: Size, *, lora: bool) -> tuple[Any, ...]:
  """Random arguments of a `step`.

  Args:
    size: shapes.
    lora: as for `step`.

  Returns:
    Its arguments.
  """
  model = _model(size, "none", lora=lora)
  keys = jax.random.split(jax.random.key(0), 4)
  columns = size.prompt + size.length
  shape = (size.rows, columns)
  token = jax.random.randint(keys[0], shape, 0, model.vocabulary)
  mask = jnp.ones(shape, bool)
  first = slice(None), slice(size.prompt)
  rest = slice(None), slice(size.prompt, None)
  return (
    model.init(keys[1]),
    model.init_adapter(keys[2]) if lora else None,
    Responses(token[first], mask[first], token[rest], mask[rest]),
    jax.random.normal(keys[3], (size.rows,)),
    jnp.full((size.rows, size.length), -jnp.log(float(model.vocabulary))),
  )


def _model(size: Size, remat: Any, *, lora: bool) -> Decoder:
  model = smollm2_sums.MODEL
  if size.model == "tiny":
    heads = dataclasses.replace(model.attention, features=4)
    model = dataclasses.replace(
      model, vocabulary=2048, width=36, layers=4, mlp=96, attention=heads
    )
  return dataclasses.replace(
    model,
    remat=remat,
    dtype=size.dtype,
    lora=model.lora if lora else None,
  )


def _compiled(size: Size, form: Form, *, lora: bool) -> Any:
  shapes = jax.eval_shape(lambda: inputs(size, lora=lora))
  return jax.jit(step(size, form, lora=lora)).lower(*shapes).compile()


def _taking_turns(
  compiled: dict[str, Any], size: Size, *, lora: bool
) -> dict[str, float]:
  """Median seconds of each program; empty where none are asked for."""
  if not size.repeats:
    return {}
  arguments = inputs(size, lora=lora)
  seconds: dict[str, list[float]] = {name: [] for name in compiled}
  # One turn more than asked for: the first one allocates.
  for turn in range(size.repeats + 1):
    for name, program in compiled.items():
      start = time.perf_counter()
      jax.block_until_ready(program(*arguments))
      if turn:
        seconds[name].append(time.perf_counter() - start)
  return {name: statistics.median(own) for name, own in seconds.items()}


if __name__ == "__main__":
  sys.exit(main())
