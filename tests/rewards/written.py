"""What a policy wrote, made up, and data with references to judge it by."""

from __future__ import annotations

import dataclasses
import functools
import types

import jax
import numpy as np

from rl_jax.data import Prompts
from rl_jax.environments import Items
from rl_jax.models import Characters
from rl_jax.models.tokenizer import Tokenizer
from rl_jax.rewards import Term, TextReward
from rl_jax.types import TextRollouts

WORDS = Characters(
  alphabet="0123456789+-= .\nabcdefghijklmnopqrstuvwxyz", bos="<s>", pad="<p>"
)


@dataclasses.dataclass(frozen=True)
class Bytes:
  """A vocabulary of the 256 bytes, its end not marked as special."""

  @functools.cache  # noqa: B019 (it lives as long as the tests)
  def load(self):
    import tokenizers

    letters = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    ids = {letter: number for number, letter in enumerate(sorted(letters))}
    rules = tokenizers.Tokenizer(tokenizers.models.BPE(ids, []))
    rules.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(
      add_prefix_space=False
    )
    rules.decoder = tokenizers.decoders.ByteLevel()
    rules.add_tokens(["<end>"])
    return Tokenizer(backend=rules, eos="<end>")


def answers(*references, vocabulary=WORDS, **columns):
  """Data whose task is prompts p0, p1, ... with these references."""

  class Source(Items):
    def __getitem__(self, indices):
      more = {
        name: np.array([column[i] for i in indices], object)
        for name, column in columns.items()
      }
      return super().__getitem__(indices) | more

  task = types.SimpleNamespace(
    rows=1,
    shuffle=False,
    source=lambda: Source(len(references), lambda i: (f"p{i}", references[i])),
  )
  return Prompts(task=task, vocabulary=vocabulary, length=8)


def end_of(tokenizer):
  return tokenizer.id("<end>")


def rollouts(*texts, item=None, vocabulary=WORDS, ended=None, time=None):
  """What a policy would hand over had it written these texts."""
  tokenizer = vocabulary.load()
  written = [
    text
    if isinstance(text, list)
    else [*tokenizer.encode(text), end_of(tokenizer)]
    for text in texts
  ]
  time = time or max(map(len, written))
  rows = len(written)
  token = np.full((rows, time), -7, np.int32)  # what is masked may be anything
  mask = np.zeros((rows, time), bool)
  for row, ids in enumerate(written):
    token[row, : len(ids)], mask[row, : len(ids)] = ids, True
  return TextRollouts(
    prompt=np.zeros((rows, 1), np.int32),
    prompt_mask=np.ones((rows, 1), bool),
    token=token,
    mask=mask,
    present=mask,
    log_prob=np.full(token.shape, np.nan, np.float32),
    ended=np.ones(rows, bool) if ended is None else np.array(ended),
    item=np.arange(rows) if item is None else np.array(item),
    group=np.arange(rows),
    step=np.zeros(rows, np.int32),
    key=jax.random.split(jax.random.key(0), rows),
    reward=np.full(rows, np.nan, np.float32),
    valid=np.zeros(rows, bool),
    metric={"entropy": np.ones(rows, np.float32)},
    extra={},
  )


def spaces(prompts, completions, **columns):
  """How many spaces a completion has; None for one that says nothing."""
  return [text.count(" ") if text else None for text in completions]


def reward(*terms, **settings):
  named = [
    term if isinstance(term, Term) else Term(name=f"t{n}", judge=term)
    for n, term in enumerate(terms)
  ]
  return TextReward(terms=tuple(named), **settings)
