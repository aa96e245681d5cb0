"""The functions of verpo.py, with a second try after the number of passes.

An episode is a program; if a test fails, the number of tests that were passed,
in two digits; and another program. Twenty passes mean another operator of the
same kind, 21 the right operator and the wrong pair of constants, 22 the wrong
one of the pair: who can read that needs no third try.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
from collections.abc import Iterator, Sequence

import numpy as np

from experiments.process_rewards import verpo_task as task
from rl_jax import evaluation
from rl_jax.rewards.episodes import EpisodeReward
from rl_jax.rewards.verifiers.per_test import Suite
from rl_jax.sampling.episodes import Episodes
from rl_jax.sampling.worlds import Observation

__all__ = [
  "EPISODES",
  "EVALUATION",
  "MODEL",
  "NOTE",
  "REWARD",
  "Submissions",
  "demonstrations",
]

TURNS = 2
# The number of passes has two digits.
_SEEN = 2
_LENGTH = TURNS * task.RESPONSE.length + (TURNS - 1) * _SEEN
MODEL = dataclasses.replace(task.MODEL, context=task.PROMPT + _LENGTH + _SEEN)
NOTE = dataclasses.replace(task.NOTE, turns=TURNS)


@functools.cache
def _suites(programs: task.Programs) -> list[Suite]:
  everything = np.arange(programs.length)
  return programs.source()[everything]["reference"].tolist()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Submissions:
  """A world that runs programs and says how many tests they passed.

  The outcome is 1 for a program that passed all of them, which ends the
  episode, and else 0.
  """

  programs: task.Programs
  """The functions that are wanted."""

  @property
  def workers(self) -> int:
    """One: it takes no time."""
    return 1

  def observe(self, item: int, actions: Sequence[str]) -> Observation:
    """What became of the last program.

    Args:
      item: which function.
      actions: all programs so far.

    Returns:
      The number of passes in two digits, and whether they are all.
    """
    (found,) = NOTE.results(actions[-1:], [_suites(self.programs)[item]])
    if found is None:
      return Observation("", ended=True, outcome=0.0, error="no verdict")
    passed, whole = int(found.results.sum()), bool(found.results.all())
    return Observation(f"{passed:02d}", ended=whole, outcome=float(whole))


def _episodes(*, first: int, length: int) -> Episodes:
  return Episodes(
    world=Submissions(
      programs=task.Programs(rows=1, first=first, length=length)
    ),
    vocabulary=task.VOCABULARY,
    turns=TURNS,
    action_length=task.RESPONSE.length,
    observation_length=_SEEN,
    length=_LENGTH,
    end=(task.END,),
  )


EPISODES = _episodes(first=0, length=task.TRAINED)
REWARD = EpisodeReward(episodes=EPISODES, graph=None, notes=(NOTE,))
_HELD_OUT = _episodes(first=task.TRAINED, length=task.EVALUATION.prompts)
EVALUATION = evaluation.TextSamples(
  data=task.EVALUATION.data,
  sampler=_HELD_OUT,
  prompts=task.EVALUATION.prompts,
  samples=2,
  reward=EpisodeReward(episodes=_HELD_OUT, graph=None),
  every=25,
)


def demonstrations(*, count: int, seed: int) -> Iterator[tuple[str, str]]:
  """Episodes of the author of `verpo_task.demonstrations`, who cannot count.

  The second program is another of theirs for the same prompt, whatever was
  said to the first.

  Args:
    count: how many programs.
    seed: of the mistakes.

  Yields:
    Prompt and episode, observations included.
  """
  tried: dict[str, collections.deque[str]] = collections.defaultdict(
    collections.deque
  )
  for prompt, program in task.demonstrations(count=count, seed=seed):
    tried[prompt].append(program)
  world, end = EPISODES.world, task.VOCABULARY.eos
  for item in range(world.programs.length):
    prompt = world.programs.prompt(item)
    programs = tried[prompt]
    while programs:
      first = programs.popleft()
      seen = world.observe(item, [first])
      if seen.ended:
        yield prompt, first
      elif programs:
        yield prompt, f"{first}{end}{seen.text}{programs.popleft()}"
