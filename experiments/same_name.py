"""Writes the page "Same name, different mathematics" from the recipes.

python -m experiments.same_name --check     say whether it is up to date
python -m experiments.same_name --write     write it

Every cell is read off a value of `experiments/recipes.py`, which is also what
the parity tests run, and the numbers are computed by those values: the page
cannot say something else than the code does.
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import pathlib
import sys
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from experiments import recipes
from rl_jax import advantages, divergences, losses, ratios, reduce
from rl_jax.algorithms import component_functions as functions
from rl_jax.algorithms import components
from rl_jax.algorithms.recipe import PolicyBatch, PolicyRecipe

__all__ = ["PAGE", "batch", "main", "named_recipes", "page"]

PAGE = (
  pathlib.Path(__file__).parent.parent
  / "docs"
  / "same_name_different_mathematics.md"
)

# What a function or a component is in words; one without any is an error.
WORDS: dict[Callable, str] = {
  advantages.best_minus_second: "second best; only the best counts",
  advantages.group_relative: "mean of the group",
  advantages.leave_one_out: "mean of the others",
  advantages.leave_one_out_scaled: "mean of the others",
  advantages.nonzero_relative: "mean of the group",
  components.Greedy: "reward of the greedy response",
  components.LengthWeighted: "mean of the group by length",
  components.Raw: "nothing",
  components.EveryToken: "the row's number",
  components.Generalized: "GAE of a critic",
  components.ToGo: "what is to come",
  losses.clipped_policy_terms: "clipped token ratio",
  losses.clipped_weight_loss: "log-prob, clipped ratio as weight",
  losses.dual_clipped_loss: "clipped token ratio",
  losses.geometric_mean_loss: "geometric mean of clipped token ratios",
  losses.sequence_clipped_loss: "clipped ratio of the row",
  losses.soft_gate_loss: "soft gate of the token ratio",
  functions.fresh_policy_gradient: "log-prob",
  functions.loosely_clipped: "clipped token ratio, looser bound if A < 0",
  reduce.over_constant: "rows, sums / {divisor:g}",
  reduce.over_sequences: "rows, each the mean of its tokens",
  reduce.over_tokens: "tokens of the whole batch",
  functions.over_all_rows: "rows, empty ones too, sums / {divisor:g}",
  divergences.importance_k3: "k3 with a ratio",
  divergences.k1: "k1",
  divergences.k2: "k2",
  divergences.k3: "k3",
  ratios.truncated_weight: "sampler's token ratio, at most {maximum:g}",
}
SPREADS = {
  "none": "none",
  "group": "std of the group",
  "global": "std of the batch",
}
HEAD = (
  "",
  "compared with",
  "divided by",
  "ddof",
  "epsilon",
  "each token",
  "ratio",
  "clips",
  "KL",
  "mean over",
  "also",
)


def named_recipes() -> dict[str, PolicyRecipe]:
  """The recipes by the name of their value, in the order of the file."""
  return {
    name: value
    for name, value in vars(recipes).items()
    if isinstance(value, PolicyRecipe)
  }


def batch() -> PolicyBatch:
  """Eight responses to three prompts, one group of equal rewards."""
  row, time = 8, 6
  grid = np.arange(row * time, dtype=np.float32).reshape(row, time)
  length = np.array([3, 6, 1, 4, 2, 5, 6, 4])
  old = -1.0 - np.abs(np.sin(grid))
  return PolicyBatch(
    log_prob=jnp.asarray(old + 0.5 * np.sin(2.3 * grid)),
    behaviour_log_prob=jnp.asarray(old),
    mask=jnp.asarray(np.arange(time) < length[:, None]),
    reward=jnp.array([1.0, 0.0, 0.25, 1.0, 0.5, -0.5, 0.0, 0.5]),
    group=jnp.array([0, 1, 0, 1, 2, 0, 1, 2]),
    valid=jnp.ones(row, bool),
    sampler_log_prob=jnp.asarray(old + 0.2 * np.sin(5.1 * grid)),
    reference_log_prob=jnp.asarray(old + 0.4 * np.sin(3.7 * grid)),
    greedy_reward=jnp.array([0.25, 0.5, 0.25, 0.5, 0.5, 0.25, 0.5, 0.5]),
    value=jnp.asarray(0.3 * np.sin(grid)),
    behaviour_value=jnp.asarray(0.3 * np.cos(grid)),
  )


def page() -> str:
  """The whole page."""
  every = named_recipes()
  frameworks = {
    name: every[name]
    for name in (
      "trl_grpo",
      "verl_grpo",
      "openrlhf_grpo",
      "nemo_grpo",
      "tunix_grpo",
      "open_instruct_grpo",
      "easydel_grpo",
      "marin_rloo",
    )
  }
  methods = {k: v for k, v in every.items() if k not in frameworks}
  return (
    "\n\n".join(
      [
        "# Same name, different mathematics",
        "Written by `python -m experiments.same_name --write` from the values"
        " of [experiments/recipes.py](../experiments/recipes.py); a test fails"
        " when the two differ. That the values are what the frameworks compute"
        " is tested against numbers of the frameworks themselves, see"
        " [tests/parity](../tests/parity/README.md).",
        "## What a user gets who asks for GRPO and touches no other option",
        "marin has no option of that name; its row is the loss it trains with.",
        _table(HEAD, [_cells(*item) for item in frameworks.items()]),
        _sources(frameworks),
        "## One batch through each of them",
        "Eight responses to three prompts, the same log-probabilities and"
        " rewards for all. The angle is that of the gradient to TRL's: a"
        " learning rate carries over between two frameworks when the norms are"
        " equal and the angle is zero.",
        _measured(frameworks),
        "## Methods",
        _table(HEAD, [_cells(*item) for item in methods.items()]),
        _sources(methods),
        "## How to read the columns",
        "- *compared with*, *divided by*, *ddof*, *epsilon*: the advantage of a"
        " response is (reward - compared with) / (divided by + epsilon). A"
        " framework's epsilon and its ddof change every step size of a group"
        " with few or nearly equal rewards.\n"
        "- *mean over*: who divides by what, over the whole batch and never a"
        " micro-batch of it.\n"
        "- *KL*: k1 = x, k2 = x^2 / 2, k3 = exp(-x) - 1 + x with x = log pi -"
        " log ref. In the reward, k1 has the gradient of KL(pi || ref). In the"
        " loss, on policy, k1 has none, k2 that of KL(pi || ref), k3 that of"
        " KL(ref || pi); k3 with a ratio that is differentiated has that of"
        " KL(pi || ref).",
      ]
    )
    + "\n"
  )


def _cells(name: str, recipe: PolicyRecipe) -> tuple[str, ...]:
  spread, ddof, epsilon = _spread(recipe.baseline)
  also = [_weight(recipe), *_extras(recipe), recipe.note]
  return (
    f"`{name}`",
    _words(_inside(recipe.baseline)),
    spread,
    ddof,
    epsilon,
    _credit(recipe),
    _words(recipe.loss),
    _clips(_keywords(recipe.loss)),
    _kl(recipe),
    _words(recipe.reduction),
    "; ".join(text for text in also if text),
  )


def _words(part) -> str:
  function = part
  if isinstance(part, functools.partial):
    function = part.func
  elif dataclasses.is_dataclass(part):
    function = type(part)
  return WORDS[function].format(**_keywords(part))


def _keywords(part) -> dict:
  return part.keywords if isinstance(part, functools.partial) else {}


def _inside(baseline):
  """What a comparison within a group is made by, or the component itself."""
  if isinstance(baseline, components.WithinGroup):
    return baseline.estimator
  return baseline


def _spread(baseline) -> tuple[str, str, str]:
  made = _inside(baseline)
  given = _keywords(made)
  if "count" in given:
    return f"share of rows with {given['count']} not 0", "", ""
  if "epsilon" not in given or given.get("scale") == "none":
    return "none", "", ""
  spread = SPREADS.get(given.get("scale"), "std of the others, where not 0")
  return spread, str(given["ddof"]), f"{given['epsilon']:g}"


def _credit(recipe) -> str:
  text, credit = _words(recipe.credit), recipe.credit
  if isinstance(credit, components.Generalized):
    trace = credit.trace
    if isinstance(trace, functools.partial):
      trace = "1 - 1 / ({alpha:g} length)".format(**trace.keywords)
    text += f", lambda {trace}"
  if recipe.whitening is not None:
    given = recipe.whitening.keywords
    text += (
      f", whitened (ddof {given['ddof']}, epsilon {given['epsilon']:g}"
      f" {given['guard'].replace('_', ' ')})"
    )
  return text


def _clips(given) -> str:
  if "sharpness" in given:
    return f"sharpness {given['sharpness']:g}, {given['negative_sharpness']:g}"
  if "high" in given:
    return f"weight in [{given['low']:g}, {given['high']:g}]"
  if "clip_low" not in given:
    return "none"
  text = f"{given['clip_low']:g} / {given['clip_high']:g}"
  return f"{text}, dual {given['bound']:g}" if "bound" in given else text


def _kl(recipe) -> str:
  found = []
  for step in recipe.shaping:
    if isinstance(step, components.KlSubtracted):
      found.append(f"{step.weight:g} x k1 of the row, in the reward")
  weight = getattr(recipe.credit, "kl_weight", 0.0)
  if weight:
    found.append(f"{weight:g} x k1, in the reward")
  if recipe.penalty is not None:
    penalty = recipe.penalty
    text = f"{penalty.weight:g} x {_words(penalty.estimator)}"
    if penalty.ratio_to is not None:
      text += f" to {penalty.ratio_to}"
    text += ", in the loss"
    if penalty.clamp is not None:
      text += f", cut at {penalty.clamp:g}"
    if penalty.reduction is not None:
      text += f", mean over {_words(penalty.reduction)}"
    found.append(text)
  return "; ".join(found) or "none"


def _weight(recipe) -> str:
  if isinstance(recipe.weight, components.PerRow):
    return "policy loss divided by the number of rows as well"
  return "" if recipe.weight is None else _words(recipe.weight.weight)


def _extras(recipe):
  for step in recipe.shaping:
    if isinstance(step, components.Overlong):
      yield (
        f"reward minus up to {step.factor:g} from {step.soft:g} to"
        f" {step.hard:g} tokens"
      )
  if recipe.rows is not None:
    yield "groups of equal rewards left out"
  if isinstance(recipe.credit, components.ToGo):
    yield f"advantage cut at {recipe.credit.bound:g} before the KL"
  if recipe.clamp is not None:
    yield f"log-ratio cut at {recipe.clamp:g}"
  if recipe.value is not None:
    clip = recipe.value.loss.keywords["clip"]
    yield f"critic {recipe.value.weight:g}, clip {clip:g}"
  if recipe.imitation is not None:
    yield f"{recipe.imitation.weight:g} x likelihood of rewarded responses"


def _sources(chosen) -> str:
  return "\n".join(
    f"- `{name}`: {recipe.reference}" for name, recipe in chosen.items()
  )


def _measured(chosen) -> str:
  rows, first = [], None
  for name, recipe in chosen.items():
    given = batch()

    def objective(log_prob, recipe=recipe, given=given):
      moved = given._replace(log_prob=log_prob)
      return recipe.totals(moved, num_groups=3).objective()

    loss, gradient = jax.value_and_grad(objective)(given.log_prob)
    gradient = np.asarray(gradient, float)
    first = gradient if first is None else first
    norm = np.linalg.norm(gradient)
    cosine = np.sum(gradient * first) / (norm * np.linalg.norm(first))
    angle = np.degrees(np.arccos(min(1.0, cosine)))
    rows.append((f"`{name}`", f"{loss:.3f}", f"{norm:.3f}", f"{angle:.0f}°"))
  return _table(("", "loss", "gradient norm", "angle"), rows)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
  lines = [head, ["---"] * len(head), *rows]
  return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main(arguments: Sequence[str] | None = None) -> int:
  """Runs the command line.

  Args:
    arguments: what was written after the program's name.

  Returns:
    The exit status: 1 where `--check` found a difference.
  """
  parser = argparse.ArgumentParser(description=__doc__)
  action = parser.add_mutually_exclusive_group(required=True)
  action.add_argument("--check", action="store_true")
  action.add_argument("--write", action="store_true")
  if parser.parse_args(arguments).write:
    PAGE.parent.mkdir(exist_ok=True)
    PAGE.write_text(page())
    return 0
  stale = not PAGE.exists() or PAGE.read_text() != page()
  if stale:
    print(f"{PAGE.name} is stale: python -m experiments.same_name --write")
  return int(stale)


if __name__ == "__main__":
  sys.exit(main())
