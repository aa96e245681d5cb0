"""Named rewards of what a language policy wrote, judged on the host."""

from __future__ import annotations

import collections
import dataclasses
import functools
import inspect
import math
from typing import TYPE_CHECKING, Any

import numpy as np

from rl_jax.rewards.combine import Sum
from rl_jax.rewards.notes import Note, TextData, joined, noted
from rl_jax.rewards.verifiers import (
  Judgement,
  Pool,
  RewardFunction,
  judged,
  no_verdict,
)

if TYPE_CHECKING:
  from collections.abc import Callable, Iterable, Mapping, Sequence

  from jaxtyping import Bool, Float, Int

  from rl_jax.rewards.verifiers import Judged
  from rl_jax.types import TextRollouts

__all__ = ["Note", "Term", "TextData", "TextReward", "TextScore", "repetition"]

# Metrics besides the terms. The kinds of "no verdict" are few and fixed: the
# names of a step's metrics are part of its compiled program.
_KINDS = {
  "time limit": "no_verdict_time",
  "total time limit": "no_verdict_time",
  "memory limit": "no_verdict_memory",
  "died": "no_verdict_died",
  "error": "no_verdict_error",
}
_OTHER = "no_verdict_other"
_COMMON = (
  "length",
  "ended",
  "repetition",
  "workers_replaced",
  "no_verdict",
  *dict.fromkeys(_KINDS.values()),
  _OTHER,
)
_GRAM = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class Term:
  """One reward among several.

  Raises:
    ValueError: if the name is empty or one of a metric that is always there.
  """

  name: str
  """What it is called in metrics and errors."""
  judge: Any
  """A verifier, see `rl_jax.rewards.verifiers`, which is run in the pool and
  compares the completion with the item's reference; or a function, or a
  `RewardFunction`, which is run in this process, is trusted, and gets
  `prompts`, `completions`, the `step` of the loop in which each was drawn,
  and all other columns of the task."""
  weight: float = 1.0
  """In units of the sum over units of the reward."""

  def __post_init__(self):
    if not self.name or self.name in _COMMON:
      raise ValueError(f"a term cannot be called {self.name!r}")

  def function(self) -> RewardFunction | None:
    """The judge, called like the term, if it runs in this process."""
    if isinstance(self.judge, RewardFunction):
      return dataclasses.replace(self.judge, name=self.name)
    if inspect.isroutine(self.judge):
      return RewardFunction(function=self.judge, name=self.name)
    return None


@dataclasses.dataclass(frozen=True, kw_only=True)
class TextReward:
  """Weighted sum of named rewards.

      r_i = sum_k w_k r_ik,   valid_i = all_k (term k has a verdict on row i)

  The text that is judged is what the policy wrote: special tokens and the
  token that ended it do not show, and neither does a prefill.

  Raises:
    ValueError: if names repeat, a weight is not finite, or a limit is not
      positive.
  """

  terms: tuple[Term, ...]
  """The rewards."""
  workers: int = dataclasses.field(default=2, metadata={"identity": False})
  """Processes that verify at one time."""
  seconds: float = 5.0
  """Longest that a verifier may take for one completion."""
  memory: int = 1 << 30
  """Most bytes that it may take."""
  notes: tuple[Note, ...] = ()
  """What else is found in the responses, for components that want it."""

  def __post_init__(self):
    self._sum()
    self._pool()

  def _sum(self) -> Sum:
    return Sum(
      terms=tuple(term.name for term in self.terms),
      weights=tuple(term.weight for term in self.terms),
    )

  def _pool(self) -> Pool:
    """A pool, which starts no process before it is given work."""
    return Pool(workers=self.workers, seconds=self.seconds, memory=self.memory)

  @property
  def metrics(self) -> tuple[str, ...]:
    """Names of all metrics that a score fills, the same at every step."""
    return (*self._sum().terms, *_COMMON)

  def extras(self, time: int) -> dict[str, tuple[tuple[int, ...], Any]]:
    """What the notes find.

    Args:
      time: longest response, in tokens.

    Returns:
      Shape after the row and dtype of each array, by name.

    Raises:
      ValueError: if two notes call theirs the same.
    """
    return joined(note.shapes(time) for note in self.notes)

  def bind(self, data: TextData) -> TextScore:
    """The reward for answers to the prompts of some data.

    Args:
      data: where the prompts come from.

    Returns:
      rollouts -> rollouts with `reward`, `valid` and `metric`. It keeps
      worker processes; `close` ends them, and so does the end of this one.
    """
    return TextScore(self, data)


class TextScore:
  """A `TextReward` for some data; see `TextReward.bind`.

  Attributes:
    reasons: for each term, how many rows had which kind of reason, since the
      beginning; see `Judgement`.
  """

  def __init__(self, reward: TextReward, data: TextData):
    self._reward, self._pool = reward, reward._pool()
    self._data = data
    self.reasons: dict[str, collections.Counter[str]] = {
      term.name: collections.Counter() for term in reward.terms
    }

  # Read when the first row is judged: a program can be compiled for a pod on
  # a machine that has neither tokenizer nor data.
  @functools.cached_property
  def _tokenizer(self) -> Any:
    return self._data.vocabulary.load()

  @functools.cached_property
  def _source(self) -> Any:
    return self._data.source()

  @functools.cached_property
  def _notes(self) -> tuple[Callable[[TextRollouts], dict[str, Any]], ...]:
    return tuple(note.bind(self._data) for note in self._reward.notes)

  def __call__(self, rollouts: TextRollouts) -> TextRollouts:
    """Judge every row.

    What stands in `reward` and `valid` before does not matter.

    Args:
      rollouts: with NumPy arrays, or arrays that can be read as such.

    Returns:
      The same with `reward` (0 where there is no verdict), `valid` and
      `metric`. A term is 0 where it has no verdict. Of the metrics that a
      mean over valid rows would get wrong, `no_verdict`, its kinds (shares of
      all rows) and `workers_replaced` (in this call), every row has that of
      the batch.

    Raises:
      RuntimeError: if a function raises or a verifier cannot be loaded.
      ValueError: if a function returns something else than one number or None
        per row.
    """
    token, mask = np.asarray(rollouts.token), np.asarray(rollouts.mask)
    written = [row[own] for row, own in zip(token, mask, strict=True)]
    before = self._pool.report
    try:
      judgements = self._judge([self._text(own) for own in written], rollouts)
    except BaseException:
      # What is under way belongs to a call that has failed.
      self._pool.close()
      raise
    batches = {name: judged(found) for name, found in judgements.items()}
    for name, batch in batches.items():
      self.reasons[name].update(batch.reason)
    reward, valid = self._combined(batches)
    replaced = sum(self._pool.report.replaced.values()) - sum(
      before.replaced.values()
    )
    metric = {
      name: np.where(batch.valid, batch.reward, 0).astype(np.float32)
      for name, batch in batches.items()
    }
    metric |= {
      "length": np.array([len(own) for own in written], np.float32),
      "ended": np.asarray(rollouts.ended, np.float32),
      "repetition": np.array([repetition(own) for own in written], np.float32),
      "workers_replaced": np.full(len(written), replaced, np.float32),
      **_no_verdict(judgements.values(), valid),
    }
    filled: dict[str, Any] = {
      "reward": reward,
      "valid": valid,
      "metric": {**rollouts.metric, **metric},
    }
    return noted(rollouts._replace(**filled), self._notes)

  def close(self) -> None:
    """End the worker processes; a later call starts new ones."""
    self._pool.close()

  def _text(self, token: Int[np.ndarray, "time"]) -> str:
    """The text of a completion, without the token that ended it."""
    eos = self._tokenizer.eos
    ids = token.tolist()
    # A vocabulary may not mark it as special, and then it would show.
    if eos is not None and ids and ids[-1] == self._tokenizer.id(eos):
      ids.pop()
    return self._tokenizer.decode(ids)

  def _judge(
    self, completions: Sequence[str], rollouts: TextRollouts
  ) -> dict[str, list[Judgement]]:
    """Judgements by term; verifiers work while functions run here."""
    item = np.asarray(rollouts.item)
    different, row = np.unique(item, return_inverse=True)
    columns = {
      name: [column[where] for where in row]
      for name, column in self._source.columns(different).items()
    }
    prompts, references = columns.pop("prompt"), columns["reference"]
    columns["step"] = np.asarray(rollouts.step).tolist()
    tickets, found = {}, {}
    functions = {term.name: term.function() for term in self._reward.terms}
    for term in self._reward.terms:
      if functions[term.name] is None:
        tickets[term.name] = self._pool.submit(
          term.judge, completions, references
        )
    for name, function in functions.items():
      if function is not None:
        found[name] = function(prompts, completions, columns)
    for name, ticket in tickets.items():
      # A completion that drives a verifier out of all bounds has no verdict.
      found[name] = [
        no_verdict(f"not finite: {reward}")
        if reward is not None and not math.isfinite(reward)
        else Judgement(reward, reason)
        for reward, reason in self._pool.collect(ticket)
      ]
    return {name: found[name] for name in functions}

  def _combined(
    self, batches: Mapping[str, Judged]
  ) -> tuple[Float[np.ndarray, "row"], Bool[np.ndarray, "row"]]:
    """`transforms.weighted_sum` on the host."""
    reward = np.stack([batch.reward for batch in batches.values()], axis=-1)
    valid = np.stack([batch.valid for batch in batches.values()], axis=-1)
    every = valid.all(axis=-1)
    weight = np.array([term.weight for term in self._reward.terms], np.float32)
    terms = np.where(every[:, None], reward, 0) * weight
    return terms.sum(axis=-1, dtype=np.float32), every


def repetition(token: Int[np.ndarray, "time"]) -> float:
  """How much of a completion says again what it said: a monitor of hacking.

      1 - (different 4-grams) / (all 4-grams)

  Args:
    token: ids.

  Returns:
    A share in [0, 1), 0 for fewer than 4 tokens.

  >>> repetition(np.array([1, 2, 3, 1, 2, 3, 1]))
  0.25
  """
  if len(token) < _GRAM:
    return 0.0
  grams = np.lib.stride_tricks.sliding_window_view(token, _GRAM)
  return 1.0 - len(np.unique(grams, axis=0)) / len(grams)


def _no_verdict(
  judgements: Iterable[Sequence[Judgement]], valid: Bool[np.ndarray, "row"]
) -> dict[str, Float[np.ndarray, "row"]]:
  """Shares of rows without verdict, in all and by kind of a reason."""
  rows = {
    name: np.zeros(len(valid), bool) for name in (*_KINDS.values(), _OTHER)
  }
  for term in judgements:
    for row, (reward, reason) in enumerate(term):
      if reward is None:
        rows[_KINDS.get(reason.partition(":")[0], _OTHER)][row] = True
  rows["no_verdict"] = ~valid
  return {
    name: np.full(len(valid), own.mean(), np.float32)
    for name, own in rows.items()
  }
