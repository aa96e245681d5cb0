"""Requests of tools, answered in a shorthand of ToolRL's grammar.

A request such as "f37" or "g4h12" names one or two tools and the values of
their parameters, in the order that each tool has them in. A response is
written in letters that stand for pieces of text, or a tiny decoder would
spend its hundred tokens on brackets; `spelt` writes it out, and the judge
reads nothing else. What is no call in the shorthand is none written out.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from rl_jax import data, evaluation, models, rewards, sampling
from rl_jax.data.source import Source
from rl_jax.environments.texts import Item, Items
from rl_jax.rewards.verifiers.functions import RewardFunction
from rl_jax.rewards.verifiers.tool_config import ToolRewardConfig
from rl_jax.rewards.verifiers.tools import ToolPart, tool_rewards

__all__ = [
  "EVALUATION",
  "EXACT",
  "MODEL",
  "PROMPT",
  "RESPONSE",
  "TRAINED",
  "VOCABULARY",
  "Requests",
  "Shorthand",
  "demonstrations",
  "prompts",
  "reward",
  "spelt",
]

TOOLS = {"f": "ab", "g": "c", "h": "ba", "k": "acb"}
"""Names of the parameters of each tool, in the order of a request."""
_WORDS, _MOST = 32, 4000
_TEXT = {
  "<": "<think>",
  ">": "</think>\n<tool_call>\n",
  "n": "\n",
  "e": "\n</tool_call>",
  "w": "and so " * (_WORDS // 2),
}
_CALL = re.compile(r"([fghk])((?:[abc]\d?)*)")
VOCABULARY = models.Characters(alphabet="<>newfghkabc0123456789")
MODEL = models.Decoder(
  vocabulary=VOCABULARY.size,
  width=64,
  layers=2,
  mlp=128,
  attention=models.Attention(heads=4, features=16),
  context=32,
)
# Special tokens stand behind the alphabet.
END = VOCABULARY.size - 1
PROMPT = 6
RESPONSE = sampling.Autoregressive(length=22, end=(END,))
TRAINED = 3000
"""Requests to train on; those behind them are held out."""


def spelt(response: str) -> str:
  """A response in shorthand, written out.

  Args:
    response: letters of the vocabulary.

  Returns:
    Thoughts, tags, and a line of JSON for each call.

  >>> spelt("<>fa3b7e").splitlines()[2]
  '{"name": "f", "parameters": {"a": 3, "b": 7}}'
  """

  def call(found: re.Match[str]) -> str:
    name, given = found.groups()
    pairs = re.findall(r"([abc])(\d?)", given)
    inside = ", ".join(f'"{key}": {value}' for key, value in pairs)
    return f'{{"name": "{name}", "parameters": {{{inside}}}}}'

  text = _CALL.sub(lambda found: f"\0{call(found)}\0", response)
  # What is written out already has letters of the shorthand in it.
  pieces = text.split("\0")
  return "".join(
    piece if place % 2 else "".join(_TEXT.get(x, x) for x in piece)
    for place, piece in enumerate(pieces)
  )


type Calls = tuple[tuple[str, str], ...]
"""Names and values."""


@functools.cache
def _requests() -> tuple[Calls, ...]:
  """Different requests of one or two calls, in an order."""
  rng, found = np.random.default_rng(7), {}
  while len(found) < _MOST:
    names = rng.choice(list(TOOLS), size=1 + int(rng.random() < 0.9)).tolist()
    while len(names) + sum(len(TOOLS[name]) for name in names) > PROMPT:
      names.pop()
    calls = tuple(
      (name, "".join(map(str, rng.integers(10, size=len(TOOLS[name])))))
      for name in names
    )
    found[calls] = None
  return tuple(found)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Requests:
  """Some of 4000 different requests.

  Raises:
    ValueError: if the range exceeds what there is.
  """

  rows: int
  """Requests of a batch."""
  length: int
  """Requests of the task."""
  first: int = 0
  """Number of the first; ranges that do not overlap share none."""
  shuffle: bool = True
  """Whether every pass has an order of its own."""

  def __post_init__(self) -> None:
    end = self.first + self.length
    if min(self.rows, self.length) < 1 or self.first < 0 or end > _MOST:
      raise ValueError(f"requests {self.first} to {end} of {_MOST}")

  def source(self) -> Source:
    """The requests with references."""
    return Items(self.length, self._item)

  def calls(self, index: int) -> Calls:
    """Names and values of an item."""
    return _requests()[self.first + index]

  def _item(self, index: int) -> Item:
    calls = self.calls(index)
    prompt = "".join(name + values for name, values in calls)
    return prompt, spelt(written(calls))


def written(calls: Sequence[tuple[str, str]], thoughts: int = 1) -> str:
  """The right response in shorthand."""
  lines = [
    name + "".join(f"{k}{v}" for k, v in zip(TOOLS[name], values, strict=False))
    for name, values in calls
  ]
  return f"<{'w' * thoughts}>{'n'.join(lines)}e"


def demonstrations(
  *, count: int, noise: float, seed: int
) -> Iterator[tuple[str, str]]:
  """Responses of somebody who knows the form and is careless.

  Args:
    count: how many different ones.
    noise: share of names, and of values, that are any.
    seed: of the mistakes.

  Yields:
    Request and response in shorthand.
  """
  task, rng = Requests(rows=1, length=count), np.random.default_rng(seed)
  for index in range(count):
    calls = task.calls(index)
    prompt = "".join(name + values for name, values in calls)
    careless = [
      (
        str(rng.choice(list(TOOLS))) if rng.random() < noise else name,
        "".join(
          str(rng.integers(10)) if rng.random() < noise else value
          for value in values
        ),
      )
      for name, values in calls
    ]
    yield prompt, written(careless, int(rng.integers(3)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shorthand:
  """A part of the reward of responses that are written out first."""

  part: ToolPart
  """What is said of them."""

  def __call__(self, completions: Sequence[str], **columns: Any) -> list[float]:
    """One number for each."""
    return self.part([spelt(text) for text in completions], **columns)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Exact:
  """1 where all calls are right."""

  def __call__(
    self,
    completions: Sequence[str],
    reference: Sequence[str],
    **columns: Any,
  ) -> list[float]:
    """One number for each."""
    del columns
    texts, steps = [spelt(text) for text in completions], [0] * len(reference)
    found = tool_rewards(texts, reference, steps, ToolRewardConfig())
    return (found.correctness == 3).astype(float).tolist()


EXACT = rewards.Term(
  name="exact", judge=RewardFunction(function=Exact(), name="exact"), weight=0.0
)


def reward(config: ToolRewardConfig) -> rewards.TextReward:
  """The reward, its parts as terms, and what is not paid for: exactness.

  Args:
    config: which of the published rewards.

  Returns:
    The judge.
  """
  parts = ("format", "correctness", "length")
  return rewards.TextReward(
    terms=(
      *(
        rewards.Term(
          name=part if part != "length" else "thinking",
          judge=RewardFunction(
            function=Shorthand(part=ToolPart(config=config, part=part)),
            name=part,
          ),
        )
        for part in parts
      ),
      EXACT,
    )
  )


def prompts(*, rows: int, first: int, length: int) -> data.Prompts:
  """A range of the requests as prompts."""
  return data.Prompts(
    task=Requests(rows=rows, first=first, length=length),
    vocabulary=VOCABULARY,
    length=PROMPT,
  )


EVALUATION = evaluation.TextSamples(
  data=prompts(rows=1, first=TRAINED, length=300),
  sampler=RESPONSE,
  prompts=300,
  reward=rewards.TextReward(
    terms=(
      dataclasses.replace(EXACT, weight=1.0),
      rewards.Term(
        name="thinking",
        judge=RewardFunction(
          function=Shorthand(
            part=ToolPart(
              config=ToolRewardConfig(length="fixed"), part="length"
            )
          ),
          name="thinking",
        ),
        weight=0.0,
      ),
    )
  ),
  every=50,
)
