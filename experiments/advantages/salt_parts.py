"""What the experiments with SALT share: a maze in letters, and its arms."""

from __future__ import annotations

import dataclasses
from functools import partial

import jax.numpy as jnp
import numpy as np

from rl_jax import data, models
from rl_jax.advantages import (
  group_relative,
  leave_one_out,
  spread_segments,
  visitor_count,
)
from rl_jax.algorithms.components import EveryToken, KlInLoss, WithinGroup
from rl_jax.algorithms.estimators.salt import Salt
from rl_jax.algorithms.recipe import PolicyBatch, PolicyRecipe, Signals, found
from rl_jax.data.source import Source
from rl_jax.divergences import k3
from rl_jax.environments.key_door import KeyDoor
from rl_jax.environments.texts import Item, Items
from rl_jax.losses import clipped_policy_terms
from rl_jax.reduce import Total, over_tokens
from rl_jax.rewards.episodes import EpisodeReward
from rl_jax.rewards.trajectory_graph import CanonicalText, GraphSettings
from rl_jax.sampling.episodes import Episodes

__all__ = [
  "ARMS",
  "EPISODES",
  "MODEL",
  "PREFIXES",
  "REWARD",
  "VOCABULARY",
  "Walks",
  "mazes",
  "prompts",
  "recipe",
]

VOCABULARY = models.Characters(alphabet="abcdefghijklmnopqrstuvwxy+-.!")
TURNS = 12
# A prompt is the sides of key and door and the start: "wsa-.".
PROMPT = 5
MODEL = models.Decoder(
  vocabulary=VOCABULARY.size,
  width=32,
  layers=2,
  mlp=64,
  attention=models.Attention(heads=2, features=16),
  context=64,
)


def mazes(rows: int) -> KeyDoor:
  """All twelve mazes."""
  return KeyDoor(rows=rows, length=12, style="letters")


# An action is one letter, an observation three.
EPISODES = Episodes(
  world=mazes(1),
  vocabulary=VOCABULARY,
  turns=TURNS,
  action_length=1,
  observation_length=3,
  length=4 * TURNS - 3,
)
# A state is a cell and the key: neither that the last action did nothing, nor
# that an episode begins there, makes it another.
REWARD = EpisodeReward(
  episodes=EPISODES,
  graph=GraphSettings(
    canonical=CanonicalText(volatile=(r"[.!]$", r"^[nsew]{2}(?=[a-y]-)"))
  ),
)
# The same, and a state is all that came before it: how many turns are left
# counts, and an observation does not say that.
PREFIXES = dataclasses.replace(
  REWARD, graph=dataclasses.replace(REWARD.graph, merge="tree")
)


def prompts(rows: int) -> data.Prompts:
  """Their beginnings."""
  return data.Prompts(task=mazes(rows), vocabulary=VOCABULARY, length=PROMPT)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Walks:
  """Episodes of someone who knows the rules and cannot read the sign.

  The corridor is walked, a side of the crossing is chosen blindly, what lies
  there is used, and the crossing is walked back to. Some actions are random.
  """

  rows: int
  """Episodes of a batch."""
  length: int = 4096
  """How many there are."""
  noise: float = 0.1
  """Share of random actions."""
  shuffle: bool = True
  """Whether every pass has an order of its own."""

  def source(self) -> Source:
    """Prompts with episodes, observations included, to be imitated."""
    return Items(self.length, self._item)

  def _item(self, index: int) -> Item:
    task = mazes(1)
    item = index % task.length
    prompt = str(task.source()[np.array([item])]["prompt"][0])
    rng = np.random.default_rng([77, index])
    seen, path, text = prompt[-3:], "", ""
    for turn in range(TURNS):
      path += self._action(rng, seen, path, item)
      observation = task.observe(item, path)
      text += path[-1]
      if observation.ended:
        break
      seen = observation.text
      text += seen if turn + 1 < TURNS else ""
    return prompt, text

  def _action(self, rng, seen, path, item):
    """The next action, of what is seen and what was done last."""
    if rng.uniform() < self.noise:
      return str(rng.choice(list("nsewu")))
    cell = ord(seen[0]) - ord("a")
    row, column = divmod(cell, 5)
    if (row, column) == (2, 2):
      return str(rng.choice(list("wse")))
    if row < 2 and column == 2:
      return "s"
    if row == 0:
      return "w" if item % 2 else "e"
    back = {(2, 1): "e", (2, 3): "w", (3, 2): "n"}.get((row, column))
    if back is None:
      return {(2, 0): "e", (2, 4): "w"}.get((row, column), "n")
    # What lies here is tried once.
    return back if path[-1] == "u" else "u"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Watched:
  """A credit, and what it gives to steps that all episodes of a prompt take.

  `common_advantage` is the mean absolute advantage of their tokens, and
  `common` their share of all tokens. The corridor is such a step unless an
  episode is lost before it.
  """

  credit: EveryToken | Salt
  """What is watched."""

  wants = Salt.wants

  def __call__(self, batch: PolicyBatch, compared):
    """As the credit says."""
    return self.credit(batch, compared)

  def watch(
    self, batch: PolicyBatch, signals: Signals, *, num_groups: int
  ) -> dict[str, Total]:
    """The numbers."""
    edge = found(batch, "edge")
    count = visitor_count(edge, batch.valid, num_edges=edge.size)
    everyone = jnp.zeros(num_groups).at[batch.group].add(batch.valid * 1.0)
    common = (count == everyone[batch.group][:, None]) & (count > 1)
    common = spread_segments(common * 1.0, found(batch, "turn")) > 0
    common &= signals.mask
    return {
      "common": over_tokens(common * 1.0, signals.mask),
      "common_advantage": over_tokens(jnp.abs(signals.advantage), common),
    }


_GRPO = WithinGroup(
  estimator=partial(group_relative, scale="group", ddof=1, epsilon=1e-6)
)
_RLOO = WithinGroup(estimator=leave_one_out)


def recipe(baseline: WithinGroup, credit: EveryToken | Salt) -> PolicyRecipe:
  """One of the arms; they differ in these two."""
  return PolicyRecipe(
    reference="SALT, arXiv:2510.20022, reconstructed from its abstract",
    baseline=baseline,
    credit=Watched(credit=credit),
    loss=partial(clipped_policy_terms, clip_low=0.2, clip_high=0.2),
    reduction=over_tokens,
    penalty=KlInLoss(estimator=k3, weight=0.02),
  )


ARMS = {
  "grpo": recipe(_GRPO, EveryToken()),
  "rloo": recipe(_RLOO, EveryToken()),
  "salt+grpo": recipe(_GRPO, Salt()),
  "salt+rloo": recipe(_RLOO, Salt()),
}
