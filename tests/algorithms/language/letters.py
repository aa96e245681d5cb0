"""The smallest language: a prompt is a letter, and the answer is that letter.

Everything stands at the top level: experiments name their parts by import.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import recipes
from rl_jax import algorithms, data, models, rewards, sampling
from rl_jax.environments import Items
from rl_jax.experiment import Checkpoints, Experiment, Scratch
from rl_jax.models.scalar_head import ScalarHead
from rl_jax.rewards.verifiers import Exact
from rl_jax.training.optimisers import AdamW

WORDS = models.Characters(alphabet="abcd")
END = 4
MODEL = models.Decoder(
  vocabulary=WORDS.size,
  width=16,
  layers=1,
  mlp=16,
  attention=models.Attention(heads=2, features=8),
  context=32,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Bigram(models.Decoder):
  """A decoder that sees one token: logits = embedding[token] output^T.

  It compiles in no time, and the gradient of what it writes can be enumerated.
  """

  def init(self, key):
    keys = jax.random.split(key)
    shape = (self.vocabulary, self.width)
    return {
      "embedding": jax.random.normal(keys[0], shape) * 0.5,
      "output": jax.random.normal(keys[1], shape) * 0.5,
    }

  def hidden(self, params, token, segment, *, adapter=None, sees=None):
    assert adapter is None
    return params["embedding"][jnp.where(segment != 0, token, 0)]

  def extend(self, params, token, segment, cache, *, adapter=None):
    return self.hidden(params, token, segment), cache

  def logical_axes(self, params):
    return dict.fromkeys(params, ("vocab", "embed"))


BIGRAM = Bigram(
  vocabulary=WORDS.size,
  width=6,
  layers=1,
  mlp=1,
  attention=models.Attention(heads=1, features=2),
  context=32,
  tied=False,
)
LORA = dataclasses.replace(MODEL, lora=models.Lora(rank=2, alpha=4.0))
VALUES = ScalarHead(body=MODEL, start=0.25)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Letters:
  """Prompts of one to three letters, of which the last is the answer."""

  rows: int = 4
  length: int = 12
  shuffle: bool = False
  verifier: Any = Exact()

  def source(self):
    return Items(self.length, self._item)

  def _item(self, index):
    letters = "abcd"[index % 4 :] + "abcd"
    return letters[: 1 + index % 3][::-1], letters[0]


def right(prompts, completions, reference, **columns):
  """1 where the completion is the letter and nothing else."""
  pairs = zip(completions, reference, strict=True)
  return [float(text == letter) for text, letter in pairs]


def begins(prompts, completions, reference, **columns):
  """1 where the completion begins with the letter: a good half of groups."""
  pairs = zip(completions, reference, strict=True)
  return [float(text.startswith(letter)) for text, letter in pairs]


def partly(prompts, completions, reference, **columns):
  """Share of the letter, less for long answers: nearly all rows differ."""
  return [
    (1.0 + text.count(letter)) / (1 + len(text)) - 0.125 * len(text)
    for text, letter in zip(completions, reference, strict=True)
  ]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Drawn:
  """Starts from parameters drawn with a key, as if they had been read."""

  seed: int = 7
  size: float = 0.5

  def params(self, model):
    body = getattr(model, "body", model)
    drawn = dataclasses.replace(body, lora=None).init(jax.random.key(self.seed))
    return jax.tree.map(lambda x: x * (1 + self.size), drawn)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Judge:
  """All of a reward model, as `Trained(by=...)` would find it."""

  @property
  def by(self):
    return self

  @property
  def model(self):
    return ScalarHead(body=BIGRAM)

  def params(self, model):
    drawn = self.model.init(jax.random.key(5))
    return jax.tree.map(lambda x: x + 0.5, drawn)


OPTIMISER = AdamW(
  learning_rate=0.02, epsilon=1e-3, weight_decay=0.1, clip_norm=0.5
)
RESPONSE = sampling.Autoregressive(length=3, end=(END,), temperature=0.8)
GRPO = algorithms.PolicyOptimisation(
  recipe=recipes.trl_grpo,
  sampler=RESPONSE,
  group_size=4,
  optimiser=OPTIMISER,
)
CRITIC = algorithms.Critic(model=VALUES, optimiser=OPTIMISER)


def judged_by(*functions, **settings):
  """A reward of functions that run in this process."""
  return rewards.TextReward(
    terms=tuple(rewards.Term(name=f.__name__, judge=f) for f in functions),
    **settings,
  )


def prompts(**task):
  return data.Prompts(task=Letters(**task), vocabulary=WORDS, length=3)


def experiment(algorithm=GRPO, **changes) -> Experiment:
  """GRPO on the letters, with changes."""
  fields = {
    "name": "letters",
    "model": BIGRAM,
    "data": prompts(),
    "reward": judged_by(partly),
    "algorithm": algorithm,
    "steps": 3,
    "checkpoints": Checkpoints(every=1, keep=20),
  }
  return Experiment(**(fields | changes))


def load_for(model):
  """What a launcher would load for an experiment with this model."""

  @functools.cache
  def load(start, of=model):
    return None if isinstance(start, Scratch) else start.params(of)

  return load


class Begun:
  """A program with its first state and first judged batch."""

  def __init__(self, experiment, *, state=None, rollouts=None):
    self.experiment = experiment
    load = load_for(experiment.model)
    self.parts = experiment.algorithm.build(experiment, load)
    self.init = jax.jit(self.parts.init)
    self.start = load(experiment.start)
    if self.parts.start is not None:
      self.start = self.parts.start(self.start)
    self.state = state or self.init(jax.random.key(3), self.start)
    self._collect = jax.jit(self.parts.collect)
    self._signals = self.parts.signals and jax.jit(self.parts.signals)
    self._update = jax.jit(self.parts.update)
    self.rollouts = rollouts

  def items(self, first=0):
    source, rows = self.experiment.data.source(), self.experiment.data.rows
    return source[(first + np.arange(rows)) % len(source)]

  def collect(self, state=None, items=None):
    """Judged rollouts, or the rows of offline data."""
    batch = self._collect(
      state or self.state,
      self.parts.frozen,
      self.items() if items is None else items,
    )
    if self.parts.score is None:
      return batch
    return jax.device_put(self.parts.score(jax.device_get(batch)))

  def with_signals(self, batch, state=None):
    if self._signals is None:
      return batch
    state = state or self.state
    return batch, self._signals(state, self.parts.frozen, batch)

  def update(self, batch, state=None, signals=True):
    given = self.with_signals(batch, state) if signals else batch
    return self._update(state or self.state, self.parts.frozen, given)

  def step(self, state=None, items=None):
    """The state and the means after one step of the loop."""
    state = state or self.state
    after, metrics = self.update(self.collect(state, items), state)
    return after, means(metrics)


def means(metrics):
  return {name: float(total.mean()) for name, total in metrics.items()}


def full_log_prob(model, params, rollouts, temperature=0.8, adapter=None):
  """From logits of the whole vocabulary at every column; 0 where masked."""
  token = jnp.concatenate([rollouts.prompt, rollouts.token], axis=1)
  mask = jnp.concatenate([rollouts.prompt_mask, rollouts.mask], axis=1)
  h = model.hidden(params, token, mask.astype(jnp.int32), adapter=adapter)
  z = jax.nn.log_softmax(model.logits(params, h) / temperature)
  own = jnp.take_along_axis(z[:, :-1], token[:, 1:, None], axis=2)[..., 0]
  return jnp.where(rollouts.mask, own[:, rollouts.prompt.shape[1] - 1 :], 0.0)


def equal(found, expected):
  """Bit for bit."""
  assert jax.tree.structure(found) == jax.tree.structure(expected)
  for mine, theirs in zip(
    jax.tree.leaves(found), jax.tree.leaves(expected), strict=True
  ):
    np.testing.assert_array_equal(np.asarray(mine), np.asarray(theirs))
