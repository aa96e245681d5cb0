"""Let a language policy answer held-out prompts, and have that judged."""

from __future__ import annotations

import dataclasses
import math
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from rl_jax.reduce import Total
from rl_jax.sampling.autoregressive import Autoregressive
from rl_jax.training.sharding import over_rows
from rl_jax.types import TextRollouts

if TYPE_CHECKING:
  from collections.abc import Callable

  from jaxtyping import PyTree

  from rl_jax.training.state import State

__all__ = ["TextSamples"]

_SALT = 1_000_003


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextSamples:
  """Rewards of answers to prompts that are not trained on.

  Measures `evaluation/reward` with half the width of its 95 % interval
  (`evaluation/reward_interval`: 1.96 standard errors over prompts), the share
  of answers with a verdict (`evaluation/valid`), every term and metric of the
  reward, and the entropy of what was written. All answers are kept as texts.
  The same keys are used every time, so that two evaluations differ by the
  policies alone.

  Raises:
    ValueError: if a count is below 1.
  """

  data: Any
  """Prompts, see `rl_jax.data.Prompts`; the first `prompts` of them."""
  sampler: Autoregressive
  """How answers are drawn."""
  prompts: int
  """How many prompts."""
  samples: int = 1
  """Answers to each prompt."""
  reward: Any = None
  """The judge; None = the one of the experiment."""
  every: int = 10
  """Steps between two evaluations."""

  def __post_init__(self) -> None:
    if min(self.prompts, self.samples, self.every) < 1:
      raise ValueError(
        f"prompts = {self.prompts}, samples = {self.samples} and every ="
        f" {self.every} must be at least 1"
      )

  def build(
    self, experiment: Any, load: Callable[[Any], PyTree]
  ) -> tuple[Callable[[State, PyTree], tuple[dict, dict]], PyTree]:
    """The evaluation as a pure function, and the prompts it needs.

    The function's `state.params` is the pair of parameters and low-rank
    change, or None, that programs of language models make.
    """
    del load
    model, rows = experiment.model, self.prompts * self.samples
    self.sampler.check_model(model, self.data.length)
    source = self.data.source()
    if len(source) < self.prompts:
      raise ValueError(
        f"the evaluation wants {self.prompts} prompts, its data has"
        f" {len(source)}"
      )
    items = source[np.arange(self.prompts)]
    sampler = dataclasses.replace(self.sampler, entropy=True)

    def evaluate(state: State, items: PyTree) -> tuple[dict, dict]:
      params, adapter = state.params
      key = jax.random.wrap_key_data(state.key)
      keys = jax.random.split(jax.random.fold_in(key, _SALT), rows)
      written = sampler(
        model,
        params,
        items["prompt"],
        items["prompt_mask"],
        over_rows(keys),
        samples=self.samples,
        adapter=adapter,
        item=items["item"],
      )
      answers = written._asdict()
      entropy = Total(
        jnp.sum(answers.pop("entropy")), jnp.sum(written.mask * 1.0)
      )
      answers["extra"] = {
        name: jnp.repeat(value, self.samples, axis=0)
        for name, value in items.items()
        if name not in ("prompt", "prompt_mask", "item")
      }
      answers["item"] = jnp.repeat(items["item"], self.samples)
      answers["step"] = jnp.full(rows, state.step)
      return {"evaluation/entropy": entropy}, answers

    return evaluate, {name: jnp.asarray(x) for name, x in items.items()}

  def inspection(self, experiment: Any) -> Callable[[dict, dict], tuple]:
    """What judges the answers, on the host; see `Program.inspect`."""
    reward = self.reward or experiment.reward
    if reward is None:
      raise ValueError(f"{experiment.name}: nothing judges the evaluation")
    score, data = reward.bind(self.data), self.data
    tokenizer = data.vocabulary.load()

    def inspect(metrics: dict, answers: dict) -> tuple[dict, dict, tuple]:
      judged = score(self._rollouts(answers))
      valid = np.asarray(judged.valid)
      metrics = dict(metrics)
      metrics["evaluation/reward"] = _mean(judged.reward, valid)
      interval: Any = 1.96 * self._standard_error(judged.reward, valid)
      one: Any = np.ones((), np.float32)
      metrics["evaluation/reward_interval"] = Total(interval, one)
      metrics["evaluation/valid"] = _mean(valid, np.ones_like(valid))
      for name, value in judged.metric.items():
        metrics[f"evaluation/{name}"] = _mean(value, valid)
      texts = []
      for row, item in enumerate(np.asarray(judged.item)):
        prompt, reference = data.texts(int(item))
        ids = judged.token[row][judged.present[row]].tolist()
        texts.append(
          {
            "prompt": prompt,
            "completion": tokenizer.decode(ids),
            "reference": str(reference),
            "reward": float(judged.reward[row]) if valid[row] else None,
          }
        )
      return metrics, {}, tuple(texts)

    return inspect

  def _rollouts(self, answers: dict[str, np.ndarray]) -> TextRollouts:
    rows = self.prompts * self.samples
    blank = np.zeros((rows, 0), np.int32)
    given: dict[str, Any] = dict(answers) | {
      "prompt": blank,
      "prompt_mask": blank.astype(bool),
      "group": np.repeat(np.arange(self.prompts), self.samples),
      "key": blank.astype(np.uint32),
      "reward": np.zeros(rows, np.float32),
      "valid": np.ones(rows, bool),
    }
    return TextRollouts(**given, metric={})

  def _standard_error(self, reward: Any, valid: np.ndarray) -> float:
    """Of the mean over prompts, of their mean over answers with a verdict."""
    shape = (self.prompts, self.samples)
    counts = valid.reshape(shape).sum(axis=1)
    sums = np.where(valid, reward, 0.0).reshape(shape).sum(axis=1)
    means = sums[counts > 0] / counts[counts > 0]
    if len(means) < 2:
      return 0.0
    return float(means.std(ddof=1) / math.sqrt(len(means)))


def _mean(value: Any, valid: np.ndarray) -> Total:
  """A Total over rows that count."""
  kept: Any = np.where(valid, value, 0.0).sum(dtype=np.float32)
  count: Any = valid.sum(dtype=np.float32)
  return Total(kept, count)
