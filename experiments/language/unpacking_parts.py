"""Components of the comparison of DPO and PPO.

Written here and not in the library: a researcher's own data and evaluations
are dataclasses beside the experiment.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.language.unpacking_task import DIGITS, gold
from rl_jax.algorithms.parts import whole_axes
from rl_jax.algorithms.responses import (
  Responses,
  answer_score,
  response_hidden,
)
from rl_jax.divergences import categorical_kl
from rl_jax.evaluation import TextSamples
from rl_jax.experiment import Trained
from rl_jax.reduce import Total
from rl_jax.sampling import Autoregressive

if TYPE_CHECKING:
  from collections.abc import Callable

  from jaxtyping import Array, Float, PyTree

  from rl_jax.training.state import Program, State

__all__ = ["Agreement", "ByCategory", "Compared", "Comparisons"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparisons:
  """Two answers of a policy to each prompt, and which one was preferred.

      p(first is preferred) = sigmoid(sharpness (gold_1 - gold_2))

  and then a share of the labels is turned round. Answers and label of a
  prompt are a function of its item and the seed: the pairs of N prompts are
  a fixed data set of N, made again whenever they are read.
  """

  writer: Trained
  """Whose answers they are."""
  sampler: Autoregressive
  """How it writes."""
  sharpness: float
  """Per unit of the gold reward."""
  flips: float
  """Probability of a label to be turned round."""
  seed: int
  """Of answers and labels."""

  def __post_init__(self) -> None:
    if not 0 <= self.flips <= 0.5:
      raise ValueError(f"flips must be in [0, .5], got {self.flips}")

  def pairs(
    self, params: PyTree, items: dict[str, Array]
  ) -> tuple[dict[str, Array], Float[Array, "row"]]:
    """The pairs of some prompts.

    Args:
      params: of the writer.
      items: of `rl_jax.data.Prompts`.

    Returns:
      Items as those of `rl_jax.data.Preferences`, of which pairs of two equal
      answers count nothing; and the gold reward of the chosen answer less
      that of the other.
    """
    prompt, rows = items["prompt"], len(items["item"])
    root = jax.random.key(self.seed)
    keys = jax.vmap(lambda item: jax.random.fold_in(root, item))(items["item"])
    written = self.sampler(
      self.writer.by.model,
      params,
      prompt,
      items["prompt_mask"],
      jax.vmap(lambda key: jax.random.split(key, 2))(keys).reshape(-1),
      samples=2,
    )
    token, mask = (
      x.reshape(rows, 2, -1) for x in (written.token, written.mask)
    )
    reward = jnp.stack(
      [
        gold(prompt[:, :DIGITS], token[:, side], mask[:, side])
        for side in range(2)
      ],
      axis=1,
    )
    draw = jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, 2)))
    turn = jax.vmap(lambda key: jax.random.uniform(jax.random.fold_in(key, 3)))
    sure = jax.nn.sigmoid(self.sharpness * (reward[:, 0] - reward[:, 1]))
    first = (draw(keys) < sure) ^ (turn(keys) < self.flips)
    differ = jnp.any(jnp.where(mask, token, -1)[:, 0] != token[:, 1], axis=1)
    found = {}
    for name, side in (("chosen", 1 - first), ("rejected", first * 1)):
      where = side[:, None, None]
      answer = jnp.take_along_axis(token, where, axis=1)[:, 0]
      own = jnp.take_along_axis(mask, where, axis=1)[:, 0]
      before = items["prompt_mask"]
      found[name] = jnp.concatenate([prompt, answer], axis=1)
      whole = jnp.concatenate([before, own], axis=1)
      found[f"{name}_segment"] = whole.astype(jnp.int32)
      learned = jnp.concatenate([jnp.zeros_like(before), own], axis=1)
      found[f"{name}_mask"] = learned & differ[:, None]
    gap = jnp.where(first, 1.0, -1.0) * (reward[:, 0] - reward[:, 1])
    return found, gap


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compared:
  """An algorithm that learns from preferences, on comparisons made for it.

  The experiment's data are prompts.
  """

  algorithm: Any
  """`PreferenceOptimisation` or `RewardModelling`."""
  comparisons: Comparisons
  """Where its pairs come from."""

  def build(self, experiment: Any, load: Callable[[Any], PyTree]) -> Program:
    """The program of an experiment; see `rl_jax.training.state.Program`."""
    program = self.algorithm.build(experiment, load)
    writer = load(self.comparisons.writer)
    axes = program.frozen_axes
    if axes is not None:
      axes = dict(axes) | {"writer": whole_axes(writer)}

    def collect(state: State, frozen: PyTree, items: Any) -> Any:
      pairs, _ = self.comparisons.pairs(frozen["writer"], items)
      return program.collect(state, frozen, pairs)

    return program._replace(
      collect=collect,
      frozen=dict(program.frozen) | {"writer": writer},
      frozen_axes=axes,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Agreement:
  """How often a reward model puts the better of two answers first.

  Measures `evaluation/agreement` on pairs whose gold rewards differ.
  """

  data: Any
  """Prompts that no label was given for."""
  prompts: int
  """How many of them."""
  comparisons: Comparisons
  """Where the pairs come from; their labels are not looked at."""
  every: int
  """Steps between two evaluations."""

  def build(
    self, experiment: Any, load: Callable[[Any], PyTree]
  ) -> tuple[Callable[[State, PyTree], tuple[dict, dict]], PyTree]:
    """The evaluation as a pure function, and what it needs."""
    model = experiment.model
    items = self.data.source()[np.arange(self.prompts)]

    def evaluate(state: State, frozen: PyTree) -> tuple[dict, dict]:
      pairs, gap = self.comparisons.pairs(frozen["writer"], frozen["items"])
      chosen, rejected = (
        answer_score(model, state.params, pairs[name], pairs[f"{name}_segment"])
        for name in ("chosen", "rejected")
      )
      agrees = (chosen > rejected) == (gap > 0)
      some = gap != 0
      count = jnp.sum(some, dtype=jnp.float32)
      value = jnp.sum(agrees & some, dtype=jnp.float32)
      return {"evaluation/agreement": Total(value, count)}, {}

    frozen = {
      "writer": load(self.comparisons.writer),
      "items": jax.tree.map(jnp.asarray, items),
    }
    return evaluate, frozen


@dataclasses.dataclass(frozen=True, kw_only=True)
class ByCategory:
  """Evaluations of a language policy, category by category.

  Measures what each of them does as `evaluation/<category>/...`, the average
  of their rewards as `evaluation/reward` with `evaluation/reward_interval`,
  and `evaluation/kl`: how far the policy is from a reference, in nats per
  answer of its own, summed exactly over the vocabulary at each token.
  """

  categories: tuple[str, ...]
  """Their names."""
  texts: tuple[TextSamples, ...]
  """The evaluation of each."""
  reference: Trained
  """What the KL is taken to."""
  every: int
  """Steps between two evaluations."""

  def build(
    self, experiment: Any, load: Callable[[Any], PyTree]
  ) -> tuple[Callable[[State, PyTree], tuple[dict, dict]], PyTree]:
    """The evaluation as a pure function, and what it needs."""
    model = experiment.model
    built = {
      name: own.build(experiment, load)
      for name, own in zip(self.categories, self.texts, strict=True)
    }

    def nats(params: PyTree, kept: PyTree, items: Any, answers: Any) -> Total:
      samples = len(answers["token"]) // len(items["prompt"])
      responses = Responses(
        jnp.repeat(items["prompt"], samples, axis=0),
        jnp.repeat(items["prompt_mask"], samples, axis=0),
        answers["token"],
        answers["mask"],
      )
      here, there = (
        model.logits(own, response_hidden(model, own, responses))
        for own in (params, kept)
      )
      return Total.of(
        jnp.sum(categorical_kl(here, there, responses.mask), axis=1)
      )

    def evaluate(state: State, frozen: PyTree) -> tuple[dict, dict]:
      metrics, answers = {}, {}
      for name, (function, _) in built.items():
        items = frozen["texts"][name]
        found, answers[name] = function(state, items)
        found["evaluation/kl"] = nats(
          state.params[0], frozen["reference"], items, answers[name]
        )
        metrics |= {_within(name, key): own for key, own in found.items()}
      return metrics, answers

    frozen = {
      "texts": {name: own for name, (_, own) in built.items()},
      "reference": load(self.reference),
    }
    return evaluate, frozen

  def inspection(self, experiment: Any) -> Callable[[dict, dict], tuple]:
    """What judges the answers, on the host; see `Program.inspect`."""
    judges = {
      name: own.inspection(experiment)
      for name, own in zip(self.categories, self.texts, strict=True)
    }

    def inspect(metrics: dict, answers: dict) -> tuple[dict, dict, tuple]:
      metrics, texts = dict(metrics), ()
      for name, judge in judges.items():
        found, _, written = judge({}, answers[name])
        metrics |= {_within(name, key): own for key, own in found.items()}
        texts += tuple({"category": name} | text for text in written)

      def each(name: str) -> np.ndarray:
        own = [metrics[_within(c, f"evaluation/{name}")] for c in judges]
        return np.array([float(x.value) / float(x.weight) for x in own])

      # Of independent samples, the width of an average.
      width = np.sqrt((each("reward_interval") ** 2).sum()) / len(judges)
      overall: Any = {
        "reward": each("reward").mean(),
        "kl": each("kl").mean(),
        "reward_interval": width,
      }
      one: Any = np.ones((), np.float32)
      for name, value in overall.items():
        metrics[f"evaluation/{name}"] = Total(value, one)
      return metrics, {}, texts

    return inspect


def _within(category: str, name: str) -> str:
  return name.replace("evaluation/", f"evaluation/{category}/")
