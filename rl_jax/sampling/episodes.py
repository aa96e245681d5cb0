"""A sampler of episodes: a policy acts, a world answers, turn after turn."""

from __future__ import annotations

import dataclasses
import functools
from typing import TYPE_CHECKING, Any, NamedTuple

import jax.numpy as jnp
import numpy as np

from rl_jax.sampling.autoregressive import Autoregressive
from rl_jax.sampling.episode_turns import play
from rl_jax.sampling.worlds import observe_all

if TYPE_CHECKING:
  from collections.abc import Sequence

  from jaxtyping import Array, Bool, Int, Key

  from rl_jax.models.decoder import Decoder
  from rl_jax.models.protocol import Params
  from rl_jax.sampling.autoregressive import Completions
  from rl_jax.sampling.tries import Trie
  from rl_jax.sampling.worlds import Observation

__all__ = ["Episodes", "Replay", "turn_index"]

_PLACE = "{observation}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Episodes(Autoregressive):
  """Sampler: an action, what the world says to it, the next action, ...

  A response holds all of them, one behind the other. `mask` is true on what
  the policy wrote, `present` on the observations too; the last thing in it is
  an action. `length` is the most tokens of it all, and each action ends by
  `end` or `stop`, or after `action_length` tokens.

  The world is asked on the host and gets all actions since the beginning, so
  that nothing needs to be remembered between calls, and a step that is run
  again asks and gets the same. What a row says depends on its prompt, its
  item and its key, as in `Autoregressive`.

  An episode stops when the world says that it is over (`ended`), when it has
  no answer, after `turns` actions, or where the next observation and a token
  to answer it with would exceed `length`.

  Raises:
    ValueError: if a number is below 1 or the wording lacks its place; and as
      `Autoregressive`.
  """

  world: Any
  """Who answers; see `rl_jax.environments.World`."""
  vocabulary: Any
  """Whose ids; see `rl_jax.models.vocabularies`."""
  turns: int
  """Most actions of an episode."""
  action_length: int
  """Most tokens of an action, what ended it included."""
  observation_length: int
  """Most tokens of an observation, its wording included."""
  wording: str = "{observation}"
  """How an observation is put to the model; {observation} stands for it."""
  cut: bool = False
  """Whether a longer observation loses its end; else it is an error."""

  def __post_init__(self):
    super().__post_init__()
    least = min(self.turns, self.action_length, self.observation_length)
    if least < 1:
      raise ValueError(
        "turns, action_length and observation_length must be at least 1, got"
        f" {self.turns}, {self.action_length} and {self.observation_length}"
      )
    if _PLACE not in self.wording:
      raise ValueError(f"the wording {self.wording!r} lacks {_PLACE}")

  @property
  def block(self) -> int:
    """Most tokens of a turn."""
    return self.action_length + self.observation_length

  def said(self, token: Sequence[int]) -> str:
    """An action as the world gets it.

    Args:
      token: ids of the action.

    Returns:
      Their text, special tokens and the end of the text left out.
    """
    # All actions of an episode are told again in each of its turns.
    return _said(self.vocabulary, tuple(token))

  def shown(self, observation: str) -> list[int]:
    """An observation as the policy gets it.

    Args:
      observation: what the world says.

    Returns:
      Its ids.

    Raises:
      ValueError: if they are none, or too many and not to be cut.
    """
    text = self.wording.replace(_PLACE, observation)
    ids = _ids(self.vocabulary, text)
    if not ids:
      raise ValueError(
        "an observation is empty: give it a wording, a model needs a token to"
        " go on from"
      )
    if len(ids) > self.observation_length and not self.cut:
      raise ValueError(
        f"an observation has {len(ids)} tokens, more than observation_length ="
        f" {self.observation_length}: raise it, or cut=True. It begins"
        f" {observation[:80]!r}"
      )
    return list(ids[: self.observation_length])

  def replayed(
    self,
    item: Int[np.ndarray, "row"],
    token: Int[np.ndarray, "row time"],
    mask: Bool[np.ndarray, "row time"],
  ) -> list[Replay]:
    """Ask the world about every turn of episodes, on the host.

    Args:
      item: which item of the world each is of.
      token: ids, without gaps; see `Completions`.
      mask: true = chosen by the policy.

    Returns:
      What the world says to the actions.
    """
    turn = turn_index(mask)
    written = [
      [own[where == k].tolist() for k in range(where.max(initial=-1) + 1)]
      for own, where in zip(token, turn, strict=True)
    ]
    actions = [tuple(map(self.said, own)) for own in written]
    seen: list[list[Observation]] = [[] for _ in written]
    # Turn by turn, as a world that keeps its episodes likes it.
    for k in range(max(map(len, actions), default=0)):
      rows = [
        row
        for row, own in enumerate(actions)
        if k < len(own) and not any(one.ended or one.error for one in seen[row])
      ]
      answers = observe_all(
        self.world,
        [int(item[row]) for row in rows],
        [actions[row][: k + 1] for row in rows],
      )
      for row, observation in zip(rows, answers, strict=True):
        seen[row].append(observation)
    episodes = zip(written, actions, seen, turn, strict=True)
    return [self._replay(*each) for each in episodes]

  def _replay(self, written, actions, seen, turn) -> Replay:
    token, more = [], 0
    for k, ids in enumerate(written):
      token += ids
      known = k < len(seen) and not (seen[k].ended or seen[k].error)
      shown = self.shown(seen[k].text) if known else []
      more = len(shown)
      if k + 1 < len(written):
        token += shown
    full = len(written) >= self.turns or len(token) + more >= self.length
    return Replay(actions, tuple(seen), token, turn, full)

  def __call__(
    self,
    model: Decoder,
    params: Params,
    prompt: Int[Array | np.ndarray, "row prompt"],
    prompt_mask: Bool[Array | np.ndarray, "row prompt"],
    row_key: Key[Array, "sample"],
    *,
    samples: int,
    adapter: Params | None = None,
    item: Int[Array | np.ndarray, "row"] | None = None,
    constraint: Trie | None = None,
  ) -> Completions:
    """Episodes that begin with prompts.

    Args:
      model: the policy.
      params: its parameters.
      prompt: ids, padded on the left: the last column is always a token.
      prompt_mask: true = a token of the prompt. A row without any is padding
        of the batch: nothing is sampled for it.
      row_key: one key per sample; see `row_keys`.
      samples: episodes of each prompt.
      adapter: low-rank change of the parameters; None for the base alone.
      item: which items of the world the prompts are.
      constraint: must be None.

    Returns:
      The episodes, those of the first prompt first, without gaps.

    Raises:
      ValueError: if `item` is missing or a constraint is given; and as
        `Autoregressive`.
    """
    self.check_prompts(model, prompt_mask, row_key, samples)
    if item is None or constraint is not None:
      raise ValueError("episodes need their items, and have no constraint")
    return play(
      self,
      model,
      samples,
      params,
      jnp.asarray(prompt),
      jnp.asarray(prompt_mask),
      row_key,
      jnp.asarray(item),
      adapter,
    )


@functools.lru_cache(maxsize=1 << 16)
def _ids(vocabulary: Any, text: str) -> tuple[int, ...]:
  return tuple(vocabulary.load().encode(text))


@functools.lru_cache(maxsize=1 << 16)
def _said(vocabulary: Any, token: tuple[int, ...]) -> str:
  tokenizer = vocabulary.load()
  # A vocabulary may not mark it as special, and then it would show.
  if tokenizer.eos is not None and token[-1:] == (tokenizer.id(tokenizer.eos),):
    token = token[:-1]
  return tokenizer.decode(token)


class Replay(NamedTuple):
  """An episode as its actions and the world tell it.

  Attributes:
    actions: what the world got, in order.
    observations: after each of them; none follow one that ends the episode or
      has no answer.
    token: ids of the whole episode, as it must have been sampled.
    turn: see `turn_index`.
    full: whether neither turns nor tokens were left for another action.
  """

  actions: tuple[str, ...]
  observations: tuple[Observation, ...]
  token: list[int]
  turn: Int[np.ndarray, "time"]
  full: bool

  @property
  def ended(self) -> bool:
    """Whether its last action ended it."""
    seen = self.observations
    return len(seen) == len(self.actions) > 0 and seen[-1].ended


def turn_index(
  mask: Bool[np.ndarray, "row time"],
) -> Int[np.ndarray, "row time"]:
  """In which turn each token was chosen, for the host.

  Args:
    mask: true = chosen; what comes between two actions is false.

  Returns:
    The turn from 0, -1 where the mask is false.

  >>> turn_index(np.array([[True, True, False, True]])).tolist()
  [[0, 0, -1, 1]]
  """
  begins = mask & ~np.pad(mask, ((0, 0), (1, 0)))[:, :-1]
  return np.where(mask, np.cumsum(begins, axis=1) - 1, -1).astype(np.int32)
